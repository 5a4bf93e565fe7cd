"""Doncenco's recipe at full size on a GPU: memory of real steps."""

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Stage
from gansynth.core.schema import Schema
from gansynth.fitting.recipe import find_recipe
from gansynth.runtime.options import split_settings
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.options import CGAN3DOptions
from gansynth_cgan3d.whole import CGAN3D

pytestmark = pytest.mark.usefixtures("real_cuda")
SIZE = (64, 240, 240)
SCHEMA = Schema(
    ("flair", "t1", "t1ce", "t2"),
    {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4},
    (1.5, 1.0, 1.0),
)


def batches(step: int, stage: Stage, which: range) -> Batch:
    rng = np.random.default_rng(step)
    image = torch.from_numpy(rng.standard_normal((len(which), 4, *SIZE), np.float32).clip(-1, 1))
    labels = torch.zeros(len(which), *SIZE, dtype=torch.int64)
    labels[:, 20:40, 100:140, 100:140] = 2
    asked = labels.roll(20, -1)
    body = torch.ones_like(labels)
    return Batch(
        image, labels, body * (labels == 0), asked=asked, asked_context=body * (asked == 0)
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["SN", "local-perceptual"])
def test_doncencos_step_stays_below_10_gb_with_checkpointing_and_bf16(device, name):
    spec = find_recipe("doncenco2022").spec
    own = next(run.set for run in spec.runs if run.name == name)
    settings = {key: str(value) for key, value in {**spec.set, **own}.items()}
    settings |= {"steps": "4", "checkpointing": "yes", "precision": "bf16"}
    settings["fit_edits"] = "transplant:pairs=any"
    loop, options = split_settings(settings, FitOptions, CGAN3DOptions, generator="cgan3d")
    torch.manual_seed(0)
    generator = CGAN3D(SCHEMA, SIZE, options)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)  # of other tests in this process
    report = train(generator, batches, loop, device=device)
    assert report.steps == 4
    assert torch.cuda.max_memory_allocated(device) - before < 10e9
