"""Edits of conditions. One edit a file."""
