"""gansynth: GAN samples from one training fold, mixed on the fly into the framework you train.

The functions of ``dir(gansynth)`` are the commands of the same names (docs/python.md). Plugins
import from here, too (docs/plugins.md); the module that holds a name may change. Importing this
package is cheap: a name's module, listed in ``__init__.pyi``, is imported at its first use. So
``gansynth --help`` and readers of a sample bank import neither torch nor any framework.
"""

from typing import Any

import lazy_loader

from gansynth.runtime.version import __version__ as __version__

_import, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*_names, "__version__"])

COMMANDS = (
    *("fit", "load", "check", "sample", "evaluate", "augment", "benchmark", "options", "show"),
    *("cache", "hard_cases", "turing_test", "tune", "papers", "detections", "demo"),
    *("import_data", "prepare", "splits", "doctor"),
    *("fill_bank", "live_bank", "mix", "mix_batches", "mix_segments"),
)
"""What users need; the other names are for plugins (docs/plugins.md)."""


def __getattr__(name: str) -> Any:
    if name in _names:
        return _import(name)
    from gansynth.runtime.errors import did_you_mean

    hint = did_you_mean(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}", name=name)


def __dir__() -> list[str]:
    return ["__version__", *COMMANDS]
