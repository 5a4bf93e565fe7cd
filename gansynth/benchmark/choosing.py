"""``gansynth tune``: choose an arm of a plan for a training set, and say how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.benchmark.division import Division, divide, largest_set
from gansynth.benchmark.jobs.executor import parse_executor
from gansynth.benchmark.jobs.table import JobTable
from gansynth.benchmark.plan import Plan
from gansynth.benchmark.specs import Design, Spec
from gansynth.benchmark.study import host_of, request_of
from gansynth.benchmark.tuning import Tuning
from gansynth.benchmark.words import augment_words, fit_words
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth.sampling.opening import open_source

CHOICE = "choice.json"


@dataclass(frozen=True)
class Wanted:
    """What is chosen for.

    Attributes:
        size: people of the training set; None for all who are neither sealed nor for development.
        executor: see ``gansynth.benchmark.jobs.executor.parse_executor``.
    """

    folder: Path
    size: int | None = None
    draw: int = 0
    executor: str = "local"


def open_choice(plan: Plan, wanted: Wanted) -> tuple[Spec, Design]:
    """What is to be chosen, on which cases; nothing is trained.

    Raises:
        GansynthError: data, plan or executor that cannot be used.
    """
    parse_executor(wanted.executor)
    source = open_source(request_of(plan))
    division = divide(source, plan)
    design = Design(plan, source, division, (), host_of(plan, source))
    cases = _cases(plan, division, wanted)
    names = candidates(plan)
    return design.choice(names, cases, wanted.draw, f"choose among {', '.join(names)}"), design


def candidates(plan: Plan) -> tuple[str, ...]:
    """Arms that can be chosen: those a tuned arm of the plan names, else all.

    Raises:
        UsageFault: fewer than two.
    """
    named = next((arm.tune for arm in plan.arms if arm.tune), ())
    found = named or tuple(arm.name for arm in plan.arms if arm.real == 1)
    if len(found) < 2:
        raise UsageFault(
            f"{plan.name}: {len(found)} arm(s) to choose from, expected two at least; name them in "
            "the plan: arms: - {name: tuned, tune: [default, unedited]}"
        )
    return found


def choose_arm(plan: Plan, wanted: Wanted, *, quiet: bool = False) -> dict[str, Any]:
    """Choose, and write ``choice.json``; what is done already is not done again.

    Raises:
        GansynthError: data or plan that cannot be used, or trainings that failed.
    """
    spec, design = open_choice(plan, wanted)
    folder = wanted.folder.absolute() / spec.key
    places = {"request": design.source.request.to_json(), "held_out": []}
    with JobTable(quiet=quiet) as table:
        how: dict[str, Any] = {"executor": wanted.executor, "env": plan.host.env}
        tuning = Tuning(spec.document, places, folder, on_change=table, **how)
        found = tuning.run()
    document = {
        **{"plan": plan.name, "plan_hash": plan.hash, "data": design.source.name},
        **{"training_cases": len(spec.document["train"]), "candidates": list(candidates(plan))},
        **found,
        "use": commands(plan, design, spec, found["chosen"]),
    }
    write_json_atomic(wanted.folder / CHOICE, document)
    return document


def commands(plan: Plan, design: Design, spec: Spec, chosen: str) -> list[str]:
    """What to type to train with what was chosen."""
    host: Mapping[str, Any] = spec.document["host"][chosen]
    arm = {**spec.document["arms"][chosen]}
    request = design.source.request
    lines: list[Sequence[str]] = []
    run = None
    if host["generator"] is not None:
        run = Path("runs") / str(host["generator"])
        generator = spec.document["generators"][host["generator"]]
        lines.append([w for w in fit_words(generator, request, 0, run) if w != "--json"])
    told = {"host": host, "arm": arm, "seed": 0}
    lines.append([w for w in augment_words(told, request, run, None) if w != "--json"])
    return [f"gansynth {shlex.join(words)}" for words in lines]


def _cases(plan: Plan, division: Division, wanted: Wanted) -> tuple[str, ...]:
    if wanted.size is None:
        return division.cases_of(division.pool)
    if wanted.size > len(division.pool):
        raise UsageFault(
            f"--size {wanted.size}: expected at most the {len(division.pool)} subjects of the pool"
        )
    largest = max(wanted.size, largest_set(plan))
    return division.cases_of(division.training_set(wanted.size, wanted.draw, largest))
