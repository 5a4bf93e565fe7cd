"""A folder to put on PYTHONPATH, see ``gansynth.runtime.torchvision_compat``."""
