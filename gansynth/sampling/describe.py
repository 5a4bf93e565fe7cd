"""Content, places and faults of a run folder: ``gansynth show``.

It needs no torch. Damage does not stop it, but becomes a line of ``wrong``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.lineage import other_records
from gansynth.core.requests.data import ShowRequest
from gansynth.core.run_folder import MANIFEST, RunFolder, read_manifest
from gansynth.core.source import case_records
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import (
    check_digest,
    folder_bytes,
    parse_json,
    path_inside,
    read_json,
    sha256_file,
)
from gansynth.sampling.open_run import check_weights
from gansynth.sampling.run import PARTS

STATE = "state.json"
_NOT_SAID: Mapping[str, Any] = {"precision": None, "device": None}


def describe_run(folder: Path) -> dict[str, Any]:
    """Return everything about a run, as JSON.

    Args:
        folder: a run, finished or not, damaged or not, or a composite one.

    Returns:
        ``run``, ``state`` (complete, unfinished, damaged), ``steps``, ``lineage``, ``files``
        (paths), ``checkpoints``, ``losses`` (last values). Also ``parts``, ``wrong`` (a line for
        each fault), ``warnings`` of the fit, and the manifest's generator, options and versions.

    Raises:
        UsageFault: there is no trace of a run in this folder.
    """
    wrong: list[str] = []
    manifest = _manifest(folder, wrong)
    fit = _mapping(_mapping(manifest.get("config")).get("fit"))
    checkpoints = [_checkpoint(path, wrong) for path in sorted(folder.glob("checkpoints/step-*"))]
    parts = [_part(folder, part, wrong) for part in _list(manifest.get(PARTS))]
    complete = all(p["complete"] for p in parts) if parts else bool(manifest.get("complete"))
    if complete or (manifest.get("weights") is not None and not parts):
        _note(wrong, lambda: check_weights(RunFolder.known(folder, manifest)))
    losses = _last_values(folder / "metrics.csv", wrong)
    report = folder / "report.json"
    kept = _note(wrong, lambda: read_json(report, hint="evaluate it")) if report.is_file() else {}
    trained = "steps" in fit or not fit  # a generator without training has no steps
    holder = folder / ".holder"  # of the lock, which may be left from a killed process
    newest = next((c for c in reversed(checkpoints) if c["precision"] and trained), _NOT_SAID)
    return {
        "run": str(folder),
        "run_id": manifest.get("run_id"),
        "state": "damaged" if wrong else "complete" if complete else "unfinished",
        "wrong": wrong,
        "warnings": [
            *_list(_mapping(kept).get("warnings")),
            *(f"{part['name']}: {text}" for part in parts for text in part.get("warnings", ())),
        ],
        "running": holder.read_text("utf-8", "replace")[:200] if holder.is_file() else None,
        "generator": manifest.get("generator"),
        "created": manifest.get("created"),
        "steps": {"done": manifest.get("steps"), "asked": fit.get("steps")} if trained else None,
        "images": losses.pop("images", None),
        "precision": newest["precision"] or fit.get("precision"),
        "device": newest["device"],
        "edits": manifest.get("edits"),
        "lineage": _lineage(_mapping(manifest.get("lineage"))),
        "losses": {k: v for k, v in losses.items() if k not in ("step", "seconds")},
        "files": _files(folder, manifest if trained else {}),
        "checkpoints": checkpoints,
        "parts": parts,
        "options": manifest.get("options"),
        "versions": manifest.get("versions"),
    }


def wrong_lineage(folder: Path, request: ShowRequest) -> list[str]:
    """Return how the training cases of a run differ from those it records; empty if they do not.

    Raises:
        GansynthError: the run has no whole manifest, or its data set cannot be opened or read.
    """
    from gansynth.sampling.run_source import open_moved

    run = RunFolder(folder)
    source = open_moved(run, request.data, request.root)
    ids = source.train_ids
    request.reporter.say(f"{source.name} fold {source.request.fold}: reading {len(ids)} case(s)")
    found = case_records(source, ids)
    hint = "fit the generator again, or restore the run from a copy"
    return [f"lineage: {line}; {hint}" for line in other_records(run.lineage.cases, found)]


def _manifest(folder: Path, wrong: list[str]) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        if not any(folder.glob("checkpoints/step-*")) and not (folder / "config.yaml").is_file():
            read_manifest(folder)  # raises, and explains what a run is
        wrong.append(f"{path}: missing, so the cases that the run has seen are unknown")
        return {}
    try:
        return read_manifest(folder)
    except GansynthError as error:
        wrong.append(str(error))
    try:
        return _mapping(parse_json(path.read_text("utf-8")))
    except ValueError:
        return {}


def _checkpoint(folder: Path, wrong: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": str(folder), "bytes": folder_bytes(folder), "step": None}
    before = len(wrong)
    state = _note(wrong, lambda: read_json(folder / STATE, hint="an older one is used")) or {}
    _note(wrong, lambda: check_digest(folder / STATE, state, "an older one is used"))
    for name, sha256 in _mapping(state.get("sha256")).items():
        path = _note(wrong, partial(path_inside, folder, name, key=f"{folder / STATE}: 'sha256'"))
        if path is not None and not path.is_file():
            wrong.append(f"{folder / name}: missing; a whole checkpoint is used instead")
        elif path is not None and sha256_file(path) != sha256:
            wrong.append(f"{folder / name}: damaged, its SHA-256 is not {str(sha256)[:12]}...")
    step = state.get("step", folder.name.partition("-")[2].lstrip("0"))
    facts["step"] = int(step) if str(step).isdecimal() else None
    precision, rounded = state.get("precision"), state.get("tf32", "none")
    if rounded != "none":
        precision = f"{precision} (TF32 in {rounded})"
    how = {"precision": precision, "device": state.get("device")}
    return {**facts, **how, "whole": len(wrong) == before}


def _part(folder: Path, part: object, wrong: list[str]) -> dict[str, Any]:
    doc = _mapping(part)
    name = str(doc.get("name", part))
    where = str(doc.get("folder") or f"{PARTS}/{name}")
    facts: dict[str, Any] = {"name": name, "path": None, "complete": False}
    path = _note(wrong, lambda: path_inside(folder, where, key=f"{folder / MANIFEST}: {PARTS!r}"))
    absent = {**facts, "state": "missing", "generator": None, "steps": None, "run_id": None}
    if path is None:
        return absent
    facts["path"] = absent["path"] = str(folder / where)
    try:
        inner = describe_run(folder / where)
    except DataFault:
        # A part that is not begun has no folder; a fitted one must have one.
        if doc.get("manifest_sha256") is not None:
            wrong.append(f"{folder / where}: no run here, expected part {name!r}")
        return absent
    wrong += inner["wrong"]
    return {
        **facts,
        "complete": inner["state"] == "complete",
        **{key: inner[key] for key in ("state", "generator", "steps", "run_id", "warnings")},
    }


def _lineage(doc: Mapping[str, Any]) -> dict[str, Any]:
    cases = [_mapping(case) for case in _list(doc.get("cases"))]
    return {
        "dataset": doc.get("dataset"),
        "fold": doc.get("fold"),
        "cases": len(cases),
        "subjects": len({case.get("subject") for case in cases}),
        "ancestors": [_lineage(_mapping(parent_run)) for parent_run in _list(doc.get("ancestors"))],
    }


def _last_values(metrics: Path, wrong: list[str]) -> dict[str, float]:
    if not metrics.is_file():
        return {}
    last: dict[str, float] = {}
    try:
        with metrics.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {k: float(v) for k, v in row.items() if k and isinstance(v, str)}
                last.update({k: v for k, v in values.items() if math.isfinite(v)})
    except (ValueError, csv.Error) as error:
        wrong.append(f"{metrics}: cannot be read to its end: {error}")
    return last


def _files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    def there(path: Path) -> str | None:
        return str(path) if path.exists() else None

    weights = _mapping(manifest.get("weights")).get("path")
    sheets = [path for name in ("preview", "step-*") for path in folder.glob(f"samples/{name}.png")]
    return {
        "report": there(folder / "report.html"),
        "card": there(folder / "card.md"),
        "config": there(folder / "config.yaml"),
        "manifest": there(folder / MANIFEST),
        "weights": there(folder / str(weights)) if weights else None,
        "metrics": there(folder / "metrics.csv"),
        "curves": there(folder / "samples" / "curves.png"),
        "sheets": [str(path) for path in sorted(sheets)],
        "samples": [str(path) for path in sorted(folder.glob("samples/seed-*"))],
        "evaluation": there(folder / "evaluation" / "report.html"),
        "turing": [str(path) for path in sorted(folder.glob("turing/*")) if path.is_dir()],
        "logs": [str(path) for path in sorted(folder.glob("logs/*")) if path.is_dir()],
        "bytes": folder_bytes(folder),
    }


def _note(wrong: list[str], do: Callable[[], Any]) -> Any:
    """Call a function; a fault becomes a line, and None is returned."""
    try:
        return do()
    except GansynthError as error:
        wrong.append(str(error))
    except (KeyError, TypeError, AttributeError) as error:
        wrong.append(f"{MANIFEST}: damaged: {type(error).__name__}: {error}")
    return None


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
