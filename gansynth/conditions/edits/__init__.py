"""Edits of conditions."""
