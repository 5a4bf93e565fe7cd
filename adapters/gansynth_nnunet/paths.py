"""Locations of nnU-Net's three folders, and names of data sets in them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gansynth.runtime.errors import DataFault, UsageFault

ROOT_VARIABLE = "GANSYNTH_NNUNET_ROOT"
DEFAULT_ROOT = "nnunet"
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
        if root is not None:
            return cls._below(Path(root).absolute())
        base = cls._below(Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).absolute())
        return cls(
            _variable("nnUNet_raw", base.raw),
            _variable("nnUNet_preprocessed", base.preprocessed),
            _variable("nnUNet_results", base.results),
        )

    @classmethod
    def _below(cls, root: Path) -> NnunetRoot:
        return cls(root / "nnUNet_raw", root / "nnUNet_preprocessed", root / "nnUNet_results")

    def variables(self) -> dict[str, str]:
        """Return the environment variables of nnU-Net, for a child process."""
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }

    def activate(self) -> None:
        """Set nnU-Net's variables in this process and its children; it reads them at use."""
        os.environ.update(self.variables())

    def datasets(self) -> tuple[str, ...]:
        """Return names of all data sets in the three folders, sorted."""
        names = {
            entry.name
            for folder in (self.raw, self.preprocessed, self.results)
            if folder.is_dir()
            for entry in folder.iterdir()
            if entry.is_dir() and _NAME.fullmatch(entry.name)
        }
        return tuple(sorted(names))

    def dataset(self, where: str) -> str:
        """Return the full name of a data set: ``004``, ``4`` or ``Dataset004_Hippocampus``."""
        datasets = self.datasets()
        if where in datasets:
            return where
        listed = ", ".join(datasets) or "none"
        if not re.fullmatch(r"\d{1,3}", where):
            raise DataFault(
                f"nnunet:{where}: no such data set in {self.raw} or {self.preprocessed}, expected "
                f"an id (004) or one of: {listed}. {self._way_out()}"
            )
        matching = [name for name in datasets if int(name[7:10]) == int(where)]
        if len(matching) > 1:
            raise UsageFault(
                f"nnunet:{where}: id {int(where)} belongs to several data sets "
                f"({', '.join(matching)}), expected one; nnU-Net refuses that too. "
                "Rename or remove the others"
            )
        if not matching:
            raise DataFault(
                f"nnunet:{where}: no data set of id {int(where):03d} in {self.raw} or "
                f"{self.preprocessed}, expected one of: {listed}. {self._way_out()}"
            )
        return matching[0]

    @staticmethod
    def _way_out() -> str:
        return (
            "Name nnU-Net's folders with --root or the variable nnUNet_raw, or make it from your "
            "data: gansynth import SOURCE nnunet:ID"
        )


def _variable(name: str, otherwise: Path) -> Path:
    value = os.environ.get(name)
    return Path(value).absolute() if value else otherwise
