import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.ratio import Ratio
from gansynth.hosts.mixing.epoch_plan import EpochPlan
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth_deepmedic.subepoch_shares import (
    MOST_REPEATS,
    SubepochShare,
    share_on_disk,
    share_on_the_fly,
)

WHOLE = st.tuples(st.integers(0, 12), st.integers(1, 12))
GIVEN = {
    "parts": st.one_of(WHOLE, st.sampled_from([(2813, 4000), (1, 50), (97, 3), (1, 0)])),
    "tenths": st.sampled_from([1, 10]),
    "real": st.integers(1, 40),
    "file": st.tuples(st.integers(1, 60), st.integers(1, 3000), st.integers(1, 24)),
}
"""``file``: cases and segments of a subepoch, and the batch size, as the user's file has them."""


def check(share: SubepochShare, file: tuple[int, int, int], *, exact: bool, one_kind: bool) -> None:
    """Each change of the user's numbers is told; segments are of equal numbers, in batches."""
    cases, segments, batch = file
    for words, changed in (
        ("numOfCases", share.cases != cases),
        ("numberTrainingSegments", share.segments != segments),
        ("is not exact", not exact),
    ):
        assert any(words in text for text in share.notes) == changed
    if one_kind:  # the user's own number of steps
        assert share.segments == max(segments, share.cases)
        return
    step = math.lcm(share.cases, batch)
    assert share.segments % step == 0
    assert max(segments, share.cases) <= share.segments < segments + step


@settings(max_examples=150, deadline=None)
@given(**GIVEN)
def test_on_disk_everything_listed_is_exact_or_it_is_said(parts, tenths, real, file):
    share = share_on_disk(real, Ratio(parts[0] / tenths, parts[1] / tenths), *file)
    if parts[0] == 0:
        check(share, file, exact=True, one_kind=True)
        assert (share.real, share.synthetic, share.repeats) == (0, file[0], 1)
        return
    assert share.real is not None
    assert share.synthetic is not None
    per_real = Fraction(parts[1], parts[0])
    even = [n for n in range(1, MOST_REPEATS + 1) if (n * real * per_real).denominator == 1]
    check(share, file, exact=bool(even), one_kind=False)
    assert (share.real, share.cases) == (share.repeats * real, share.real + share.synthetic)
    assert (share.synthetic > 0) == (parts[1] > 0)
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
def test_on_the_fly_a_subepoch_is_exact_or_left_to_the_next(constant, parts, tenths, real, file):
    ratio, cases = Ratio(parts[0] / tenths, parts[1] / tenths), file[0]
    share = share_on_the_fly(ratio, *file, real=real, constant=constant)
    unit = sum(parts) // math.gcd(*parts)
    even = constant and unit <= 2 * cases
    check(share, file, exact=even or not constant, one_kind=constant and 0 in parts)
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
