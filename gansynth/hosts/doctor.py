"""Check this machine: packages, devices, plugins, and scratch banks.

Each line names the item, its state, and the cure for a problem. The checks raise nothing. The
commands ``doctor`` of target frameworks (the framework you train) add their own lines.
"""

from __future__ import annotations

import contextlib
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gansynth.runtime import machine
from gansynth.runtime.errors import GansynthError, extra_hint
from gansynth.runtime.machine import GIB, DoctorLine, package_line
from gansynth.runtime.version import __version__

if TYPE_CHECKING:
    from gansynth.core.requests.hosts import DoctorRequest
    from gansynth.runtime.options import OptionModel

ESSENTIAL = ("torch", "numpy", "scipy", "h5py", "nibabel", "safetensors")
EXTRAS: Mapping[str, tuple[str, str]] = {
    "monai": ("gansynth.mix in MONAI pipelines", "pip install monai"),
    "torchio": ("gansynth.mix in TorchIO pipelines", "pip install torchio"),
    "tensorboard": ("logs for TensorBoard", extra_hint("tensorboard")),
    "ray": ("gansynth benchmark on many machines", extra_hint("ray")),
    "isal": ("reading .nii.gz nearly twice as fast", extra_hint("fast")),
}
"""Package -> what it is for, and how to install it."""


def examine() -> Iterator[DoctorLine]:
    """Check everything that needs no target framework."""
    yield DoctorLine("ok", "gansynth", __version__)
    yield DoctorLine(
        "ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    )
    for package in ESSENTIAL:
        yield package_line(package, essential=True)
    try:
        from gansynth.runtime.devices import device_lines
    except Exception:
        yield DoctorLine("bad", "device", "unknown without torch", "pip install torch")
    else:
        yield from device_lines()
    yield from machine.lines()
    yield from scratch_banks()
    yield from plugin_lines()
    for package, (purpose, cure) in EXTRAS.items():  # none of them is imported
        try:
            yield DoctorLine("ok", package, f"{version(package)} (for {purpose})")
        except PackageNotFoundError:
            yield DoctorLine("note", package, f"not installed; only for {purpose}", cure)


def plugin_lines() -> Iterator[DoctorLine]:
    """List the plugins, and those that are left out."""
    from gansynth.core.registry import installed

    registry = installed()
    yield DoctorLine("ok", "plugins", ", ".join(registry.plugins))
    for name, reason in registry.broken.items():
        cure = "update or remove its package; gansynth plugins says more"
        yield DoctorLine("note", f"plugin {name}", f"left out: {reason}", cure)


def host_options() -> dict[str, type[OptionModel]]:
    """Return the options of every host's check, without those that do not load."""
    from gansynth.core.registry import installed

    models = {}
    for name in installed().hosts_with("doctor"):
        with contextlib.suppress(GansynthError):
            models[name] = installed().command_options("doctor", name)
    return models


def host_lines(request: DoctorRequest) -> Iterator[DoctorLine]:
    """Collect the lines of every host's check, each with its own settings.

    A check that fails is a line, too.
    """
    from gansynth.core.plugin_checks import guard_plugin_code, one_line
    from gansynth.core.registry import installed

    registry = installed()
    for name in registry.hosts_with("doctor"):
        try:
            with guard_plugin_code():
                keys = registry.command_options("doctor", name).model_fields
                own = {key: value for key, value in request.set.items() if key in keys}
                lines = list(registry.run("doctor", name, request, own))
        except Exception as error:  # a failing host does not stop the others
            origin = registry.origins.get(registry.loaders["commands"][f"doctor {name}"][0])
            package = f"gansynth_{name}" if origin is None else origin.distribution
            cure = f"if a package is missing or torn: install {package} again"
            lines = [DoctorLine("note", name, f"cannot be checked: {one_line(error)}", cure)]
        yield from lines


def scratch_banks() -> Iterator[DoctorLine]:
    """List banks that a killed training left behind; they hold memory until they are removed."""
    from gansynth.bank import placement

    banks = placement.scratch_banks()
    dead = {folder: size for folder, size, _, runs in banks if not runs}
    used = {folder: size for folder, size, _, runs in banks if runs}
    if dead:
        size, cure = sum(dead.values()) / GIB, shlex.join(["rm", "-r", *map(str, dead)])
        text = f"{len(dead)} left by processes that have ended, {size:.2f} GiB"
        yield DoctorLine("note", "scratch banks", text, cure)
    if used:
        text = f"{len(used)} in use, {sum(used.values()) / GIB:.2f} GiB"
        yield DoctorLine("ok", "scratch banks", text)
    if not banks:
        yield DoctorLine("ok", "scratch banks", "none left behind")
