"""The folder to name in ``nnUNet_extTrainer``; it holds only the shim.

nnU-Net imports every module of such a folder and drops it afterwards. A class defined here could
not be pickled for its workers, so the code lies elsewhere.
"""
