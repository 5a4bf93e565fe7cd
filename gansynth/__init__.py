"""gansynth: GAN samples from one training fold, fed on the fly into the framework you already use.

Importing this package is cheap on purpose: it pulls in neither torch nor any framework, so that
readers of a sample bank and ``gansynth --help`` stay light.
"""

__version__ = "0.1.0"
