"""nnU-Net's three folders, and names of data sets in them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gansynth.runtime.errors import DataFault, UsageFault

ROOT_VARIABLE = "GANSYNTH_NNUNET_ROOT"
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class NnunetRoot:
    """nnU-Net's folders ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def find(cls, root: str | Path | None = None) -> NnunetRoot:
        """Find the folders below ``root``; without one, by nnU-Net's own variables.

        An unset variable falls back to ``$GANSYNTH_NNUNET_ROOT``, then to ``./nnunet``.
        """
        base = Path(root or os.environ.get(ROOT_VARIABLE) or "nnunet").absolute()
        named = {} if root is not None else os.environ
        return cls(*(Path(named.get(name) or base / name).absolute() for name in VARIABLES))

    def variables(self) -> dict[str, str]:
        """Return the environment variables of nnU-Net, for a child process."""
        folders = (self.raw, self.preprocessed, self.results)
        return dict(zip(VARIABLES, map(str, folders), strict=True))

    def activate(self) -> None:
        """Set nnU-Net's variables in this process and its children; it reads them at use."""
        os.environ.update(self.variables())

    def datasets(self) -> tuple[str, ...]:
        """Return names of all data sets in the three folders, sorted."""
        homes = (self.raw, self.preprocessed, self.results)
        entries = [entry for home in homes if home.is_dir() for entry in home.iterdir()]
        found = {entry.name for entry in entries if entry.is_dir() and _NAME.fullmatch(entry.name)}
        return tuple(sorted(found))

    def dataset(self, where: str) -> str:
        """Return the full name of a data set: ``004``, ``4`` or ``Dataset004_Hippocampus``."""
        datasets = self.datasets()
        if where in datasets:
            return where
        by_id = re.fullmatch(r"\d{1,3}", where)
        matching = [name for name in datasets if by_id and int(name[7:10]) == int(where)]
        if len(matching) > 1:
            raise UsageFault(
                f"nnunet:{where}: id {int(where)} belongs to several data sets "
                f"({', '.join(matching)}), expected one; nnU-Net refuses that too. "
                "Rename or remove the others"
            )
        if not matching:
            raise DataFault(
                f"nnunet:{where}: no such data set in {self.raw} or {self.preprocessed}, expected "
                f"an id (004) or one of: {', '.join(datasets) or 'none'}. Name nnU-Net's folders "
                "with --root or the variable nnUNet_raw, or make it from your data: gansynth "
                "import SOURCE nnunet:ID"
            )
        return matching[0]
