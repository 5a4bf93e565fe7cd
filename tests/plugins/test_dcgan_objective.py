"""What ``dcgan``'s players minimise and when, and what both of them see."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from gansynth.core.generator import Batch, Stage, Step
from gansynth.core.schema import Schema
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import parse
from gansynth.training.loop import FitOptions, train
from gansynth_dcgan.model import DCGAN, DCGANOptions

SIZE = (16, 16)
SCHEMA = Schema(("T1",), {"background": 0, "organ": 1}, (1.0, 1.0), "HW", classes=("a", "b"))


def build(**options: Any) -> DCGAN:
    torch.manual_seed(0)
    return DCGAN(SCHEMA, SIZE, DCGANOptions.model_validate({"width": 4, "latent": 8, **options}))


def batch(n: int = 4, size: tuple[int, ...] = SIZE) -> Batch:
    rng = torch.Generator().manual_seed(1)
    labels = torch.zeros(n, *size, dtype=torch.int64)
    labels[:, 4:9, 5:11] = 1
    image = torch.randn(n, 1, *size, generator=rng) + labels[:, None]
    return Batch(image, labels, classes=torch.arange(n) % 2)


def step(of: Batch | None = None, index: int = 0) -> Step:
    return Step(of or batch(), Stage(), index, 0, torch.Generator().manual_seed(2))


def losses(generator: DCGAN, at: Step) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for phase in generator.phases():
        found.update({f"{phase.player}/{k}": v for k, v in phase.loss(at).items()})
    return found


def fitted(generator: DCGAN, **loop: Any) -> Any:
    options = FitOptions.model_validate({"steps": 2, "batch_size": 4, "precision": "fp32", **loop})
    return train(generator, lambda step, stage, which: batch(len(which)), options)


class Watched(torch.nn.Module):
    """A discriminator that remembers what it was shown."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, list[Tensor]()

    def forward(self, seen: Tensor, told: Tensor | None = None) -> Tensor:
        """As the inner one."""
        self.seen.append(seen.detach().clone())
        found: Tensor = self.inner(seen, told)
        return found


def shown(generator: DCGAN) -> list[Tensor]:
    """What the discriminator sees in a step of its own: real samples, synthetic ones."""
    watched = Watched(generator.nets["discriminator"])
    generator.nets["discriminator"] = watched
    generator.objective.discriminator(step())
    return list(watched.seen[0].chunk(2)) if len(watched.seen[0]) > 4 else watched.seen[:2]


# -- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "waits"), [("gan", 1), ("wgan", 5), ("wgan-gp", 5)])
def test_the_generator_waits_for_as_many_steps_as_its_paper_says(objective, waits):
    due = [
        [p.player for p in build(objective=objective).phases() if p.due(i)]
        for i in range(2 * waits)
    ]
    assert sum("generator" in players for players in due) == 2
    assert all("discriminator" in players for players in due)
    assert "generator" in due[waits - 1]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("gan", ("Adam", 2e-4, (0.5, 0.999), "batch")),
        ("wgan", ("RMSprop", 5e-5, None, "batch")),
        ("wgan-gp", ("Adam", 1e-4, (0.0, 0.9), "instance")),
    ],
)
def test_rates_and_norms_are_the_papers(objective, expected):
    generator = build(objective=objective)
    parameters = generator.nets["discriminator"].parameters()
    made = generator.optimizer("discriminator", parameters)
    found = type(made).__name__, made.defaults["lr"], made.defaults.get("betas"), generator.d_norm
    assert found == expected


def test_each_player_has_a_rate_of_its_own():
    generator = build(lr_generator=1e-3, lr_discriminator=3e-3, d_norm="layer")
    rates = [
        generator.optimizer(player, generator.nets[player].parameters()).defaults["lr"]
        for player in ("generator", "discriminator")
    ]
    assert rates == [1e-3, 3e-3]
    assert generator.d_norm == "layer"


# -- what is minimised -----------------------------------------------------------------------------


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("objective", ["gan", "wgan", "wgan-gp"])
def test_every_objective_trains_with_finite_losses(objective, with_mask):
    report = fitted(build(objective=objective, with_mask=with_mask, n_critic=2))
    wanted = {"rate", "generator/adversarial", "discriminator/adversarial"}
    assert set(report.losses) == wanted | (
        {"discriminator/penalty"} if objective == "wgan-gp" else set()
    )
    assert report.rollbacks == 0


