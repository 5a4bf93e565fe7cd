"""Options typed by users: KEY=VALUE texts, validated by a model, with plain messages.

An edit, a filter or a list of boxes has its options in one text, ``KEY=VALUE,KEY=1+2``. A generator
or a host has them one by one, ``--set KEY=VALUE``, a source ``--read KEY=VALUE``; a host also as
flags, ``--KEY VALUE``. All texts are read by the type of their field (``option_kinds.read_text``).
Every model lists in ``needs`` which options have an effect only together with others. A typed
option without effect is refused. Defaults and a recipe's values never are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from gansynth.runtime.errors import UsageFault, did_you_mean, refuse_unknown
from gansynth.runtime.option_kinds import form_of, read_text, tuples_of

Needs = Mapping[str, str]
"""Option -> the condition of its effect: ``objective=wgan``, ``l1, l1_mask!=foreground``.

A comma joins conditions that must all hold, `` or `` alternatives. ``key`` is on (not 0, none, no
or empty), ``!key`` is off; ``key=value`` also holds for a list that contains the value."""
Model = TypeVar("Model", bound=BaseModel)
Loop = TypeVar("Loop", bound=BaseModel)
Options = TypeVar("Options", bound="OptionModel")
Named = Callable[[str], str]  # formats an option as typed: `clip` -> `--set clip=0.02`
OFF: tuple[Any, ...] = (None, False, 0, "", "none", "no", "off", (), [], {})
"""Values of an option that is off."""
LARGEST_NUMBER = 2**31  # largest number of an option, by amount
LENGTHS = frozenset({"steps", "epochs"})  # alternative settings of the training's length


class OptionModel(BaseModel):
    """Base of every model of options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    needs: ClassVar[Needs] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_texts(cls, values: Any) -> Any:
        """Read what was typed; a value of Python stays, or is alone where several may be."""
        if not isinstance(values, Mapping):
            return values
        read = dict(values)
        for key, field in cls.model_fields.items():
            if key in read:
                read[key] = read_text(field, read[key])
        return read

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, int | float) and abs(n) > LARGEST_NUMBER for n in numbers):
            raise ValueError(f"expected no number beyond {LARGEST_NUMBER}")
        return value

    def refuse_idle(self, option: str) -> None:
        """Refuse options that were given without effect; ``option``: ``--edit size:bias=2``."""
        refuse_idle(self.model_fields_set, self, self.needs, lambda key: f"{option}: {key}")


class FlagText(str):
    """A setting's text that was typed after a flag of its own, ``--width 8``."""


def flag_of(key: str) -> str:
    """Return the flag of a setting: ``--learning-rate``."""
    return f"--{key.replace('_', '-')}"


def put_setting(settings: dict[str, str], key: str, text: str, option: str) -> None:
    """Set one more key; refuse another value of a key that is set already."""
    if settings.setdefault(key, text) != text:
        raise UsageFault(
            "options.set-twice-over",
            f"{option} {text} and {_typed(settings, '--set', key)}: expected one of them; leave "
            "the other out",
        )


def read_options(
    model: type[Options], text: str, option: str, form: str = "NAME:KEY=VALUE,KEY=VALUE,..."
) -> Options:
    """Read options from ``KEY=VALUE,...``; several values of a key as ``1+2``.

    Args:
        option: the text as typed, with its option, for messages: ``--edit shift:max_mm=12``.
        form: the expected form, for messages.
    """
    names = list(model.model_fields)
    values: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = map(str.strip, word.partition("="))
        if key not in names or key in values or not equals:
            raise UsageFault(
                "options.word-unknown-or-repeated",
                f"{option}: expected {form} with keys among {', '.join(names)}, each at most once, "
                f"not {word!r}.{did_you_mean(key, names)}",
            )
        several = tuples_of(model.model_fields[key].annotation)
        values[key] = value.replace("+", ",") if several else value
    return read_model(model, values, lambda key: f"{option}: {key or 'options'}", joint="+")


def split_settings(
    settings: Mapping[str, str],
    loop: type[Loop],
    model: type[Model],
    *,
    generator: str,
    typed: Collection[str] = (),
) -> tuple[Loop, Model]:
    """Sort ``--set`` values into the loop's and the generator's options.

    Args:
        typed: the settings that must have an effect: those a user typed.
    """
    fields = loop.model_fields | model.model_fields
    named = partial(_typed, settings, "--set")
    _refuse_slips(settings, fields, generator, named)
    parts = (
        parse(loop, {k: v for k, v in settings.items() if k in loop.model_fields}),
        parse(model, {k: v for k, v in settings.items() if k in model.model_fields}),
    )
    values = dict(parts[0]) | dict(parts[1])
    needs = {k: v for part in (loop, model) for k, v in getattr(part, "needs", {}).items()}
    refuse_idle([k for k in settings if k in typed], values, needs, named)
    return parts


def parse(model: type[Model], settings: Mapping[str, str], option: str = "--set") -> Model:
    """Build an options model from texts typed after ``option``."""
    return read_model(model, settings, partial(_typed, settings, option))


def read_settings(
    model: type[Options], settings: Mapping[str, str], of: str, option: str = "--set"
) -> Options:
    """Build an options model from a user's settings; every key must have an effect.

    Args:
        of: owner of the settings, for messages.
        option: the option they were typed after, for messages.

    Raises:
        UsageFault: as ``parse``; or an unknown key (with the nearest one), both steps and epochs,
            or a key without effect under the others.
    """
    named = partial(_typed, settings, option)
    _refuse_slips(settings, model.model_fields, of, named)
    options = parse(model, settings, option)
    refuse_idle(settings, options, options.needs, named)
    return options


