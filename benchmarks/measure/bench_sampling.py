"""CPU milliseconds a sample, from the draw of its condition to its file in a bank; one thread.

Phantoms of four channels for nnU-Net, and their slices of one channel; runs of two steps of each
generator, kept in ``--home``. The ``--first`` samples do not count: they read cases, learn priors
and prepare the cases' backgrounds, four for each of 8 cases. Printed for each run: CPU milliseconds
a sample (all, those in the generator, and those from the finished sample to its file; of the first
ones alone), of volumes those of nnU-Net's own augmentation of a sample, with its default trainer's
transforms in turn with the batches, and the ratio; rejected samples, memory before and after
the counted samples, a SHA-256 over all of them, by which two commits are compared, and CPU seconds
of the fit, if the run was not there: ``--as`` names the state, and other states in the result stay.

With ``--held SHARE`` only this share of the cases fits into memory, and others are read again.

With ``--producers N`` instead: samples a second of a real producer that fills a bank, by the times
of its files.

    python benchmarks/measure/bench_sampling.py --home FOLDER --as NAME [--classes 2d 64 128]
    python benchmarks/measure/bench_sampling.py --home FOLDER --as NAME --producers 2
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_draws import augmentation, middle_of
from common import known_states, print_table, write
from hosts import PLANS, fit_generator, prepare_data

from gansynth.bank.producer import ProducerConfig
from gansynth.bank.store import BankSpec, BankWriter
from gansynth.bank.supervisor import ProducerSupervisor
from gansynth.core.intake import intake_of
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.batches import CaseCache
from gansynth.runtime.errors import DataFault
from gansynth.sampling.quality_gate import validate_sample
from gansynth.sampling.replay import noted, settings_of
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import open_drawer

SPACING = {"64": 2.5, "128": 1.25}  # mm, of the phantoms
RUNS = {
    "cgan3d whole": "cgan3d",
    "cgan3d lesion": "cgan3d-lesion",
    "copypaste": "copypaste",
    "parametric": "parametric",
}
BATCH = 4
TIMES = 8  # augmentations after each batch: most leave out most transforms


def request_of(size: str, home: Path) -> SourceRequest:
    """The phantoms of a class, preprocessed by nnU-Net when they are first asked for."""
    root = home / ("64" if size == "2d" else size)
    if not (root / "ready").exists():
        prepare_data(root, int(root.name), spacing=SPACING[root.name])
        (root / "ready").touch()
    told = {"configuration": "3d_fullres", "plans": PLANS, "root": str(root)}
    if size != "2d":
        return SourceRequest("nnunet", "999", **told)
    read = {"resize": "64x64", "foreground": "with", "min_foreground": "20", "slices": "30%-70%"}
    view = {"channels": ("FLAIR",)}
    return SourceRequest("slices", "nnunet:999", read=read, view=view, **told)


def measured(
    run: Path, source: CaseSource, count: int, first: int, held: float | None
) -> dict[str, Any]:
    """Draw, check, note and write samples as a producer does, after some that do not count.

    ``held``: share of the cases that the cache has room for; None: of its usual size.
    """
    cache = CaseCache(source)
    if held is not None:
        case = source.load(source.train_ids[0])
        assert case.labels is not None
        size = len(source.train_ids) * (case.image.nbytes + case.labels.nbytes)
        cache = CaseCache(source, int(held * size))
    intake = intake_of("nnunet", source) if source.request.kind == "nnunet" else None
    sampler, _ = open_drawer(
        source, intake, RunFolder(run), SampleRequest(), device="cpu", cache=cache
    )
    generator, settings = sampler.run.generator, settings_of(sampler, BATCH, "float16", None)
    drawn, inner = [0.0], generator.sample

    def timed(*words: Any) -> Any:
        begin = time.thread_time()
        samples = inner(*words)
        drawn[0] += time.thread_time() - begin
        return samples

    generator.sample = timed  # type: ignore[method-assign]
    spec = BankSpec(
        source.schema,
        sampler.lineage,
        "run",
        "f" * 64,
        False,
        BATCH,
        samples=sampler.request,
    )
    augment = HostAugmentation(source) if intake is not None else None
    digest, rejected, stored_ms = hashlib.sha256(), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        writer = BankWriter.create(Path(folder) / "bank", spec)
        spent = spent_before = before = 0.0
        for index in range(0, first + count, BATCH):
            if index == first:
                spent_before, before = spent, resident()
                spent, stored_ms, drawn[0] = 0.0, 0.0, 0.0
                rejected.clear()
            begin = time.thread_time()
            samples = sampler.draw(index, BATCH)
            finished = time.thread_time()
            for number, sample in enumerate(samples, index):
                try:
                    stored = validate_sample(sample, spec.schema, ())
                except DataFault as fault:
                    rejected[str(fault)[:60]] += 1
                    continue
                extras = {} if intake is None else intake.finalise(sample)
                told = replace(stored, provenance={**sample.provenance, "index": number})
                told = noted(told, settings)
                writer.publish(told, extras)
                if index >= first:
                    digest.update(told.provenance["sha256"].encode())
            spent += time.thread_time() - begin
            stored_ms += time.thread_time() - finished
            if augment is not None and index >= first:
                augment.measure(samples[-1])
        writer.close()
    row = {
        "shape": list(samples[-1].image.shape),
        "samples": count,
        "ms": round(1000 * spent / count, 1),
        "generator_ms": round(1000 * drawn[0] / count, 1),
        "to_file_ms": round(1000 * stored_ms / count, 1),
        "first": first,
        "first_ms": round(1000 * spent_before / max(first, 1), 1),
    }
    if augment is not None:
        row["host_augmentation_ms"] = round(augment.mean_ms, 1)
        row["over_host_augmentation"] = round(1000 * spent / count / augment.mean_ms, 2)
    return row | {
        "rejected": sum(rejected.values()),
        "mib": [round(before), round(resident())],
        "sha256": digest.hexdigest(),
    }


def filled(run: Path, source: CaseSource, producers: int, count: int, first: int) -> dict[str, Any]:
    """Let a producer fill a bank; its samples a second after some that do not count."""
    target = "nnunet" if source.request.kind == "nnunet" else ""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bank, log = Path(folder) / "bank", Path(folder) / "log"
        config = ProducerConfig(
            run=str(run),
            request=source.request.to_json(),
            target=target,
            bank=str(bank),
            frozen=True,
            capacity=first + count,
            producers=producers,
            device="cpu",
        )
        with ProducerSupervisor(config, log) as supervisor:
            supervisor.wait(first + count, timeout=1800)
            times = sorted(file.stat().st_mtime for file in bank.glob("sample-*"))
    return {"samples": count, "a_second": round(count / (times[-1] - times[first - 1]), 1)}


class HostAugmentation:
    """nnU-Net's own augmentation of one sample of a batch, timed."""

    def __init__(self, source: CaseSource) -> None:
        patch = source.patch_size  # type: ignore[attr-defined]
        self._transforms, self._initial = augmentation(patch)
        self._seconds: list[float] = []

    @property
    def mean_ms(self) -> float:
        """CPU milliseconds of one augmentation."""
        return 1000 * sum(self._seconds) / len(self._seconds)

    def measure(self, sample: Sample) -> None:
        """Augment the middle of a sample ``TIMES`` times."""
        assert sample.labels is not None
        image, labels = middle_of(sample.image, sample.labels, self._initial)
        for _ in range(TIMES):
            begin = time.thread_time()
            self._transforms(image=image.clone(), segmentation=labels.clone())
            self._seconds.append(time.thread_time() - begin)


