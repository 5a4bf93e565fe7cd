"""What files hold beside what they are for: the readers behind ``gansynth.quality.identity``.

``names`` says what is looked for, ``kinds`` opens a file of any kind, ``look`` notes what is found;
``times`` and ``origin`` compare files with those of the source.
"""
