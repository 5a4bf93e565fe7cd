"""Samples mixed into a loop: decided slot by slot, for hosts and for users."""
