"""``gansynth show``: print where the files of a run are, and what is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.requests.data import ShowRequest
from gansynth.runtime.errors import IntegrityFault
from gansynth_cli.common import Hint, Output, examples, summary, table, then
from gansynth_cli.requests import request_command
from gansynth_cli.results import then_augment

SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def show(request: ShowRequest, document: dict[str, Any], out: Output) -> None:
    """Print it, and raise if something is wrong."""
    out.result(document, _lines(document))
    if wrong := len(document["wrong"]):
        raise IntegrityFault(f"{request.run}: {wrong} thing(s) wrong; see the lines above")


command = request_command(
    ShowRequest,
    "gansynth.sampling.api:run_show",
    show,
    epilog=examples(
        "gansynth show runs/g0",
        "gansynth show runs/g0 --verify-lineage --root /data/nnunet",
    ),
)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    # The options are in config.yaml and --json.
    apart = ("files", "checkpoints", "parts", "wrong", "warnings", "lineage", "options")
    lineage = document["lineage"]
    facts = {k: v for k, v in document.items() if k not in apart and v not in (None, [], {})}
    facts["lineage"] = {k: v for k, v in lineage.items() if k != "ancestors"}
    for number, parent_run in enumerate(lineage["ancestors"], 1):
        facts[f"ancestor {number}"] = {k: v for k, v in parent_run.items() if k != "ancestors"}
    yield from summary(facts)
    yield ""
    yield from table(_places(document["files"]))
    if document["checkpoints"] and document["steps"] is not None:
        yield ""
        yield from table(
            (
                "checkpoint",
                f"step {checkpoint['step']}",
                size_text(checkpoint["bytes"]),
                "whole" if checkpoint["whole"] else "damaged",
                checkpoint["path"],
            )
            for checkpoint in document["checkpoints"]
        )
    if document["parts"]:
        yield ""
        yield from table(
            ("part", part["name"], part["generator"] or "-", part["state"], part["path"] or "-")
            for part in document["parts"]
        )
    for line in document["warnings"]:
        yield f"warning  {line}"
    for line in document["wrong"]:
        yield f"wrong  {line}"
    if document["state"] == "complete":
        run = Path(document["run"])
        yield then_augment(run) if document["files"]["evaluation"] else then("evaluate", run)
    elif document["state"] == "unfinished":
        yield Hint("next: the command that began the fit, which goes on from its checkpoint")


def _places(files: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, paths in files.items():
        if name == "bytes":
            yield "in all", size_text(paths)
        elif isinstance(paths, list):
            if paths:
                note = f" (newest of {len(paths)})" if len(paths) > 1 else ""
                yield name, f"{paths[-1]}{note}"
        elif paths:
            yield name, paths


def size_text(size: int) -> str:
    """Return bytes as text: ``1.5 MiB``."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {SIZES[unit]}" if unit else f"{size} bytes"
