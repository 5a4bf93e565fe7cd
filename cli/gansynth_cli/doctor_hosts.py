"""Host frameworks for ``gansynth doctor``: nnU-Net by its adapter, DeepMedic and YOLO by a look."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gansynth.doctor import Line

DEEPMEDIC = "GANSYNTH_DEEPMEDIC"
TENSORFLOW = ("tensorflow", "tensorflow-cpu")
TENSORFLOW_CURE = (
    "pip install tensorflow-cpu 'numpy<2' 'nibabel<5' 'pandas<3' scipy six, in an environment of "
    "its own"
)


def host_lines(root: str | None, *, quick: bool) -> Iterator[Line]:
    """Look at every host framework; one that cannot be looked at is a line, too.

    Args:
        root: folder of nnU-Net's folders, instead of its environment.
        quick: leave out what takes seconds.
    """
    try:
        from gansynth._doctor_machine import cores
        from gansynth_nnunet import doctor

        yield from doctor.lines(root, quick=quick, cores=cores())
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Line("note", "nnunet", reason, "pip install 'nnunetv2>=2.8,<3'")
    yield from deepmedic_lines()
    yield from yolo_lines()


def deepmedic_lines() -> Iterator[Line]:
    """DeepMedic: a checkout that a variable names, or an installed one; and TensorFlow."""
    checkout = os.environ.get(DEEPMEDIC)
    cure = f"export {DEEPMEDIC}=FOLDER, a checkout of github.com/deepmedic/deepmedic"
    if checkout and not (Path(checkout) / "deepmedic").is_dir():
        found = f"{checkout} (${DEEPMEDIC}) holds no folder deepmedic"
        yield Line("note", "deepmedic", found, cure)
    elif checkout:
        yield Line("ok", "deepmedic", f"{checkout} (${DEEPMEDIC})")
    elif importlib.util.find_spec("deepmedic") is not None:
        yield Line("ok", "deepmedic", "installed")
    else:
        yield Line("note", "deepmedic", "not found; only for augmenting DeepMedic", cure)
        return
    found = next((f"{name} {_version(name)}" for name in TENSORFLOW if _version(name)), "")
    if found:
        yield Line("ok", "tensorflow", found)
    else:
        yield Line("note", "tensorflow", "not installed; DeepMedic needs it", TENSORFLOW_CURE)


def yolo_lines() -> Iterator[Line]:
    """The two YOLO packages: whether their release is one we know, and what their licences ask."""
    from gansynth_yolo import libre_options
    from gansynth_yolo.agpl import engine

    for package, extra, known, licence in (
        ("libreyolo", "yolo", (libre_options.LEAST, libre_options.BELOW), "MIT"),
        (
            "ultralytics",
            "ultralytics",
            (engine.LEAST, engine.BELOW),
            "AGPL-3.0: what you build on it and offer to others has to be open, too",
        ),
    ):
        cure = f"pip install 'gansynth[{extra}]'"
        least, below = (".".join(map(str, release)) for release in known)
        if not (found := _version(package)):
            said = f"not installed; only for augmenting YOLO ({licence})"
            yield Line("note", package, said, cure)
        elif known[0] <= _release(found) < known[1]:
            yield Line("ok", package, f"{found} ({licence})")
        else:
            said = f"{found}, gansynth augment needs >={least},<{below} ({licence})"
            yield Line("note", package, said, cure)


def _release(found: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) if part.isdigit() else -1 for part in found.split(".")[:2])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