def resident() -> float:
    """Memory of this process, MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    """Fit what is missing, measure, and write the state beside others."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--as", dest="state", required=True)
    parser.add_argument("--classes", nargs="+", default=["2d", "64"])
    parser.add_argument("--runs", nargs="+", default=list(RUNS))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--first", type=int, default=400, help="samples that do not count")
    parser.add_argument("--held", type=float, help="share of the cases that memory has room for")
    parser.add_argument("--producers", type=int)
    parser.add_argument("--name", default="sampling")
    args = parser.parse_args()
    if args.first % BATCH or args.samples % BATCH:
        parser.error(f"--first and --samples: expected multiples of {BATCH}, samples of a batch")
    torch.set_num_threads(1)
    states = known_states(args.name)
    for size in args.classes:
        source = open_source(request_of(size, args.home.resolve()))
        for name in args.runs:
            run = args.home.resolve() / f"{size} {name}"
            fitted, begin = not run.exists(), time.process_time()
            if fitted:
                fit_generator(source, run, RUNS[name])
            spent = round(time.process_time() - begin, 1)
            if args.producers:
                row = filled(run, source, args.producers, args.samples, args.first)
                name += f", {args.producers} producers"
            else:
                row = measured(run, source, args.samples, args.first, args.held)
                row |= {"fit_seconds": spent} if fitted else {}
            states.setdefault(args.state, {})[f"{size} {name}"] = row
            print_table([(f"{size} {name}", *row.values())])
            write(args.name, {"states": states})


if __name__ == "__main__":
    main()
