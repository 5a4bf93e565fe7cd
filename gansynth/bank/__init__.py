"""Sample banks: segments, writer, reader, and the producer that fills them."""
