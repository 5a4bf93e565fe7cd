"""A run folder: what a fit leaves behind, and how to open it again.

``config.yaml`` (resolved options), ``manifest.json`` (schema, space, lineage, hashes, versions),
``metrics.csv``, ``samples/`` (sheets), ``checkpoints/``. Paths inside are relative: a run can be
moved. No patient's image is in it but for the sheets.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth import __version__
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import disk_errors, path_inside, sha256_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gansynth.core.generator import Generator
    from gansynth.runtime.devices import Precision

MANIFEST = "manifest.json"
VERSION = 1
KEYS = (
    "run_id",
    "generator",
    "options",
    "schema",
    "space",
    "lineage",
    "edits",
    "request",
    "config",
    "state",
    "weights",
)
"""What every manifest holds."""


@dataclass
class Run:
    """A finished (or at least checkpointed) run, ready to draw samples.

    Attributes:
        folder: where it lies.
        generator: with the averaged weights loaded, on its device.
        manifest: the whole of ``manifest.json``.
    """

    folder: Path
    generator: Generator
    manifest: dict[str, Any]

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
        """The source's schema (the generator's own is ``generator.schema``)."""
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
        """Where its cases came from."""
        return own_request(self.folder, self.manifest)

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of ``manifest.json``, which itself holds the weights' hash."""
        return manifest_sha256(self.folder)


