"""A folder to put on PYTHONPATH, see ``gansynth.torchvision_cure``."""
