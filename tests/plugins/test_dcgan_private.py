"""``dcgan`` under differential privacy: what each player's gradient is made of."""
# mypy: disallow-untyped-calls=False

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.generator import Batch, Stage, Step
from gansynth.privacy import Terms
from gansynth.private import AT_ONCE
from gansynth.schema import Schema
from gansynth.training import FitOptions, train
from gansynth_dcgan.model import DCGAN, DCGANOptions
from gansynth_dcgan.private import PrivateObjective

pytest.importorskip("opacus", reason="opacus is not installed")
SIZE = (16, 16)
SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW")
EXPECTED, PEOPLE = 4, 10
CLIP = 0.05


def build(noise: float = 0.0, **options: Any) -> DCGAN:
    torch.manual_seed(0)
    own = {"width": 4, "latent": 8, "objective": "gan", "privacy_noise": 1.0}
    made = DCGAN(SCHEMA, SIZE, DCGANOptions.model_validate({**own, **options}))
    assert made.privacy is not None
    made.privacy.terms = Terms(noise, CLIP, EXPECTED / PEOPLE, PEOPLE, 0.01)
    made.privacy.key = b"k" * 32
    return made


def people(n: int = 3) -> Tensor:
    return torch.randn(n, 1, *SIZE, generator=torch.Generator().manual_seed(1))


def step(n: int = 3, index: int = 0) -> Step:
    rng = torch.Generator().manual_seed(2)
    return Step(Batch(people(n)), Stage(), index, 0, rng, total=EXPECTED)


def gradient(generator: DCGAN, at: Step) -> dict[str, Tensor]:
    """The discriminator's, made as the training loop makes it."""
    judge = generator.nets["discriminator"]
    judge.zero_grad()
    phase = next(p for p in generator.phases() if p.player == "discriminator")
    torch.stack(list(phase.loss(at).values())).sum().backward()
    assert phase.gradients is not None
    phase.gradients(at)
    return {k: p.grad.clone() for k, p in judge.named_parameters() if p.grad is not None}


def synthetic(generator: DCGAN) -> Tensor:
    """What the generator draws for a step, by hand."""
    with torch.no_grad():
        latents = torch.randn(EXPECTED, 8, generator=torch.Generator().manual_seed(2))
        return generator.drawn(latents, None)[0]


def fitted(generator: DCGAN, counts: tuple[int, ...], **loop: Any) -> Any:
    """Trained on as many people in each step as are given."""
    options = {"steps": len(counts), "batch_size": EXPECTED, "precision": "fp32", "log_every": 1}
    return train(
        generator,
        lambda index, stage, which: Batch(people(counts[index])),
        FitOptions.model_validate({**options, **loop}),
    )


# -- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["gan", "wgan"])
@pytest.mark.parametrize("norm", ["layer", "instance", "none"])
def test_a_step_is_a_clipped_sum_of_people_and_the_mean_of_samples(objective, norm):
    generator = build(objective=objective, d_norm=norm, n_critic=1)
    judge, drawn = generator.nets["discriminator"], synthetic(generator)
    real: Any = {"gan": lambda v: F.softplus(-v), "wgan": lambda v: -v}[objective]
    fake: Any = {"gan": F.softplus, "wgan": lambda v: v}[objective]
    wanted = {k: torch.zeros_like(p) for k, p in judge.named_parameters()}
    for case in people():
        judge.zero_grad()
        real(judge(case[None])).sum().backward()
        own = {k: p.grad.clone() for k, p in judge.named_parameters() if p.grad is not None}
        norm_of = float(torch.cat([g.flatten() for g in own.values()]).norm())
        for name, value in own.items():
            wanted[name] += value * min(1.0, CLIP / norm_of) / EXPECTED
    judge.zero_grad()
    fake(judge(drawn)).mean().backward()
    for name, parameter in judge.named_parameters():
        assert parameter.grad is not None
        wanted[name] += parameter.grad
    found = gradient(generator, step())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_without_noise_and_clip_it_is_the_plain_objectives_gradient():
    """Of a batch as large as expected."""
    generator = build()
    assert generator.privacy is not None
    generator.privacy.terms = Terms(0.0, 1e6, EXPECTED / PEOPLE, PEOPLE, 0.01)
    found = gradient(generator, step(EXPECTED))
    plain = plain_twin()
    plain.nets["discriminator"].zero_grad()
    loss = plain.objective.discriminator(step(EXPECTED))["adversarial"]
    loss.backward()
    for name, parameter in plain.nets["discriminator"].named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def plain_twin() -> DCGAN:
    torch.manual_seed(0)
    own = {"width": 4, "latent": 8, "objective": "gan", "d_norm": "layer"}
    return DCGAN(SCHEMA, SIZE, DCGANOptions.model_validate(own))


