"""A detector's epoch with on-the-fly samples over its epoch with as many real images.

``stock`` is the detector as its library trains it, on 2 n real images, without gansynth. ``frozen``
and ``live`` train on n of them and as many samples, mixed in as ``gansynth augment`` does it: from
a bank that is full, or from one that a producer beside the training keeps fresh, steered to 2 %
overhead. Images are of one size, validation is the same eight, batches are whole, mosaics are on in
every epoch: so an epoch has the same steps and as many images. Each round trains every side in a
process of its own, in turn and the order swapped; an epoch is the time between the ends of two, so
starting up, filling the bank and the first epoch are in none.

    python benchmarks/measure/bench_detector.py [--detector libreyolo ultralytics]
        [--side stock frozen live] [--images 200] [--epochs 4] [--rounds 5] [--workers 0]
        [--device cpu] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from common import paired, print_table, write
from yolo_data import phantoms

if TYPE_CHECKING:
    from gansynth.hosts.contract.session import Session

BAR, TARGET = 1.05, 1.02
HELD_OUT = 8
MOSAIC = {"libreyolo": ["no_aug_epochs=0"], "ultralytics": ["close_mosaic=0"]}
"""Mosaics to the last epoch; usually the last ones, here all, have none, and draw no partners."""


# -- one training, in a process of its own -------------------------------------------------------


class Ends:
    """When each epoch ended."""

    def __init__(self) -> None:
        self.at = list[float]()

    def on_train_epoch_end(self, event: object) -> None:
        """LibreYOLO's callback, stock."""
        self.at.append(time.perf_counter())