def _refuse_slips(settings: Mapping[str, str], names: Iterable[str], of: str, named: Named) -> None:
    refuse_unknown(settings, names, of=of, named=named)
    if settings.keys() >= LENGTHS:
        raise UsageFault(
            "options.epochs-with-steps",
            f"{named('epochs')}: cannot be combined with steps={settings['steps']}, which says the "
            "same; expected one of them",
        )


def as_typed(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as a user would type them: text as it is, the others as JSON."""
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}


def overlay(base: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Return settings overridden by others; ``steps`` and ``epochs`` replace each other."""
    settings = dict(base)
    if not LENGTHS.isdisjoint(over):
        for key in LENGTHS:
            settings.pop(key, None)
    settings.update(over)
    return settings


def read_model(
    model: type[Model], values: Mapping[str, Any], named: Named, *, joint: str = ","
) -> Model:
    """Build a model of options.

    Args:
        joint: separator of several typed values.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UsageFault(
            "options.value-invalid", message_of(error, model, named, joint=joint)
        ) from None


def message_of(
    error: ValidationError, model: type[BaseModel], named: Named, *, joint: str = ","
) -> str:
    """Return one line on the first error: option, expectation, an example, its meaning."""
    errors = error.errors()
    first = errors[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    field = model.model_fields.get(key)
    if field is None:
        return f"{named(key)}: {_plain(first['msg'])}"
    meaning = f" ({field.description})" if field.description else ""
    same = [each for each in errors if each["loc"][:1] == first["loc"][:1]]
    kinds = {str(each["type"]) for each in same}
    limits = [e for e in same if str(e["type"]).startswith(("greater_than", "less_than"))]
    formal = ("missing", "_parsing", "_type", "_from_float", "finite_number", "too_long")
    if not limits and any(kind.endswith(formal) for kind in kinds):
        expectation = form_of(key, field, joint) or _plain(first["msg"])
    else:
        expectation = _plain([*limits, first][0]["msg"])
    missing = "missing, " if first["type"] == "missing" else ""
    return f"{named(key)}: {missing}{expectation}{meaning}"


def _typed(settings: Mapping[str, str], option: str, key: str) -> str:
    """Format an option as typed; all of them for a check across several."""
    if isinstance(settings.get(key), FlagText):
        return f"{flag_of(key)} {settings[key]}"
    typed = {key: settings[key]} if key in settings else settings
    pairs = [f"{k}={v}" for k, v in typed.items()]
    return f"{option} {' '.join(pairs)}"


def _plain(text: str) -> str:
    """Translate a message of pydantic into gansynth's terms."""
    text = text.removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    return text.replace("expected greater", "expected a number greater").replace(
        "expected less", "expected a number less"
    )


# -- whether an option has an effect ---------------------------------------------------------------


def refuse_idle(
    typed: Iterable[str], values: Any, needs: Needs, named: Named, called: Named = str
) -> None:
    """Refuse a typed option that has no effect under the others; see ``idle``."""
    for reason in idle(typed, values, needs, named, called):
        raise UsageFault("options.option-without-effect", reason)


def idle(
    typed: Iterable[str], values: Any, needs: Needs, named: Named, called: Named = str
) -> Iterator[str]:
    """Yield messages about typed options that have no effect under the others.

    Args:
        typed: options that the user typed.
        values: of all options, a mapping or an object; missing ones are off.
        needs: see ``Needs``.
        named: formats an option as typed.
        called: formats an option's name.
    """
    get = values.get if isinstance(values, Mapping) else lambda key: getattr(values, key, None)
    for key in typed:
        for clause in filter(None, needs.get(key, "").split(", ")):
            atoms = clause.split(" or ")
            if not any(_holds(atom, get) for atom in atoms):
                why, hint = _reason(atoms, get, named, called)
                yield f"{named(key)}: has no effect {why}; {hint}, or leave {called(key)} out"
                break


def _reason(
    unmet: Sequence[str], get: Callable[[str], Any], named: Named, called: Named
) -> tuple[str, str]:
    name, _, unwanted = unmet[0].replace("!", "").partition("=")
    if unmet == [f"!{name}"]:
        return f"with {named(name)}", "leave that out"
    is_missing = (
        unmet == [name] and not isinstance(get(name), bool | None) and get(name) not in ("", ())
    )
    if is_missing:
        unwanted = _shown(get(name))  # 0, or none, where others are on
    elif "!" not in unmet[0]:
        parts = [atom.partition("=") for atom in unmet if "!" not in atom]
        conditions = [called(name) + equals + value for name, equals, value in parts]
        return f"without {' or '.join(conditions)}", "add that"
    return f"with {called(name)}={unwanted}", f"choose another {called(name)}"


def _holds(atom: str, get: Callable[[str], Any]) -> bool:
    key, equals, expected = atom.partition("=")
    value, no = get(key.replace("!", "")), "!" in key
    if not equals:
        return (value in OFF) == no
    members = value if isinstance(value, tuple | list) else (value,)
    return any(_shown(member) == expected for member in members) != no


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def refuse_unaugmented(settings: Mapping[str, Any], keys: Iterable[str], *, usual: bool) -> None:
    """Refuse settings of a host's own augmentation if that is off."""
    off = "--no-host-augmentation"
    needs = {key: f"!{off}" for key in keys if settings.get(key)}
    refuse_idle(
        needs, {off: not usual}, needs, lambda k: off if k == off else f"--set {k}={settings[k]}"
    )
