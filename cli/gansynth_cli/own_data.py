"""Options of commands that have a generator, which knows its data set: ``--data`` is optional."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gansynth_cli.common import root_option, with_reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import SourceRequest

F = TypeVar("F", bound="Callable[..., Any]")


def with_host_data(function: F) -> F:
    """Add ``--data`` and what says how to read it, none of it required; see ``host_data``."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="Cases, e.g. nnunet:004. What is not given of --data, -c, --plans, --fold, "
        "--subjects, --read and --root is as the generator was fitted.",
    )
    return data(with_reading(function))


def host_data(
    data: str | None, asked: Mapping[str, Any], run: RunFolder | None
) -> tuple[SourceRequest, str]:
    """What a host is opened on, and in words what of it was taken from the generator.

    Args:
        data: KIND:WHERE as typed.
        asked: how to read it, None of what was not typed.
        run: of the generator, if there is one.

    Raises:
        UsageFault: nothing says which data set it is, or a key without effect.
        DataFault: no run there.
    """
    from gansynth.core.source import SourceRequest
    from gansynth.data.reading import refuse_idle_read
    from gansynth.sampling.opening import requested, taken

    if data is not None:
        told = SourceRequest.parse(data)
        asked = {**asked, "kind": told.kind, "where": told.where}
    request = requested(asked, run)
    refuse_idle_read(request, asked["read"])
    return request, "" if run is None else taken(request, asked)


def with_moved_data(function: F) -> F:
    """Add ``--data`` and ``--root``: where the data set of a run is, if it was moved since."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="Where the data set that RUN was fitted on is now, if it was moved or renamed.",
    )
    return data(root_option(function))
