"""Samples with label maps of their own on their way into a bank; ``gansynth fit dcgan`` killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.producer_main import ProducerConfig, produce
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.null_adapter import NoHost
from gansynth.core.run_folder import read_manifest
from gansynth.core.source import SourceRequest
from gansynth.report.figures import read_metrics
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from tests.training.zoo.members import differing, newest

ROOT = Path(__file__).parents[2]
TINY = {"width": 4, "latent": 8}


def told(run: Path, bank: Path, capacity: int) -> ProducerConfig:
    request = SourceRequest("toy", "2").to_json()
    return ProducerConfig(
        str(run), request, "", str(bank), frozen=True, capacity=capacity, segment_samples=4
    )


def fill(run: Path, bank: Path, capacity: int = 4) -> BankReader:
    """What a producer does, in this process."""
    opened, source = load_run(run, "cpu"), open_source(SourceRequest("toy", "2"))
    drawer, schema = SampleDrawer(opened, source), source.schema
    spec = BankSpec(
        schema, opened.lineage, opened.run_id, opened.manifest_sha256, True, capacity, 4
    )
    with BankWriter.create(bank, spec) as writer:
        config, host = told(run, bank, capacity), NoHost(source)
        produce(
            *(writer, drawer.draw, host.finalise, config),
            stop=lambda: False,
            schema=schema,
            min_size=(),
        )
    return BankReader(bank)


def lenient(run: Path) -> Path:
    """The run without what it has learnt of label maps, so that an untrained one finds no flaw."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["state"]["labels"] = None
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def test_boxes_of_flat_samples_arrive_around_the_labels_that_were_drawn(toy_fit, tmp_path):
    own = {**TINY, "with_mask": "yes"}
    toy_fit(tmp_path / "run", generator="dcgan", own=own, steps=1, batch_size=4, edits=None)
    reader = fill(lenient(tmp_path / "run"), tmp_path / "bank")
    found = [reader.read(sample) for sample in reader.ids()]
    assert len(found) == 4
    boxed = 0
    for sample in found:
        assert sample.labels is not None
        assert sample.boxes is not None
        assert sample.boxes.coords.shape[1] == 2 * sample.labels.ndim == 4
        inside = np.zeros_like(sample.labels)
        for (top, left, bottom, right), label in zip(
            sample.boxes.coords.astype(int), sample.boxes.labels, strict=True
        ):
            part = sample.labels[top:bottom, left:right] == label
            assert part.any(0).all() or part.any(1).all()
            inside[top:bottom, left:right] |= part
            boxed += 1
        assert ((sample.labels > 0) == inside.astype(bool)).all()
    assert boxed > 0


def test_images_alone_are_kept_as_such(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="dcgan", own=TINY, steps=1, batch_size=4, edits=None)
    assert read_manifest(tmp_path / "run")["labelling"] == "none"
    reader = fill(tmp_path / "run", tmp_path / "bank")
    sample = reader.read(reader.ids()[0])
    assert (sample.labels, sample.boxes) == (None, None)
    assert sample.image.ndim == 3


def start(out: Path, objective: str) -> "subprocess.Popen[bytes]":
    """``gansynth fit dcgan`` as a user types it."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    settings: dict[str, Any] = {"steps": 60, "batch_size": 8, "checkpoint_every": 2, "log_every": 1}
    settings |= {**TINY, "width": 16, "objective": objective}
    command = [
        sys.executable,
        "-m",
        "tests.training.zoo.command",
        "fit",
        "dcgan",
        "--with-mask",
        "-q",
    ]
    command += ["--data", "zoo:16", "--device", "cpu", "-o", str(out)]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    output = out.with_suffix(".txt").open("ab")
    with output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)


def end(out: Path, objective: str) -> None:
    assert start(out, objective).wait(100) == 0, out.with_suffix(".txt").read_text()


def kill_between(out: Path, objective: str, step: int) -> int:
    """Kill a run soon after a step's checkpoint; the step of the newest one that is there."""

    def reached() -> int:
        found = (out / "checkpoints").glob("step-*")
        return max((int(path.name[5:]) for path in found), default=-1)

    fit = start(out, objective)
    while reached() < step:
        assert fit.poll() is None, out.with_suffix(".txt").read_text()
        time.sleep(0.001)
    time.sleep(0.01)  # some way into a step
    fit.send_signal(signal.SIGKILL)
    assert fit.wait(60) == -signal.SIGKILL
    return reached()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["gan", "wgan", "wgan-gp"])
def test_a_killed_fit_ends_as_if_it_had_not_been(tmp_path, objective):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    end(whole, objective)
    for step in (3, 30):
        assert kill_between(killed, objective, step) < 60
    end(killed, objective)
    assert differing(newest(killed), newest(whole)) == []
    one, other = (read_manifest(folder) for folder in (whole, killed))
    assert one["weights"]["sha256"] == other["weights"]["sha256"]
    assert one["state"] == other["state"]
    assert list(read_metrics(killed / "metrics.csv")["step"]) == list(range(1, 61))
