"""Check this machine: torch, devices, threads and disks.

Each line names the item, its state, and the cure for a problem. The checks raise nothing. The
commands ``doctor`` of target frameworks (the framework you train) add their own lines.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gansynth.runtime.errors import GansynthError, UsageFault, did_you_mean
from gansynth.runtime.machine import (
    DoctorLine,
    shared_memory,
    temporary,
    threads,
    torch_line,
)
from gansynth.runtime.version import build

if TYPE_CHECKING:
    from gansynth.core.requests.hosts import DoctorRequest
    from gansynth.runtime.options import OptionModel


def examine() -> Iterator[DoctorLine]:
    """Check everything that needs no target framework."""
    yield DoctorLine("ok", "gansynth", build())
    yield DoctorLine(
        "ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    )
    yield torch_line()
    try:
        from gansynth.runtime.devices import device_lines
    except Exception:
        yield DoctorLine("bad", "device", "unknown without torch", "pip install torch")
    else:
        yield from device_lines()
    yield threads()
    yield shared_memory()
    yield temporary()


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

    registry, models = installed(), host_options()
    names = [*registry.hosts_with("doctor")]
    if len(models) == len(names):  # else the one that does not load may have it
        known = {key for model in models.values() for key in model.model_fields}
        shown = sorted(known.union(type(request).model_fields))
        for key in request.set.keys() - known:
            hint = did_you_mean(key, shown) or f" Expected: {', '.join(shown)}"
            raise UsageFault("request.field-unknown", f"{key}: unknown.{hint}")
    with request.reporter.task(len(names), "frameworks") as bar:  # some import theirs, for long
        for name in names:
            bar.advance(0, now=name)
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
            bar.advance()
