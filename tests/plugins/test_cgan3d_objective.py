"""``cgan3d``'s losses and turns: every option through the real loop, and what it does."""
# mypy: disallow-untyped-calls=False

import math
from typing import Any

import pytest
import torch

from gansynth.core.generator import Batch, Stage, Step
from gansynth.core.schema import Schema
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import parse
from gansynth.testing import check_generator
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.model import CGAN3D, CGANOptions

SIZE = (13, 18)
TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2}
SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "organ": 1}, (1.0, 1.0), "HW", True, (-2.5, 0.1))

OPTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"loss": "nonsaturating", "pool": 2}, set()),
    ({"loss": "hinge", "r1": 1, "r1_every": 2}, {"discriminator/r1"}),
    ({"loss": "wgan", "gp": 10, "spectral_norm": False}, {"discriminator/gp"}),
    ({"loss": "wgan", "clip_weights": 0.01, "n_critic": 2}, set()),
    ({"alternate": True, "d_norm": "batch"}, set()),
    ({"perceptual": 1}, {"generator/perceptual", "perceptor/cross_entropy"}),
    ({"augment": "flip, contrast", "augment_p": "adaptive"}, set()),
    ({"l1_mask": "foreground", "checkpointing": True, "g_spectral_norm": True}, set()),
    ({"gp": 1, "r1": 1, "checkpointing": True, "augment": "cutout"}, {"discriminator/gp"}),
]


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return CGAN3D(SCHEMA, SIZE, CGANOptions.model_validate({**TINY, **options}))


def batch(which: range) -> Batch:
    rngs = [torch.Generator().manual_seed(i) for i in which]
    image = torch.stack([torch.randn(2, *SIZE, generator=rng) for rng in rngs])
    return Batch(image, torch.stack([torch.randint(-1, 2, SIZE, generator=rng) for rng in rngs]))


def step(which: range = range(2), total: int = 2, index: int = 0) -> Step:
    rng = torch.Generator().manual_seed(5)
    return Step(batch(which), Stage(), index, 0, rng, 5, first=which.start, total=total)


def run(generator: CGAN3D, steps: int = 4) -> Any:
    loop = FitOptions(steps=steps, batch_size=2, precision="fp32", ema_half_life=0, log_every=steps)
    return train(generator, lambda index, stage, which: batch(which), loop)


def weights(generator: Any, player: str) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(generator.nets[player].parameters()).detach()


@pytest.mark.parametrize(("options", "terms"), OPTIONS, ids=range(len(OPTIONS)))
def test_it_trains_with_every_option(options, terms):
    generator = build(**options)
    before = {player: weights(generator, player) for player in generator.nets}
    losses = run(generator).losses
    assert {"generator/adversarial", "discriminator/adversarial", *terms} <= set(losses)
    assert all(math.isfinite(value) for value in losses.values())
    assert all((weights(generator, player) != old).any() for player, old in before.items())


@pytest.mark.parametrize(
    "options",
    [
        {"perceptual": 1, "gp": 1, "r1": 1, "dropout": 0.5},
        {"augment": ["flip", "translation", "brightness"], "augment_p": 0.7, "pool": 1},
        {"alternate": True, "l1_mask": "foreground"},
    ],
    ids=str,
)
def test_a_batch_that_is_shared_out_comes_to_the_same(options):
    """What is random belongs to samples, so halves average to the whole."""
    whole, halves = (build(**options, spectral_norm=False) for _ in range(2))
    shares = [step(range(2), 4), step(range(2, 4), 4)]
    together = step(range(4), 4)
    for one, other in zip(whole.phases(), halves.phases(), strict=True):
        expected = one.loss(together)
        parts = [other.loss(share) for share in shares]
        for name, value in expected.items():
            mean = sum(part[name].item() for part in parts) / 2
            assert mean == pytest.approx(value.item(), rel=1e-4), name


# -- turns -----------------------------------------------------------------------------------------


def due(generator: Any, player: str) -> list[int]:
    phases = [phase for phase in generator.phases() if phase.player == player]
    return [index for index in range(6) if any(phase.due(index) for phase in phases)]


