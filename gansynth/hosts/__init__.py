"""What all adapters share: the mixer, the record, exports, checks."""
