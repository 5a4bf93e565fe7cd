"""Private gradients: each person's is clipped, the sum is noised, and chance comes from a key."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.errors import TrainingFault, UsageFault
from gansynth.privacy import Terms
from gansynth.private import AT_ONCE, Mechanism, clipped_sum

CLIP = 0.1


def judge() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.GroupNorm(2, 4),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(64, 1),
    )


def people(n: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def term(net: Callable[[Tensor], Tensor], case: Tensor) -> Tensor:
    return F.softplus(-net(case)).mean()


def mechanism(noise: float = 0.0, clip: float = CLIP, **changes: Any) -> Mechanism:
    agreed = Terms(noise, clip, 0.5, 8, 1e-3)
    made = Mechanism(noise, None, clip, None, agreed, key=b"k" * 32)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def one_by_one(net: nn.Module, cases: Tensor) -> list[dict[str, Tensor]]:
    """Each person's gradient, by a backward pass of its own."""
    found = []
    for case in cases:
        net.zero_grad()
        term(net, case[None]).backward()
        found.append({k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None})
    net.zero_grad()
    return found


def norm(gradient: dict[str, Tensor]) -> float:
    return float(torch.cat([g.flatten() for g in gradient.values()]).norm())


def by_hand(net: nn.Module, cases: Tensor, clip: float = CLIP) -> dict[str, Tensor]:
    found = one_by_one(net, cases)
    return {
        k: sum((g[k] * min(1.0, clip / norm(g)) for g in found), torch.zeros_like(p))
        for k, p in net.named_parameters()
    }


def added(made: Mechanism, net: nn.Module, cases: Tensor, index: int = 0) -> dict[str, Tensor]:
    net.zero_grad()
    made.add(net, term, cases, index)
    return {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=1e-7)


# -- clipping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.01, 4.0, 100.0])
def test_the_sum_is_that_of_gradients_clipped_one_by_one(clip):
    net, cases = judge(), people()
    norms = [norm(g) for g in one_by_one(net, cases)]
    assert clip != 4.0 or min(norms) < clip < max(norms)
    assert_alike(clipped_sum(net, term, cases, clip), by_hand(net, cases, clip))


def test_more_people_than_are_held_at_once_are_all_counted():
    net, cases = judge(), people(2 * AT_ONCE + 3)
    assert_alike(clipped_sum(net, term, cases, CLIP), by_hand(net, cases), rtol=1e-4)


def test_it_is_what_opacus_makes_of_them():
    net, cases = judge(), people()
    found = clipped_sum(net, term, cases, CLIP)
    opacus = pytest.importorskip("opacus", reason="opacus is not installed")
    theirs = opacus.GradSampleModule(judge(), loss_reduction="sum")
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(theirs.parameters(), 1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=1,
    )
    F.softplus(-theirs(cases.requires_grad_())).sum().backward()
    optimizer.pre_step()
    # They divide by the norm and a millionth.
    assert_alike(
        found,
        {k.removeprefix("_module."): p.grad for k, p in theirs.named_parameters()},
        rtol=1e-4,
    )


@pytest.mark.parametrize("clip", [0.01, 4.0])
def test_one_person_more_or_less_moves_the_sum_by_no_more_than_the_clip(clip):
    net, cases = judge(), people(9)
    cases[3] *= 1000
    whole = clipped_sum(net, term, cases, clip)
    for left_out in range(len(cases)):
        rest = cases[[i for i in range(len(cases)) if i != left_out]]
        fewer = clipped_sum(net, term, rest, clip)
        assert norm({k: whole[k] - fewer[k] for k in whole}) <= clip * (1 + 1e-4)


def test_another_in_ones_place_moves_it_by_no_more_than_twice_the_clip():
    net, cases = judge(), people()
    other = cases.clone()
    other[2] = -50 * cases[2]
    one, two = (clipped_sum(net, term, who, CLIP) for who in (cases, other))
    assert CLIP < norm({k: one[k] - two[k] for k in one}) <= 2 * CLIP * (1 + 1e-4)


def test_a_person_whose_gradient_is_not_finite_adds_nothing():
    net, cases = judge(), people()
    ill = cases.clone()
    ill[1] = torch.nan
    rest = clipped_sum(net, term, cases[[0, 2, 3, 4]], CLIP)
    assert_alike(clipped_sum(net, term, ill, CLIP), rest)


def test_low_precision_does_not_reach_them():
    net, cases = judge(), people()
    plain = clipped_sum(net, term, cases, CLIP)
    with torch.autocast("cpu", torch.bfloat16):
        assert_alike(clipped_sum(net, term, cases, CLIP), plain, rtol=0)


def test_nobody_is_a_sum_of_nothing():
    summed = clipped_sum(judge(), term, people(0), CLIP)
    assert all(not value.any() for value in summed.values())


