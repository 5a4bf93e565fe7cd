"""What synthetic cases cost the real DeepMedic: its subepochs stock, and at R:S from a live bank.

Rounds alternate two trainings of the same configuration, with as many cases, segments and steps in
every subepoch: the user's checkout by itself on real cases, and ``gansynth augment --deepmedic`` at
R:S with a producer on the same processor. Seconds are DeepMedic's own ("TIMING"): drawing a
subepoch (reading cases, inserting patches, cutting segments; without the first, for which nothing
was drawn ahead), training on it, and the whole training. TensorFlow has one thread on both sides:
the producer needs a core, and one thread too many would be measured instead.

    GANSYNTH_DEEPMEDIC=FOLDER [GANSYNTH_DEEPMEDIC_PYTHON=PYTHON]
        python benchmarks/measure/bench_deepmedic.py
        --data deepmedic:trainConfig.cfg --model modelConfig.cfg --generator RUN [--ratio 1:1]
        [--rounds 3] [--subepochs 6] [--cases 4] [--segments 200] [--offline]
        [--name deepmedic]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import print_table, ratio, write

SAMPLING = re.compile(r"TIMING: Sampling for next \[Training\] lasted: ([\d.]+) secs")
TRAINING = re.compile(r"TIMING: Training on batches of this subepoch #\d+ lasted: ([\d.]+) secs")
NUMBERS = ("subepochs", "cases", "segments")
WHOLE = re.compile(r"TIMING: Training process lasted: ([\d.]+) secs")
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(words: Sequence[object], **more: str) -> str:
    """Run a command; all that it said."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ONE_THREAD, **more},
    )
    if done.returncode != 0:
        raise SystemExit(f"{words}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


class Pair:
    """Both trainings.

    Args:
        args: of the command line.
        home: folder for everything.
    """

    def __init__(self, args: argparse.Namespace, home: Path) -> None:
        self.args, self.home = args, home
        self.checkout = Path(os.environ["GANSYNTH_DEEPMEDIC"])
        self.python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", sys.executable)

    def stock(self, number: int) -> str:
        """The checkout by itself, on a configuration with real cases only."""
        folder = self.home / f"stock-{number}"
        config = self._config(folder)
        words = [self.checkout / "deepMedicRun", "-model", self.args.model, "-train", config]
        here = {"PYTHONPATH": str(self.checkout), "PYTHONDONTWRITEBYTECODE": "1"}
        return run([self.python, *words, "-dev", "cpu"], **here)

    def mixed(self, number: int) -> str:
        """The same checkout with synthetic cases."""
        args, out = self.args, self.home / f"mixed-{number}"
        words = [
            sys.executable, "-m", "gansynth_cli", "augment", "--target", "deepmedic", "--data",
            args.data, "--generator", args.generator, "--ratio", args.ratio, "--deepmedic",
            self.checkout, "--deepmedic-python", self.python, "-o", out, "--set", "epochs=1",
            *(word for key in NUMBERS for word in ("--set", f"{key}={getattr(args, key)}")),
            *(("--offline",) if args.offline else ()), "--", "-model", args.model, "-dev", "cpu",
        ]  # fmt: skip
        told = run(words)
        record = json.loads((out / "gansynth_session.json").read_text("utf-8"))
        self.record = record["sessions"][-1]
        return told

    def _config(self, folder: Path) -> Path:
        """The user's configuration, each real case listed until there are as many as loaded."""
        from gansynth.core.source import SourceRequest
        from gansynth_deepmedic.layout import TRAIN, write_layout
        from gansynth_deepmedic.source import open_deepmedic

        args = self.args
        source = open_deepmedic(SourceRequest.parse(args.data))
        cases = [source.host_case(case) for case in source.train_ids]
        repeats, rest = divmod(args.cases, len(cases))
        if rest:
            raise SystemExit(f"--cases {args.cases}: expected a multiple of {len(cases)}")
        values = {
            "numberOfEpochs": 1,
            "numberOfSubepochs": args.subepochs,
            "numOfCasesLoadedPerSubepoch": args.cases,
            "numberTrainingSegmentsLoadedOnGpuPerSubep": args.segments,
            "folderForOutput": str(folder),
        }
        folder.mkdir(parents=True)
        write_layout(source, folder, cases * repeats, values)
        return folder.absolute() / TRAIN


def seconds(told: str) -> dict[str, list[float]]:
    """What DeepMedic says of its time; of drawing without the first, which waits for nobody."""
    return {
        "draw": [float(s) for s in SAMPLING.findall(told)][1:],
        "train": [float(s) for s in TRAINING.findall(told)],
        "whole": [float(s) for s in WHOLE.findall(told)],
    }


def main() -> None:
    """Alternate, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--generator", type=Path)
    parser.add_argument("--ratio", default="1:1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subepochs", type=int, default=6)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--offline", action="store_true", help="a full bank, and no producer")
    parser.add_argument("--name", default="deepmedic")
    args = parser.parse_args()
    if not (args.data and args.model and args.generator):
        print("skipped: name --data, --model and --generator; docs/deepmedic.md says what they are")
        return
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        pair = Pair(args, Path(scratch))
        for number in range(args.rounds):
            sides = ("stock", "mixed") if number % 2 == 0 else ("mixed", "stock")
            rounds.append({side: seconds(getattr(pair, side)(number)) for side in sides})
            print_table(rows(rounds))
        drawn = {key: pair.record[key] for key in ("drawn", "supply")}
    flat = {
        (side, key): [value for one in rounds for value in one[side][key]]
        for side in ("stock", "mixed")
        for key in ("draw", "train", "whole")
    }
    compared = {
        key: ratio(flat["mixed", key], flat["stock", key]) for key in ("draw", "train", "whole")
    }
    bank = "a full" if args.offline else "a live"
    write(
        args.name,
        {"bank": bank, "rounds": rounds, "mixed_over_stock": compared, "last_round": drawn},
    )
    for key, found in compared.items():
        print(f"{key}: {found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})")


def rows(rounds: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Medians of each round."""
    lines: list[tuple[object, ...]] = [("round", "side", "draw s", "train s", "whole s")]
    for number, one in enumerate(rounds):
        for side, found in one.items():
            each = (median(found[key]) if found[key] else "-" for key in ("draw", "train", "whole"))
            lines.append((number, side, *each))
    return lines


if __name__ == "__main__":
    main()
