"""The paper's comparison: a detector on real slices, and on real and synthetic ones.

Both arms are trained by the documented command, ``gansynth augment --target yolo``, at 1:0 and at
R:S, on real slices of the same data set; the generator has seen its training slices only. Then
``gansynth detections`` prints the paper's table: mAP, sensitivity and false positives per slice at
both overlaps, sensitivity at equal false positives, FROC; on the validation slices and, where there
are any, on the test slices. Seeds are of the detector and of what is drawn; the generator is one.

``--equal steps`` (the usual) trains the real arm for more epochs, as many steps as the other has;
``--equal epochs`` shows each real slice as often in both, so the other arm has more steps. On a CPU
in minutes this shows that the way works; whether synthetic slices help is a matter of hours.

    python benchmarks/bench_detector_gain.py [--data phantoms figshare] [--detector libreyolo]
        [--ratio 2813:4000] [--equal steps|epochs] [--epochs 30] [--imgsz 128] [--seeds 0 1 2]
        [--steps 6000] [--run NAME=FOLDER ...] [-o FOLDER] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from common import print_table, write
from yolo_data import DataSet, data_sets

FIT = {"batch_size": "16", "stage_images": "4000", "fade_images": "4000"}
TINY = {"width": "4", "max_width": "16", "stage_images": "32", "fade_images": "32"}
FILES = {"val": "gansynth_detections.json", "test": "gansynth_detections_test.json"}
ARMS = ("real", "both")


def gansynth(*words: object) -> str:
    """Run a command; what it printed."""
    line = [sys.executable, "-m", "gansynth_cli", *map(str, words)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"gansynth {' '.join(map(str, words))}: exit code {done.returncode}")
    return done.stdout


class Comparison:
    """Both arms on one data set, by one detector.

    Args:
        data: the data set.
        detector: trains on it.
        run: folder of the generator's run; fitted here if there is none.
        home: folder for everything else.
        args: of the command line.
    """

    def __init__(
        self, data: DataSet, detector: str, run: Path, home: Path, args: argparse.Namespace
    ) -> None:
        self.data, self.detector, self.run, self.home, self.args = data, detector, run, home, args
        self.commands: list[str] = []

    def call(self, *words: object) -> str:
        """Run a command and remember it, without this machine's folders."""
        said = " ".join(map(str, words))
        for folder in (self.home, self.run.parent):
            said = said.replace(f"{folder}/", "")
        self.commands.append(f"gansynth {said}")
        return gansynth(*words)

    def fit(self) -> None:
        """Fit the generator, if there is none."""
        args = self.args
        if (self.run / "manifest.json").exists():
            return
        settings = {**FIT, **(TINY if args.tiny else {}), "steps": str(args.steps)}
        options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
        size = ("--read", f"size={args.size}x{args.size}")
        self.call("fit", "cpggan", *self.data.data, *size, "-o", self.run, *options)

    def train(self, arm: str, seed: int) -> tuple[Path, dict[str, Any]]:
        """Train one arm; its folder and what the command reported."""
        args = self.args
        out = self.home / f"{self.data.name}-{self.detector}-{arm}-{seed}"
        settings = {
            "epochs": self.epochs(arm), "imgsz": args.imgsz, "batch": args.batch,
            "workers": args.workers, "device": args.device, "output": out,
        }  # fmt: skip
        options = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
        ratio = "1:0" if arm == "real" else args.ratio
        report = self.call(
            "augment", "--target", "yolo", *self.data.data, "--generator", self.run, "--ratio",
            ratio, "--detector", self.detector, "--seed", seed, *options, "--json",
        )  # fmt: skip
        return out, json.loads(report)

    def epochs(self, arm: str) -> int:
        """Of both arms so that they have as many steps, or show real slices as often."""
        real, synthetic = map(float, self.args.ratio.split(":"))
        more = 1 + synthetic / real if self.args.equal == "steps" and arm == "real" else 1
        return round(more * self.args.epochs)

    def seed(self, seed: int) -> dict[str, Any]:
        """Both arms at one seed, and the paper's table of them."""
        trained = {arm: self.train(arm, seed) for arm in ARMS}
        tables = {}
        for split, file in FILES.items():
            paths = [f"{arm}={folder / file}" for arm, (folder, _) in trained.items()]
            if all((folder / file).is_file() for folder, _ in trained.values()):
                out = self.home / f"{self.data.name}-{self.detector}-table-{split}-{seed}"
                found = self.call("detections", *paths, "--paper", "-o", out, "--json")
                print(gansynth("detections", *paths, "--paper", "-q"))
                tables[split] = {k: v for k, v in json.loads(found).items() if k != "files"}
        drawn = {
            arm: {k: told[k] for k in ("drawn_real", "drawn_synthetic", "fell_back")}
            for arm, (_, told) in trained.items()
        }
        return {"seed": seed, "drawn": drawn, "tables": tables}

    def document(self) -> dict[str, Any]:
        """All seeds."""
        self.fit()
        seeds = [self.seed(seed) for seed in self.args.seeds]
        return {
            "data": self.data.name,
            "note": self.data.note,
            "detector": self.detector,
            "epochs": {arm: self.epochs(arm) for arm in ARMS},
            "seeds": seeds,
            "over_seeds": over_seeds(seeds),
            "commands": self.commands,
        }


