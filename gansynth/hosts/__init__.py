"""Code shared by all adapters: mixer, record, exports, checks."""
