"""A folder to put on PYTHONPATH, see ``gansynth_nnunet.torchvision_cure``."""
