"""Training a network of DeepMedic's kind in torch, by its own configuration and segments."""
