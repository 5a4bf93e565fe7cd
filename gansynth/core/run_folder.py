"""The manifest of a run, read once and passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gansynth.core.capabilities import Capabilities
from gansynth.core.lineage import MAX_RECORD_BYTES, Lineage
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault
from gansynth.runtime.files import (
    check_digest,
    digest_of,
    elsewhere,
    read_own,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.serialise import Document, from_json
from gansynth.runtime.version import check_format

MANIFEST = "manifest.json"
VERSION = 3
MOST_STATE = 128 << 10  # bytes of a generator's state as JSON, whatever the size of its images
FIT_AGAIN = "restore it from a copy, or fit the run again with another -o"
_UNFIT = (AttributeError, LookupError, RecursionError, TypeError, ValueError, GansynthError)


@dataclass(frozen=True)
class Weights(Document):
    """The newest weights: their file in the run's folder, and its SHA-256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class PartEntry(Document):
    """A part of a composite run; ``manifest_sha256`` is None until it is fitted."""

    name: str
    folder: str
    manifest_sha256: str | None
    generator: str = ""
    draws: Any = ""
    classes: tuple[str, ...] = ()


KEYS: Mapping[str, Any] = {
    "run_id": str,
    "generator": str,
    "capabilities": Capabilities,
    "options": Mapping[str, Any],
    "schema": Schema,
    "space": Space,
    "lineage": Lineage,
    "edits": tuple[str, ...],
    "request": SourceRequest,
    "config": Mapping[str, Any],
    "state": Mapping[str, Any],
    "weights": Weights | None,
}
"""Keys that every manifest holds, and their types."""
OTHER_KEYS: Mapping[str, Any] = {
    "steps": int,
    "complete": bool,
    "parts": tuple[PartEntry, ...],
}


class RunDescription:
    """Properties of a run, derived from its ``folder`` and ``manifest``."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Short name of the run, unique."""
        return str(self.manifest["run_id"])

    @property
    def capabilities(self) -> Capabilities:
        """What its generator takes, draws and needs."""
        return Capabilities.from_json(self.manifest["capabilities"])

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
    def loop_options(self) -> Mapping[str, Any]:
        """Options of the training loop; none of a generator without training."""
        options = self.manifest["config"].get("fit", {})
        if not isinstance(options, Mapping):
            path = self.folder / MANIFEST
            raise IntegrityFault(
                "run-folder.fit-options-damaged",
                f"{path}: damaged, key 'config' holds {options!r} as 'fit'; {FIT_AGAIN}",
            )
        return options

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
        """The whole of ``manifest.json``."""
        return read_manifest(self.folder)

    @classmethod
    def known(cls, folder: Path, manifest: Mapping[str, Any]) -> RunFolder:
        """Return a run whose manifest was read already, fully or in part."""
        run = cls(folder)
        vars(run)["manifest"] = manifest
        return run

    def fit_again(
        self, request: SourceRequest, size: Sequence[int] = (), generator: str = ""
    ) -> str:
        """Return the command that fits its generator, or another one, on the data of a request.

        ``size``: of the crops, (D, H, W) voxels; by default that of the request.
        """
        from gansynth.core.requests.fit import FitRequest

        read, out = dict(request.read), f"{self.folder}_again"
        if size:
            read["size"] = ",".join(map(str, size))
        fitted = generator or self.manifest["generator"]
        return replace(request, read=read).command(FitRequest, generator=fitted, out=out)

    def __str__(self) -> str:
        return str(self.folder)

    def to_json(self) -> str:
        """Return its absolute path."""
        return str(self.folder.absolute())

    @classmethod
    def from_json(cls, doc: str) -> RunFolder:
        return cls(Path(doc))


def own_request(folder: Path, manifest: Mapping[str, Any]) -> SourceRequest:
    """Return the request of a run's cases, ready to be opened."""
    request = SourceRequest(**manifest["request"])
    if not request.view:
        return request
    return replace(request, view=dict(request.view, home=str(folder)))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json`` of a run."""
    path = folder / MANIFEST
    if not path.is_file():
        bank = " (this is a sample bank; name the run that filled it)"
        raise DataFault(
            "run-folder.no-manifest",
            f"{folder}: no {MANIFEST} here{bank if (folder / 'bank.json').is_file() else ''}, "
            f"expected a run folder made by: gansynth fit ... -o {folder}",
        )
    manifest = read_own(path, hint=FIT_AGAIN, most=MAX_RECORD_BYTES)
    made = manifest.get("versions")
    build = made.get("gansynth") if isinstance(made, dict) else None
    way = f"fit the run again: {elsewhere(path.parent)}"
    check_format(path, manifest.get("version"), VERSION, build, way)
    check_digest(path, manifest, FIT_AGAIN)
    kinds = dict(KEYS)
    kinds.update({key: kind for key, kind in OTHER_KEYS.items() if key in manifest})
    for key, kind in kinds.items():
        try:
            from_json(kind, manifest[key])
        except _UNFIT as error:
            reason = "is missing" if key not in manifest else f"holds {str(error)[:200]}"
            raise IntegrityFault(
                "run-folder.manifest-damaged", f"{path}: damaged, key {key!r} {reason}; {FIT_AGAIN}"
            ) from None
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` of a run, with its digest."""
    plain = json.loads(json.dumps(manifest, allow_nan=False))
    size = len(json.dumps(plain.get("state")))
    if size > MOST_STATE:
        raise IntegrityFault(
            "run-folder.observed-state-too-large",
            f"{folder}: observe() of {plain['generator']} has returned {size} bytes of JSON, "
            f"expected at most {MOST_STATE}: manifests are passed on, and more could be patients' "
            "images. Keep statistics in it, and what training learns in networks",
        )
    write_json_atomic(folder / MANIFEST, dict(plain, digest=digest_of(plain)))


def manifest_sha256(folder: Path) -> str:
    """SHA-256 of a run's ``manifest.json``."""
    return sha256_file(folder / MANIFEST)
