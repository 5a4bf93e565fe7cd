from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field, model_validator

from gansynth.conditions.lesion_placement import LesionOptions
from gansynth.core.generator import learn
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.read_options import ReadOptions, parse_read
from gansynth.fitting.setup import resolve
from gansynth.hosts.contract.host import framework
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import Size, Size2, Size3, choices, option_rows
from gansynth.runtime.options import (
    Needs,
    OptionModel,
    idle,
    parse,
    read_options,
    split_settings,
)
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.options import CGANOptions
from tests.expected import raises_fault


def models() -> dict[str, type[OptionModel]]:
    """Every model of options that is registered, and those of commands and hosts."""
    registry = installed()
    found = {
        f"{kind} {name}": registry.load(kind, name).Options
        for kind in ("generators", "edits", "filters")
        for name in registry.names(kind)
    }
    openers = {name: registry.load("sources", name) for name in registry.names("sources")}
    found |= {
        f"source {n}": o.read_options for n, o in openers.items() if hasattr(o, "read_options")
    }
    for name in registry.names("hosts"):
        found[f"host {name}"] = framework(name).Options
    for name in registry.names("commands"):
        found[name] = registry.command_options(*name.split())
    others = (FitOptions, LesionOptions)
    return found | {model.__name__: model for model in others}


def test_what_an_option_needs_is_an_option():
    for model in models().values():
        known = {*model.model_fields, *FitOptions.model_fields}
        for key, needs in model.needs.items():
            clauses = needs.replace(" or ", ", ").split(", ")
            assert {key, *(c.replace("!", "").partition("=")[0] for c in clauses)} <= known


def test_every_word_to_choose_from_is_in_the_table():
    for name, model in models().items():
        for key, _, meaning in option_rows(model):
            for word in choices(model.model_fields[key].annotation):
                assert word in meaning, f"{name}: {key}"


class Own(OptionModel):
    needs: ClassVar[Needs] = {
        "clip": "kind=wgan",
        "low": "weight, mask!=all",
        "size": "box or !whole",
        "p": "!ps",
    }

    kind: str = "gp"
    clip: float = 0.1
    weight: float = 1.0
    mask: str = "none"
    low: int = 4
    box: bool = False
    whole: bool = False
    size: tuple[int, ...] = ()
    p: int = 1
    ps: tuple[int, ...] = ()
    seed: int = 7


def split(settings: dict[str, str], **typed: Any) -> Any:
    """Options of the loop and of the generator that has these settings."""
    return split_settings(
        settings, FitOptions, Own, generator="own", **{"typed": settings, **typed}
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"clip": "1"}, "--set clip=1: has no effect without kind=wgan; add that, or leave clip"),
        ({"clip": "1", "kind": "wgan"}, ""),
        ({"low": "2"}, ""),
        ({"low": "2", "weight": "0"}, "low=2: has no effect with weight=0; choose another weight"),
        ({"low": "2", "mask": "all"}, "low=2: has no effect with mask=all; choose another mask"),
        ({"size": "3"}, ""),
        ({"size": "3", "whole": "yes"}, "size=3: has no effect without box; add that"),
        ({"p": "2", "ps": "1,2"}, "p=2: has no effect with --set ps=1,2; leave that out"),
    ],
)
def test_an_option_that_was_typed_and_does_nothing_is_refused(settings, says):
    split(settings, typed=())
    if says:
        with raises_fault("options.option-without-effect", names=says):
            split(settings)
    else:
        split(settings)


def test_a_name_that_loop_and_generator_have_reaches_both():
    loop, own = split({"seed": "3"})
    assert (loop.seed, own.seed) == (3, 3)


def test_several_values_are_a_text_with_commas_or_a_list():
    given: dict[tuple[int, ...], list[Any]] = {(8, 9): ["8,9", [8, 9]], (8,): ["8", 8, [8]]}
    for wanted, values in given.items():
        assert [Own.model_validate({"size": v}).size for v in values] == [wanted] * len(values)


class Listed(ReadOptions):
    spacing: tuple[float, ...] = ()
    edge: tuple[int, int, int] | None = None
    names: tuple[str, ...] = ()
    bits: Literal[8, 16] = 8
    ends: tuple[Literal["low", "high"], ...] = ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(f"spacing={text}", (2.0, 1.0)) for text in ("2,1", "2+1", "[2, 1]", "2e+0,1")],
        ("spacing=2", (2.0,)),
        ("edge=1+2+3", (1, 2, 3)),
        ("edge=none", None),
        ("names=[]", ()),
        ("names=A,B", ("A", "B")),
        ("names={channel}", ("{channel}",)),
        ("bits=16", 16),
        ("ends=low,high", ("low", "high")),
    ],
)
def test_a_list_is_read_alike_after_set_read_and_edit(text, value):
    key, _, typed = text.partition("=")
    given = {key: typed}
    read = [parse(Listed, given), parse_read(Listed, SourceRequest("npy", "there", read=given))]
    if "," not in typed:  # which parts keys there
        read.append(read_options(Listed, text, "--edit"))
    assert [getattr(each, key) for each in read] == [value] * len(read)


