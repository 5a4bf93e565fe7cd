"""``gansynth benchmark --new KIND:WHERE``: write a plan that runs, from a data set alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.data.api import find_kind
from gansynth.hosts.host import framework
from gansynth.hosts.one_command import READING, Decision, decide
from gansynth.hosts.study_plan import FEWEST_SUBJECTS, plan_text, subjects_of
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import NullReporter
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.study import BenchmarkStudy
from gansynth_benchmark.subject_split import DEVELOPMENT


def write_new(request: BenchmarkRequest) -> dict[str, Any]:
    """Write a plan for a data set; it is read and opened as a benchmark would.

    Target, plans and generator are those that ``gansynth augment`` chooses for the data.

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
    shared = {
        key: getattr(request, key) for key in (*READING, "unlabelled") if key in request.given
    }
    decision = decide(AugmentRequest(data=named, dry_run=True, **shared), NullReporter())
    source, target = decision.source, str(decision.request.target)
    if decision.prepare:
        raise DataFault(
            "benchmark.data-not-prepared",
            f"{named}: is not prepared, expected the cases of {target}; run: {decision.prepare}",
        )
    subjects = subjects_of(source)
    if len(subjects) < FEWEST_SUBJECTS:
        raise DataFault(
            "benchmark.too-few-subjects-for-plan",
            f"{source.name}: {len(subjects)} subject(s), expected at least {FEWEST_SUBJECTS}: two "
            "to train on, two to develop with and two sealed",
        )
    places = {"data": _placed(named, path.parent)}
    if request.subjects is not None:
        places["subjects"] = _placed(request.subjects, path.parent)
    arms = [*_arms(decision, request)]
    if request.unlabelled and not arms:
        request.reporter.warn(
            f"{request.typed('unlabelled')}: has no effect, for no arm has samples; --generator "
            "NAME adds one"
        )
    settings = {
        arm["generator"]: decision.found.settings
        for arm in arms
        if decision.found.settings and _takes_lesions(arm["generator"])
    }
    text = plan_text(source, target, arms, settings=settings, places=places)
    write_bytes_atomic(path, f"{text}\n".encode())
    try:
        study = BenchmarkStudy(read_plan(path), DEVELOPMENT, path.parent, source=source)
        framework(target)(source, AugmentRequest(target=target, ratio="1:0")).validate()
        for arm in study.plan.arms:
            study.host(arm, len(study.training_cases(study.plan.sizes[0], 0)))
    except BaseException:
        path.unlink()
        raise
    cases, rule = (*source.train_ids, *source.held_out_ids), decision.found.rule
    return {
        "plan": str(path),
        "data": source.name,
        "cases": len(cases),
        "subjects": len(subjects),
        "alone": len(subjects) == len(cases) and request.subjects is None,
        "target": target,
        "contents": rule.data,
        "advice": str(decision.advice),
        "generator": rule.generator,
        "with_samples": [arm["name"] for arm in arms],
    }


def _arms(decision: Decision, request: BenchmarkRequest) -> Iterator[dict[str, Any]]:
    """Yield the arms with samples: of lesions' generator, if there are any, and of the asked one.

    The first one that can draws into the unlabelled scans, too.
    """
    # Whether samples help lesions is what a plan asks, also where augment would draw none.
    chosen = [decision.found.rule.generator] if decision.found.kind == "lesions" else []
    names = dict.fromkeys([*chosen, *filter(None, [request.generator])])
    folder, into = request.file.parent, list(request.unlabelled)
    for name in names:
        arm: dict[str, Any] = {"name": name, "generator": name}
        yield arm
        if into and _takes_lesions(name):
            scans = [_placed(text, folder) for text in into]
            yield arm | {"name": f"{name}-unlabelled", "unlabelled": scans}
            into = []


def _takes_lesions(generator: str) -> bool:
    return "lesion" in capabilities_of(installed().generator(generator)).takes


def _placed(text: str, folder: Path) -> str:
    """Return a relative path, also after KIND:, as seen from the plan's folder."""
    kind, colon, where = text.rpartition(":")
    if Path(where).is_absolute() or not os.path.exists(where):
        return text
    return f"{kind}{colon}{os.path.relpath(where, folder)}"
