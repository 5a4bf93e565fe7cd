"""What a release of gansynth has in other distributions than this one, and how to install them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.version import __version__, parts


def where_to_get(name: str) -> str:
    """Return how to install the distribution that has a name; nothing if none that is absent has.

    Args:
        name: of a command, framework, source or package: ``evaluate``, ``gansynth_evaluate``.
    """
    for part, table in _absent().items():
        if name in table["names"] or name in table["packages"]:
            return (
                f"{name!r} is in {part}, which is not installed here: install its wheel of version "
                f"{__version__}, or type pip install --constraint constraints.txt "
                f"{table['install']} in the clone of gansynth"
            )
    return ""


def refuse_absent(what: str, name: str) -> None:
    """Refuse a name that is in a distribution which is not installed.

    Args:
        what: kind of thing that it names, for the message: ``command``.
    """
    where = where_to_get(name)
    if where:
        raise EnvironmentFault("parts.not-installed", f"{what} {where}")


@cache
def _absent() -> Mapping[str, Any]:
    """Return the tables of the distributions whose packages are not there."""
    tables = parts().items()
    return {part: table for part, table in tables if find_spec(table["packages"][0]) is None}
