"""``--set key=value``: which options it means, typed and checked, the nearest name on a slip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gansynth.errors import UsageFault, did_you_mean

LENGTHS = frozenset({"steps", "epochs"})
"""Settings that say the same: how long to train."""

MOST_BYTES = 1 << 20
"""Of a YAML file that a user writes."""
Loop = TypeVar("Loop", bound=BaseModel)
Own = TypeVar("Own", bound=BaseModel)


def split_settings(
    settings: Mapping[str, str], loop: type[Loop], own: type[Own], *, generator: str
) -> tuple[Loop, Own]:
    """Sort ``--set`` values into the loop's and the generator's options.

    Args:
        settings: key -> text as typed.
        loop: options of the training loop.
        own: options of the generator.
        generator: its name, for messages.

    Raises:
        UsageFault: unknown key (with the nearest one), a value that does not fit, or both steps and
            epochs.
    """
    if settings.keys() >= LENGTHS:
        raise UsageFault(
            f"--set epochs={settings['epochs']}: cannot be combined with steps="
            f"{settings['steps']}, which says the same; expected one of them"
        )
    known = {**loop.model_fields, **own.model_fields}
    for key in settings:
        if key not in known:
            hint = did_you_mean(key, known)
            raise UsageFault(
                f"--set {key}={settings[key]}: {generator} has no such option, expected one of "
                f"{', '.join(sorted(known))}.{hint}"
            )
    return (
        parse(loop, {k: v for k, v in settings.items() if k in loop.model_fields}),
        parse(own, {k: v for k, v in settings.items() if k in own.model_fields}),
    )


def overlay(base: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Settings with others put over them; ``steps`` and ``epochs`` stand for each other."""
    told = not LENGTHS.isdisjoint(over)
    return {**{k: v for k, v in base.items() if not (told and k in LENGTHS)}, **over}


def read_yaml(path: Path, expected: str) -> tuple[Any, bytes]:
    """What a user's YAML file holds, and its bytes.

    Args:
        path: the file.
        expected: what it should be, for messages: ``a recipe in YAML``.

    Raises:
        UsageFault: no such file, too large, or not YAML.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageFault(f"{path}: larger than {MOST_BYTES} bytes, expected {expected}")
        data = path.read_bytes()
        return yaml.safe_load(data.decode("utf-8")), data
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise UsageFault(f"{path}: cannot be read ({text}); expected {expected}") from None


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested document in one level: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        found.update(flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return found


def parse(model: type[Own], settings: Mapping[str, str]) -> Own:
    """Build an options model from texts; numbers, booleans and lists as YAML reads them.

    Raises:
        UsageFault: naming key, value and what was expected.
    """
    try:
        return model(**{key: yaml.safe_load(value) for key, value in settings.items()})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # a check across several options
            given = " ".join(f"{k}={v}" for k, v in settings.items())
            raise UsageFault(f"--set {given}: {first['msg']}") from None
        key = ".".join(str(part) for part in first["loc"])
        field = model.model_fields.get(str(first["loc"][0]))
        meaning = f" ({field.description})" if field is not None and field.description else ""
        raise UsageFault(
            f"--set {key}={settings.get(key, first['input'])}: {first['msg']}{meaning}"
        ) from None
    except yaml.YAMLError:
        raise UsageFault(f"--set {dict(settings)}: a value is not readable as YAML") from None
