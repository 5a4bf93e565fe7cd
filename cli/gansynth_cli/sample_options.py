"""Options of ``gansynth sample``: sheets to look at, and PNG files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def with_sheets(function: F) -> F:
    """Add ``--sheet``, ``--interpolate``, ``--rows`` and ``--nearest``; passed on as ``sheets``."""

    @click.option("--sheet", is_flag=True, help="Draw a contact sheet (PNG) of images and labels.")
    @click.option(
        "--interpolate",
        type=click.IntRange(min=2),
        metavar="STEPS",
        help="Draw a sheet of so many steps from one latent to another, for generators that draw "
        "from noise.",
    )
    @click.option(
        "--rows", type=click.IntRange(min=1), help="Pairs of latents there.  [default: 4]"
    )
    @click.option(
        "--nearest",
        is_flag=True,
        help="Draw a sheet of samples beside their nearest training cases; it stays in RUN.",
    )
    @functools.wraps(function)
    def wrapped(
        *args: Any,
        sheet: bool,
        interpolate: int | None,
        rows: int | None,
        nearest: bool,
        **kwargs: Any,
    ) -> Any:
        sheets: dict[str, Any] = {"sheet": sheet, "interpolate": interpolate, "nearest": nearest}
        if rows is not None:
            sheets["rows"] = rows
        return function(*args, sheets=sheets, **kwargs)

    return wrapped  # type: ignore[return-value]


def with_sharing(function: F) -> F:
    """Add ``--for-sharing``."""
    return click.option(
        "--for-sharing",
        is_flag=True,
        help="Files to hand on: which cases samples came from is written into RUN alone; refused "
        "where samples hold parts of real images.",
    )(function)


def with_png(function: F) -> F:
    """Add ``--format`` and what PNG files take; passed on as ``png``, None for NIfTI."""

    @click.option(
        "--format",
        "kind",
        type=click.Choice(["nifti", "png"]),
        default="nifti",
        show_default=True,
        help="png: slices as PNG files with a manifest that names no patient.",
    )
    @click.option("--bits", type=click.Choice(["8", "16"]), help="Of a PNG's pixels.  [default: 8]")
    @click.option(
        "--window",
        metavar="LOW:HIGH",
        help="Black and white of PNG files: intensities, or percentiles of training cases "
        "(1%:99%).  [default: 0.5%:99.5%]",
    )
    @click.option("--overlay", is_flag=True, help="PNG files with outlines of the labels, too.")
    @click.option("--keep-flawed", is_flag=True, help="PNG files of flawed samples, too.")
    @functools.wraps(function)
    def wrapped(
        *args: Any,
        kind: str,
        bits: str | None,
        window: str | None,
        overlay: bool,
        keep_flawed: bool,
        **kwargs: Any,
    ) -> Any:
        asked: dict[str, Any] = {
            "bits": bits and int(bits),
            "window": window,
            "overlay": overlay,
            "keep_flawed": keep_flawed,
        }
        given = {key: value for key, value in asked.items() if value}
        if kind == "png":
            from gansynth.sampling.png_export import PngOptions

            return function(*args, png=PngOptions(**given), **kwargs)
        return function(*args, png=None, **kwargs)

    return wrapped  # type: ignore[return-value]