def test_noise_is_on_every_parameter_of_the_discriminator():
    still, noisy = (gradient(build(noise), step()) for noise in (0.0, 1.0))
    assert still.keys() == dict(build().nets["discriminator"].named_parameters()).keys()
    assert all((still[name] != noisy[name]).any() for name in still)


def test_the_generators_step_has_no_real_case_in_it():
    one, other = build(), build()
    phase = next(p for p in one.phases() if p.player == "generator")
    twin = next(p for p in other.phases() if p.player == "generator")
    at, elsewhere = step(3), step(7)
    elsewhere.batch.image *= 100
    assert torch.equal(phase.loss(at)["adversarial"], twin.loss(elsewhere)["adversarial"])
    assert torch.equal(at.scratch["fake"], elsewhere.scratch["fake"])
    assert len(at.scratch["fake"]) == EXPECTED


def test_what_is_reported_depends_on_no_real_case():
    at, elsewhere = step(3), step(0)
    one, other = (build().objective.discriminator(s) for s in (at, elsewhere))
    assert one.keys() == {"synthetic"}
    assert torch.equal(one["synthetic"], other["synthetic"])


@pytest.mark.parametrize("counts", [(3, 0, 5), (AT_ONCE + 2, 1, 0)])
def test_any_number_of_people_may_be_drawn_nobody_too(counts):
    generator = build(1.0)
    report = fitted(generator, counts)
    assert generator.privacy is not None
    assert generator.privacy.steps == len(counts)
    assert report.images == len(counts) * EXPECTED
    assert report.losses["privacy/epsilon"] == generator.privacy.agreed.epsilon(len(counts))


def test_how_many_were_drawn_moves_no_random_number_that_is_not_secret():
    """With augmentation, too: two runs that differ in a person draw the same samples."""
    tried: list[dict[str, Any]] = [{}, {"augment": ["brightness", "translation"]}]
    for options in tried:
        found = []
        for count in (2, 5):
            generator, at = build(**options), step(count)
            generator.objective.discriminator(at)
            assert isinstance(generator.objective, PrivateObjective)
            generator.objective.real(at)
            found.append((at.scratch["fake"], at.rng.get_state()))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


def test_augmented_people_are_clipped_as_well():
    generator = build(augment=["brightness", "flip"])
    plain = gradient(build(), step())
    changed = gradient(generator, step())
    nobody = gradient(build(augment=["brightness", "flip"]), step(0))
    assert any((plain[name] != changed[name]).any() for name in plain)
    apart = torch.cat([(changed[n] - nobody[n]).flatten() for n in changed]).norm()
    assert 0 < float(apart) <= 3 * CLIP / EXPECTED * (1 + 1e-4)


def test_wgans_weights_stay_clipped():
    generator = build(1.0, objective="wgan", clip=0.003)
    fitted(generator, (3, 3))
    largest = max(
        float(p.detach().abs().max()) for p in generator.nets["discriminator"].parameters()
    )
    assert largest == pytest.approx(0.003)


def test_volumes_are_private_as_well():
    torch.manual_seed(0)
    own = {"width": 2, "latent": 4, "objective": "gan", "privacy_noise": 1.0}
    spec = Schema(("T1",), {"background": 0}, (1.0,) * 3, "DHW")
    generator = DCGAN(spec, (8, 8, 8), DCGANOptions.model_validate(own))
    assert generator.privacy is not None
    generator.privacy.terms = Terms(1.0, CLIP, EXPECTED / PEOPLE, PEOPLE, 0.01)
    volumes = Batch(torch.randn(3, 1, 8, 8, 8))
    loop = FitOptions(steps=2, batch_size=EXPECTED, precision="fp32")
    train(generator, lambda index, stage, which: volumes, loop)
    assert all(p.isfinite().all() for p in generator.nets["discriminator"].parameters())


# -- settings --------------------------------------------------------------------------------------


def test_where_nobody_says_each_person_is_normalised_alone():
    assert build().d_norm == "layer"
    assert build(d_norm="instance").d_norm == "instance"
    assert not any("running" in k for k in build().nets["discriminator"].state_dict())


def test_options_of_earlier_runs_are_not_private():
    earlier = DCGANOptions().model_dump(mode="json")
    left = {k: v for k, v in earlier.items() if not k.startswith("privacy_")}
    options = DCGANOptions.model_validate(left)
    assert not options.private
    assert DCGAN(SCHEMA, SIZE, options).privacy is None
