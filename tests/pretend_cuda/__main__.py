"""``python -m tests.pretend_cuda [-n DEVICES] MODULE ...`` runs a module with pretend devices.

The processes it starts have them too: ``python -m tests.pretend_cuda pytest tests/gpu``.
"""

import os
import sys

from tests.pretend_cuda.environment import environment

words = sys.argv[1:]
devices = 1
if words[:1] == ["-n"]:
    devices, words = int(words[1]), words[2:]
os.execve(sys.executable, [sys.executable, "-m", *words], environment(devices))
