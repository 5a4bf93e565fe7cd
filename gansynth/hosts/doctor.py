"""Check this machine: packages, devices, plugins, and scratch banks.

Each line names the item, its state, and the cure for a problem. The checks raise nothing. The
commands ``doctor`` of target frameworks (the framework you train) add their own lines.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any, Literal

from gansynth.runtime.errors import GansynthError, extra_hint
from gansynth.runtime.machine import GIB, DoctorLine
from gansynth.runtime.version import __version__

if TYPE_CHECKING:
    from gansynth.core.host_commands import DoctorRequest
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
    from gansynth.runtime import machine

    yield DoctorLine("ok", "gansynth", __version__)
    yield DoctorLine(
        "ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    )
    for package in ESSENTIAL:
        yield package_line(package, essential=True)
    yield from device_lines()
    yield from machine.lines()
    yield from scratch_banks()
    yield from plugin_lines()
    yield from extra_lines()


# -- packages ------------------------------------------------------------------------------------


def package_line(package: str, *, essential: bool = False) -> DoctorLine:
    """Check one package: installed, of a version that gansynth needs, and importable."""
    state: Literal["bad", "note"] = "bad" if essential else "note"
    needs = _requirements().get(package, "")
    install = f"pip install '{package}{needs}'" if str(needs) else f"pip install {package}"
    try:
        installed = version(package)
        importlib.import_module(package.replace("-", "_"))
    except PackageNotFoundError:
        return DoctorLine(state, package, "not installed", install)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DoctorLine(
            state, package, f"does not import: {reason}", f"{install} --force-reinstall"
        )
    if str(needs) and installed not in needs:
        return DoctorLine(state, package, f"{installed}, gansynth needs {needs}", install)
    return DoctorLine("ok", package, installed)


@functools.cache
def _requirements() -> dict[str, Any]:
    """Return the versions gansynth requires by its own metadata; empty if unreadable."""
    try:
        from packaging.requirements import Requirement

        needed = [Requirement(text) for text in requires("gansynth") or ()]
    except Exception:  # for example a source tree that is not installed
        return {}
    return {need.name: need.specifier for need in needed if need.marker is None}


def extra_lines() -> Iterator[DoctorLine]:
    """Check optional packages; none of them is imported."""
    for package, (purpose, cure) in EXTRAS.items():
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
    for name in installed().hosts("doctor"):
        with contextlib.suppress(GansynthError):
            models[name] = installed().command_options("doctor", name)
    return models


def host_lines(request: DoctorRequest, settings: Mapping[str, str]) -> Iterator[DoctorLine]:
    """Collect the lines of every host's check; one that fails is a line, too.

    Args:
        settings: of all hosts; each gets its own.
    """
    from gansynth.core.plugin_checks import guard_plugin_code, one_line
    from gansynth.core.registry import installed

    registry = installed()
    for name in registry.hosts("doctor"):
        try:
            with guard_plugin_code():
                keys = registry.command_options("doctor", name).model_fields
                own = {key: value for key, value in settings.items() if key in keys}
                lines = list(registry.run("doctor", name, request, own))
        except Exception as error:  # a failing host does not stop the others
            origin = registry.origins.get(registry.loaders["commands"][f"doctor {name}"][0])
            package = f"gansynth_{name}" if origin is None else origin.distribution
            cure = f"if a package is missing or torn: install {package} again"
            lines = [DoctorLine("note", name, f"cannot be checked: {one_line(error)}", cure)]
        yield from lines


# -- devices -------------------------------------------------------------------------------------


def device_lines() -> Iterator[DoctorLine]:
    """List the devices torch can use, and those that ``--device auto`` takes."""
    try:
        import torch
    except Exception:
        yield DoctorLine("bad", "device", "unknown without torch", "pip install torch")
        return
    from gansynth.runtime.devices import cuda_devices, no_cuda

    count, notes = cuda_devices()
    if not count:
        yield no_cuda(torch.version.cuda, notes)
    for index in range(count):
        yield _cuda(torch, index)
    yield DoctorLine("ok", "auto", _auto(count))


def _cuda(torch: Any, index: int) -> DoctorLine:
    cuda = f"cuda:{index}"
    try:
        name, major = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)[0]
        free, total = (n / 2**30 for n in torch.cuda.mem_get_info(index))
        architectures = {
            int(arch.rpartition("_")[2].rstrip("af")) // 10
            for arch in torch.cuda.get_arch_list()
            if arch.startswith("sm_")
        }
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return DoctorLine("note", cuda, f"cannot be used: {reason}", "look at it with nvidia-smi")
    state = f"{name}, {free:.1f} GiB free of {total:.1f}"
    if architectures and major not in architectures:
        state += f"; this torch has no code for its architecture (sm_{major}x)"
        return DoctorLine(
            "note", cuda, state, "install another build: https://pytorch.org/get-started"
        )
    if free < total / 4:
        return DoctorLine("note", cuda, state, "other processes use it: nvidia-smi lists them")
    return DoctorLine("ok", cuda, state)


def _auto(count: int) -> str:
    """Return the devices that ``--device auto`` gives to training and producer."""
    from gansynth.runtime.devices import producer_device

    if not count:
        return "training on cpu; the producer on cpu too, at low priority"
    producer = producer_device("auto", (0,))
    shared = " (shared with training)" if producer == "cuda:0" else ""
    return f"training on cuda:0, the producer on {producer}{shared}"


def scratch_banks() -> Iterator[DoctorLine]:
    """List banks that a killed training left behind; they hold memory until they are removed."""
    from gansynth.bank import placement

    banks = placement.scratch_banks()
    for dead in (True, False):
        group = [(folder, size) for folder, size, _, runs in banks if runs != dead]
        if not group:
            continue
        size = sum(size for _, size in group) / GIB
        if dead:
            text = f"{len(group)} left by processes that have ended, {size:.2f} GiB"
            cure = shlex.join(["rm", "-r", *(str(folder) for folder, _ in group)])
            yield DoctorLine("note", "scratch banks", text, cure)
        else:
            yield DoctorLine("ok", "scratch banks", f"{len(group)} in use, {size:.2f} GiB")
    if not banks:
        yield DoctorLine("ok", "scratch banks", "none left behind")
