"""``import gansynth``: the commands as functions, with the same words."""

import inspect
import pydoc
import re
from typing import Any

import click
import numpy as np
import pytest

import gansynth
from gansynth.core.registry import installed
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import alternatives
from gansynth.sampling.loaded_run import FittedRun
from gansynth.testing import ToySource
from gansynth.training.loop import FitOptions
from gansynth_cli.main import cli
from tests.expected import raises_fault

COMMANDS = [name for name in gansynth.COMMANDS if hasattr(getattr(gansynth, name), "request")]
"""Every function of the same words as its command."""
SPELT = {"number": "n", "class": "classes", "from": "origin"}
"""Option -> the word of Python, where it cannot be, or is not, the same."""
TYPED = {"import_data": "import", "turing_test": "turing-test"}
"""Function -> its command, where the name cannot be the same."""
FOR_TERMINALS = {"json", "debug", "verbose", "help_all"}


def options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), TYPED.get(name, name))
    assert command is not None
    longest = (
        max(parameter.opts, key=len).lstrip("-").replace("-", "_")
        for parameter in command.params
        if isinstance(parameter, click.Option)
    )
    return {SPELT.get(option, option) for option in longest} - FOR_TERMINALS


def words_of(function: object) -> set[str]:
    assert callable(function)
    kinds = inspect.signature(function).parameters.items()
    return {name for name, parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_takes_the_words_of_its_command(name):
    words = words_of(getattr(gansynth, name))
    beside = {"options"} if name == "augment" else {"set"} if name == "doctor" else set()
    unnamed = set(getattr(gansynth, name).request.positional())
    assert words - beside - {"quiet"} == options_of(name) - unnamed - {"quiet"}


@pytest.mark.parametrize("method", ["sample", "sheet"])
def test_a_run_samples_by_the_words_of_the_command(method):
    assert words_of(getattr(FittedRun, method)) <= options_of("sample")


def test_no_setting_has_the_name_of_a_word():
    registry = installed()
    fields = {*FitOptions.model_fields}.union(
        *(registry.generator(name).Options.model_fields for name in registry.names("generators"))
    )
    assert not fields & options_of("fit")


def test_what_a_user_needs_is_all_that_is_shown():
    assert dir(gansynth) == sorted(["__version__", *gansynth.COMMANDS])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        *((getattr(gansynth, name), name in COMMANDS) for name in gansynth.COMMANDS),
        *((method, True) for method in (FittedRun.sample, FittedRun.sheet)),
    ],
)
def test_help_has_plain_types_and_a_line_for_each_argument(function, words):
    text = pydoc.plain(pydoc.render_doc(function))
    assert re.findall(r"0x\w+|\w*Validator|Annotated|NoneType", text) == []
    explained = re.findall(r"^        (\w+): \w", text, re.MULTILINE)
    assert not words or words_of(function) <= {*explained}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("train", "It is called 'fit'."),
        ("evalute", "Did you mean 'evaluate'?"),
    ],
)
def test_another_name_is_refused_with_the_right_one(name, says):
    with pytest.raises(AttributeError, match=says):
        getattr(gansynth, name)


def test_a_run_is_fitted_loaded_and_sampled(tmp_path):
    run = gansynth.fit("parametric", data="example:2d", out=tmp_path / "run", quiet=True)
    assert run.report["train_cases"] > 0
    first, second = gansynth.load(run).sample(2, seed=3)
    assert first.labels is not None
    assert first.image.shape[1:] == first.labels.shape
    assert first.provenance["seed"] == 3
    assert not np.array_equal(first.image, second.image)
    assert np.array_equal(run.sample(1, seed=3)[0].image, first.image)
    wrong: tuple[Any, ...] = ("4", True)
    for number in wrong:
        with raises_fault("request.field-invalid", names=f"n={number!r}: expected a number"):
            run.sample(number)
    assert run.sheet(2)._repr_png_().startswith(b"\x89PNG")
    assert "<td>parametric</td>" in run._repr_html_()


@pytest.mark.parametrize(
    "spelt",
    [{"set": ["rim_mm=1"]}, {"set": "rim_mm=1"}, {"rim_mm": 1}],
    ids=["listed", "typed", "named"],
)
def test_settings_are_taken_as_the_command_and_as_python_spells_them(tmp_path, spelt):
    asked = {"data": "example:2d", "out": tmp_path, "quiet": True, "dry_run": True}
    assert gansynth.fit("parametric", **asked, **spelt).report["options"]["rim_mm"] == 1