def train(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Train one side; seconds of each epoch but the first."""
    import torch

    from gansynth.runtime.child import cpu_threads

    torch.set_num_threads(cpu_threads() if asked["device"] == "cpu" else 1)
    if asked["side"] == "stock":
        ends, said = stock(asked), {}
    else:
        ends, said = mixed(asked)
    return {"epochs": [b - a for a, b in zip(ends.at, ends.at[1:], strict=False)], **said}


def session_of(asked: Mapping[str, Any]) -> Session:
    """The training that ``gansynth augment`` would run."""
    from gansynth.core.requests.hosts import AugmentRequest
    from gansynth.core.source import SourceRequest
    from gansynth.hosts.contract.session import Session
    from gansynth_yolo.source import open_yolo

    keys = ("detector", "epochs", "imgsz", "batch", "workers", "device", "output")
    settings = {key: str(asked[key]) for key in keys}
    request = AugmentRequest(
        target="yolo", generator=asked["run"], ratio="1:0" if asked["side"] == "stock" else "1:1",
        offline=asked["side"] == "frozen", bank_size=asked["bank"], device="cpu", set=settings,
        options=MOSAIC[asked["detector"]],
    )  # fmt: skip
    return Session.of(request, open_yolo(SourceRequest.parse(f"yolo:{asked['data']}")))


def mixed(asked: Mapping[str, Any]) -> tuple[Ends, dict[str, Any]]:
    """Train as ``gansynth augment`` does, in this process."""
    from gansynth.hosts.contract.job import Job
    from gansynth.hosts.contract.record import read_sessions

    ends, rounds = Ends(), Job.end_round

    def timed(job: Job, done: int, **values: float) -> None:
        ends.at.append(time.perf_counter())
        rounds(job, done, **values)

    Job.end_round = timed  # type: ignore[method-assign]
    Path(asked["output"]).mkdir(parents=True)
    session_of(asked).train(None)
    (session,) = read_sessions(Path(asked["output"]))
    drawn = {key: session["drawn"][key] for key in ("real", "synthetic")}
    partners = session["partners"]
    return ends, {"drawn": drawn, "partners": partners["real"] + partners["synthetic"]}


def stock(asked: Mapping[str, Any]) -> Ends:
    """Train with the library's own data set, under the same settings."""
    from gansynth_yolo.mirror import mirror

    training: Any = session_of(asked).opened
    job = training.job
    mirror(training.source, job.data.parent)
    ends = Ends()
    if asked["detector"] == "libreyolo":
        from gansynth_yolo.libre import open_model, settings

        open_model(job, None).train(**settings(job), callbacks=ends)
        return ends
    from gansynth_yolo.agpl.ultra import engine
    from gansynth_yolo.agpl.ultra import settings as told

    engine()
    overrides = told(job)
    from ultralytics.models.yolo.detect import DetectionTrainer

    trainer = DetectionTrainer(overrides=overrides)
    trainer.args.workers = job.workers  # without a GPU it takes none, whatever was asked for
    trainer.add_callback("on_fit_epoch_end", lambda _: ends.at.append(time.perf_counter()))
    trainer.train()
    ends.at = ends.at[: job.epochs]  # it tells once more at the end, of the best weights
    return ends


# -- all of them ---------------------------------------------------------------------------------


def prepare(folder: Path, args: argparse.Namespace) -> dict[str, Path]:
    """``data.yaml`` with 2 n and with n training images, and a generator fitted for two steps."""
    from gansynth.core.source import SourceRequest
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    subjects, spacing = (4, 4.0) if args.tiny else (2 * args.images // 28 + 6, args.spacing)
    made = phantoms(folder / "set", subjects, spacing).file
    home = made.parent
    names = {split: sorted((home / "images" / split).iterdir()) for split in ("train", "val")}
    if len(names["train"]) < 2 * args.images:
        raise SystemExit(f"{len(names['train'])} training images, expected {2 * args.images}")
    parts = {
        "all": names["train"][: 2 * args.images],
        "half": names["train"][: 2 * args.images : 2],
        "few": names["val"][:HELD_OUT],
    }
    for part, paths in parts.items():
        (home / f"{part}.txt").write_text("".join(f"{path}\n" for path in paths), "utf-8")
    files = {}
    for part in ("all", "half"):
        files[part] = home / f"{part}.yaml"
        text = f"train: {part}.txt\nval: few.txt\nnames: [metastasis]\nchannels: 1\n"
        files[part].write_text(text, "utf-8")
    request = SourceRequest.parse(f"yolo:{files['half']}")
    settings = {"steps": "2", "batch_size": "4", **({"width": "4"} if args.tiny else {})}
    fit("cpggan", request, folder / "run", settings=settings, edits=None, reporter=NullReporter())
    return {**files, "run": folder / "run"}


def measured(
    detector: str, files: Mapping[str, Path], args: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """Every side of one detector, round by round."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in args.side}
    for number in range(args.rounds):
        sides = args.side if number % 2 == 0 else args.side[::-1]
        for side in sides:
            with tempfile.TemporaryDirectory(dir=scratch) as output:
                asked = {
                    "side": side, "detector": detector, "output": f"{output}/out",
                    "data": str(files["all" if side == "stock" else "half"]),
                    "run": str(files["run"]), "bank": args.bank, "epochs": args.epochs + 1,
                    "imgsz": args.imgsz, "batch": args.batch, "workers": args.workers,
                    "device": args.device,
                }  # fmt: skip
                found[side].append(child(asked))
    medians = {side: [median(one["epochs"]) for one in runs] for side, runs in found.items()}
    ratios = {
        side: paired(seconds, medians["stock"])
        for side, seconds in medians.items()
        if side != "stock" and "stock" in medians
    }
    return {"detector": detector, "rounds": found, "epoch_seconds": medians, "over_stock": ratios}


def child(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Train in a process of its own; what it printed last."""
    line = [sys.executable, __file__, "--child", json.dumps(asked)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{asked['detector']}, {asked['side']}:\n{done.stderr[-3000:]}")
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def main() -> None:
    """Run every comparison asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", nargs="+", default=["libreyolo", "ultralytics"])
    parser.add_argument("--side", nargs="+", default=["stock", "frozen", "live"])
    parser.add_argument("--images", type=int, default=200, help="real ones; as many synthetic")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm; 1.5 makes 128 x 128")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bank", type=int, default=64, help="samples")
    parser.add_argument("--epochs", type=int, default=4, help="timed ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="detector")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; no results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("\n" + json.dumps(train(json.loads(args.child))))
        return
    if args.tiny:
        args.images, args.imgsz, args.epochs, args.rounds, args.bank = 16, 64, 1, 1, 16
    if 2 * args.images % args.batch:
        # LibreYOLO leaves out a last batch that is not full; where the ratio is kept it may not be.
        parser.error(f"--images {args.images}: expected whole batches of {args.batch}, twice")
    with tempfile.TemporaryDirectory() as scratch:
        files = prepare(Path(scratch), args)
        results = [measured(name, files, args, Path(scratch)) for name in args.detector]
    how = {k: v for k, v in vars(args).items() if k not in ("child", "name", "tiny")}
    if not args.tiny:
        write(args.name, {"bar": BAR, "target": TARGET, **how, "results": results})
    print_table(rows(results))


def rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each detector and side."""
    lines: list[tuple[object, ...]] = [("detector", "side", "epoch s", "over stock", "95 %")]
    for result in results:
        for side, seconds in result["epoch_seconds"].items():
            found = result["over_stock"].get(side)
            ratio = "" if found is None else f"{found['ratio']:.3f}"
            range_ = "" if found is None else f"{found['low']:.3f} to {found['high']:.3f}"
            lines.append((result["detector"], side, median(seconds), ratio, range_))
    return lines


if __name__ == "__main__":
    main()
