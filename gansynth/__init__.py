"""gansynth: GAN samples from one training fold, mixed on the fly into the framework you train.

The functions of ``dir(gansynth)`` are the commands of the same names (docs/python.md). Plugins
import from here, too (docs/plugin_names.md); the module that holds a name may change. Importing
this package is cheap: a name's module, listed in ``__init__.pyi``, is imported at its first use. So
``gansynth --help`` and readers of a sample bank import neither torch nor any framework.
"""

import ast
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from gansynth.runtime.version import __version__ as __version__

# Torch's threads wait for each other at every step. Unless told, OpenMP lets them spin meanwhile,
# which takes cores from a producer, loaders or another training. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_HOMES = {
    alias.name: f"{'.' * node.level}{node.module}"
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""Name -> the module that holds it. lazy-loader, which reads such stubs too, would put the function
``benchmark`` in the place of the package of that name."""
__all__ = sorted([*_HOMES, "__version__"])

COMMANDS = (
    "fit",
    "load",
    "check",
    "sample",
    "evaluate",
    "augment",
    "predict",
    "benchmark",
    "options",
    "cache",
    "turing_test",
    "tune",
    "papers",
    "detections",
    "demo",
    "import_data",
    "prepare",
    "splits",
    "doctor",
    "fill_bank",
    "live_bank",
    "mix",
    "mix_batches",
    "mix_segments",
)
"""What users need; the other names are for plugins (docs/plugin_names.md)."""


def __getattr__(name: str) -> Any:
    from gansynth.runtime.errors import did_you_mean
    from gansynth.runtime.parts import where_to_get

    if name not in _HOMES:
        hint = did_you_mean(name, __all__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}", name=name)
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        where = where_to_get(str(error.name))
        if not where:
            raise
        text = f"module {__name__!r} has no attribute {name!r} here: {where}"
        raise AttributeError(text, name=name) from None


def __dir__() -> list[str]:
    return ["__version__", *COMMANDS]
