"""How long should ``cgan3d-lesion`` be fitted to few patients? Look of its lesions by steps.

``--people`` patients to fit to, drawn by a seed, all others to compare with. For each length a fit
of its own; then the report of ``gansynth evaluate``: edge, contrast, halo and grain of lesions
(``--metric appearance``) beside the range of other patients' medians, and whether samples copy
training images (``--only memorisation``).

    python benchmarks/scripts/gain_data.py lgg --source SET -o FOLDER
    python benchmarks/scripts/bench_lesion_length.py pictures:FOLDER --subjects REGEX --as NAME
    python benchmarks/scripts/bench_lesion_length.py nifti:VOLUMES --as NAME --set patch=16x48x48
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, gansynth, print_table, write

STEPS = (100, 400, 1500)
LOOKS = ("edge", "contrast", "halo", "grain 1", "grain 2", "grain 3", "grain 4")
LOOK = re.compile(rf" ({'|'.join(LOOKS)})$")  # after a channel's name
NAME = "lesion_length"


def splits_of(
    data: str, subjects: str | None, people: int, seed: int = 0
) -> list[dict[str, list[str]]]:
    """One fold: the cases of some people with a lesion to train on, those of all others apart."""
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source

    name, _, where = data.partition(":")
    source = open_source(SourceRequest(name, where, "all", subjects=subjects))
    shown = {}
    for case in source.train_ids:
        labels = source.load(case).labels
        shown[case] = labels is not None and bool(labels.any())
    person = {case: source.header(case).subject for case in shown}
    ill = sorted({person[case] for case, lesion in shown.items() if lesion})
    chosen = set(np.random.default_rng(seed).permutation(ill)[:people].tolist())
    train = [case for case in shown if person[case] in chosen]
    return [{"train": train, "val": [case for case in shown if person[case] not in chosen]}]


def looks_of(run: Path) -> dict[str, Any]:
    """What the evaluation says of lesions' looks and of copies."""
    words = ("--only", "realism", "--only", "memorisation", "--metric", "appearance", "-n", "96")
    gansynth("evaluate", str(run), *words, "--no-pictures", quiet=True)
    document = json.loads((run / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    figures = {}
    for figure in document["figures"]:
        found = LOOK.search(figure["name"])
        if found:
            keys = ("value", "real", "real_low", "real_high")
            figures[found[1]] = {key: figure[key] for key in keys}
    if not figures:
        raise SystemExit(f"evaluate gave no figure of the look of lesions: {document['figures']}")
    inside = [f["real_low"] <= f["value"] <= f["real_high"] for f in figures.values()]
    return {
        "figures": figures,
        "within_the_range_of_other_people": sum(inside),
        "of": len(inside),
        "copies": document["memorisation"],
    }


def main() -> None:
    """Fit every length, and evaluate it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="SOURCE:WHERE, as gansynth fit takes it")
    parser.add_argument("--subjects")
    parser.add_argument("--as", dest="state", required=True, help="name of the set in the result")
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="of the fits")
    args = parser.parse_args()
    known = RESULTS / f"{NAME}.json"
    sets = json.loads(known.read_text(encoding="utf-8"))["sets"] if known.exists() else {}
    rows = {}
    with tempfile.TemporaryDirectory() as home:
        splits = Path(home) / "splits.json"
        splits.write_text(json.dumps(splits_of(args.data, args.subjects, args.people)))
        data = ["--data", args.data]
        if args.subjects:
            data += ["--subjects", args.subjects]
        for steps in args.steps:
            run = Path(home) / f"steps{steps}"
            begun = time.perf_counter()
            words = ["--read", f"splits={splits}", "--set", f"steps={steps}", "-o", str(run)]
            for setting in args.settings:
                words += ["--set", setting]
            gansynth("fit", "cgan3d-lesion", *data, *words, quiet=True)
            rows[str(steps)] = {"fit_seconds": round(time.perf_counter() - begun), **looks_of(run)}
            print(steps, json.dumps(rows[str(steps)]["figures"]), flush=True)
    sets[args.state] = {"people": args.people, "settings": args.settings, "steps": rows}
    write(NAME, {"sets": sets})
    table = []
    for steps, row in rows.items():
        shown = [
            f"{figure['value']:.2f} ({figure['real']:.2f})" for figure in row["figures"].values()
        ]
        table.append([steps, row["fit_seconds"], *shown])
    print_table([["steps", "seconds", *rows[str(args.steps[0])]["figures"]], *table])


if __name__ == "__main__":
    main()
