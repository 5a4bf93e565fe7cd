"""Options of ``gansynth turing-test`` that say what is shown, and where it is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gansynth_cli.common import FILE, FOLDER, with_real

F = TypeVar("F", bound=Callable[..., Any])


def with_session(function: F) -> F:
    """Add them; those of ``TuringOptions`` are passed on as ``shown``."""

    @click.option(
        "-n",
        "--n",
        "--number",
        "number",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        help="Real images, and as many samples; with --per-class of each class.",
    )
    @with_real("Real images of this source instead of the run's own.")
    @click.option(
        "--from",
        "origin",
        type=click.Choice(["held-out", "training", "all"]),
        help="Real cases: of which side of the fold.  [default: held-out if enough, else all]",
    )
    @click.option(
        "--per-case",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Most images cut from one real case, of runs that learn from crops or slices of them.",
    )
    @click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME",
        help="Images of this class only; may be repeated.",
    )
    @click.option("--per-class", is_flag=True, help="As many images of each class, and its table.")
    @click.option("--channel", metavar="NAME", help="Show this channel.  [default: all]")
    @click.option(
        "--contrast",
        type=click.Choice(["real", "own"]),
        default="real",
        show_default=True,
        help="Black and white: percentiles of real images, for all; or of each image.",
    )
    @click.option(
        "--seed", type=click.IntRange(min=0), help="Of the samples.  [default: nobody knows]"
    )
    @click.option("--instructions", type=FILE, help="Text file that raters read before they begin.")
    @click.option(
        "--show-results", is_flag=True, help="Raters see their own table after the last answer."
    )
    @click.option(
        "--name", default="session", show_default=True, help="Name of the session, in RUN/turing."
    )
    @click.option("-o", "--out", "folder", type=FOLDER, help="Its folder instead.")
    @functools.wraps(function)
    def wrapped(
        *args: Any,
        number: int,
        real: dict[str, Any] | None,
        origin: str | None,
        per_case: int,
        classes: tuple[str, ...],
        per_class: bool,
        channel: str | None,
        contrast: str,
        seed: int | None,
        show_results: bool,
        **kwargs: Any,
    ) -> Any:
        shown = {
            "n": number,
            "real": real,
            "origin": origin,
            "per_case": per_case,
            "classes": classes,
            "per_class": per_class,
            "channel": channel,
            "contrast": contrast,
            "seed": seed,
            "show_results": show_results,
        }
        return function(*args, shown=shown, **kwargs)

    return wrapped  # type: ignore[return-value]
