"""Banks of samples: segments, writer, reader, and the producer that fills them."""
