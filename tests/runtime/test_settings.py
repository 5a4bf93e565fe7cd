import re

import pytest
from pydantic import BaseModel, Field, model_validator

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import parse, split_settings
from gansynth.training.loop import FitOptions
from gansynth_cgan3d.model import CGANOptions


class Loop(BaseModel):
    steps: int = Field(100, ge=1, description="optimiser steps")
    seed: int = 0


class Own(BaseModel):
    rate: float = Field(1e-3, gt=0, description="the step's length")
    fast: bool = False
    size: tuple[int, ...] = (8, 8)
    low: int = 0
    high: int = 9
    seed: int = 7

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


def split(**settings: str) -> tuple[Loop, Own]:
    return split_settings(settings, Loop, Own, generator="gen")


def test_a_name_that_both_have_reaches_both():
    loop, own = split(seed="3")
    assert (loop.seed, own.seed) == (3, 3)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "1e-4", 1e-4),
        ("rate", "2", 2.0),
        ("fast", "true", True),
        ("fast", "no", False),
        ("size", "[4, 6]", (4, 6)),
    ],
)
def test_values_are_typed(key, text, value):
    assert getattr(split(**{key: text})[1], key) == value


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": "many"}, r"--set steps=many: expected a whole number \(optimiser steps\)"),
        ({"rate": "-1"}, "--set rate=-1: .*greater than 0"),
        ({"low": "5", "high": "2"}, "--set low=5 high=2: .*low must not exceed high"),
        ({"size": "[4, "}, "not readable as YAML"),
    ],
)
def test_a_value_that_cannot_be_is_shown_with_the_reason(settings, says):
    with pytest.raises(UsageFault, match=says):
        split(**settings)


@pytest.mark.parametrize(
    ("options", "text", "says"),
    [
        (FitOptions, "batch_size=1000000", "expected a number less than or equal to 65536"),
        (FitOptions, f"steps={2**99}", "expected no number beyond 2147483648"),
        (CGANOptions, "lr_generator=1e30", "expected a number less than or equal to 10"),
        (CGANOptions, "l1=1e300", "expected no number beyond 2147483648"),
        (CGANOptions, "l1=.inf", "expected a number"),
    ],
)
def test_an_absurd_number_is_refused(options, text, says):
    key, _, value = text.partition("=")
    with pytest.raises(UsageFault, match=f"--set {re.escape(text)}: {says}"):
        parse(options, {key: value})


@pytest.mark.parametrize("options", [FitOptions, CGANOptions])
def test_every_option_says_what_it_means(options):
    assert all(field.description for field in options.model_fields.values())


def test_without_a_near_name_the_list_is_named():
    with pytest.raises(UsageFault, match="See: gansynth options gen") as caught:
        split(zzz="3")
    assert "Did you mean" not in str(caught.value)
