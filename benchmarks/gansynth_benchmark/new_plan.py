"""``gansynth benchmark --new KIND:WHERE``: write a plan that runs, from a data set alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.data.kinds import find_kind
from gansynth.hosts.contract.host import framework
from gansynth.hosts.deciding.first_training import check_markable, unvouched
from gansynth.hosts.deciding.one_command import READING, Decision, decide
from gansynth.hosts.deciding.study_plan import FEWEST_SUBJECTS, plan_text, subjects_of
from gansynth.hosts.deciding.suggestion import Rule
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import NullReporter
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.study import BenchmarkStudy
from gansynth_benchmark.subject_split import DEVELOPMENT

SELF_TRAINING = "self-training"  # name of the arm


@dataclass(frozen=True)
class Draft:
    """A plan for a data set, whose size is open: control, control again, twice as many, samples.

    ``places``: paths as seen from the plan's folder.
    """

    decision: Decision
    arms: tuple[Mapping[str, Any], ...]
    places: Mapping[str, str]

    @property
    def rule(self) -> Rule:
        """What suits data of this kind."""
        return self.decision.found.rule

    def text(self, **size: int) -> str:
        """Return the plan; ``size``: as of ``plan_text``."""
        found, names = self.decision.found, [arm["generator"] for arm in self.arms]
        lesions = filter(_takes_lesions, names) if found.settings else ()
        settings = dict.fromkeys(lesions, found.settings)
        source, target = self.decision.source, str(self.decision.request.target)
        return plan_text(
            source, target, self.arms, settings=settings, places=self.places, size=size
        )

    def write(self, path: Path, **size: int) -> None:
        """Write the plan; one that a benchmark would refuse is not left there."""
        write_bytes_atomic(path, f"{self.text(**size)}\n".encode())
        source, target = self.decision.source, str(self.decision.request.target)
        try:
            study = BenchmarkStudy(read_plan(path), DEVELOPMENT, path.parent, source=source)
            framework(target)(source, AugmentRequest(target=target, ratio="1:0")).validate()
            for arm in study.plan.arms:
                study.host(arm, len(study.training_cases(study.plan.sizes[0], 0)))
        except BaseException:
            path.unlink()
            raise


def draft_of(request: BenchmarkRequest, named: str, folder: Path) -> Draft:
    """Return the plan for KIND:WHERE; all that writes one asks this.

    Target, plans and generator are those that ``gansynth augment`` chooses for the data.

    Args:
        folder: of the plan.
    """
    asked = AugmentRequest(data=named, dry_run=True, **shared(request))
    if asked.unlabelled:  # an arm draws into the scans as they are, and marks none
        asked = asked.replace(lesion_free=True)
    decision = decide(asked, NullReporter())
    source, target = decision.source, str(decision.request.target)
    if decision.prepare:
        raise DataFault(
            "benchmark.data-not-prepared",
            f"{named}: is not prepared, expected the cases of {target}; run: {decision.prepare}",
        )
    subjects = len(subjects_of(source))
    if subjects < FEWEST_SUBJECTS:
        raise DataFault(
            "benchmark.too-few-subjects-for-plan",
            f"{source.name}: {subjects} subject(s), expected at least {FEWEST_SUBJECTS}: two "
            "to train on, two to develop with and two sealed",
        )
    places = {"data": _placed(named, folder)}
    if request.subjects is not None:
        places["subjects"] = _placed(request.subjects, folder)
    arms = tuple(_arms(decision, request, folder))
    if request.unlabelled and not arms:
        request.reporter.warn(
            f"{request.typed('unlabelled')}: has no effect, for no arm has samples; --generator "
            "NAME adds one"
        )
    return Draft(decision, arms, places)


def shared(request: BenchmarkRequest) -> dict[str, Any]:
    """Return what is typed alike for ``augment``: how the cases are read, and unlabelled scans."""
    keys = (*READING, "unlabelled")
    return {key: getattr(request, key) for key in keys if key in request.given}


def write_new(request: BenchmarkRequest) -> dict[str, Any]:
    """Write a plan for a data set; it is read and opened as a benchmark would."""
    path = request.file
    if path.exists():
        again = shlex.join(
            ["gansynth", "benchmark", *request.replace(plan="OTHER.yaml").command_line[1:]]
        )
        raise UsageFault(
            "benchmark.new-plan-exists",
            f"{path}: is there already, expected a new file; name another one: {again}",
        )
    draft = draft_of(request, find_kind(str(request.new), request.root), path.parent)
    draft.write(path)
    source = draft.decision.source
    subjects, cases = len(subjects_of(source)), (*source.train_ids, *source.held_out_ids)
    return {
        "plan": str(path),
        "data": source.name,
        "cases": len(cases),
        "subjects": subjects,
        "alone": subjects == len(cases) and request.subjects is None,
        "target": str(draft.decision.request.target),
        "contents": draft.rule.data,
        "advice": str(draft.decision.advice),
        "generator": draft.rule.generator,
        "with_samples": [arm["name"] for arm in draft.arms],
    }


def _arms(decision: Decision, request: BenchmarkRequest, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the arms with samples: of lesions' generator, if there are any, and of the asked one.

    The first one that can draws into the unlabelled scans, too. Its rival is self-training on them.
    """
    # Whether samples help lesions is what a plan asks, also where augment would draw none.
    chosen = [decision.found.rule.generator] if decision.found.kind == "lesions" else []
    names = dict.fromkeys([*chosen, *filter(None, [request.generator])])
    into = list(request.unlabelled)
    for name in names:
        arm: dict[str, Any] = {"name": name, "generator": name}
        yield arm
        if into and _takes_lesions(name):
            scans = [_placed(text, folder) for text in into]
            elsewhere = arm | {"name": f"{name}-unlabelled", "unlabelled": scans}
            yield elsewhere
            if _can_be_marked(decision, request):
                own = {"name": SELF_TRAINING, "unlabelled": list(scans), "self_train": 1}
                yield elsewhere | own
            into = []


def _can_be_marked(decision: Decision, request: BenchmarkRequest) -> bool:
    """Return whether a first training can mark the unlabelled scans; if not, it is said why."""
    asked, source = decision.request.replace(without=("lesion_free",), ratio="1:1"), decision.source
    try:
        scans = unvouched(asked, source.request)
        check_markable(asked, framework(str(asked.target)), source, scans, vow="")
        why = "" if scans else "the scans have label maps"
    except UsageFault as fault:
        why = str(fault)
    if why:
        request.reporter.warn(f"no arm of self-training: {why}")
    return not why


def _takes_lesions(generator: str) -> bool:
    return "lesion" in capabilities_of(installed().generator(generator)).takes


def _placed(text: str, folder: Path) -> str:
    """Return a relative path, also after KIND:, as seen from the plan's folder."""
    kind, colon, where = text.rpartition(":")
    if Path(where).is_absolute() or not os.path.exists(where):
        return text
    return f"{kind}{colon}{os.path.relpath(where, folder)}"
