"""``gansynth cache``: copy the cases of any source into one HDF5 file that is fast to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.data import CacheRequest
from gansynth.runtime.files import in_units
from gansynth_cli.common import Output, examples, summary, table
from gansynth_cli.requests import request_command
from gansynth_cli.results import then_fit

if TYPE_CHECKING:
    from gansynth.core.source import CaseSource


def show(request: CacheRequest, done: tuple[dict[str, Any], CaseSource], out: Output) -> None:
    """Print what was written, and the next command."""
    from gansynth.core.source import SourceRequest
    from gansynth.hosts.deciding.suggestion import suggested_generator

    report, source = done
    if request.out is None:
        out.result(report, lines_of_kept(report))
        return
    cache, fold = SourceRequest("h5", str(request.out)), report["fold"]
    fitted = [] if request.dry_run else then_fit(suggested_generator(source), cache, fold=fold)
    shown = dict(report)
    already = shown.pop("cached_already", False)
    lines = ["cached already: the same cases are there"] if already else []
    out.result(report, [*lines, *summary(shown), *fitted])


def lines_of_kept(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is kept of cases, or was removed."""
    if not report["kept"]:
        yield f"{report['data']}: nothing is kept of its cases"
        return
    done = "removed" if report["cleared"] else "kept"
    yield f"{report['data']}: {in_units(report['bytes'])} {done} in {', '.join(report['folders'])}"
    yield from table([(what, in_units(size)) for what, size in sorted(report["kept"].items())])


command = request_command(
    CacheRequest,
    "gansynth.sampling.loaded_run:write_cache",
    show,
    epilog=examples(
        "gansynth cache nnunet:004 -c 3d_fullres --fold 0 -o hippocampus_f0.h5",
        "gansynth cache nnunet:004 -c 3d_fullres --clear",
    ),
)
