"""The version of gansynth, which the build reads from here, its commit and its distributions."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.runtime.errors import IntegrityFault

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__version__ = "0.9.0"


@cache
def parts() -> dict[str, Any]:
    """Return the tables of ``parts.toml``, by distribution."""
    import tomllib

    return tomllib.loads(Path(__file__).with_name("parts.toml").read_text(encoding="utf-8"))


def installed_parts() -> list[Distribution]:
    """Return the distributions of gansynth that are installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    found = []
    for name in parts():
        with suppress(PackageNotFoundError):
            found.append(distribution(name))
    return found


@cache
def build() -> str:
    """Return the version, and the commit if it is known: ``0.9.0, commit 1f2e3d4c5b``.

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


def check_format(file: object, found: object, expected: object, made_by: object, way: str) -> None:
    """Refuse a file of gansynth's own in a format, or of a version, that this one does not read.

    This is the one place that decides. A file of a later minor version (0.10 for 0.9) is refused
    even where its number is known: it may hold what only that version understands.

    Args:
        file: its path.
        found, expected: the number of the format; equal where a kind of file has none.
        made_by: what ``build`` has written into the file, if anything.
        way: what to do, if the version that made it is not at hand.
    """
    release = made_by.partition(",")[0] if isinstance(made_by, str) else None
    newer = _minor(release) > _minor(__version__)
    if found == expected and not newer:
        return
    kind = f"its format is {found!r}, expected {expected!r}" if found != expected else "is newer"
    made = "by an unknown version of gansynth" if release is None else f"by gansynth {made_by}"
    update = "use it with the gansynth that made it"
    if newer:
        update = f"use gansynth {release} or later"
    raise IntegrityFault(
        "version.format-differs",
        f"{file}: {kind}: made {made}, read by gansynth {build()}; {way}, or {update}",
    )


def _minor(release: str | None) -> tuple[int, ...]:
    """Return major and minor number of a release; of what is none, numbers below all."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(release or "").release[:2]
    except InvalidVersion:
        return ()
