"""Trains the user's DeepMedic by an order: ``python launch.py ORDER.json FOLDER_OF_GANSYNTH``.

A script, in DeepMedic's own Python, where gansynth need not be installed. It finds gansynth's two
packages by their folders and adds nothing to the search path, so that every other module is this
Python's own. The order is read, and DeepMedic run, by ``running``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def package(name: str, folder: Path, *, run: bool = True) -> None:
    """Make a package importable by its folder."""
    if not run:
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
        return
    file = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def main(arguments: list[str]) -> int:
    """Train; returns the exit code, a line on stderr saying why it is not 0."""
    if len(arguments) != 2:
        sys.stderr.write("error: usage: python launch.py ORDER.json FOLDER_OF_GANSYNTH\n")
        return 2
    sys.dont_write_bytecode = True
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    package("gansynth", Path(arguments[1]))
    package("gansynth_deepmedic", HERE.parent, run=False)
    from gansynth_deepmedic.host.running import run

    return run(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
