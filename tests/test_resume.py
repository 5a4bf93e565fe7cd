"""``cgan3d`` cut off and resumed, by its own end or by kill -9: equal to the bit."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth import checkpoint
from gansynth.curves import read_metrics
from gansynth.errors import IntegrityFault
from gansynth.generator import Generator
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.testing import ToySource
from gansynth.training import Callbacks, FitOptions, train
from gansynth_cgan3d.model import CGAN3D, CGANOptions

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2}


def cgan(ndim: int = 2, **changes: Any) -> tuple[Generator, CaseBatches]:
    source = ToySource(ndim)
    torch.manual_seed(0)
    options = CGANOptions.model_validate({**TINY, **changes})
    generator = CGAN3D(source.schema, source.space.size, options)
    return generator, CaseBatches(CaseCache(source), source.space)


def options(**changes: Any) -> FitOptions:
    plain = {"steps": 4, "batch_size": 1, "precision": "fp32", "checkpoint_every": 2}
    return FitOptions.model_validate({**plain, "log_every": 1, **changes})


def newest(folder: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return found.tensors


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []


@pytest.mark.parametrize(("ndim", "precision"), [(3, "fp32"), (2, "fp32"), (2, "bf16")])
def test_a_resumed_run_equals_one_that_was_never_cut_off(tmp_path, ndim, precision):
    train(*cgan(ndim), options(steps=5, precision=precision), folder=tmp_path / "whole")
    for steps in (3, 5):
        torch.manual_seed(steps)  # whatever state another process starts in
        generator, batches = cgan(ndim)
        cut = options(steps=steps, precision=precision)
        report = train(generator, batches, cut, folder=tmp_path / "cut")
    assert report.resumed_at == 3
    assert_same(newest(tmp_path / "cut"), newest(tmp_path / "whole"))


def test_a_checkpoint_holds_weights_averages_moments_and_spectral_norms(tmp_path):
    train(*cgan(), options(), folder=tmp_path)
    names = list(newest(tmp_path))
    assert {name.partition("/")[0] for name in names} == {"net", "ema", "optim"}
    for wanted in ("exp_avg_sq", "/step", "weight.0._u"):
        assert any(wanted in name for name in names)


def test_spectral_norms_move_and_so_have_to_be_restored(tmp_path):
    seen = []

    def look(path, step):
        tensors = newest(tmp_path)
        seen.append(next(v.clone() for k, v in tensors.items() if k.endswith("_u")))

    train(*cgan(), options(), folder=tmp_path, callbacks=Callbacks(checkpoint=look))
    assert not torch.equal(*seen)


def test_another_architecture_is_named_by_its_first_tensor(tmp_path):
    train(*cgan(), options(steps=1), folder=tmp_path)
    with pytest.raises(IntegrityFault, match=r"net/discriminator/down\.0.*!= .*expected"):
        train(*cgan(d_width=8), options(steps=2), folder=tmp_path)


def test_another_precision_is_told(tmp_path):
    train(*cgan(), options(steps=1), folder=tmp_path)
    report = train(*cgan(), options(steps=2, precision="bf16"), folder=tmp_path)
    assert len(report.notes) == 1
    assert "precision bf16 instead of fp32" in report.notes[0]


def test_the_checkpoint_resumed_from_is_announced(tmp_path):
    """A run killed between a checkpoint and its manifest would else never catch up."""
    train(*cgan(), options(), folder=tmp_path)
    heard: list[tuple[str, int]] = []
    train(
        *cgan(),
        options(),
        folder=tmp_path,
        callbacks=Callbacks(checkpoint=lambda path, step: heard.append((path.name, step))),
    )
    assert heard == [("step-00000004", 4)]


def test_not_to_resume_starts_anew(tmp_path):
    train(*cgan(), options(), folder=tmp_path)
    assert train(*cgan(), options(), folder=tmp_path, resume=False).resumed_at == 0


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import lightning_fabric, safetensors.torch, torch
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.testing import ToySource
from gansynth.training import FitOptions, train
from gansynth_cgan3d.model import CGAN3D, CGANOptions

STEPS = 30
source = ToySource(2)
read = CaseBatches(CaseCache(source), source.space)

def run(folder, pause, every=1):
    def batches(*key):
        time.sleep(pause)
        return read(*key)
    torch.manual_seed(0)
    options = CGANOptions(width=4, levels=1, d_width=4, d_levels=1)
    loop = dict(steps=STEPS, batch_size=1, precision="fp32", checkpoint_every=every, log_every=1)
    generator = CGAN3D(source.schema, source.space.size, options)
    train(generator, batches, FitOptions(**loop), folder=folder)

def newest(folder):
    return max([int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")], default=0)

folder, rng, kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), []
while len(kills) < 5:
    before = newest(folder / "killed")
    child = os.fork()
    if not child:
        run(folder / "killed", 0.01)
        os._exit(0)
    while newest(folder / "killed") <= before:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended by itself"
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.04))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "ended before it was killed"
    kills.append(newest(folder / "killed"))
run(folder / "killed", 0)
run(folder / "whole", 0, STEPS)
print(*kills)
"""


def test_killed_five_times_it_ends_as_if_never_killed(tmp_path):
    seed = str(random.SystemRandom().randrange(10**6))
    command = [sys.executable, "-c", KILLED, str(tmp_path), seed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    kills = [int(step) for step in done.stdout.split()]
    assert len(kills) == 5
    assert 0 < kills[0] < kills[-1] < 30
    assert_same(newest(tmp_path / "killed"), newest(tmp_path / "whole"))
    assert read_metrics(tmp_path / "killed" / "metrics.csv")["step"] == list(range(1, 31))
    names = [p.name for p in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert sorted(names) == ["step-00000029", "step-00000030"]


@pytest.mark.gpu
def test_a_gpu_trains_too(tmp_path):
    generator, batches = cgan(3)
    train(generator, batches, options(), device=torch.device("cuda"), folder=tmp_path)
    assert generator.device.type == "cuda"
    assert all(v.isfinite().all() for v in newest(tmp_path).values())
