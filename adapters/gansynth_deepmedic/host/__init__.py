"""What runs in DeepMedic's own process, in its own Python: numpy, h5py, and what DeepMedic has.

``launch`` is started as a script; it imports the rest by folder. Module globals of the user's
checkout are replaced while it runs, nothing on disk.
"""
