"""The folds of a divided DeepMedic data set: where their configurations lie, and cases' names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gansynth.core.source import SourceRequest
from gansynth.data.divided import FILE
from gansynth.data.subjects import read_column
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.configs import Listed, TrainConfig

CONFIG = "trainConfig.cfg"
CASES = "gansynth_cases.csv"
"""Names of the cases of a configuration beside it; columns ``case`` and ``file``."""


def fold_folder(folder: Path, fold: str) -> Path:
    """Where a fold's configuration lies."""
    return folder / f"fold_{fold}"


def is_divided(where: str) -> bool:
    """Whether a path is a folder with a configuration for each fold."""
    return (Path(where) / FILE).is_file()


def config_of(request: SourceRequest) -> Path:
    """The ``trainConfig.cfg`` of a request, whose path is absolute.

    Raises:
        UsageFault: a folder of folds has no such fold.
    """
    if not is_divided(request.where):
        return Path(request.where)
    path = fold_folder(Path(request.where), request.fold) / CONFIG
    if not path.is_file():
        raise UsageFault(
            f"--fold {request.fold!r}: no {path}, expected one of the folds of {request.where}: "
            "0, 1, ..."
        )
    return path


def known_names(config: TrainConfig, cases: Sequence[Listed]) -> tuple[str, ...] | None:
    """The names that cases were given before they were dealt out; None where none are kept.

    Raises:
        DataFault: they are of other cases.
    """
    path = config.path.parent / CASES
    if not path.is_file():
        return None
    names = read_column(path, "file")
    if list(names.values()) != [str(case.files[0]) for case in cases]:
        raise DataFault(
            f"{path}: names other files than the first channels that {config.path} lists, expected "
            "the same in the same order; deal the cases out again, or remove it"
        )
    return tuple(names)
