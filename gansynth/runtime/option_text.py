"""Options as one text: ``KEY=VALUE,KEY=1+2``; for edits, filters and whatever else has some.

One text says all, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.options import OptionModel, read_model, several

Options = TypeVar("Options", bound=OptionModel)


def read_options(
    model: type[Options], text: str, asked: str, form: str = "NAME:KEY=VALUE,KEY=VALUE,..."
) -> Options:
    """Options from ``KEY=VALUE,...``; several values of a key as ``1+2``.

    Of an option that is a mapping, each value has a key of its own: ``KEY.ITS_KEY=VALUE``.

    Args:
        model: what they are checked against.
        text: as typed, without any name.
        asked: what was typed, with its option, for messages: ``--edit shift:max_mm=12``.
        form: what is expected, likewise.

    Raises:
        UsageFault: a key that is not there or comes twice, or a value that does not fit.
    """
    known = list(model.model_fields)
    given: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        group, _, own = key.partition(".")
        mapped = own and equals and group in known and _mapping(model, group)
        if mapped and own not in given.get(group, {}):
            given.setdefault(group, {})[own] = value
            continue
        if key not in known or key in given or not equals:
            raise UsageFault(
                f"{asked}: {word!r} is not one of {', '.join(known)}, each once, expected "
                f"{form}.{did_you_mean(key, known)}"
            )
        given[key] = value
    return fill_options(model, given, asked)


def fill_options(model: type[Options], given: Mapping[str, Any], asked: str) -> Options:
    """Options from values by key; those that are texts are read as in ``read_options``.

    Args:
        model: what they are checked against.
        given: values by key.
        asked: what they were asked of, for messages.

    Raises:
        UsageFault: a key that is not there, or a value that does not fit.
    """
    for key in given:
        if key not in model.model_fields:
            hint = did_you_mean(key, model.model_fields)
            raise UsageFault(
                f"{asked}: {key!r} is not one of {', '.join(model.model_fields)}.{hint}"
            )
    try:
        values = {key: _read(model, key, value) for key, value in given.items()}
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: 2020-99-99 is no date
        raise UsageFault(f"{asked}: a value is not readable, expected YAML") from None

    def named(key: str) -> str:
        return f"{asked}: {key or 'options'}"

    return read_model(model, values, named, joint="+")


def _read(model: type[OptionModel], key: str, value: Any) -> Any:
    """A text as YAML reads it; of an option with several, those between ``+`` signs."""
    if not isinstance(value, str):
        return value
    if several(model.model_fields[key].annotation):
        return None if value == "none" else [yaml.safe_load(part) for part in value.split("+")]
    return yaml.safe_load(value)


def _mapping(model: type[OptionModel], key: str) -> bool:
    return getattr(model.model_fields[key].annotation, "__origin__", None) is Mapping
