"""Trains DeepMedic's network in torch, with DeepMedic's configuration and segments."""
