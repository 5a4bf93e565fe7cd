"""Options as one text: ``KEY=VALUE,KEY=1+2``; for edits, filters and whatever else has some.

One text says all, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from gansynth.errors import UsageFault, did_you_mean

Options = TypeVar("Options", bound=BaseModel)


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
        return model.model_validate({key: _read(model, key, value) for key, value in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "options"
        field = model.model_fields.get(key)
        meaning = f" ({field.description})" if field is not None else ""
        text = first["msg"].removeprefix("Value error, ")
        raise UsageFault(f"{asked}: {key}: {text}{meaning}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: 2020-99-99 is no date
        raise UsageFault(f"{asked}: a value is not readable, expected YAML") from None


def _read(model: type[BaseModel], key: str, value: Any) -> Any:
    """A text as YAML reads it; of an option with several, those between ``+`` signs."""
    if not isinstance(value, str):
        return value
    if _several(model.model_fields[key].annotation):
        return None if value == "none" else [yaml.safe_load(part) for part in value.split("+")]
    return yaml.safe_load(value)


def _several(annotation: Any) -> bool:
    """Whether an option is a tuple of values, or may be one."""
    origin = getattr(annotation, "__origin__", annotation)
    return origin is tuple or any(_several(part) for part in get_args(annotation) if part != ...)


def _mapping(model: type[BaseModel], key: str) -> bool:
    return getattr(model.model_fields[key].annotation, "__origin__", None) is Mapping
