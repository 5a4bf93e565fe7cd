"""``--set key=value``: which options it means, typed and checked, the nearest name on a slip."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.options import OptionModel, read_model, refuse_idle

LENGTHS = frozenset({"steps", "epochs"})
"""Settings that say the same: how long to train."""

MOST_BYTES = 1 << 20
"""Of a YAML file that a user writes."""
Loop = TypeVar("Loop", bound=BaseModel)
Own = TypeVar("Own", bound=BaseModel)
Options = TypeVar("Options", bound=OptionModel)


def split_settings(
    settings: Mapping[str, str],
    loop: type[Loop],
    own: type[Own],
    *,
    generator: str,
    typed: Collection[str] = (),
) -> tuple[Loop, Own]:
    """Sort ``--set`` values into the loop's and the generator's options.

    Args:
        settings: key -> text as typed.
        loop: options of the training loop.
        own: options of the generator.
        generator: its name, for messages.
        typed: those of the settings that must have an effect: what a user typed.

    Raises:
        UsageFault: unknown key (with the nearest one), a value that does not fit, both steps and
            epochs, or one without effect under the others.
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
    found = (
        parse(loop, {k: v for k, v in settings.items() if k in loop.model_fields}),
        parse(own, {k: v for k, v in settings.items() if k in own.model_fields}),
    )
    values = {**dict(found[0]), **dict(found[1])}
    needs = {k: v for model in (loop, own) for k, v in getattr(model, "needs", {}).items()}
    refuse_idle([k for k in settings if k in typed], values, needs, partial(_typed, settings))
    return found


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
        DataFault: no such file.
        UsageFault: too large, or not YAML.
    """
    if not path.is_file():
        raise DataFault(f"{path}: no such file, expected {expected}")
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
        given = {key: yaml.safe_load(value) for key, value in settings.items()}
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: 2020-99-99 is no date
        raise UsageFault(f"--set {dict(settings)}: a value is not readable as YAML") from None
    return read_model(model, given, partial(_typed, settings))


def read_settings(model: type[Options], settings: Mapping[str, str]) -> Options:
    """Build an options model from all that a user typed; every key must have an effect.

    Raises:
        UsageFault: as ``parse``; or a key without effect under the others.
    """
    options = parse(model, settings)
    refuse_idle(settings, options, options.needs, lambda key: f"--set {key}={settings[key]}")
    return options


def _typed(settings: Mapping[str, str], key: str) -> str:
    """An option as it was typed; all of them where a check goes across several."""
    told = {key: settings[key]} if key in settings else settings
    return f"--set {' '.join(f'{k}={v}' for k, v in told.items())}"
