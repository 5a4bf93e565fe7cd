"""YAML of users is read within bounds."""

import pytest
import yaml

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
        "a: [",
    ],
    ids=["aliases", "itself", "depth", "digits", "code", "tag", "open"],
)
def test_what_is_no_plain_yaml_is_one_kind_of_error(text):
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
