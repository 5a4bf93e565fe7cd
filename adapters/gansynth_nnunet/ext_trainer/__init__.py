"""The folder to name in ``nnUNet_extTrainer``; it holds nothing but the shim.

nnU-Net imports every module of such a folder and forgets them afterwards; a class defined here
could not be pickled for its workers. So the code lies elsewhere.
"""
