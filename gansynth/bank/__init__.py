"""Sample banks: sample files, writer, reader, and the producer that fills them."""
