"""``gansynth doctor``: say what this machine has, and what is missing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

import gansynth
from gansynth.errors import EnvironmentFault
from gansynth_cli.common import Output, examples, table, with_output

if TYPE_CHECKING:
    from gansynth.registry import Registry

ESSENTIAL = ("torch", "numpy", "scipy", "h5py", "nibabel", "safetensors", "lightning-fabric")
HOSTS = ("nnunetv2", "batchgenerators", "blosc2")
SHARED = Path("/dev/shm")
SHARED_GIB = 1.0


@dataclass(frozen=True)
class Line:
    """One thing looked at.

    Attributes:
        state: ``ok``, ``note`` (works, but worth knowing) or ``bad`` (something essential).
        what: its name.
        found: what was found, and the way out where it is not ok.
    """

    state: str
    what: str
    found: str


@click.command(epilog=examples("gansynth doctor", "gansynth doctor --json"))
@with_output
def command(out: Output) -> None:
    """Say what this machine has, and what is missing.

    Exit code 4 if something essential is missing.
    """
    lines = list(examine())
    document = {
        "ok": all(line.state != "bad" for line in lines),
        "lines": [vars(line) for line in lines],
    }
    out.result(document, table((line.state, line.what, line.found) for line in lines))
    bad = [line.what for line in lines if line.state == "bad"]
    if bad:
        raise EnvironmentFault(f"doctor: {', '.join(bad)} not in order; see the lines above")


def examine() -> Iterator[Line]:
    """Look at everything, one line each; nothing here raises."""
    yield Line("ok", "gansynth", gansynth.__version__)
    yield Line("ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package in (*ESSENTIAL, *HOSTS):
        yield _package(package, essential=package in ESSENTIAL)
    yield _device()
    yield _threads()
    yield _shared_memory()
    yield from _plugins()
    yield from _nnunet()


def _package(package: str, *, essential: bool) -> Line:
    missing = "bad" if essential else "note"
    try:
        found = version(package)
        importlib.import_module(package.replace("-", "_"))
    except PackageNotFoundError:
        return Line(missing, package, f"not installed; pip install {package}")
    except Exception as error:
        return Line(missing, package, f"does not import: {type(error).__name__}: {error}")
    return Line("ok", package, found)


def _device() -> Line:
    try:
        import torch
    except Exception:
        return Line("bad", "device", "unknown without torch")
    if not torch.cuda.is_available():
        return Line("ok", "device", "cpu (no CUDA device)")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Line("ok", "device", f"cuda: {names}")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads() -> Line:
    cores, asked = _cores(), os.environ.get("OMP_NUM_THREADS")
    if asked is None and cores > 1:
        return Line(
            "note",
            "threads",
            f"{cores} cores; OMP_NUM_THREADS is not set. Where cores are shared with other jobs, "
            "more threads than free cores slow training down many times: set OMP_NUM_THREADS=1",
        )
    return Line("ok", "threads", f"{cores} cores, OMP_NUM_THREADS={asked}")


def _shared_memory() -> Line:
    if not SHARED.is_dir():
        return Line("note", str(SHARED), "not there; banks go to the disk")
    usage = shutil.disk_usage(SHARED)
    free = usage.free / 2**30
    text = f"{free:.1f} GiB free of {usage.total / 2**30:.1f}"
    if free < SHARED_GIB:
        return Line("note", str(SHARED), f"{text}; enlarge it (docker run --shm-size 8g)")
    return Line("ok", str(SHARED), text)


def _plugins() -> Iterator[Line]:
    from gansynth.registry import installed

    registry: Registry = installed()
    yield Line("ok", "plugins", ", ".join(registry.plugins))
    for name, reason in registry.broken.items():
        yield Line("note", f"plugin {name}", f"left out: {reason}")


def _nnunet() -> Iterator[Line]:
    try:
        from gansynth_nnunet.adapter import doctor_lines

        for text in doctor_lines():
            yield Line("ok", "nnunet", text)
    except Exception as error:
        yield Line("note", "nnunet", f"{type(error).__name__}: {error}")
