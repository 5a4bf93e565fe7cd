"""The way of a command through the product's files. ``python tests/walk.py --deepmedic`` prints it.

A file counts if one of its functions ran; what runs while modules are imported does not count. A
stay is a function that was called from another file: what a reader has to look up there. How often
it was called does not count, nor do calls within a file.

``python tests/walk.py --deepmedic`` walks a dry run of ``gansynth augment --target deepmedic`` on a
toy data set.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SHELVES = ("gansynth", "plugins", "adapters", "cli", "benchmarks")


class Walk:
    """Files and functions that were entered."""

    def __init__(self, root: Path) -> None:
        self.root = str(root) + os.sep
        self.files: dict[str, None] = {}
        self.stays: dict[tuple[str, str], None] = {}
        self.read: list[str] = []
        """Manifests that were read, once for each time."""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """For ``sys.setprofile``."""
        if event != "call":
            return
        code = frame.f_code
        if code.co_name == "read_manifest":
            self.read.append(str(next(iter(frame.f_locals.values()), "")))
        file = self._ours(code.co_filename)
        if file is None or code.co_name.startswith("<"):
            return
        caller = frame.f_back
        while caller is not None and self._ours(caller.f_code.co_filename) is None:
            caller = caller.f_back
        if caller is not None and self._imports(frame):
            return
        self.files.setdefault(file)
        if caller is None or self._ours(caller.f_code.co_filename) != file:
            self.stays.setdefault((file, code.co_qualname))

    def _ours(self, path: str) -> str | None:
        """A file of the product, from its top folder on."""
        if not path.startswith(self.root):
            return None
        own = path[len(self.root) :]
        return own if own.partition(os.sep)[0] in SHELVES else None

    def _imports(self, frame: FrameType | None) -> bool:
        """Whether a module is being imported."""
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back
        return False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this thread, and those that it starts."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def lines(self) -> Iterator[str]:
        """What was found."""
        yield f"{len(self.files)} files, {len(self.stays)} stays, manifest read {len(self.read)}x"
        for file in self.files:
            names = [name for where, name in self.stays if where == file]
            yield f"  {file}: {', '.join(names) or '-'}"


def deepmedic(folder: Path) -> Callable[[], object]:
    """A dry run on a toy data set."""
    from click.testing import CliRunner

    from gansynth_cli.main import cli
    from tests.deepmedic_sets import toy_deepmedic

    toy = toy_deepmedic(folder / "toy")
    data, run = f"deepmedic:{toy.train}", str(folder / "run")
    small = ["steps=2", "batch_size=1", "width=4", "d_width=4", "levels=2"]
    sets = [word for one in small for word in ("--set", one)]
    fit = ["fit", "cgan3d", "--data", data, "-o", run, "--device", "cpu", *sets]
    _typed(CliRunner(), cli, fit)
    words = ["augment", "--target", "segmenter", "--network", "unet", "--data", data]
    words += ["--generator", run, "--ratio", "1:1", "-o", str(folder / "out"), "--dry-run"]
    return lambda: _typed(CliRunner(), cli, words)


def _typed(runner: Any, main: Any, words: list[str]) -> None:
    found = runner.invoke(main, words, catch_exceptions=False)
    if found.exit_code:
        sys.exit(found.output)


def main() -> None:
    """Print a walk."""
    sys.path.insert(0, str(ROOT))
    walk = Walk(ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        if sys.argv[1:] != ["--deepmedic"]:
            sys.exit(__doc__)
        walked = deepmedic(Path(scratch))
        with walk.watching():
            walked()
    print("\n".join(walk.lines()))


if __name__ == "__main__":
    main()
