"""Code shared by all hosts: mixer, record, exports, checks."""
