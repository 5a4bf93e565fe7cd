import pytest

from gansynth.core.bank_options import BankSize, RefreshPolicy
from tests.expected import raises_fault

HELD = {"64": 64, "3x": 30, "0.25x": 2, "0.01x": 1, "2kB": 2, "2 KiB": 2, "1.5MB": 1500}


@pytest.mark.parametrize("text", HELD)
def test_a_size_says_how_many_samples_a_bank_holds(text):
    size = BankSize.parse(text)
    assert size.capacity(cases=10, sample_bytes=1000) == HELD[text]
    assert BankSize.parse(str(size)) == size


@pytest.mark.parametrize("text", ["0", "0x", "3 x", "GB", "0GB", "2G", "1e3"])
def test_a_malformed_bank_size_is_refused(text):
    with raises_fault("bank-options.size-malformed"):
        BankSize.parse(text)


@pytest.mark.parametrize(
    ("text", "expected", "words"),
    [
        (None, {"overhead": 0.02}, "at most 2 % overhead"),
        ("5%", {"overhead": 0.05}, "at most 5 % overhead"),
        ("4x", {"reuse": 4.0}, "each sample drawn 4 times"),
        ("90s", {"refresh": 90.0}, "renewed every 90 s"),
        ("1.5min", {"refresh": 90.0}, "renewed every 90 s"),
        ("2h", {"refresh": 7200.0}, "renewed every 7200 s"),
        *((wrong, None, f"--refresh '{wrong}'") for wrong in ("90", "0s", "0%", "x", "4 x", "-2%")),
    ],
)
def test_a_pacing_is_read_and_said_or_refused(text, expected, words):
    if expected is None:
        with raises_fault("bank-options.refresh-malformed", names=words):
            RefreshPolicy.parse(text)
        return
    pacing = RefreshPolicy.parse(text)
    assert {k: v for k, v in pacing.to_json().items() if v is not None} == expected
    assert str(pacing) == words
