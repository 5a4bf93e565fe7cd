"""Code for DeepMedic's process in its own Python, with numpy and DeepMedic's packages.

``launch`` is started as a script and imports the other modules by folder. Module globals of the
user's checkout are replaced in memory only.
"""
