"""Results of ``run.sh``: parts into one ``results.json``, and that into a table. Imports no torch.

python benchmarks/gpu/summary.py begin|merge|table OUT
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
Rows = Iterator[tuple[object, ...]]
HEADS = {
    "gan_step": "GAN step beside MONAI's pair of equal FLOPs, batch 1 "
    "| precision | side | ms a step | peak GB | time / MONAI's | first call, s",
    "gan_2d": "2D | GAN, precision | images/s | peak GB",
    "real_fit": "a fit's step, crops of larger cases, batch 2 | threads that read | batches"
    " | ms a step | peak GB",
    "kernels": "a training step | GAN | kernels | copies | waits | ms busy",
    "volume": "one sample | how | s | peak GB | pool GB",
    "doncenco": "Doncenco's recipe, batch 1 | how | s a step | peak GB",
    "live": "nnU-Net on the GPU beside producers | overhead aimed at | samples/s | step / without"
    " | producer resting / without | ms a step without",
    "tests": "tests/gpu | passed | failed | skipped | failures",
}
"""Part -> title and columns of its table."""


def begin(out: Path) -> None:
    """Unpack an earlier ``results.json``, and let Python find the plugins of this source tree."""
    earlier = out / "results.json"
    if earlier.exists():
        for name, part in json.loads(earlier.read_text("utf-8"))["parts"].items():
            path = out / "parts" / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(part), "utf-8")
    if not entry_points(group="gansynth"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        points = list[str]()
        for group, entries in project["entry-points"].items():
            points += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        info = out / "site" / "gansynth-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        head = ["Metadata-Version: 2.1", "Name: gansynth", "Version: 0"]
        for extra, packages in project["optional-dependencies"].items():
            head += [f'Requires-Dist: {package}; extra == "{extra}"' for package in packages]
        (info / "METADATA").write_text("\n".join([*head, ""]))
        (info / "entry_points.txt").write_text("\n".join([*points, ""]))


def merge(out: Path) -> dict[str, Any]:
    """Write ``results.json``: each part that is done, by its name."""
    paths = sorted((out / "parts").glob("*.json"), key=lambda path: _by_number(path.stem))
    parts = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
    unfinished = out / "results.tmp"
    unfinished.write_text(json.dumps({"parts": parts}, indent=1) + "\n", "utf-8")
    os.replace(unfinished, out / "results.json")
    return parts


def _by_number(name: str) -> list[str]:
    return [word.zfill(4) for word in name.split("_")]


def gan_step(doc: dict[str, Any]) -> Rows:
    """A row for each side."""
    size = f"{doc['size']}^3, {doc['shape']}" + (", unmatched" if "unmatched" in doc else "")
    for side, found in doc["sides"].items():
        yield (size, _precision(doc), side, *_time(found, 1e3), *_over_monai(doc, side), _s(found))


def gan_2d(doc: dict[str, Any]) -> Rows:
    """Images a second."""
    beside = f", beside {doc['beside']}" if "beside" in doc else ""
    for side, found in doc["sides"].items():
        speed = doc["batch_size"] / median(found["seconds"]) if "seconds" in found else None
        yield f"{doc['size']}^2, batch {doc['batch_size']}{beside}", side, speed, _gb(found)


def real_fit(doc: dict[str, Any]) -> Rows:
    """A step on cases that are read, and on a constant batch."""
    for side, found in doc["sides"].items():
        yield " x ".join(map(str, doc["size"])), str(doc["threads"]), side, *_time(found, 1e3)


def kernels(doc: dict[str, Any]) -> Rows:
    """What a step has the GPU do."""
    for side, found in doc["sides"].items():
        yield f"{doc['dtype']}, batch {doc['batch_size']}", side, *map(float, found.values())


def volume(doc: dict[str, Any]) -> Rows:
    """Seconds and memory of a large sample."""
    for side, found in doc["sides"].items():
        yield f"{doc['size']}^3", side, *_time(found), found.get("reserved_gb")


def doncenco(doc: dict[str, Any]) -> Rows:
    """A step of the recipe."""
    for side, found in doc["sides"].items():
        yield " x ".join(map(str, doc["size"])), side, *_time(found)


def live(doc: dict[str, Any]) -> Rows:
    """What training and producer do to each other."""
    for p, found in doc["results"].items():
        seconds = median(found["seconds_per_step"]["without"])
        made = found["counted"]["samples_per_second"] if "counted" in found else None
        ratios = (_ratio(found[f"{side}_over_without"]) for side in ("live", "idle"))
        used = found.get("patch", doc.get("patch"))
        patch = f"{p}, patch {'x'.join(map(str, used))}"
        if "generator" in doc:
            patch += f", {doc['producers']} x {doc['generator']}"
        yield patch, f"{doc['budget']:.0%}", made, *ratios, 1e3 * seconds


def tests(doc: dict[str, Any]) -> Rows:
    """Counts of one file."""
    counts = (str(doc[key]) for key in ("passed", "failed", "skipped"))
    yield doc["file"], *counts, "; ".join(doc["lines"]) or (doc["exit_code"] or "")


ROWS = {
    make.__name__: make
    for make in (gan_step, gan_2d, real_fit, kernels, volume, doncenco, live, tests)
}


def _precision(doc: dict[str, Any]) -> str:
    rounded = doc["tf32"] not in (None, "none")
    return f"{doc['dtype']} (TF32: {doc['tf32']})" if rounded else str(doc["dtype"])


def _s(found: dict[str, Any]) -> object:
    return found.get("first_call")


def _gb(found: dict[str, Any]) -> object:
    return found.get("peak_gb") if "seconds" in found else found.get("failed")


def _time(found: dict[str, Any], unit: float = 1) -> tuple[object, object]:
    return median(found["seconds"]) * unit if "seconds" in found else None, _gb(found)


def _over_monai(doc: dict[str, Any], side: str) -> tuple[object]:
    name, comma, tail = side.partition(",")
    found = doc["over_monai"].get(comma + tail)
    return (_ratio(found) if found and name == "cgan3d" else None,)


def _ratio(found: dict[str, float]) -> str:
    return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def table(parts: dict[str, Any]) -> Iterable[str]:
    """Yield the lines of all tables, in Markdown."""
    keys = ("cuda", "gpu_gb", "driver", "torch", "cuda_version", "processor", "cores", "python")
    machines = {tuple(str(part["machine"].get(key)) for key in keys) for part in parts.values()}
    for values in sorted(machines):
        yield ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
    if any(part["machine"].get("pretends") for part in parts.values()):
        yield "\n**A rehearsal on a pretend device: times and memory mean nothing.**"
    for kind, head in HEADS.items():
        rows = [
            row
            for part in parts.values()
            if part["benchmark"].startswith(kind)
            for row in ROWS[kind](part)
        ]
        if rows:
            yield f"\n| {head} |\n{'| --- ' * (head.count('|') + 1)}|"
            yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def main(what: str, folder: str) -> None:
    """Do what ``run.sh`` asks for."""
    out = Path(folder)
    if what == "begin":
        begin(out)
        return
    parts = merge(out)
    if what == "table":
        text = "\n".join(table(parts)) + "\n"
        (out / "table.md").write_text(text, "utf-8")
        print(text, end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
