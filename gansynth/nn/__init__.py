"""Networks, losses and what else of a training lies in tensors."""
