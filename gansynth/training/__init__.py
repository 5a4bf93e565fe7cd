"""The training loop, its state, its checkpoints and loggers."""
