"""Edits as text: ``elastic``, ``shift:max_mm=12,classes=1+2``.

One text says all, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from gansynth.conditions.base import Edit, EditOptions
from gansynth.errors import UsageFault, did_you_mean
from gansynth.registry import installed


def build_edits(texts: Sequence[str]) -> list[Edit]:
    """Edits as they are asked for, in order.

    Raises:
        UsageFault: an edit or option that is not there, or a value that does not fit.
    """
    return [build_edit(text) for text in texts]


def build_edit(text: str) -> Edit:
    """One edit: ``NAME`` or ``NAME:KEY=VALUE,...``; several values of a key as ``1+2``.

    Raises:
        UsageFault: see ``build_edits``.
    """
    name, colon, rest = text.partition(":")
    cls = installed().edit(name)
    if not colon:
        return cls()
    return cls(_options(cls.Options, text, rest))


def _options(model: type[EditOptions], text: str, rest: str) -> EditOptions:
    known = list(model.model_fields)
    given: dict[str, str] = {}
    for word in rest.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in known or key in given or not equals:
            raise UsageFault(
                f"--edit {text}: {word!r} is not one of {', '.join(known)}, each once, expected "
                f"NAME:KEY=VALUE,KEY=VALUE,....{did_you_mean(key, known)}"
            )
        given[key] = value
    try:
        return model.model_validate({key: _read(model, key, value) for key, value in given.items()})
    except (ValidationError, yaml.YAMLError) as error:
        if isinstance(error, yaml.YAMLError):
            raise UsageFault(f"--edit {text}: a value is not readable, expected YAML") from None
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "options"
        field = model.model_fields.get(key)
        meaning = f" ({field.description})" if field is not None else ""
        raise UsageFault(f"--edit {text}: {key}: {first['msg']}{meaning}") from None


def _read(model: type[EditOptions], key: str, value: str) -> Any:
    """A value as YAML reads it; of an option with several, those between ``+`` signs."""
    if _several(model.model_fields[key].annotation):
        return None if value == "none" else [yaml.safe_load(part) for part in value.split("+")]
    return yaml.safe_load(value)


def _several(annotation: Any) -> bool:
    """Whether an option is a tuple of values, or may be one."""
    origin = getattr(annotation, "__origin__", annotation)
    return origin is tuple or any(_several(part) for part in get_args(annotation) if part != ...)
