"""``gansynth turing-test``: can raters tell a run's samples from real images?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.samples import TuringRequest
from gansynth_cli.common import Output, examples, table, then
from gansynth_cli.requests import request_command

if TYPE_CHECKING:
    from gansynth.evaluation.turing.api import RatedStudy


def show(request: TuringRequest, made: RatedStudy, out: Output) -> None:
    """Print where the pages are, or the table of all raters."""
    if made.results is not None:
        lines = [*_lines(made.results, made.files), then("evaluate", request.run)]
        out.result({**made.results, "files": made.files}, lines)
        return
    study, pages = made.study, made.pages
    named = [] if made.usual else ["-o", study.folder]
    told = [
        f"study {study.id}: {len(study.key)} images, a page for each rater",
        *(f"  {page}" for page in pages),
        then("turing-test", request.run, *named, f"answers-{study.id}-rater-1.json"),
    ]
    folder = str(study.folder)
    out.result({"study": study.id, "folder": folder, "pages": list(map(str, pages))}, told)


command = request_command(
    TuringRequest,
    "gansynth.evaluation.turing.api:run_turing_test",
    show,
    epilog=examples(
        "gansynth turing-test runs/g1 -n 50 --raters 3",
        "gansynth turing-test runs/g1 answers-*.json",
    ),
)


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.evaluation.turing.summary import rows

    yield from table(rows(document))
    yield ""
    yield from document["words"]
    for warning in document["warnings"]:
        yield f"note: {warning}"
    yield ""
    yield from table(files.items())
