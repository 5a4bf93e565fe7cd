"""Checkpoints that nnU-Net itself can use, where gansynth is not installed.

A checkpoint names its trainer class, which nnU-Net looks up before it predicts. So it carries the
name of the extended variant, whose network it has. Checkpoints of earlier versions that name
gansynth's class are renamed by ``python -m gansynth_nnunet.stock FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import disk_errors
from gansynth_nnunet.launch import SUFFIX


def stock_name(trainer: type[Any], mixin: type[Any]) -> str:
    """Return the name of a trainer's first base that is not gansynth's and builds its network."""
    for base in trainer.__mro__:
        if not issubclass(base, mixin) and hasattr(base, "build_network_architecture"):
            same = base.build_network_architecture is trainer.build_network_architecture
            return base.__name__ if same else trainer.__name__
    return trainer.__name__


@contextlib.contextmanager
def called(trainer: type[Any], name: str) -> Iterator[None]:
    """Rename a class temporarily: nnU-Net writes the name into its checkpoint."""
    class_name = trainer.__name__
    trainer.__name__ = name
    try:
        yield
    finally:
        trainer.__name__ = class_name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; a file written there replaces ``path`` at the end.

    Raises:
        EnvironmentFault: a disk error.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # overwrites what a killed process left
    with disk_errors(path):
        try:
            yield temporary
            if temporary.exists():
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def rename_trainers(folder: Path) -> list[Path]:
    """Rename the trainer in nnU-Net checkpoints below a folder that name a class of gansynth.

    Raises:
        UsageFault: no checkpoint there.
        IntegrityFault: a checkpoint that is not nnU-Net's.
    """
    files = sorted(folder.rglob("checkpoint_*.pth")) if folder.is_dir() else [folder]
    if not files or not files[0].is_file():
        raise UsageFault(f"{folder}: no checkpoint_*.pth there, expected one of nnU-Net's folders")
    return [file for file in files if _rename(file)]


def _rename(file: Path) -> bool:
    import torch

    checkpoint = read_checkpoint(file)
    name = checkpoint["trainer_name"]
    if not name.endswith(SUFFIX):
        return False
    checkpoint["trainer_name"] = name.removesuffix(SUFFIX)
    with replacing(file) as temporary:
        torch.save(checkpoint, temporary)
    return True


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read an nnU-Net checkpoint without executing anything in it.

    Besides torch's own safe types, numpy's numbers are allowed, which nnU-Net logs.

    Raises:
        IntegrityFault: it holds anything else, is damaged, or names no trainer.
    """
    import numpy as np
    import torch

    numbers = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "bool")]
    scalar: Any = np.float64(0).__reduce__()[0]
    # Its module was renamed in numpy 2; a checkpoint may come from a machine with the other one.
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    scalars: list[Any] = [(scalar, f"{module}.scalar") for module in modules]
    try:
        with torch.serialization.safe_globals([*scalars, np.dtype, *numbers]):
            checkpoint = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        words = " ".join(str(error).split())
        raise IntegrityFault(
            f"{file}: cannot be read as a checkpoint ({words:.200}), expected one of nnU-Net's"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("trainer_name"), str):
        raise IntegrityFault(f"{file}: names no trainer, expected a checkpoint of nnU-Net's")
    return checkpoint


def main(arguments: Sequence[str]) -> int:
    """Rename the trainers in the given folders; return the exit code."""
    try:
        if not arguments:
            raise UsageFault("no folder given, expected: python -m gansynth_nnunet.stock FOLDER")
        for folder in arguments:
            for file in rename_trainers(Path(folder)):
                sys.stdout.write(f"{file}\n")
    except GansynthError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
