import pytest
import yaml

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.yaml_text import parse_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


WRONG = {
    **{"aliases": BOMB, "itself": "a: &a [*a]", "depth": "[" * 10_000, "digits": "9" * 5_000},
    **{"code": "!!python/object/apply:os.system [exit]", "tag": "!!int x", "word": "!!bool x"},
    **{"date": "!!timestamp 2020-01-01", "set": "!!set {a}", "open": "a: ["},
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("what", WRONG)
def test_yaml_that_is_not_plain_is_a_yaml_error(what):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(WRONG[what])


def test_dates_stay_texts_and_the_rest_is_yaml():
    assert parse_yaml("[2020-99-99, yes, 1e3]") == ["2020-99-99", True, "1e3"]
    assert parse_yaml("[&a {x: 1}, *a]") == [{"x": 1}] * 2


def test_a_message_cuts_long_values_and_keeps_the_way_out():
    text = str(
        UsageFault("test.fault", f"--set steps={'9' * 5000} {'[1, 2], ' * 5000}: expected a number")
    )
    assert len(text) < 4500
    assert text.startswith("--set steps=999")
    assert text.endswith(": expected a number")
