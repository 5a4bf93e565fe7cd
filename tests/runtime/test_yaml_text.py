"""YAML of users is read within bounds."""

import pytest
import yaml

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.yaml_text import parse_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "[" * 10_000,
        "9" * 5_000,
        "!!python/object/apply:os.system [exit]",
        "!!int x",
        "!!bool x",
        "!!timestamp 2020-01-01",
        "!!set {a}",
        "a: [",
    ],
    ids=["aliases", "itself", "depth", "digits", "code", "tag", "word", "date", "set", "open"],
)
def test_yaml_that_is_not_plain_is_a_yaml_error(text):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-99-99", "2020-99-99"),
        ("yes", True),
        ("1e3", "1e3"),
        ("[&a {x: 1}, *a]", [{"x": 1}] * 2),
    ],
)
def test_dates_stay_texts_and_the_rest_is_yaml(text, value):
    assert parse_yaml(text) == value


def test_a_message_cuts_long_values_and_keeps_the_way_out():
    text = str(UsageFault(f"--set steps={'9' * 5000} {'[1, 2], ' * 5000}: expected a number"))
    assert len(text) < 4500
    assert text.startswith("--set steps=999")
    assert text.endswith(": expected a number")
