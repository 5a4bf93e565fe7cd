"""nnU-Net's plans file: reading it, resolving a configuration, finding its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json

DEFAULT_PLANS = "nnUNetPlans"
_NEEDED = ("data_identifier", "patch_size", "batch_size", "spacing", "architecture")
_SHARED = ("data_identifier", "patch_size", "spacing")


@dataclass(frozen=True)
class Plans:
    """A plans file.

    Attributes:
        path: the file.
        doc: its content.
    """

    path: Path
    doc: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str) -> Plans:
        """Read plans by name.

        Args:
            folder: the data set's folder in ``nnUNet_preprocessed``.
            name: of the plans, without ``.json``.

        Raises:
            UsageFault: no such plans; the message lists what there is.
            DataFault: the file is damaged, or not yet made.
        """
        path = folder / f"{name}.json"
        if path.parent != folder or not path.is_file():
            there = sorted(p.stem for p in folder.glob("*.json") if _is_plans(p))
            if not there:
                raise DataFault(
                    f"{folder}: no plans, the data set is not preprocessed; run: gansynth prepare "
                    f"nnunet:{folder.name[7:10]} -c 3d_fullres"
                )
            raise UsageFault(
                f"--plans {name!r}: no such plans in {folder}, expected one of: {', '.join(there)}"
            )
        doc = read_json(path, way_out="plan again with: gansynth prepare --force")
        if not isinstance(doc.get("configurations"), dict):
            raise DataFault(f"{path}: configurations is missing, expected nnU-Net v2 plans")
        return cls(path, doc)

    @property
    def folder(self) -> Path:
        """The data set's folder in ``nnUNet_preprocessed``."""
        return self.path.parent

    def configuration(self, name: str) -> dict[str, Any]:
        """A configuration with what it inherits.

        Raises:
            UsageFault: unknown.
            DataFault: something is missing in the file.
        """
        found = self._resolve(name, ())
        missing = [key for key in _NEEDED if key not in found]
        if missing:
            raise DataFault(
                f"{self.path}: configurations: {name} lacks {', '.join(missing)}; plan again with "
                "nnU-Net 2.8 or later: gansynth prepare --force"
            )
        return found

    def first_of(self, name: str) -> str:
        """The configuration whose cases a cascade's second stage shares; any other is its own.

        A generator draws cases, so one made for 3d_fullres serves 3d_cascade_fullres too.
        """
        parent = self.doc["configurations"].get(name, {}).get("inherits_from")
        if not (self.configuration(name).get("previous_stage") and parent):
            return name
        same = all(self.configuration(name)[k] == self.configuration(parent)[k] for k in _SHARED)
        return str(parent) if same else name

    def _resolve(self, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
        known = self.doc["configurations"]
        if name not in known:
            raise UsageFault(
                f"configuration {name!r} is not in {self.path}, expected one of: "
                f"{', '.join(sorted(known))}"
            )
        if name in seen:
            raise DataFault(f"{self.path}: configurations: {name} inherits from itself; repair it")
        own = dict(known[name])
        parent = own.get("inherits_from")
        return {**self._resolve(parent, (*seen, name)), **own} if parent else own

    def data_folder(self, configuration: str) -> Path:
        """Where the preprocessed cases of a configuration lie.

        Raises:
            IntegrityFault: the file names a place elsewhere.
        """
        name = str(self.configuration(configuration)["data_identifier"])
        folder = self.folder / name
        if folder.parent != self.folder or name in ("", ".", ".."):
            raise IntegrityFault(
                f"{self.path}: configurations: {configuration}: data_identifier is {name!r}, "
                "expected a folder's name without a path"
            )
        return folder


def _is_plans(path: Path) -> bool:
    try:
        return "plans_name" in read_json(path)
    except DataFault:
        return False