def test_a_plus_is_part_of_a_name_where_commas_separate():
    assert parse(Listed, {"names": "T1,T1+C"}).names == ("T1", "T1+C")


class Sized(OptionModel):
    patch: Size | None = Field(None)
    plane: Size2 | None = None
    volume: Size3 | None = None
    note: str = ""
    cache: Literal["off", "ram"] = "ram"
    rate: float = Field(1e-3, gt=0, description="the step's length")
    fast: bool = False
    low: int = 0
    high: int = 9

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


READ = {
    **{"patch=32x64x64": (32, 64, 64), "patch=32,64,64": (32, 64, 64), "patch=[32, 64]": (32, 64)},
    **{"patch=64": (64,), "plane=64x32": (64, 32), "plane=64": (64, 64)},
    **{"volume=8X9 x 10": (8, 9, 10), "volume=8": (8, 8, 8), "note=2024": "2024"},
    **{"note=1:30": "1:30", "cache=off": "off", "rate=1e-4": 1e-4, "fast=true": True},
    **{"rate=2": 2.0, "fast=no": False},
}


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read_as_what_its_option_is(text):
    key, _, value = text.partition("=")
    assert getattr(parse(Sized, {key: value}), key) == READ[text]


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("options", "text", "says"),
    [
        (Sized, "patch=32xa", "expected whole numbers, as patch=64x64x64"),
        (Sized, "patch=0x8", "expected a number greater than or equal to 1"),
        (Sized, "plane=8x8x8", "expected two whole numbers, as plane=64x64"),
        (Sized, "volume=8x8", "expected three whole numbers, as volume=64x64x64"),
        (Sized, "rate=-1", "expected a number greater than 0 (the step's length)"),
        (Sized, "low=5 high=2", "low must not exceed high"),
        (Own, "size=a,b", "expected whole numbers, as size=1,2,3"),
        (Own, "clip=much", "expected a number"),
        (Own, "box=perhaps", "expected yes or no"),
        (FitOptions, "steps=many", "expected a whole number (optimiser steps)"),
        (FitOptions, "batch_size=1000000", "expected a number less than or equal to 65536"),
        (FitOptions, f"steps={2**99}", "expected no number beyond 2147483648"),
        (CGANOptions, "lr_generator=1e30", "expected a number less than or equal to 10"),
        (CGANOptions, "l1=1e300", "expected no number beyond 2147483648"),
    ],
)
def test_a_value_that_cannot_be_is_refused_as_typed_with_the_form(options, text, says):
    with pytest.raises(UsageFault) as fault:
        parse(options, dict(pair.split("=") for pair in text.split()))
    assert str(fault.value).startswith(f"--set {text}: ")
    assert says in str(fault.value)


CGAN = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1}
TINY: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 4, "max_width": 4, "latent": 4},
    **{"cgan3d": CGAN, "cgan3d-lesion": CGAN},
}
FIT = {"steps": 2, "batch_size": 2, "precision": "fp32", "checkpoint_every": 9}
IDLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dcgan", {}, {"clip": 1e-4, "augment_p": 0.1, "decay_from": 0.1}),
    ("dcgan", {"objective": "wgan"}, {"penalty": 1.0}),
    ("cgan3d", {}, {"augment_p": 1.0, "lesions": "one", "local_size": 8}),
    ("cgan3d", {"l1": 0}, {"l1_lowpass": "foreground"}),
    ("cgan3d-lesion", {"stage": "refine"}, {"residual": False}),
]


def weights(name: str, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All weights of a generator after two steps on toy slices."""
    typed = {key: str(value) for key, value in {**FIT, **TINY[name], **settings}.items()}
    job = resolve(name, SourceRequest("example", "2d"), typed, (), "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learn(job.generator, job.observed(np.random.default_rng(0)))
        train(job.generator, job.batches, job.options)
    nets = job.generator.nets.items()
    return {f"{n}/{k}": v for n, net in nets for k, v in net.state_dict().items()}


@pytest.mark.parametrize(("name", "others", "changes"), IDLE)
def test_what_is_said_to_have_no_effect_has_none(name, others, changes):
    cls = installed().generator(name)
    values = {**dict(FitOptions()), **dict(cls.Options(**others))}
    needs = {**FitOptions.needs, **cls.Options.needs}
    assert len(list(idle(changes, values, needs, str))) == len(changes), "all are declared"
    one, other = weights(name, others), weights(name, {**others, **changes})
    assert all(torch.equal(one[k], other[k]) for k in one.keys() | other.keys())
