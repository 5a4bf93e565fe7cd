"""Commands about data sets: check, import, prepare, splits, doctor."""
