import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.ratio import Ratio
from gansynth.hosts.epoch_plan import EpochPlan
from gansynth.hosts.mixer import MixerConfig
from gansynth_deepmedic.subepoch_shares import (
    MOST_REPEATS,
    SubepochShare,
    share_on_disk,
    share_on_the_fly,
)

WHOLE = st.tuples(st.integers(0, 12), st.integers(1, 12))
GIVEN = {
    "parts": st.one_of(WHOLE, st.sampled_from([(2813, 4000), (1, 50), (97, 3), (1, 0)])),
    "tenths": st.booleans(),
    "real": st.integers(1, 40),
    "cases": st.integers(1, 60),
    "segments": st.integers(1, 3000),
    "batch": st.integers(1, 24),
}


def ratio_of(parts: tuple[int, int], tenths: bool) -> Ratio:
    return Ratio(parts[0] / 10, parts[1] / 10) if tenths else Ratio(*map(float, parts))


def inexact(share: SubepochShare) -> bool:
    return any("is not exact" in text for text in share.notes)


def check(share: SubepochShare, cases: int, segments: int, batch: int, *, one_kind: bool) -> None:
    """Each change of the user's numbers is told; segments are of equal numbers, in batches."""
    for key, changed in (
        ("numOfCases", share.cases != cases),
        ("numberTrainingSegments", share.segments != segments),
    ):
        assert any(key in text for text in share.notes) == changed
    if one_kind:  # the user's own number of steps
        assert share.segments == max(segments, share.cases)
        return
    step = math.lcm(share.cases, batch)
    assert share.segments % step == 0
    assert max(segments, share.cases) <= share.segments < segments + step


@settings(max_examples=150, deadline=None)
@given(**GIVEN)
def test_on_disk_everything_listed_is_exact_or_it_is_said(
    parts, tenths, real, cases, segments, batch
):
    share = share_on_disk(real, ratio_of(parts, tenths), cases, segments, batch)
    check(share, cases, segments, batch, one_kind=parts[0] == 0)
    if parts[0] == 0:
        assert (share.real, share.synthetic, share.repeats) == (0, cases, 1)
        return
    assert share.real is not None
    assert share.synthetic is not None
    per_real = Fraction(parts[1], parts[0])
    even = [n for n in range(1, MOST_REPEATS + 1) if (n * real * per_real).denominator == 1]
    assert (share.real, share.cases) == (share.repeats * real, share.real + share.synthetic)
    assert (share.synthetic > 0) == (parts[1] > 0)
    assert inexact(share) == (not even)
    if even:
        assert share.repeats == even[0]
        assert share.synthetic == share.real * per_real
        return
    wanted = per_real / (1 + per_real)
    off = abs(Fraction(share.synthetic, share.cases) - wanted)
    for n in range(1, MOST_REPEATS + 1):
        # the nearest counts of synthetic cases beside n times the real ones; one of them at least
        nearest = math.floor(n * real * per_real)
        for count in (max(1, nearest), nearest + 1):
            assert abs(Fraction(count, n * real + count) - wanted) >= off


@settings(max_examples=150, deadline=None)
@given(constant=st.booleans(), **GIVEN)
def test_on_the_fly_a_subepoch_is_exact_or_left_to_the_next(
    constant, parts, tenths, real, cases, segments, batch
):
    ratio = ratio_of(parts, tenths)
    share = share_on_the_fly(ratio, cases, segments, batch, real=real, constant=constant)
    check(share, cases, segments, batch, one_kind=constant and 0 in parts)
    unit = sum(parts) // math.gcd(*parts)
    even = constant and unit <= 2 * cases
    assert inexact(share) == (constant and not even)
    listed = real if parts[0] == 0 else real + math.ceil(Fraction(real * parts[1], parts[0]))
    asked = min(cases, listed)
    if not even:
        assert (share.cases, share.real, share.synthetic) == (asked, None, None)
        return
    assert share.real is not None
    assert share.synthetic is not None
    assert share.cases == share.real + share.synthetic <= 2 * cases
    assert share.real * parts[1] == share.synthetic * parts[0]
    assert abs(share.cases - asked) <= max(unit / 2, unit - asked)
    assert share.cases + unit - asked > asked - share.cases
    places = EpochPlan(MixerConfig(None, ratio), real, share.cases)
    assert {int(places.table(n).synthetic.sum()) for n in range(3)} == {share.synthetic}
