"""Starting point for plugin authors: a project template, and toy cases.

``gansynth plugins new NAME`` writes the project (``gansynth.testing.scaffold.project``). The source
``example:3d`` (or ``2d``) has the toy cases of ``check_generator``: a new generator can be fitted
without a data set. This module is itself a plugin.
"""

from gansynth.core.hookspecs import Register, hookimpl
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.runtime.errors import UsageFault

NDIM = {"2d": 2, "3d": 3}


@hookimpl
def register_sources(register: Register) -> None:
    """Register ``example``."""
    register("example", lambda: _open_example)


def _open_example(request: SourceRequest) -> CaseSource:
    """Open sixteen toy cases in memory, twelve of them for training; UsageFault if not 2d or 3d."""
    from gansynth.testing import ToySource

    if request.where not in NDIM:
        known = ", ".join([f"example:{where}" for where in NDIM])
        raise UsageFault(
            "testing.example-unknown", f"--data example:{request.where}: expected one of {known}"
        )
    source = ToySource(NDIM[request.where])
    source.request = request
    return source
