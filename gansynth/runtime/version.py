"""The version of gansynth, which the build reads from here, its commit and its distributions."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__version__ = "0.1.0"
PARTS = ("gansynth", "gansynth-core", "gansynth-lab")
"""The distributions of a release; in a checkout, the first holds all."""


def installed_parts() -> list[Distribution]:
    """Return the distributions of gansynth that are installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    found = []
    for name in PARTS:
        with suppress(PackageNotFoundError):
            found.append(distribution(name))
    return found


@cache
def build() -> str:
    """Return the version, and the commit if it is known: ``0.1.0, commit 1f2e3d4c5b``.

    It is that of the checkout that this package lies in, else of the one that pip has installed
    from. Changes that are not committed are not told.
    """
    commit = None
    with suppress(OSError, ValueError, LookupError, ImportError):
        commit = _commit_of(Path(__file__).parents[2] / ".git") or _commit_installed()
    return f"{__version__}, commit {commit[:10]}" if commit else __version__


def _commit_of(git: Path) -> str | None:
    """Return the commit of a checkout, by git's own files; None: there is none."""
    if git.is_file():  # of a further work tree
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    if not git.is_dir():
        return None
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name, common = head.removeprefix("ref: "), git / "commondir"
    home = git / common.read_text().strip() if common.is_file() else git
    if (home / name).is_file():
        return (home / name).read_text().strip()
    packed = (home / "packed-refs").read_text().splitlines()
    return {line[41:]: line[:40] for line in packed if line[40:41] == " "}[name]


def _commit_installed() -> str | None:
    import json

    text = installed_parts()[0].read_text("direct_url.json") or "{}"
    return str(json.loads(text)["vcs_info"]["commit_id"])


def other_format(file: object, found: object, expected: object, made_by: object, way: str) -> str:
    """Return the message on a file of a format that this gansynth does not read.

    Args:
        file: its path.
        found, expected: the number of the format.
        made_by: what ``build`` has written into the file, if anything.
        way: what to do.
    """
    made = made_by if isinstance(made_by, str) else "of an unknown version"
    return (
        f"{file}: its format is {found!r}, expected {expected!r}: made by gansynth {made}, read by "
        f"gansynth {build()}; {way}, or use it with the gansynth that made it"
    )