def test_the_critics_weights_are_clipped():
    generator = build(objective="wgan", clip=0.003)
    fitted(generator)
    largest = max(
        float(p.detach().abs().max()) for p in generator.nets["discriminator"].parameters()
    )
    assert largest == pytest.approx(0.003)


def test_only_wgan_clips():
    generator = build(objective="wgan-gp")
    fitted(generator)
    assert (
        max(float(p.detach().abs().max()) for p in generator.nets["discriminator"].parameters())
        > 0.5
    )


def test_the_penalty_weighs_what_it_is_told():
    one, ten = (
        float(losses(build(penalty=p), step())["discriminator/penalty"].detach()) for p in (1, 10)
    )
    assert ten == pytest.approx(10 * one)


def test_a_step_draws_once_for_both_players():
    at = step()
    generator = build()
    drawn = []
    generator.nets["generator"].register_forward_hook(lambda *_: drawn.append(1))
    losses(generator, at)
    assert len(drawn) == 1


def test_a_discriminators_own_step_moves_no_generator():
    generator = build()
    before = {k: v.clone() for k, v in generator.nets["generator"].named_parameters()}
    fitted(generator, steps=4)
    after = dict(generator.nets["generator"].named_parameters())
    assert all(torch.equal(before[k], after[k]) for k in before)


# -- what is seen ----------------------------------------------------------------------------------


def test_label_channels_stand_behind_the_image_at_their_scale():
    real, fake = shown(build(with_mask=True, mask_scale=0.5))
    assert real.shape == fake.shape == (4, 3, *SIZE)
    labels = batch().labels
    assert labels is not None
    assert torch.equal(real[:, 2], torch.where(labels == 1, 0.5, -0.5))
    assert torch.equal(real[:, 1], -real[:, 2])
    assert torch.allclose(fake[:, 1] + fake[:, 2], torch.zeros(4, *SIZE), atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "output"), [("gan", "linear"), ("wgan", "soft"), ("wgan-gp", "soft")]
)
def test_label_channels_saturate_only_where_the_critic_can_pull_them_back(objective, output):
    generator = build(objective=objective, with_mask=True)
    logits = torch.tensor([[[5.0]], [[-3.0]]])[None]
    found = generator.masks.shown(generator.masks.of_logits(logits)).flatten().tolist()
    assert found == ([5.0, -3.0] if output == "linear" else pytest.approx([1, -1], abs=1e-2))


def test_intensity_changes_leave_label_channels_alone():
    plain, changed = (
        shown(build(with_mask=True, augment=names))[0] for names in ((), ("brightness", "contrast"))
    )
    assert not torch.equal(plain[:, 0], changed[:, 0])
    assert torch.equal(plain[:, 1:], changed[:, 1:])


def test_spatial_changes_meet_image_and_labels_alike():
    plain, changed = (
        shown(build(with_mask=True, augment=names))[0] for names in ((), ("translation_edge",))
    )
    moved = [not torch.equal(a, b) for a, b in zip(plain, changed, strict=True)]
    assert any(moved)
    labels = changed[:, 2] > 0
    means = [float(changed[:, 0][m].mean()) for m in (labels, ~labels)]
    assert means[0] - means[1] > 0.7


def test_an_adaptive_augmentation_is_remembered():
    generator = build(objective="gan", augment=["flip"], augment_p="adaptive")
    assert set(generator.memories) == {"augment"}
    assert not build(augment="flip,cutout").memories


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"d_norm": "batch"}, "use instance, layer or none"),
        ({"augment_p": "adaptive"}, "use a number, or objective=gan"),
        ({"augment_p": "2"}, "less than or equal to 1"),
        ({"augment": "[brigthness]"}, "augment"),
    ],
)
def test_options_that_contradict_are_refused_with_the_way_out(settings, way_out):
    with pytest.raises(UsageFault, match=way_out):
        parse(DCGANOptions, settings)


def test_patches_are_refused():
    generator = build()
    with pytest.raises(UsageFault, match=r"patch=\[8, 8\].*leave patch out"):
        generator.objective.discriminator(step(batch(size=(8, 8))))