@pytest.mark.parametrize(
    ("options", "generators", "discriminators"),
    [
        ({}, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
        ({"alternate": True}, [1, 3, 5], [0, 2, 4]),
        ({"n_critic": 3}, [2, 5], [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
def test_players_take_their_turns(options, generators, discriminators):
    generator = build(**options)
    assert due(generator, "generator") == generators
    assert due(generator, "discriminator") == discriminators


def test_the_discriminator_judges_the_image_the_generator_drew():
    generator, now = build(), step()
    generator.phases()[0].loss(now)
    drawn = now.scratch["fake"]
    assert generator.objective._fake(now)[0] is drawn
    assert not drawn.requires_grad


def test_it_draws_one_of_its_own_where_the_generator_does_not_move():
    generator, now = build(alternate=True), step()
    fake, condition = generator.objective._fake(now)
    assert fake.shape == (2, 2, *SIZE)
    assert not fake.requires_grad
    assert torch.equal(condition, generator.objective._condition(now))


# -- terms -----------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """A discriminator that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, pair):
        self.seen.append(pair)
        return [pair[:, :1]], [pair]


def test_the_pool_keeps_images_with_their_conditions():
    generator = build(pool=1)
    generator.nets["discriminator"] = recorder = Recorder()
    for index in range(12):
        now = step(range(1), 1, index)
        now.key = index
        now.scratch["fake"] = torch.full((1, 2, *SIZE), float(index))
        now.scratch["condition"] = torch.full((1, 3, *SIZE), float(index))
        generator.objective.discriminator(now)
    shown = [pair[1] for pair in recorder.seen]
    assert all((pair == pair[0, 0, 0]).all() for pair in shown)
    ages = [index - int(pair[0, 0, 0]) for index, pair in enumerate(shown)]
    assert 0 in ages
    assert max(ages) > 0


def test_a_perfect_image_matches_features_whatever_the_changes(monkeypatch):
    """Real and synthetic pairs must go through the same changes to be compared."""
    generator = build(augment=("flip", "brightness", "cutout"), augment_p=1.0, perceptual=1)
    monkeypatch.setattr(generator.objective, "_draw", lambda now: now.batch.image)
    generator.nets["discriminator"].eval()
    terms = generator.phases()[0].loss(step())
    assert terms["feature_matching"].item() == 0
    assert terms["perceptual"].item() == 0
    assert terms["l1"].item() == 0


def test_changes_reach_what_the_discriminator_sees():
    plain, changed = build(), build(augment=("brightness",), augment_p=1.0)
    for generator in (plain, changed):
        generator.nets["discriminator"] = Recorder()
        now = step()
        now.scratch["fake"] = torch.zeros(2, 2, *SIZE)
        generator.phases()[1].loss(now)
    (one,), (other,) = (g.nets["discriminator"].seen for g in (plain, changed))
    apart = (one - other).flatten(2).std(-1), (one - other).abs().flatten(1).amax(1)
    assert apart[0].max() < 1e-5  # brightness: the same everywhere
    assert apart[1].min() > 0  # real ones as well as synthetic ones
    assert torch.equal(one[:, 2:], other[:, 2:])  # never the condition


def test_masked_l1_looks_at_the_foreground_only(monkeypatch):
    generator, now = build(l1_mask="foreground"), step()
    off = (now.batch.labels[:, None] <= 0).float()  # type: ignore[index]
    monkeypatch.setattr(generator.objective, "_draw", lambda now: now.batch.image + off)
    assert generator.phases()[0].loss(now)["l1"].item() == 0


def test_r1_is_weighted_for_the_steps_in_between():
    values = []
    for every in (1, 8):
        phase = build(r1=2, r1_every=every).phases()[2]
        assert (phase.player, phase.interval) == ("discriminator", every)
        values.append(phase.loss(step())["r1"].item())
    assert values[1] == pytest.approx(8 * values[0], rel=1e-5)
    assert values[0] > 0


def test_weights_are_clipped():
    generator = build(loss="wgan", clip_weights=0.01, spectral_norm=False)
    run(generator, 1)
    assert weights(generator, "discriminator").abs().max() <= 0.01
    assert weights(generator, "generator").abs().max() > 0.01


def test_the_perceptual_segmenter_learns_the_labels():
    generator = build(perceptual=0.1, lr_perceptor=1e-2)
    (phase,) = (p for p in generator.phases() if p.player == "perceptor")
    net = generator.nets["perceptor"]
    optimizer, values = generator.optimizer("perceptor", net.parameters()), []
    now = step()
    now.batch.image[:, 0] += 3 * now.batch.labels  # type: ignore[operator]
    for _ in range(20):
        loss = phase.loss(now)["cross_entropy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]


def test_memories_are_there_to_be_checkpointed():
    generator = build(pool=3, augment="flip", augment_p="adaptive")
    assert set(generator.memories) == {"pool", "augment"}
    assert build().memories == {}


# -- papers ----------------------------------------------------------------------------------------


def test_a_generator_built_like_mm_gan_keeps_the_contract():
    """Sun et al. 2020: spectral norm everywhere, max-pooling, cubic upsampling, tanh, a pool of 4.

    Its generator has no noise; with dropout it draws more than one image of a label map.
    """
    options = {
        "width": 8,
        "levels": 2,
        "d_width": 8,
        "d_levels": 2,
        "down": "maxpool",
        "up": "cubic",
        "skip": "concat",
        "double": True,
        "g_spectral_norm": True,
        "noise": False,
        "dropout": 0.2,
        "output": "tanh",
        "pool": 4,
        "l1": 10,
        "lr_generator": 2e-3,
        "beta1": 0,
        "beta2": 0.9,
    }
    check_generator(CGAN3D, options=options, ndim=(2,), steps=40).raise_if_failed()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alternate": "true", "n_critic": "2"}, "n_critic=1"),
        ({"gp": "1", "d_norm": "batch"}, "d_norm"),
        ({"loss": "wgan", "augment_p": "adaptive"}, "origin"),
        ({"pool": "2", "given": "T1"}, "checkpoints"),
        ({"target": "labels"}, "given"),
        ({"target": "labels", "given": "T1", "perceptual": "1"}, "perceptual=0"),
        ({"augment": "flap"}, "augment"),
    ],
)
def test_contradictions_are_refused(settings, says):
    with pytest.raises(UsageFault, match=says):
        parse(CGANOptions, settings)
