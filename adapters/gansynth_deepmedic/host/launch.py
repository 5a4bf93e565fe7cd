"""Trains the user's DeepMedic: ``python launch.py ORDER.json FOLDER_OF_GANSYNTH``.

This script runs in DeepMedic's own Python, where gansynth need not be installed. It finds
gansynth's two packages by their folders and does not change the search path. So all other modules
are those of this Python. ``running`` reads the order and runs DeepMedic.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def package(name: str, folder: Path, *, run: bool = True) -> None:
    """Make a package importable from its folder."""
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
    """Train and return the exit code; a line on stderr explains a failure."""
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