def new_manifest(
    generator: str, source: CaseSource, space: Space, lineage: Lineage, edits: Sequence[str]
) -> dict[str, Any]:
    """What every run's manifest begins as; options, configuration and state are filled in.

    Args:
        generator: registered name.
        source: the training cases.
        space: the generator's.
        lineage: every case it will have seen.
        edits: condition edits it is fitted for.
    """
    import numpy
    import torch

    return {
        "version": VERSION,
        "run_id": uuid.uuid4().hex[:12],
        "generator": generator,
        "options": {},
        "schema": source.schema.to_json(),
        "space": space.to_json(),
        "lineage": lineage.to_json(),
        "edits": list(edits),
        "labelling": "asked",
        "heeds": [],
        "request": source.request.to_json(),
        "config": {},
        "state": {},
        "weights": None,
        "steps": 0,
        "complete": False,
        "versions": {
            "gansynth": __version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def own_request(folder: Path, manifest: Mapping[str, Any]) -> SourceRequest:
    """Where the cases of a run came from, ready to be opened."""
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
    found: dict[str, Any] = manifest
    return found


def check_weights(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """The file (of a composite: the folder) of the weights that draw samples, if the manifest's.

    Raises:
        UsageFault: there are none yet.
        IntegrityFault: missing, other content, or a path that leads out of the run.
    """
    if "parts" in manifest:
        from gansynth.sampling.composite import check_parts

        return check_parts(folder, manifest)
    weights: Mapping[str, str] | None = manifest["weights"]
    if weights is None:
        raise UsageFault(f"{folder}: this run has no checkpoint yet; finish it with gansynth fit")
    path = path_inside(folder, weights["path"], what=f"{folder / MANIFEST}: key 'weights'")
    found = sha256_file(path) if path.is_file() else "of no file"
    if found != weights["sha256"]:
        raise IntegrityFault(
            f"{path}: SHA-256 is {found[:12]}, expected {weights['sha256'][:12]} by {MANIFEST}; "
            "restore it from a copy, or fit the run again"
        )
    return path


def manifest_sha256(folder: Path) -> str:
    """SHA-256 of a run's ``manifest.json``."""
    return sha256_file(folder / MANIFEST)


def load_run(folder: Path, device: str = "auto") -> Run:
    """Open a run: build its generator and load the averaged weights, checked against their hash.

    Raises:
        UsageFault: no run here, or it has no weights yet.
        IntegrityFault: weights that are not the manifest's.
    """
    from gansynth.runtime.devices import pick_device
    from gansynth.training.checkpoint import load_tensors

    manifest = read_manifest(folder)
    if "parts" in manifest:
        from gansynth.sampling.composite import load_composite

        return Run(folder, load_composite(folder, manifest, device), manifest)
    generator = build_generator(manifest, folder)
    path = check_weights(folder, manifest)
    _load_weights(generator, load_tensors(path, manifest["weights"]["sha256"]), path)
    generator.load_state(manifest["state"])
    picked = pick_device(device)
    generator.precision = _precision(manifest, picked)
    return Run(folder, generator.to(picked), manifest)


def _precision(manifest: Mapping[str, Any], device: torch.device) -> Precision:
    """What it was trained in: bf16 draws other samples than fp32. Half precision as bf16."""
    trained = str(manifest["config"].get("fit", {}).get("precision", "auto"))
    if trained == "fp32":
        return "fp32"
    return "auto" if trained == "auto" or device.type != "cuda" else "bf16"


def _load_weights(generator: Generator, tensors: Mapping[str, Tensor], path: Path) -> None:
    for name in generator.ema:
        if name not in generator.nets:
            continue
        # Averages are of floating-point tensors; counters and the like keep their start.
        own = generator.nets[name].state_dict()
        wanted = {f"{name}/{k}": v.shape for k, v in own.items() if v.is_floating_point()}
        found = {k: v.shape for k, v in tensors.items() if k.startswith(f"{name}/")}
        differing = [k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)]
        if differing:
            first = min(differing)
            raise IntegrityFault(
                f"{path}: {len(differing)} tensor(s) do not fit the generator, first {first}: "
                f"{found.get(first)}, expected {wanted.get(first)}; this run was made by another "
                "version of its plugin. Fit it again"
            )
        state = {key.removeprefix(f"{name}/"): tensors[key] for key in found}
        generator.nets[name].load_state_dict(state, strict=False)


def build_generator(manifest: Mapping[str, Any], folder: Path | None = None) -> Generator:
    """The generator a manifest describes, with fresh weights; torch's random state stays.

    Args:
        manifest: of a run with weights of its own.
        folder: the run, for messages.

    Raises:
        IntegrityFault: options that the installed plugin does not know.
    """
    import torch
    from pydantic import ValidationError

    from gansynth.core.registry import installed

    cls = installed().generator(manifest["generator"])
    space = Space.from_json(manifest["space"])
    schema = space.generator_schema(Schema.from_json(manifest["schema"]))
    try:
        # Options that are gone are nothing to a run that had none of them.
        known = cls.Options.model_fields
        told = {k: v for k, v in manifest["options"].items() if k in known or v is not None}
        options = cls.Options(**told)
    except (ValidationError, TypeError) as error:
        raise IntegrityFault(
            f"{(folder or Path()) / MANIFEST}: key 'options': {_first_line(error)}; expected "
            f"options of the installed {manifest['generator']}. This run was made by another "
            "version of its plugin: install that one, or fit the run again"
        ) from None
    with torch.random.fork_rng(devices=[]):
        return cls(schema, space.size, options)


def _first_line(error: Exception) -> str:
    """The first thing a validation found wrong, with its key and value."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "all"
    more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    return f"{where} is {first['input']!r}: {first['msg']}{more}"


def check_lockable(folder: Path) -> None:
    """Refuse what ``locked`` would, and write nothing.

    Raises:
        EnvironmentFault: another process holds it, or it cannot be made or written to.
    """
    import fcntl

    lock = folder / ".lock"
    if lock.exists():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise _held(folder) from None
    parents = (folder.absolute(), *folder.absolute().parents)
    there = next(path for path in parents if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"{folder}: cannot be made ({there} is no folder that can be written to), expected a "
            "writable place; choose another -o"
        )


def _held(folder: Path, way_out: str = "choose another -o") -> EnvironmentFault:
    holder = folder / ".holder"
    who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
    return EnvironmentFault(
        f"{folder}: locked by {who}; expected one process per folder. Wait for it, or {way_out}"
    )


@contextlib.contextmanager
def locked(folder: Path, way_out: str = "choose another -o") -> Iterator[None]:
    """Hold a run folder for this process alone.

    Args:
        folder: made if it is not there.
        way_out: what else the user may do, for messages.

    Raises:
        EnvironmentFault: if another process holds it, naming its pid and since when.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder}: cannot be made ({error.strerror}), expected a writable place; {way_out}"
        ) from error
    holder = folder / ".holder"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _held(folder, way_out) from None
    except OSError as error:
        raise EnvironmentFault(
            f"{folder}: cannot be locked ({error.strerror}); {way_out}"
        ) from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with disk_errors(holder):
            holder.write_text(f"pid {os.getpid()} since {since}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
