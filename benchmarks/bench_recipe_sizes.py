"""What the papers' recipes take at full size: parameters, FLOPs, memory, time, beside the papers'.

Each is the dry run that a user types (``gansynth fit cgan3d --recipe NAME --dry-run --json``), on
phantoms: a recipe's frame is the paper's, whatever the size of the cases. Memory is simulated, as
on a GPU, for each precision with and without checkpointing (``docs/decisions/027``); time is
measured on this machine, or extrapolated by FLOPs from smaller steps.

    python benchmarks/bench_recipe_sizes.py [--only doncenco2022 ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common import print_table, write

RECIPES: Mapping[str, tuple[str, ...]] = {
    "shin2018": (),
    "doncenco2022": ("SN", "plain", "local-perceptual"),
    "mmgan2020": ("pool",),
    "mmgan2020-liver": (),
}
"""Recipe -> its sets; none where it is one run."""
KEYS = (
    *("parameters", "flops_per_step", "flops_total", "memory_predicted_mib", "memory_variants"),
    *("seconds_per_step", "time_from", "why"),
)


def gansynth(*words: object) -> str:
    """What a command prints."""
    line = [sys.executable, "-m", "gansynth_cli", *map(str, words)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"gansynth {' '.join(map(str, words))}: exit code {done.returncode}")
    return done.stdout


def data_of(recipe: str, home: Path) -> list[str]:
    """``--data`` on phantoms, made if they are not there."""
    kinds = ["livers"] if recipe.endswith("liver") else ["brats"]
    kinds += ["tissues"] if recipe == "shin2018" else []
    for kind in kinds:
        if not (home / kind).is_dir():
            gansynth("demo", "--phantoms", kind, "--fast", "-o", home / kind)
    words = ["--data", f"nifti:{home / kinds[0] / kinds[0]}"]
    return words + (["--with", f"tissues=nifti:{home}/tissues/tissues"] if kinds[1:] else [])


def dry_run(recipe: str, home: Path) -> dict[str, Any]:
    """The report of a dry run."""
    only = [word for name in RECIPES[recipe] for word in ("--only", name)]
    words = ["fit", "cgan3d", "--recipe", recipe, *data_of(recipe, home), *only, "--dry-run"]
    found: dict[str, Any] = json.loads(gansynth(*words, "-o", home / "none", "--json"))
    return found


def networks(name: str, report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each network that is trained: a set's, or a part's of one; with what the paper reports."""
    told = report.get("paper", {})
    for kind in ("sets", "parts"):
        if kind in report:
            for own, below in report[kind].items():
                yield from networks(f"{name} {own}", {"paper": told, **below})
            return
    paper = {k: v for k, v in told.items() if isinstance(v, (int, float))}
    yield name, {**{k: report[k] for k in KEYS if k in report}, "paper": paper}


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each network."""
    head = (
        "recipe",
        "G",
        "D",
        "TFLOP a step",
        "bf16 MiB",
        "bf16 ckpt",
        "fp32",
        "fp32 ckpt",
        "s a step",
    )
    rows: list[tuple[object, ...]] = [head]
    for name, one in found.items():
        sizes = one["parameters"]
        memory = {(v["precision"], v["checkpointing"]): v for v in one["memory_variants"]}
        kinds = [(p, c) for p in ("bf16", "fp32") for c in (False, True)]
        each = [memory.get(kind, {}).get("memory_mib", "-") for kind in kinds]
        million = [f"{sizes.get(n, 0) / 1e6:.1f} M" for n in ("generator", "discriminator")]
        work, seconds = one["flops_per_step"] / 1e12, one["seconds_per_step"]
        rows.append((name, *million, f"{work:.2f}", *each, f"{seconds:.2g}"))
    return rows


def main() -> None:
    """Dry runs of every recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--name", default="recipe_sizes")
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as home:
        for recipe in args.only:
            found.update(networks(recipe, dry_run(recipe, Path(home))))
            print_table(lines(found))
    write(args.name, {"networks": found})


if __name__ == "__main__":
    main()
