from pathlib import Path

import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting import cost
from gansynth.fitting.setup import resolve
from gansynth.training.checkpoint import bytes_of
from gansynth.training.loggers import MetricsLog
from gansynth.training.loop import train
from tests.expected import raises_fault

REQUEST = SourceRequest("example", "2d")
SETTINGS = {"steps": "2", "width": "8", "max_width": "16", "n_critic": "1", "precision": "fp32"}


def test_a_batch_that_fills_the_memory_is_refused_before_it_is_made(monkeypatch):
    job = resolve("dcgan", REQUEST, {**SETTINGS, "batch_size": "65536"}, (), "cpu")
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2**20)
    with raises_fault("fitting.batch-exceeds-free-memory"):
        cost.refuse_low_memory(job, 1)


def test_the_bytes_of_a_checkpoint_are_foreseen(tmp_path):
    job = resolve("dcgan", REQUEST, SETTINGS, (), "cpu")
    train(job.generator, job.batches, job.options, folder=tmp_path)
    last = max((tmp_path / "checkpoints").glob("step-*"))
    written = sum(path.stat().st_size for path in last.glob("*.safetensors"))
    assert bytes_of(job.generator.nets) == pytest.approx(written, rel=0.15)


@pytest.mark.fault(31)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_line_of_metrics_that_has_no_room_names_file_and_bytes(tmp_path):
    log = MetricsLog(tmp_path)
    log.add({"loss": 1.0})
    log.write(1, 1, 0.0)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    log.add({"loss": 1.0})
    with raises_fault("files.no-room-to-write"):
        log.write(2, 2, 0.0)
