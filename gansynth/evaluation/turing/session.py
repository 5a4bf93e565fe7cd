"""The folder of a Visual Turing Test, with everything needed to resume it.

``session.json`` has public properties. ``images.npy`` is uint8 (N, C, D, H, W), in random order.
``key.json`` is the truth of each image, never opened by the server. ``access.json`` has the link's
token and the port, ``raters/`` the answers (see ``raters``). Only the owner may read the folder: it
holds pictures of patients, and the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.evaluation.turing.options import TuringOptions
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import check_sha256, disk_errors, read_own, sha256_file, whole_folder
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.version import __version__

VERSION = 2
SESSION, IMAGES, KEY, ACCESS, RATERS = (
    *("session.json", "images.npy", "key.json", "access.json", "raters"),
)
OWN, OWN_FOLDER = 0o600, 0o700
_RESTORE = "restore it from a copy"


@dataclass(frozen=True)
class StudySession:
    """An opened session, without its key."""

    folder: Path
    document: Mapping[str, Any]  # `session.json`
    images: npt.NDArray[np.uint8]  # uint8 (N, C, D, H, W)

    @property
    def id(self) -> str:
        """Short unique name of the session."""
        return str(self.document["id"])

    def key(self) -> list[dict[str, Any]]:
        """The truth of each image, for counting answers and never for the server."""
        return read_key(self.folder, self.document)


def default_folder(run: Path, name: str = "session") -> Path:
    """The default folder of a run's session."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageFault(
            f"--name {name}: expected letters, digits, '.', '_' and '-', e.g. --name reader-study"
        )
    return run / "turing" / name


def prepare_session(
    run: Path,
    folder: Path | None = None,
    options: TuringOptions | None = None,
    *,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
    reporter: Reporter | None = None,
) -> StudySession:
    """Prepare a session of a run atomically, or open the one made with these options.

    Args:
        folder: of the session; ``RUN/turing/session`` if None.
        options: what is shown; defaults if None.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.

    Raises:
        UsageFault: no run, or the folder holds something else, or a session with other options.
        GansynthError: what opening run and source, cutting and sampling raise.
    """
    folder, options = folder or default_folder(run), options or TuringOptions()
    if (folder / SESSION).exists():
        session = open_session(folder)
        _check_same(folder, session.document, options)
        return session
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            f"{folder}: exists already and holds no session, expected a new folder; choose another "
            "with -o or --name"
        )
    from gansynth.evaluation.turing.pictures import gather
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_moved

    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    pictures = gather(opened, source, options, reporter or NullReporter())
    _forget_unfinished(folder)
    with whole_folder(folder) as temporary, disk_errors(folder):
        temporary.chmod(OWN_FOLDER)
        (temporary / RATERS).mkdir()
        images = _write_images(temporary / IMAGES, pictures.images)
        key = _write_own(temporary / KEY, {"version": VERSION, "images": pictures.key})
        _write_own(temporary / ACCESS, {"token": secrets.token_urlsafe(32), "port": 0})
        document = {
            "version": VERSION,
            "gansynth": __version__,
            "id": secrets.token_hex(4),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "run": {"id": opened.run_id, "generator": opened.generator.name},
            "asked": options.to_json(),
            "images": {
                "sha256": images,
                "count": len(pictures.images),
                "channels": list(pictures.schema.channels),
                "size": list(pictures.images.shape[2:]),
                "spacing": list(pictures.schema.spacing),
                "axes": pictures.schema.axes,
            },
            "key": {"sha256": key},
            "about": pictures.about,
        }
        _write_own(temporary / SESSION, document)
    return open_session(folder)


def open_session(folder: Path) -> StudySession:
    """Open a prepared session.

    Raises:
        UsageFault: there is none.
        IntegrityFault: a file in it is missing, damaged or of a later version.
    """
    document = read_session(folder)
    hint = f"{_RESTORE}, or prepare another session with --name"
    check_sha256(folder / IMAGES, document["images"]["sha256"], f"{SESSION}; {hint}")
    try:
        images = np.load(folder / IMAGES, allow_pickle=False)
    except ValueError as error:
        raise IntegrityFault(f"{folder / IMAGES}: damaged ({error}), expected an array") from None
    return StudySession(folder, document, images)


def read_session(folder: Path) -> dict[str, Any]:
    """Read ``session.json`` without the images.

    Raises:
        UsageFault: there is none.
        IntegrityFault: damaged, or of a later version.
    """
    path = folder / SESSION
    if not path.is_file():
        raise DataFault(
            f"{folder}: no {SESSION} here, expected a session that gansynth turing-test made; "
            "prepare one: gansynth turing-test RUN"
        )
    document = read_own(path, hint=_RESTORE)
    if document.get("version") != VERSION:
        raise IntegrityFault(
            f"{path}: key 'version' is {document.get('version')!r}, expected {VERSION}; this "
            "session was made by another version of gansynth"
        )
    missing = [key for key in ("id", "asked", "images", "key", "about") if key not in document]
    if missing:
        raise IntegrityFault(f"{path}: damaged, lacks {', '.join(missing)}; {_RESTORE}")
    return document


def read_key(folder: Path, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The truth of each image of a session."""
    hint = "without its key a session is useless. Restore it from a copy"
    check_sha256(folder / KEY, document["key"]["sha256"], f"{SESSION}; {hint}")
    images: list[dict[str, Any]] = read_own(folder / KEY, hint=_RESTORE)["images"]
    return images


def read_access(folder: Path) -> tuple[str, int]:
    """The token of the link, and the last port (0 for none)."""
    document = read_own(folder / ACCESS, hint=_RESTORE)
    try:
        return str(document["token"]), int(document["port"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityFault(f"{folder / ACCESS}: damaged ({error}); restore it") from None


def remember_port(folder: Path, port: int) -> None:
    """Save the port, so that open pages find it again after a restart."""
    token, before = read_access(folder)
    if port == before:
        return
    temporary = folder / f".{ACCESS}.tmp-{os.getpid()}"
    with disk_errors(folder / ACCESS):
        _write_own(temporary, {"token": token, "port": port})
        os.replace(temporary, folder / ACCESS)


def _check_same(folder: Path, document: Mapping[str, Any], options: TuringOptions) -> None:
    # JSON turns tuples into lists.
    requested, made = json.loads(json.dumps(options.to_json())), document["asked"]
    for key in requested:
        if requested[key] != made.get(key):
            raise UsageFault(
                f"{folder}: holds a session made with {key} {made.get(key)!r}, asked for "
                f"{requested[key]!r}; expected the same. Continue it as it is: --resume; or "
                "prepare another one: --name NAME"
            )


def _write_own(path: Path, document: Mapping[str, Any]) -> str:
    """Write JSON that only the owner may read; return its SHA-256."""
    data = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWN), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(data).hexdigest()


def _write_images(path: Path, images: npt.NDArray[np.uint8]) -> str:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWN), "wb") as stream:
        np.save(stream, images, allow_pickle=False)
    return sha256_file(path)


def _forget_unfinished(folder: Path) -> None:
    """Remove leftovers of this session's dead preparation processes."""
    import psutil

    for left in folder.parent.glob(f".{folder.name}.tmp-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                shutil.rmtree(left)
