from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gansynth.core.generator import capabilities_of
from gansynth.core.schema import Condition
from gansynth.nn.networks.blocks import one_hot
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth_dcgan.model import DCGAN
from tests.plugins import toys
from tests.plugins.toys import FILL, SCHEMA, SIZE, case, cases, step, trained

MASK: dict[str, Any] = {"with_mask": True}
ANY = Condition()


build, seen = partial(toys.build, "dcgan"), partial(toys.seen, "dcgan")


@pytest.mark.parametrize("size", [(30, 21), (13, 17, 10), (5, 40), (3, 3)])
def test_any_size_will_do(size):
    generator = build(size, d_norm="none")
    sample = generator.sample([ANY], [3])[0]
    assert (sample.image.shape, sample.image.dtype) == ((2, *size), np.float32)
    values = generator.nets["discriminator"](torch.from_numpy(sample.image)[None])
    assert values.shape == (1, 1)


def test_foreground_is_asked_for_by_label_maps():
    generator = trained(build(condition="foreground"))
    maps = [np.zeros(SIZE, np.int16), case().labels]
    drawn = generator.sample([Condition(labels=m) for m in maps], [4, 4])
    assert [s.notes["foreground"] for s in drawn] == ["without", "with"]


def test_the_discriminator_sees_what_is_drawn_outside_as_samples_have_it():
    """Else it would know real images by their exact constant."""
    generator = seen(**MASK)
    sure = lambda logits: one_hot(logits.argmax(1), range(logits.shape[1]))  # noqa: E731
    generator.masks.of_logits = sure
    image, probabilities = generator.drawn(torch.randn(8, 8), None)
    outside = probabilities[:, 0] == 1
    assert outside.any()
    fill = generator.intensities.constant(FILL, image)
    assert torch.allclose(image.movedim(1, -1)[outside], fill.flatten(), atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "output"), [("gan", "linear"), ("wgan", "soft"), ("wgan-gp", "soft")]
)
def test_label_channels_saturate_only_where_the_critic_can_pull_them_back(objective, output):
    two: Any = {"labels": {"background": 0, "organ": 1}, "has_outside": False, "outside_fill": None}
    generator = build(spec=replace(SCHEMA, **two), objective=objective, **MASK)
    found = generator.masks.of_logits(torch.tensor([[[5.0]], [[-3.0]]])[None])
    assert generator.masks.outside(found) is None
    shown = generator.masks.shown(found).flatten().tolist()
    assert shown == ([5.0, -3.0] if output == "linear" else pytest.approx([1, -1], abs=1e-2))


def test_a_map_like_no_training_map_or_that_was_made_anew_is_a_flaw():
    """What cleaning leaves of noise may look like a training map."""
    generator = seen(*cases(20), **MASK)
    sample = generator.sample([ANY], [0])[0]
    assert sample.notes["cleaned"] > 0.05
    reject_reason = generator.reject_reason(replace(sample, labels=case().labels))
    told = reject_reason_of(reject_reason)  # the same for every such sample, and whole
    assert told == "too much of the label map had to be cleaned"
    assert reject_reason == sample.notes["label_noise"]
    clean = replace(sample, labels=case().labels, notes={"cleaned": 0.01})
    assert generator.reject_reason(clean) == ""
    assert "expected" in generator.reject_reason(replace(clean, labels=np.zeros(SIZE, np.int16)))


def test_uniform_latents_lie_in_their_cube():
    latent, _ = build(latent_prior="uniform", latent=500)._begun(ANY, 7)
    assert float(latent.min()) < -0.9
    assert 0.9 < float(latent.max()) <= float(latent.abs().max()) <= 1


@pytest.mark.parametrize(
    ("objective", "waits", "expected"),
    [
        ("gan", 1, ("Adam", 2e-4, (0.5, 0.999), "batch")),
        ("wgan", 5, ("RMSprop", 5e-5, None, "batch")),
        ("wgan-gp", 5, ("Adam", 1e-4, (0.0, 0.9), "instance")),
    ],
)
def test_turns_rates_and_norms_are_the_papers(objective, waits, expected):
    generator = build(objective=objective)
    due = [[p.player for p in generator.phases() if p.due(i)] for i in range(2 * waits)]
    turns = [i for i, players in enumerate(due) if "generator" in players]
    assert turns == [waits - 1, 2 * waits - 1]
    assert all("discriminator" in players for players in due)
    made = generator.optimizer("discriminator", generator.nets["discriminator"].parameters())
    found = type(made).__name__, made.defaults["lr"], made.defaults.get("betas"), generator.d_norm
    assert found == expected
    assert build(objective=objective, d_norm="layer").d_norm == "layer"
    assert capabilities_of(DCGAN).loop["batch_size"] == 64


def shown(**options: Any) -> list[Tensor]:
    """What the discriminator sees in a step of its own: real samples, synthetic ones."""
    generator, inputs = seen(**MASK, **options), list[Tensor]()
    note = lambda net, given: inputs.append(given[0].detach().clone())  # noqa: E731
    generator.nets["discriminator"].register_forward_pre_hook(note)
    generator.objective.discriminator(step(generator, cases()))
    return list(inputs[0].chunk(2))


def test_intensity_changes_leave_label_channels_alone_and_spatial_ones_do_not():
    plain, bright, moved = (
        shown(augment=names)[0] for names in ((), ("brightness", "contrast"), ("translation_edge",))
    )
    assert not torch.equal(plain[:, 0], bright[:, 0])
    assert torch.equal(plain[:, 2:], bright[:, 2:])
    assert any(not torch.equal(a, b) for a, b in zip(plain, moved, strict=True))
    lesion = moved[:, -1] > 0
    means = [float(moved[:, 0][m].mean()) for m in (lesion, ~lesion)]
    assert means[0] - means[1] > 0.7