@pytest.mark.parametrize(
    ("id", "spelt"),
    [
        ("options.setting-unknown", {"widht": 3}),
        ("options.setting-unknown", {"max_memry": "16GB"}),
        ("request.field-invalid", {"set": ["width"]}),
        ("request.field-invalid", {"set": ["width=4", "width=8"]}),
        ("request.field-invalid", {"set": 4, "width": 8}),
        ("request.field-invalid", {"resume": "no"}),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, id, spelt):
    hint = "setting. Did you mean 'max_memory'? See" if "max_memry" in spelt else ""
    with raises_fault(id, names=hint):
        gansynth.fit("cgan3d", data="example:3d", out=tmp_path, quiet=True, **spelt)


CHECKED_LATER = {"real", "loader", "held_out"}
"""What may be of any class, so that only its use shows what it lacks."""


@pytest.mark.parametrize("name", gansynth.COMMANDS)
def test_an_argument_of_a_wrong_type_is_refused_by_its_name(name):
    function = getattr(gansynth, name)
    parameters = inspect.signature(function).parameters.values()
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    given: dict[str, object] = {each.name: "none" for each in named if each.default is each.empty}
    given |= {"source": ToySource(3), "steps": 1} if name == "mix_segments" else {}
    given |= {"real": ["case"]} if name == "mix" else {}
    given |= {"target": "nnunet", "ratio": "1:0"} if name == "augment" else {}
    for argument in {each.name for each in named} - CHECKED_LATER:
        for value in (object(), {1: 2}, 1j, [object()]):
            with pytest.raises(UsageFault) as refused:
                function(**given | {argument: value})
            assert re.search(rf"(^|\W){argument}\b", str(refused.value)), (argument, value)
            assert not re.search("\n|--[a-z]", str(refused.value))


def takes_a_number(kind: Any) -> bool:
    kinds = {*alternatives(kind)} - {type(None)}
    return not kinds.isdisjoint({int, float}) and str not in kinds


@pytest.mark.parametrize("name", gansynth.COMMANDS)
def test_a_number_below_nought_is_refused_by_its_argument(name):
    function = getattr(gansynth, name)
    named = inspect.signature(function).parameters.values()
    given: dict[str, object] = {each.name: "none" for each in named if each.default is each.empty}
    given |= {"source": ToySource(3), "steps": 1} if name == "mix_segments" else {}
    for argument in (each.name for each in named if takes_a_number(each.annotation)):
        with pytest.raises(UsageFault) as refused:
            function(**given | {argument: -1})
        assert re.match(
            rf"{argument}[= ]-1: expected .*(least|above|greater|0)", str(refused.value)
        )


@pytest.mark.parametrize("name", gansynth.COMMANDS)
def test_an_argument_that_is_misspelt_is_refused_with_its_right_name(name):
    function = getattr(gansynth, name)
    parameters = inspect.signature(function).parameters
    needed = [each.name for each in parameters.values() if each.default is each.empty]
    needed = [each for each in needed if each != "settings"]
    needed += ["target", "ratio"] if name == "augment" else []
    early = name == "doctor" or "settings" not in parameters  # others know settings later
    some = [each for each in parameters if each not in {*needed, "settings"}] if early else []
    for argument in (*needed, *some):
        wrong = argument + argument[-1]
        given = {each: "none" for each in needed if each != argument} | {wrong: "none"}
        with raises_fault("request.field-unknown", names=f"{wrong}: unknown. Did you mean '"):
            function(**given)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ratio": "1/1"}, "ratio '1/1'"),
        ({"ratio": 1.0}, "ratio=1.0: expected Ratio | str (real:synthetic, as"),
        ({"schedule": "linear"}, "schedule 'linear'"),
        ({"bank": None}, "bank=None: expected the folder of a sample bank"),
        ({"real": []}, "real: a list without length or items"),
        ({"real": "imagesTr"}, "real: a str is no"),
        ({"done": 4, "batches": 3}, "done=4: "),
        ({"held_out": 5}, "held_out=5: "),
    ],
)
def test_a_wrong_value_in_a_mix_is_refused_by_its_argument(wrong, says):
    given: dict[str, Any] = {"real": ["case"], "bank": "none", "ratio": "1:1", "batch_size": 1}
    with pytest.raises(UsageFault) as refused:
        gansynth.mix(**given | wrong)
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize("name", gansynth.COMMANDS)
def test_arguments_that_nothing_takes_are_refused(name):
    with pytest.raises(UsageFault):
        getattr(gansynth, name)(*["none"] * 9)


def test_options_print_as_a_table_and_in_a_notebook():
    tables = gansynth.options("cgan3d")
    assert "\n  width " in repr(tables)
    assert "<td>width</td>" in tables._repr_html_()
