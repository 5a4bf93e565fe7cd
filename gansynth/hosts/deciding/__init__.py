"""What ``augment`` decides, and what it foretells."""
