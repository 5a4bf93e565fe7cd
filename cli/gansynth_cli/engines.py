"""``gansynth augment --detector``, ``--engine``, ``--deepmedic``: settings that are options too."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from gansynth.runtime.errors import UsageFault

CHECKOUT = "GANSYNTH_DEEPMEDIC"
"""Variable that names the checkout of DeepMedic where ``--deepmedic`` does not."""
ENGINE = "engine"
NO_ENGINES = "has no engines to choose from, expected --target deepmedic"
OPTIONS = {
    "detector": ("--detector", "is no detector, expected --target yolo"),
    ENGINE: ("--engine", NO_ENGINES),
    "deepmedic": ("--deepmedic", NO_ENGINES),
    "python": ("--deepmedic-python", NO_ENGINES),
}
"""Setting -> the option that says the same, and what is said of a host without that setting."""


def host_settings(
    settings: Mapping[str, str],
    known: Container[str],
    target: str,
    said: Mapping[str, str | Path | None],
    *,
    output: Path | None,
    options: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    exports: bool = True,
) -> tuple[dict[str, str], Path | None]:
    """The settings of a host with what options say among them, and where a data set is written.

    Hosts of several engines train where one is chosen, and ``-o`` is then the folder of results;
    else ``-o`` is where a data set is written, which any engine trains on. Of hosts that write no
    data sets it is the folder of results, too.

    Args:
        settings: what ``--set`` says.
        known: the target's settings.
        target: its name.
        said: key of ``OPTIONS`` -> what that option says, None for nothing.
        output: ``-o``.
        options: what follows ``--``.
        environ: of the process.
        exports: whether the target writes data sets.

    Returns:
        Settings, and the folder of ``-o`` if nothing is trained.

    Raises:
        UsageFault: an option that the target does not know, or two that say different things.
    """
    found = dict(settings)
    for key, value in said.items():
        option, why = OPTIONS[key]
        if value is not None and key not in known:
            raise UsageFault(f"{option} {value}: {target} {why}; leave it out")
        _put(found, key, value, option)
    if ENGINE in known:
        _choose_engine(found, options, environ)
    trains = ENGINE in found if ENGINE in known else not exports and "output" in known
    if not trains:
        return found, output
    _put(found, "output", output, "-o")
    return found, None


def _choose_engine(
    settings: dict[str, str], options: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Put in the engine that other options imply."""
    if ENGINE in settings:
        return
    if "deepmedic" in settings or (options and environ.get(CHECKOUT)):
        settings[ENGINE] = "deepmedic"
    elif options:
        raise UsageFault(
            f"-- {options[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "that it trains on, or to train with --engine torch, leave out what follows --"
        )


def _put(settings: dict[str, str], key: str, value: str | Path | None, option: str) -> None:
    """Set one more; refuse it where it is set already, otherwise."""
    if value is not None and settings.setdefault(key, str(value)) != str(value):
        raise UsageFault(
            f"{option} {value} and --set {key}={settings[key]}: expected one of them; leave the "
            "other out"
        )
