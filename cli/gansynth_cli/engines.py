"""``gansynth augment --deepmedic``, ``--engine``: who trains, for hosts of several engines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gansynth.runtime.errors import UsageFault

CHECKOUT = "GANSYNTH_DEEPMEDIC"
"""Variable that names the checkout of DeepMedic where ``--deepmedic`` does not."""
ENGINE = "engine"


def with_engine(
    settings: Mapping[str, str],
    known: Mapping[str, str],
    target: str,
    *,
    engine: str | None,
    checkout: Path | None,
    python: Path | None,
    output: Path | None,
    options: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    exports: bool = True,
) -> tuple[dict[str, str], Path | None]:
    """The settings with the options about engines among them, and where a data set is written.

    Hosts of several engines train where one is chosen, and ``-o`` is then the folder of results;
    else ``-o`` is where a data set is written, which any engine trains on. Of hosts that write no
    data sets it is the folder of results, too.

    Args:
        settings: what ``--set`` says.
        known: the target's settings.
        target: its name.
        engine: ``--engine``.
        checkout: ``--deepmedic``.
        python: ``--deepmedic-python``.
        output: ``-o``.
        options: what follows ``--``.
        environ: of the process.
        exports: whether the target writes data sets.

    Returns:
        Settings, and the folder of ``-o`` if nothing is trained.

    Raises:
        UsageFault: an option that the target does not know, or two that say different things.
    """
    said = {"engine": engine, "deepmedic": checkout, "python": python}
    if ENGINE not in known:
        for key, value in said.items():
            if value is not None:
                raise UsageFault(
                    f"{_option(key)} {value}: {target} has no engines to choose from, expected "
                    "--target deepmedic; leave it out"
                )
        if exports or "output" not in known:
            return dict(settings), output
        return dict(_with(settings, "output", _text(output), "-o")), None
    for key, value in said.items():
        settings = _with(settings, key, _text(value), _option(key))
    settings = _chosen(settings, options, environ)
    if ENGINE not in settings:
        return dict(settings), output
    return dict(_with(settings, "output", _text(output), "-o")), None


def _text(value: str | Path | None) -> str | None:
    return None if value is None else str(value)


def _chosen(
    settings: Mapping[str, str], options: Sequence[str], environ: Mapping[str, str]
) -> Mapping[str, str]:
    """The settings with the engine that other options imply."""
    if ENGINE in settings:
        return settings
    if "deepmedic" in settings or (options and environ.get(CHECKOUT)):
        return {**settings, ENGINE: "deepmedic"}
    if options:
        raise UsageFault(
            f"-- {options[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "that it trains on, or to train with --engine torch, leave out what follows --"
        )
    return settings


def _with(
    settings: Mapping[str, str], key: str, value: str | None, option: str
) -> Mapping[str, str]:
    """The settings with one more.

    Raises:
        UsageFault: it is set already, otherwise.
    """
    if value is None:
        return settings
    if settings.get(key, value) != value:
        raise UsageFault(
            f"{option} {value} and --set {key}={settings[key]}: expected one of them; leave the "
            "other out"
        )
    return {**settings, key: value}


def _option(key: str) -> str:
    return "--deepmedic-python" if key == "python" else f"--{key}"


def with_detector(
    settings: dict[str, str], detector: str | None, known: Mapping[str, str], target: str
) -> dict[str, str]:
    """The settings with ``--detector`` among them.

    Raises:
        UsageFault: the target has no detectors to choose from, or another one is set already.
    """
    if detector is None:
        return settings
    if "detector" not in known:
        raise UsageFault(
            f"--detector {detector}: {target} is no detector, expected --target yolo; leave it out"
        )
    if settings.get("detector", detector) != detector:
        raise UsageFault(
            f"--detector {detector} and --set detector={settings['detector']}: expected one of "
            "them; leave the other out"
        )
    return {**settings, "detector": detector}
