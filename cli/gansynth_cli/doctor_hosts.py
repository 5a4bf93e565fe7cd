"""Host frameworks for ``gansynth doctor``: nnU-Net and DeepMedic by adapters, YOLO by a look."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from gansynth.doctor import Line


def host_lines(
    root: str | None,
    *,
    quick: bool,
    deepmedic: str | None = None,
    deepmedic_python: str | None = None,
) -> Iterator[Line]:
    """Look at every host framework; one that cannot be looked at is a line, too.

    Args:
        root: folder of nnU-Net's folders, instead of its environment.
        quick: leave out what takes seconds.
        deepmedic: folder of a checkout of DeepMedic, instead of its variable's.
        deepmedic_python: the Python that runs it, likewise.
    """
    try:
        from gansynth._doctor_machine import cores
        from gansynth_nnunet import doctor

        yield from doctor.lines(root, quick=quick, cores=cores())
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Line("note", "nnunet", reason, "pip install 'nnunetv2>=2.8,<3'")
    yield from deepmedic_lines(deepmedic, deepmedic_python)
    yield from yolo_lines()


def deepmedic_lines(checkout: str | None = None, python: str | None = None) -> Iterator[Line]:
    """DeepMedic: a checkout, the Python that runs it, and what is installed there.

    Args:
        checkout: its folder; None for what GANSYNTH_DEEPMEDIC names.
        python: None for what GANSYNTH_DEEPMEDIC_PYTHON names, or else this one.
    """
    from gansynth_deepmedic import program

    yield from program.doctor_lines(checkout, python)


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
