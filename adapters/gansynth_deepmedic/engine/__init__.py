"""Training a network of DeepMedic's kind in torch, on DeepMedic's own configuration and segments.

``DeepMedicSegments`` (``segments``) is the data set of a subepoch; what it needs below needs no
torch.
"""