def over_seeds(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means and ranges over seeds of what the paper's table has, by split, arm and overlap."""
    found: dict[str, Any] = {}
    for split in FILES:
        tables = [seed["tables"][split] for seed in seeds if split in seed["tables"]]
        for number, arm in enumerate(ARMS if tables else ()):
            arms = [table["arms"][number] for table in tables]
            values = {"map": [one["map"]["value"] for one in arms]}
            for iou in arms[0]["at"]:
                for key in ("sensitivity", "fps_per_slice"):
                    values[f"{key} {iou}"] = [one["at"][iou][key]["value"] for one in arms]
            found[f"{split} {arm}"] = {name: spread(numbers) for name, numbers in values.items()}
    return found


def spread(numbers: Sequence[float | None]) -> dict[str, float] | None:
    """Mean, least and most; None where a number is missing."""
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    return {"mean": mean(known), "least": min(known), "most": max(known)}


def main() -> None:
    """Compare on every data set asked for that is at hand, by every detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["phantoms", "figshare"])
    parser.add_argument("--detector", nargs="+", default=["libreyolo"])
    parser.add_argument("--ratio", default="2813:4000")
    parser.add_argument("--equal", choices=["steps", "epochs"], default="steps")
    parser.add_argument("--epochs", type=int, default=30, help="of the arm with synthetic slices")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=64, help="of the generator's images")
    parser.add_argument("--steps", type=int, default=6000, help="of the generator's fit")
    parser.add_argument("--run", nargs="*", default=[], metavar="NAME=FOLDER", help="fitted runs")
    parser.add_argument("-o", "--out", type=Path, help="keep everything here")
    parser.add_argument("--subjects", type=int, default=20, help="phantoms")
    parser.add_argument("--name", default="detector_gain")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; no results")
    args = parser.parse_args()
    if args.tiny:
        args.epochs, args.imgsz, args.seeds, args.size, args.steps = 1, 64, [0], 32, 20
    runs = {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in args.run)}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(args.out or scratch).absolute()
        for data in data_sets(args.data, home, subjects=args.subjects, tiny=args.tiny):
            run = runs.get(data.name, home / f"run-{data.name}-{args.size}").absolute()
            for detector in args.detector:
                results.append(Comparison(data, detector, run, home, args).document())
                print_table(rows(results[-1:]))
    how = {"ratio": args.ratio, "equal": args.equal, "imgsz": args.imgsz, "batch": args.batch}
    if not args.tiny:
        write(args.name, {**how, "results": results})
    print_table(rows(results))


def rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each data set, detector, split and arm: means over seeds."""
    lines: list[tuple[object, ...]] = []
    for result in results:
        for key, values in result["over_seeds"].items():
            if not lines:
                lines.append(("data", "detector", "split, arm", *values))
            told = ["-" if v is None else f"{v['mean']:.3f}" for v in values.values()]
            lines.append((result["data"], result["detector"], key, *told))
    return lines or [("nothing",)]


if __name__ == "__main__":
    main()
