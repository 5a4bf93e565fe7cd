"""``gansynth.turing_test``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.core.requests.base import function_of, paths_of
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import reading, refuse_unwritable
from gansynth.sampling.request_checks import read_real, read_request
from gansynth_evaluate.requests import TuringRequest
from gansynth_evaluate.turing.image_selection import TuringOptions
from gansynth_evaluate.turing.report import write_results
from gansynth_evaluate.turing.study import Study, default_folder, make_study, open_study


@dataclass(frozen=True)
class RatedStudy:
    """A reader study, its pages, and the results of the answers that were given.

    ``usual``: whether it lies in its run's own folder.
    """

    study: Study
    pages: Sequence[Path] = ()
    results: Mapping[str, Any] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    usual: bool = True


def run_turing_test(request: TuringRequest) -> RatedStudy:
    """Make a reader study with a page for each rater, or compute its results: ``turing-test``.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
    """
    run = Path(request.run)
    folder = default_folder(run, request.name) if request.out is None else Path(request.out)
    if request.answers:
        request.check_alone()
        study = open_study(folder)
        document, files = write_results(study, paths_of(request.answers))
        return RatedStudy(study, results=document, files=files)
    options = TuringOptions(
        n=request.n,
        origin=request.origin,
        real=read_real(request.real, request.real_read),
        classes=tuple(request.classes),
        channel=request.channel,
        seed=request.seed,
        samples=read_request(request),
        instructions=_text(request.instructions),
    )
    refuse_unwritable(folder)
    study, pages = make_study(
        run,
        folder,
        options,
        raters=request.raters,
        device=request.device,
        data=request.data,
        root=request.root,
        reporter=request.reporter,
    )
    return RatedStudy(study, pages, usual=folder == default_folder(run))


turing_test = function_of(TuringRequest, run_turing_test)


def _text(file: str | os.PathLike[str] | None) -> str:
    if file is None:
        return ""
    path = Path(file)
    with reading(path):
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise UsageFault(
                "turing-test.instructions-not-text",
                f"--instructions {path}: is not text, expected UTF-8",
            ) from None
