"""Looks at the samples behind a benchmark's arms: faithfulness, diversity, texture.

Of every generator that a benchmark has fitted, and every way in which samples were asked of it:

- faithfulness: Dice of a small segmenter on samples over its Dice on the real training cases. It
  has learnt from the held-out people, whom no generator has seen, and was taught no sample.
- diversity: mean MS-SSIM of pairs of samples, beside that of pairs of real training cases (of
  different people): higher is more alike.
- texture: mean power in eight bands of spatial frequency over real cases', low to high.

    python benchmarks/gain_why.py hippocampus --jobs FOLDER [--samples 24]

FOLDER is the benchmark's own (``-o``). Writes ``gains/NAME/why.json``. Held-out people are read
here after the benchmark's look at them was logged, and nothing is chosen by what is found.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, print_table
from lesion_data import Swapped

from gansynth.benchmark.plan import read_plan
from gansynth.benchmark.running import Asked, open_study
from gansynth.benchmark.specs import Place
from gansynth.benchmark.worker import RUN
from gansynth.own_source import open_source
from gansynth.quality.diversity import pairwise, window_of, windowed
from gansynth.quality.faithfulness import (
    Segmenter,
    SegmenterOptions,
    label_recovery,
    mean_dice,
    train_segmenter,
)
from gansynth.quality.spectrum import spectrum_ratio
from gansynth.run import load_run
from gansynth.sampling import SampleDrawer
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache

HERE = Path(__file__).parent / "gains"
PAIRS = 256


class Looker:
    """Everything that is asked of a run's samples; one judge for all runs of a benchmark.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self._judge: Segmenter | None = None

    def look(self, run: Path, edits: Sequence[str]) -> dict[str, Any]:
        """What samples of a run are like, asked for by some edits."""
        opened = load_run(run, "cpu")
        source = open_source(opened.request)
        space, schema = opened.space, opened.generator.schema
        drawer = SampleDrawer(opened, source, edits or None, 1, judged=False)
        samples = [s for i in range(self.args.samples) for s in drawer.draw_raw(i, 1)]
        # Crops are around the foreground, as samples are.
        cases = [space.to_generator(source.load(case)) for case in source.train_ids]
        judge = self._judge = self._judge or self._taught(source, space, schema)
        pairs = [(s.image, s.labels) for s in samples if s.labels is not None]
        real = [(c.image, c.labels) for c in cases if c.labels is not None]
        found = label_recovery(judge, real, pairs, schema)
        window = window_of([image for image, _ in real])
        rng = np.random.default_rng(0)
        people = [source.subject(case) for case in source.train_ids]
        alike = {
            "samples": pairwise(windowed([i for i, _ in pairs], window), PAIRS, rng),
            "real": pairwise(windowed([i for i, _ in real], window), PAIRS, rng, owners=people),
        }
        power = spectrum_ratio([i for i, _ in pairs], [i for i, _ in real], schema.spacing)
        lost = [mean_dice(judge.predict(i), t, schema.foreground) for i, t in pairs]
        return {
            "faithfulness": {k: _told(v) for k, v in found.items()},
            "dice_of_samples": {"least": _told(min(lost)), "most": _told(max(lost))},
            "ms_ssim": {side: _told(one.mean) for side, one in alike.items()},
            "power_over_real": [[_told(v) for v in row] for row in power.tolist()],
        }

    def _taught(self, source: Any, space: Any, schema: Any) -> Segmenter:
        """A segmenter that has learnt from the held-out people."""
        batches = CaseBatches(CaseCache(Swapped(source)), space, seed=0)
        options = SegmenterOptions(steps=self.args.judge_steps)
        return train_segmenter(batches, schema, space.size, options)


def _told(value: Any) -> Any:
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def look_at(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every arm with a generator, at every size and draw."""
    file = HERE / f"{args.name}.yaml"
    plan = read_plan(file, args.data)
    study = open_study(plan, Asked(file=file, folder=args.jobs, sealed=True))
    looker, rows = Looker(args), []
    for arm in plan.arms:
        for n in plan.sizes if arm.generator is not None else ():
            for draw in range(plan.draws):
                place = Place(arm.name, n, draw, 0)
                fit = study.design.fit_of(place)
                run = study.store.folder / (fit.key if fit else "") / RUN
                if arm.candidate or fit is None or not run.is_dir():
                    continue
                rows.append({"arm": arm.name, "n": n, "draw": draw, **looker.look(run, arm.edits)})
                print_table([line(rows[-1])])
    return rows


def line(row: Mapping[str, Any]) -> tuple[object, ...]:
    """One row for people."""
    faithful, alike = row["faithfulness"], row["ms_ssim"]
    power = " ".join(f"{v:.2f}" for v in row["power_over_real"][0])
    return (
        *(row["arm"], row["n"], row["draw"], faithful["synthetic_over_real"]),
        *(alike["samples"], alike["real"], power),
    )


def main() -> None:
    """Look, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the plan")
    parser.add_argument("--jobs", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--data", metavar="KIND:WHERE")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--judge-steps", type=int, default=400)
    args = parser.parse_args()
    rows = look_at(args)
    how = {"samples": args.samples, "judge_steps": args.judge_steps}
    document = {
        "command": f"python benchmarks/gain_why.py {args.name} --jobs FOLDER",
        "machine": machine(),
        **how,
        "rows": rows,
    }
    path = HERE / args.name / "why.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    head = ("arm", "N", "draw", "faithful/real", "MS-SSIM", "of real", "power over real")
    print_table([head, *map(line, rows)])


if __name__ == "__main__":
    main()
