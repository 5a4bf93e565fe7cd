"""Are lesions as large as training lesions: drawn in the training pictures, and in other people's?

Of each draw of training people, ``parametric`` draws samples in their own pictures and in those of
the others that show no lesion. Printed are median and 90 % quantile of the sizes of lesions, as
shares of those of the training pictures.

    python benchmarks/measure/bench_lesion_sizes.py NAME=FOLDER=SUBJECTS ... [--people 5]
        [--draws 8] [--samples 100] [--as STATE]

FOLDER has images/ and labels/; SUBJECTS is a regular expression with one group.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import known_states, print_table, write
from gain_unlabelled import shows_tissue

from gansynth.core.schema import LabelArray, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.connected_components import parts
from gansynth.fitting.command import fit
from gansynth.sampling.loaded_run import load
from gansynth.sampling.run_source import open_source

LEAST = 4  # pixels of the smallest part that counts as a lesion
AT = (0.5, 0.9)


def sizes(maps: Iterable[LabelArray | None], schema: Schema) -> np.ndarray:
    """Return the pixels of each lesion."""
    found = [part.voxels for labels in maps if labels is not None for part in parts(labels, schema)]
    return np.array([size for size in found if size >= LEAST])


def write_draw(folder: Path, ill: list[str], free: list[str], out: Path) -> None:
    """Copy the training pictures of some people, and lesion-free pictures of the others."""
    for kind, cases, kinds in (("ill", ill, ("images", "labels")), ("free", free, ("images",))):
        for part in kinds:
            (out / kind / part).mkdir(parents=True)
            for case in cases:
                shutil.copy(folder / part / f"{case}.png", out / kind / part)


def draw(
    folder: Path, source: CaseSource, subjects: str, number: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the shares of sizes of one draw of people."""
    rng = np.random.default_rng(number)
    people = defaultdict(list)
    for case in source.train_ids:
        people[source.header(case).subject].append(case)
    bare = {case for case in source.train_ids if not args.maps[case].any()}
    names = sorted(name for name in people if not bare.issuperset(people[name]))
    chosen = rng.choice(names, args.people, replace=False).tolist()
    ill = [case for name in chosen for case in people[name]]
    others = sorted(case for case in bare if source.header(case).subject not in chosen)
    others = [case for case in others if shows_tissue(source.load(case).image)]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        write_draw(folder, ill, others, out)
        data = f"pictures:{out / 'ill'}"
        fit("parametric", data=data, subjects=subjects, fold="all", out=out / "run", quiet=True)
        run = load(out / "run")
        real = np.quantile(sizes([args.maps[case] for case in ill], source.schema), AT)
        found: dict[str, Any] = {"training": real.tolist()}
        scans: dict[str, Any] = {
            "unlabelled": f"pictures:{out / 'free'}",
            "backgrounds": "unlabelled",
        }
        for where, words in (("own", {}), ("others", scans)):
            drawn = run.sample(args.samples, **words)
            taken = [one for one in drawn if not one.provenance.get("reject_reason")]
            each = sizes([one.labels for one in taken], source.schema)
            found[where] = {
                "shares": (np.quantile(each, AT) / real).round(3).tolist(),
                "rejected": len(drawn) - len(taken),
                "lesions": len(each),
            }
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER=SUBJECTS")
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--as", dest="state", default="now")
    args = parser.parse_args()
    results: dict[str, object] = {}
    for text in args.data:
        name, where, subjects = text.split("=", 2)
        source = open_source(SourceRequest("pictures", where, subjects=subjects, fold="all"))
        args.maps = {case: source.labels_of(case) for case in source.train_ids}
        rows = [draw(Path(where), source, subjects, n, args) for n in range(args.draws)]
        results[name] = rows
        table = []
        for kind in ("own", "others"):
            shares = np.array([row[kind]["shares"] for row in rows])
            errors = (
                shares.std(axis=0, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else [0, 0]
            )
            rejected = np.mean([row[kind]["rejected"] for row in rows]) / args.samples
            below = int((shares[:, 0] < 1).sum())
            middle = [
                f"{m:.2f} ({e:.2f})" for m, e in zip(shares.mean(axis=0), errors, strict=True)
            ]
            table.append([kind, *middle, f"{below} of {len(rows)}", f"{rejected:.0%}"])
        head = [name, "median (SE)", "90 % quantile (SE)", "smaller in", "rejected"]
        print_table([head, *table])
    write("lesion_sizes", {"states": known_states("lesion_sizes") | {args.state: results}})


if __name__ == "__main__":
    main()
