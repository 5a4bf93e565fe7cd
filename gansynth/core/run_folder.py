"""The manifest of a run, read once and passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gansynth.core.lineage import Lineage
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import sha256_file

MANIFEST = "manifest.json"
VERSION = 2
KEYS = (
    *("run_id", "generator", "options", "schema", "space", "lineage", "edits", "request"),
    *("config", "state", "weights"),
)
"""Keys that every manifest holds."""


class RunDescription:
    """Properties of a run, derived from its ``folder`` and ``manifest``."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Short name of the run, unique."""
        return str(self.manifest["run_id"])

    @property
    def space(self) -> Space:
        """The generator's space."""
        return Space.from_json(self.manifest["space"])

    @property
    def schema(self) -> Schema:
        """The source's schema; the generator's differs in its space's spacing."""
        return Schema.from_json(self.manifest["schema"])

    @property
    def lineage(self) -> Lineage:
        """Every case the run has seen."""
        return Lineage.from_json(self.manifest["lineage"])

    @property
    def edits(self) -> tuple[str, ...]:
        """The condition edits it was fitted for."""
        return tuple(self.manifest["edits"])

    @property
    def request(self) -> SourceRequest:
        """The request of its cases, ready to be opened."""
        return own_request(self.folder, self.manifest)

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of ``manifest.json``, which itself holds the hash of the weights."""
        return manifest_sha256(self.folder)


@dataclass(frozen=True)
class RunFolder(RunDescription):
    """A run whose weights are not loaded; its manifest is read at first use."""

    folder: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The whole of ``manifest.json``.

        Raises:
            DataFault, IntegrityFault: see ``read_manifest``.
        """
        return read_manifest(self.folder)

    @classmethod
    def known(cls, folder: Path, manifest: Mapping[str, Any]) -> RunFolder:
        """Return a run whose manifest was read already, fully or in part."""
        run = cls(folder)
        vars(run)["manifest"] = manifest
        return run

    def __str__(self) -> str:
        return str(self.folder)

    def to_json(self) -> str:
        """Return its absolute path."""
        return str(self.folder.absolute())

    @classmethod
    def from_json(cls, doc: str) -> RunFolder:
        """Return the run of a path."""
        return cls(Path(doc))


def own_request(folder: Path, manifest: Mapping[str, Any]) -> SourceRequest:
    """Return the request of a run's cases, ready to be opened."""
    request = SourceRequest(**manifest["request"])
    if not request.view:
        return request
    return replace(request, view={**request.view, "home": str(folder)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json`` of a run.

    Raises:
        DataFault: if the folder is no run.
        IntegrityFault: if the manifest is damaged or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataFault(
            f"{folder}: no {MANIFEST} here, expected a run folder made by: gansynth fit ... -o "
            f"{folder}"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityFault(
            f"{path}: damaged ({error}), expected JSON; fit the run again"
        ) from None
    if not isinstance(manifest, dict):
        raise IntegrityFault(
            f"{path}: holds a {type(manifest).__name__}, expected an object; fit the run again"
        )
    if manifest.get("version") != VERSION:
        raise IntegrityFault(
            f"{path}: key 'version' is {manifest.get('version')!r}, expected {VERSION}; "
            "this run was made by another gansynth"
        )
    missing = [key for key in KEYS if key not in manifest]
    if missing:
        raise IntegrityFault(
            f"{path}: damaged, lacks {', '.join(missing)}; expected all of {', '.join(KEYS)}; "
            "restore it from a copy, or fit the run again"
        )
    document: dict[str, Any] = manifest
    return document


def manifest_sha256(folder: Path) -> str:
    """SHA-256 of a run's ``manifest.json``."""
    return sha256_file(folder / MANIFEST)
