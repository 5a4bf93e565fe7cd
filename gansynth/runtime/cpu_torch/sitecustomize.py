"""Cures torchvision beside a CPU torch when, and only when, a process imports it.

For stock commands such as ``nnUNetv2_train``: put this folder on PYTHONPATH. Python imports
``sitecustomize`` by itself at its start. Another one, further down the path, still runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

CURE = Path(__file__).resolve().parent.parent / "torchvision_compat.py"


class _TorchvisionFix:
    """Stands in front of the import system until torchvision is asked for, once."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(cls)
            cure = importlib.util.spec_from_file_location("_gansynth_cure", CURE)
            if cure is not None and cure.loader is not None:
                module = importlib.util.module_from_spec(cure)
                cure.loader.exec_module(module)
                module.apply()
        return None


def _run_next() -> None:
    """Run the ``sitecustomize`` that this one hides."""
    here = Path(__file__).resolve().parent
    other_paths = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = PathFinder.find_spec("sitecustomize", other_paths)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, _TorchvisionFix)
_run_next()
