"""Formats of volumes: what a file announces, and what it holds. Libraries are imported at use."""
