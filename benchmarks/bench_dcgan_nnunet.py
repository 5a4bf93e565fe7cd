"""``dcgan --with-mask`` on MSD's hippocampus, and nnU-Net 2d with and without its samples.

Everything as a user types it: import, preprocess, fit on 2d fold 0, then ``gansynth augment`` at
1:0 and at 1:1 with the same small plans, epochs and seed. Dice is nnU-Net's own, on the fold's real
held-out cases. One training each: no claim about gain can rest on it. What is claimed is that the
samples train nnU-Net, at the ratio that was asked for; and how many were rejected, and why.

    python benchmarks/bench_dcgan_nnunet.py ../shared/data/msd_task04_hippocampus -o FOLDER

FOLDER holds everything, about 1 GB; begun again, what is done there is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import print_table, write

from gansynth.errors import TrainingFault
from gansynth.run import read_manifest

RATIOS = ("1:0", "1:1")
TOLERANCE = 0.02
"""By how much the realised share may miss 1/2."""
COMMAND = "import sys; from gansynth_cli.main import main; sys.argv[0] = 'gansynth'; main()"


class Trial:
    """One folder, with nnU-Net's own folders in it.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, Path(args.out).absolute()
        self.root = self.out / "nnunet"
        self.root.mkdir(parents=True, exist_ok=True)
        self.place = ["--data", "nnunet:004", "-c", "2d", "--plans", "gansynthSmallPlans"]
        self.place += ["--fold", "0", "--root", str(self.root)]

    def run(self, *words: object) -> tuple[dict[str, Any], float]:
        """A gansynth command's JSON document, and its seconds; everything else goes to a log."""
        began, log = time.perf_counter(), self.out / "log.txt"
        environment = {"nnUNet_compile": "f", **os.environ}
        with log.open("ab") as errors:
            done = subprocess.run(
                [sys.executable, "-c", COMMAND, *map(str, words), "--json", "-q"],
                stdout=subprocess.PIPE, stderr=errors, env=environment, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"gansynth {words[0]} ended with {done.returncode}: see {log}")
        found: dict[str, Any] = json.loads(done.stdout or b"{}")
        return found, time.perf_counter() - began

    def prepare(self) -> None:
        """MSD's files as nnU-Net's, preprocessed for 2d, with plans for a small network."""
        if not (self.root / "nnUNet_raw").exists():
            self.run("import", f"msd:{self.args.data}", "nnunet:004", "--root", self.root)
        self.run("prepare", "nnunet:004", "-c", "2d", "--set=small=yes", "--root", self.root)

    def fit(self) -> tuple[dict[str, Any], float]:
        """The generator; where there is one already, its manifest tells its steps."""
        settings = [f"steps={self.args.steps}", f"objective={self.args.objective}"]
        chosen = [f"--set={setting}" for setting in (*settings, *self.args.set)]
        run = self.out / f"run_{self.args.objective}"
        self.generator = run
        return self.run("fit", "dcgan", "--with-mask", *self.place, "-o", run, *chosen)

    def augment(self, ratio: str) -> dict[str, Any]:
        """nnU-Net's training at a ratio, and what it came to."""
        args = self.args
        quick = {
            "num_epochs": args.epochs,
            "num_iterations_per_epoch": args.iterations,
            "num_val_iterations_per_epoch": 5,
        }
        words: list[object] = ["augment", "--target", "nnunet", *self.place, "--ratio", ratio]
        words += [f"--set={key}={value}" for key, value in quick.items()]
        if ratio != "1:0":
            words += ["--generator", self.generator]
        found, seconds = self.run(*words)
        metrics = found["metrics_on_real_cases"]["nnunet_validation"]
        report = {
            "ratio": ratio,
            "seconds": round(seconds, 1),
            "drawn_real": found["drawn_real"],
            "drawn_synthetic": found["drawn_synthetic"],
            "realised_synthetic_share": found["realised_synthetic_share"],
            "fell_back": found["fell_back"],
            "supply": {k: v for k, v in found["supply"].items() if not isinstance(v, str)},
            "dice": metrics["dice"],
            "dice_per_label": metrics["dice_per_label"],
        }
        # nnU-Net's folder says nothing of the ratio, and the next training is another one.
        Path(found["folder"]).rename(
            self.out / f"fold_0_{ratio.replace(':', 'to')}_{time.time():.0f}"
        )
        return report

    def drawn(self, samples: int) -> dict[str, Any]:
        """How many samples a frozen bank took, and why others were rejected."""
        from gansynth._bank_spec import read_heartbeat
        from gansynth.own_bank import fill_bank

        bank = self.out / f"bank_{time.time():.0f}"
        began = time.perf_counter()
        try:
            fill_bank(self.generator, bank, samples)
        except TrainingFault as fault:
            raise SystemExit(f"{self.generator}: {fault}") from fault
        seconds = time.perf_counter() - began
        rejected = dict(read_heartbeat(bank).get("rejected", {}))
        lost = sum(rejected.values())
        return {
            "admitted": samples,
            "rejected": rejected,
            "rejected_share": lost / (samples + lost),
            "seconds": round(seconds, 1),
        }


def main() -> None:
    """Prepare, fit, train twice, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="MSD's task 4")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--objective", default="wgan-gp")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--set", action="append", default=[], help="more settings of the fit")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--name", default="dcgan_nnunet")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"skipped: {args.data} is not there; name the folder of MSD's task 4")
        return
    args.data = args.data.absolute()
    trial = Trial(args)
    trial.prepare()
    fitted, seconds = trial.fit()
    drawn = trial.drawn(64)
    results = {ratio: trial.augment(ratio) for ratio in RATIOS}
    share = results["1:1"]["realised_synthetic_share"]
    manifest = read_manifest(trial.generator)
    document = {
        "dataset": "Dataset004_Hippocampus",
        "configuration": "2d",
        "objective": args.objective,
        "options": manifest["options"],
        "steps": manifest["steps"],
        "fit_seconds": round(seconds, 1),
        "train_cases": fitted["train_cases"],
        "held_out_cases": fitted["held_out_cases"],
        "label_maps": fitted.get("label_maps"),
        "bank": drawn,
        "nnunet": {"num_epochs": args.epochs, "num_iterations_per_epoch": args.iterations},
        "results": results,
        "share_as_asked": abs(share - 0.5) <= TOLERANCE,
        "note": "one training each, one seed: says nothing about gain",
    }
    write(args.name, document)
    rows: list[tuple[object, ...]] = [("ratio", "synthetic share", "fell back", "Dice", "seconds")]
    for ratio, r in results.items():
        seen = (r["realised_synthetic_share"], r["fell_back"], r["dice"], r["seconds"])
        rows.append((ratio, *seen))
    print_table(rows)
    print(f"rejected: {drawn['rejected_share']:.1%} of the samples drawn {drawn['rejected']}")


if __name__ == "__main__":
    main()
