"""``cgan3d`` cut off and resumed: equal to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth.core.generator import Generator
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.runtime.errors import IntegrityFault
from gansynth.testing import ToySource
from gansynth.training import checkpoint
from gansynth.training.checkpoint_manager import Callbacks
from gansynth.training.loop import FitOptions, train
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
    says = r"step-00000001: .*first net/discriminator/down\.0.*, expected .* into a new folder, -o$"
    with pytest.raises(IntegrityFault, match=says):
        train(*cgan(d_width=8), options(steps=2), folder=tmp_path)


@pytest.mark.parametrize(("key", "value"), [("device", "NVIDIA H100"), ("tf32", "convolutions")])
def test_another_device_and_its_tf32_are_told(tmp_path, key, value):
    train(*cgan(), options(steps=1), folder=tmp_path)
    state = tmp_path / "checkpoints" / "step-00000001" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), key: value}))
    report = train(*cgan(), options(steps=2), folder=tmp_path)
    assert f"resumed with {key} " in report.notes[0]
    assert f" instead of {value}: the run goes on" in report.notes[0]


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


@pytest.mark.gpu
def test_a_gpu_trains_too(tmp_path):
    generator, batches = cgan(3)
    train(generator, batches, options(), device=torch.device("cuda"), folder=tmp_path)
    assert generator.device.type == "cuda"
    assert all(v.isfinite().all() for v in newest(tmp_path).values())
