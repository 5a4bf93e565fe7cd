import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Stage, move
from gansynth.core.schema import Boxes, Condition, Schema
from gansynth.training.loop import FitOptions, train
from gansynth_cpggan.model import CPGGAN, CPGGANOptions
from tests.gpu.conftest import apart
from tests.pretend_cuda.environment import PRETENDS
from tests.training.zoo.members import loop, member, toy_batches

ASKED = Boxes(np.array([[2, 3, 7, 9], [9, 9, 14, 13]], np.float32), np.array([0, 1], np.int16))
CARD = 11 * 2**30
"""Bytes of a card that 256 x 256 voxels are to be trained on."""


def grown(device: torch.device) -> CPGGAN:
    """Fresh weights, drawn from at full size."""
    made = member("cpggan")
    assert isinstance(made, CPGGAN)
    made.painter.grown.fill_(len(made.growth.edges) - 1)
    move(made, device)
    made.precision = "fp32"
    return made


@pytest.mark.parametrize("name", ["cpggan", "wgan_gp_mask"])
def test_samples_are_the_same_to_the_bit_in_any_company(device, name):
    """They are drawn in batches of one size, whatever is asked for."""
    generator = grown(device) if name == "cpggan" else member(name)
    move(generator, device)
    boxed = ASKED if name == "cpggan" else None
    conditions = [Condition(boxes=boxed if i % 2 else None) for i in range(5)]
    together = generator.sample(conditions, list(range(5)))
    for seed in (3, 0):
        alone = generator.sample([conditions[seed]], [seed])[0]
        np.testing.assert_array_equal(alone.image, together[seed].image)
        np.testing.assert_array_equal(alone.labels, together[seed].labels)


def test_gpu_and_cpu_draw_nearly_the_same(device):
    one, two = (
        grown(where).sample([Condition(boxes=ASKED)], [3])[0].image
        for where in (device, torch.device("cpu"))
    )
    assert apart(one, two) < 0.02


@pytest.mark.parametrize("precision", ["fp32", "bf16"][PRETENDS:])
def test_it_grows_goes_on_amid_a_fade_and_heeds_boxes(device, tmp_path, precision):
    for steps in (14, 18):  # in its second fade
        made, chosen = member("cpggan"), loop("cpggan", steps=steps, precision=precision)
        report = train(made, toy_batches("cpggan"), chosen, device=device, folder=tmp_path)
    assert (report.resumed_at, report.notes, report.rollbacks) == (14, [], 0)
    asked = [Condition(boxes=ASKED), Condition()]
    one, other = (s.image for s in made.sample(asked, [1, 1]))
    assert np.isfinite(one).all()
    assert not np.allclose(one, other)


def test_lesions_are_learnt_and_blended(device):
    torch.manual_seed(0)
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("one", "two"))
    growth = {"width": 4, "max_width": 8, "stage_images": 4, "fade_images": 4}
    own = CPGGANOptions.model_validate({**growth, "mode": "roi", "roi_size": 16})
    made = CPGGAN(schema, (64, 64), own)
    image = torch.rand(4, 1, 64, 64)
    boxes = torch.tensor([[[20.0, 20, 30, 28]]]).expand(4, 1, 4)

    def batches(step: int, stage: Stage, which: range) -> Batch:
        return Batch(image, boxes=boxes, box_labels=torch.zeros(4, 1, dtype=torch.int64))

    chosen = FitOptions(steps=6, batch_size=4)
    report = train(made, batches, chosen, device=device)
    assert report.rollbacks == 0
    background = np.ones((1, 64, 64), np.float32)
    asked = Condition(boxes=Boxes(boxes[0].numpy(), np.zeros(1, np.int16)), background=background)
    sample = made.sample([asked], [0])[0]
    changed = (sample.image != background)[0]
    assert changed.any()
    assert not changed[:10].any()


@pytest.mark.usefixtures("real_cuda")
def test_256_voxels_fit_a_small_card(device):
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("one",))
    made = CPGGAN(schema, (256, 256), CPGGANOptions(stage_images=1, fade_images=0))
    boxes = torch.tensor([[[20.0, 20, 60, 60]]]).expand(16, 1, 4)

    def batches(step: int, stage: Stage, which: range) -> Batch:
        labels = torch.zeros(16, 1, dtype=torch.int64)
        return Batch(torch.rand(16, 1, 256, 256), boxes=boxes, box_labels=labels)

    torch.cuda.reset_peak_memory_stats(device)
    chosen = FitOptions(steps=9, batch_size=16, precision="fp32")
    train(made, batches, chosen, device=device)
    assert torch.cuda.max_memory_allocated(device) < 0.8 * CARD
