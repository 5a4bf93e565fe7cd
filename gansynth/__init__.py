"""gansynth: GAN samples from one training fold, fed on the fly into the framework you already use.

Importing this package is cheap on purpose: it pulls in neither torch nor any framework, so that
readers of a sample bank and ``gansynth --help`` stay light. What it offers by itself is imported
when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gansynth.bank.api import fill_bank, live_bank
    from gansynth.hosts.batchgenerators_loader import mix_batches
    from gansynth.hosts.torch_dataset import mix
    from gansynth.sampling.replay import replay

__version__ = "0.1.0"
__all__ = ["__version__", "fill_bank", "live_bank", "mix", "mix_batches", "replay"]

_HOMES = {
    "fill_bank": "gansynth.bank.api",
    "live_bank": "gansynth.bank.api",
    "mix": "gansynth.hosts.torch_dataset",
    "mix_batches": "gansynth.hosts.batchgenerators_loader",
    "replay": "gansynth.sampling.replay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