# -- noise -----------------------------------------------------------------------------------------


def test_without_noise_it_is_the_clipped_sum_over_the_expected_number():
    net, cases = judge(), people()
    wanted = {k: v / 4 for k, v in clipped_sum(net, term, cases, CLIP).items()}
    assert_alike(added(mechanism(), net, cases), wanted, rtol=0)


def test_the_noise_is_that_of_the_key_and_the_step():
    net, cases = judge(), people()
    made = mechanism(noise=2.0)
    found = added(made, net, cases, 7)
    for name, value in clipped_sum(net, term, cases, CLIP).items():
        drawn = torch.from_numpy(made.normal(value.numel(), "noise", 7, name)).float()
        wanted = (value + 2.0 * CLIP * drawn.view_as(value)) / 4
        torch.testing.assert_close(found[name], wanted)


@pytest.mark.parametrize("count", [0, 5])
def test_noise_comes_however_many_were_drawn(count):
    net = judge()
    still, noisy = (added(mechanism(n), net, people(count)) for n in (0.0, 50.0))
    noise = torch.cat([(noisy[k] - still[k]).flatten() for k in still])
    assert float(noise.std()) == pytest.approx(50 * CLIP / 4, rel=0.15)
    assert abs(float(noise.mean())) < 0.2 * 50 * CLIP / 4


def test_other_steps_and_other_keys_have_other_noise():
    net, cases = judge(), people()
    found = [
        added(mechanism(1.0), net, cases, 0)["4.bias"],
        added(mechanism(1.0), net, cases, 1)["4.bias"],
        added(mechanism(1.0, key=b"l" * 32), net, cases, 0)["4.bias"],
        added(mechanism(1.0, back=1), net, cases, 0)["4.bias"],
    ]
    # A step after one was taken back is numbered on: it is the second, whatever its index.
    assert torch.equal(found[3], found[1])
    assert len({float(value) for value in found}) == 3


def test_a_new_key_is_nobodys():
    assert Mechanism(1.0, None, 1.0, None).key != Mechanism(1.0, None, 1.0, None).key


def test_the_key_is_not_told():
    made = mechanism(1.0)
    assert "kkk" not in repr(made)
    assert set(made.state()) == {"steps", "back"}
    assert "kkk" not in str(made.to_json())


def test_what_is_there_already_is_added_to():
    net, cases = judge(), people()
    alone = {k: v.clone() for k, v in added(mechanism(1.0), net, cases).items()}
    net.zero_grad()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    mechanism(1.0).add(net, term, cases, 0)
    both = {k: p.grad for k, p in net.named_parameters() if p.grad is not None}
    assert_alike(both, {k: v + 1 for k, v in alone.items()}, rtol=1e-4)


def test_chance_is_uniform_and_normal():
    from scipy import stats

    made = mechanism()
    assert stats.kstest(made.uniform(20_000, "a"), "uniform").pvalue > 0.01
    assert stats.kstest(made.normal(20_000, "a"), "norm").pvalue > 0.01
    apart = np.corrcoef(made.normal(20_000, "a", 1), made.normal(20_000, "a", 2))
    assert abs(apart[0, 1]) < 0.03


# -- what is remembered ----------------------------------------------------------------------------


def test_every_step_is_spent_and_kept():
    made, net = mechanism(1.0), judge()
    for index in range(3):
        added(made, net, people(index), index)
    assert made.spent == made.agreed.epsilon(3)
    again = mechanism(1.0)
    again.load(made.state())
    assert (again.steps, again.back, again.spent) == (3, 0, made.spent)


def test_steps_that_are_taken_back_stay_spent_and_are_never_drawn_again():
    made = mechanism(1.0, steps=4)
    kept = made.state()
    made.steps = 7  # of index 4, 5 and 6
    made.load(kept)
    assert made.steps == 7
    assert [made.number(index) for index in (4, 5)] == [7, 8]
    made.steps = 9
    made.load(kept)
    assert (made.steps, made.number(4)) == (9, 9)


def test_an_epsilon_that_was_asked_for_is_never_exceeded():
    """Not even where steps are taken back and made again."""
    made, net = mechanism(1.0), judge()
    made.terms = replace(made.agreed, target=made.agreed.epsilon(3))
    for index in range(3):
        added(made, net, people(), index)
    with pytest.raises(TrainingFault, match=r"3 private steps, 0 of them taken back, have spent"):
        made.add(net, term, people(), 3)
    assert made.steps == 3


def test_nobody_is_protected_before_it_is_known_who_there_is():
    with pytest.raises(UsageFault, match="nobody has said who the training people are"):
        mechanism(1.0, terms=None).add(judge(), term, people(), 0)
