"""``gansynth benchmark --new KIND:WHERE``: write a plan that runs, from a data set alone."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import CaseSource
from gansynth.data.api import find_kind, source_request
from gansynth.hosts.host import framework
from gansynth.hosts.study_plan import FEWEST_SUBJECTS, plan_text, subjects_of
from gansynth.hosts.suggestion import RULES
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.study import BenchmarkStudy
from gansynth_benchmark.subject_split import DEVELOPMENT

WHOLE = RULES["organs"].generator
BOXED = RULES["boxes"].generator
INSERTED = RULES["lesions"].generator
SHORT = {WHOLE: {"steps": 2000}}  # one of boxes takes all of its own steps to grow to its size


def write_new(request: BenchmarkRequest) -> dict[str, Any]:
    """Write a plan for a data set; it is read and opened as a benchmark would.

    Raises:
        GansynthError: there is a file already, or nothing can be trained on the data.
    """
    path, data = request.file, str(request.new)
    if path.exists():
        again = shlex.join(
            ["gansynth", "benchmark", *request.replace(plan="OTHER.yaml").command_line[1:]]
        )
        raise UsageFault(
            "benchmark.new-plan-exists",
            f"{path}: is there already, expected a new file; name another one: {again}",
        )
    named = data if ":" in data else find_kind(data, request.root)
    words = {key: getattr(request, key) for key in ("configuration", "plans", "subjects", "root")}
    source = open_source(source_request(named, read=request.read, **words))
    subjects = subjects_of(source)
    if len(subjects) < FEWEST_SUBJECTS:
        raise DataFault(
            "benchmark.too-few-subjects-for-plan",
            f"{source.name}: {len(subjects)} subject(s), expected at least {FEWEST_SUBJECTS}: two "
            "to train on, two to develop with and two sealed",
        )
    target, generator, rivals = _parts(source)
    places = {"data": _placed(named, path.parent)}
    if request.subjects is not None:
        places["subjects"] = _placed(request.subjects, path.parent)
    text = plan_text(
        source, target, generator, settings=SHORT.get(generator), rivals=rivals, places=places
    )
    write_bytes_atomic(path, f"{text}\n".encode())
    try:
        study = BenchmarkStudy(read_plan(path), DEVELOPMENT, path.parent, source=source)
        framework(target)(source, AugmentRequest(target=target, ratio="1:0")).validate()
        for arm in study.plan.arms:
            study.host(arm, len(study.training_cases(study.plan.sizes[0], 0)))
    except BaseException:
        path.unlink()
        raise
    cases = (*source.train_ids, *source.held_out_ids)
    return {
        "plan": str(path),
        "data": source.name,
        "cases": len(cases),
        "subjects": len(subjects),
        "alone": len(subjects) == len(cases) and request.subjects is None,
        "target": target,
    }


def _parts(source: CaseSource) -> tuple[str, str, tuple[str, ...]]:
    """Return target, generator and further arms for the kind of the labels."""
    kind = source.request.kind
    if source.schema.box_classes:
        hosts = installed().names("hosts")
        [of_boxes, *_] = [name for name in hosts if framework(name).Intake.needs == "boxes"]
        return kind if kind in hosts else of_boxes, BOXED, ()
    if not source.schema.foreground:
        raise DataFault(
            "benchmark.nothing-to-train-on",
            f"{source.name}: has neither labels above background nor boxes, expected something to "
            "train on",
        )
    target = "segmenter"
    if kind in installed().names("hosts"):
        with suppress(GansynthError):  # its framework is not installed
            framework(kind)(source, AugmentRequest(target=kind, ratio="1:0")).validate()
            target = kind
    return target, WHOLE, (INSERTED,)


def _placed(text: str, folder: Path) -> str:
    """Return a relative path, also after KIND:, as seen from the plan's folder."""
    kind, colon, where = text.rpartition(":")
    if Path(where).is_absolute() or not os.path.exists(where):
        return text
    return f"{kind}{colon}{os.path.relpath(where, folder)}"
