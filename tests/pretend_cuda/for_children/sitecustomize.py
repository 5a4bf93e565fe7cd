"""Gives a Python process pretend CUDA devices when, and only when, it imports torch.

Python imports ``sitecustomize`` by itself at its start.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class _TorchHook:
    """Stands in front of the import system until torch is asked for, once."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_install(module: Any) -> None:
            run(module)
            from tests.pretend_cuda.installation import install

            install()

        spec.loader.exec_module = run_and_install  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _TorchHook)
