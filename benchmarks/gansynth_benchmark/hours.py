"""``gansynth benchmark DATA --hours H``: whether samples help these cases, in a time one has."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.data.kinds import find_kind
from gansynth.hosts.deciding.study_plan import STEPS, plan_name
from gansynth.metrics.statistics import LEVEL, REPETITIONS, VarianceComponents, detectable
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.measuring import BOUND, dry_run
from gansynth_benchmark.estimate import estimate
from gansynth_benchmark.jobs.graph import GraphReport
from gansynth_benchmark.new_plan import Draft, draft_of, shared
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.report.study import ComparisonOutcome, ReportData, ends_of
from gansynth_benchmark.report.verdict import ArmResult, places_of
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.running import run_benchmark
from gansynth_benchmark.study import TRAIN

FEWEST_STEPS = 100  # of a training; fewer teach a segmenter nothing
MEASURING = 0.1  # share of the hours in which a training may tell what it takes
SPARE = 1  # draws beyond the fewest that steps are cut for, as cutting them shortens no start
MOST_DRAWS = 21  # more are not planned by themselves
FARTHEST = 200  # draws up to which is looked for a number that would tell
GAIN, LOSS, SAME = ComparisonOutcome.GAIN, ComparisonOutcome.LOSS, ComparisonOutcome.SAME


def run_in_hours(request: BenchmarkRequest) -> tuple[dict[str, Any], dict[str, Path], GraphReport]:
    """Plan what fits the hours, run what of it is missing, and answer.

    The first draw tells how many fit. The plan lies in the folder of the results, where the same
    request finds it.

    Returns:
        As of ``run_benchmark``; the document also has ``answer``, a sentence, ``advice`` and
        ``use``, the words of a command.

    Raises:
        GansynthError: the cases cannot be used, or the hours are too few for a training subset.
        Interrupted: finished trainings are kept.
    """
    named = find_kind(str(request.plan), request.root)
    folder = request.folder(plan_name(named))
    with request.reporter.task(1, f"describing {named}") as bar:
        draft = draft_of(request, named, folder)
        bar.advance()
    if not draft.arms:
        raise UsageFault(
            "benchmark.hours-without-samples",
            f"{named}: the data are {draft.rule.data}, for which samples are drawn only if a "
            "generator is named; add --generator NAME",
        )
    advice = f"the data are {draft.rule.data}: {draft.decision.advice}"
    request.reporter.say(advice)
    study = _Sized(request, draft, folder / "plan.yaml")
    if not study.path.exists():
        study.write(1, study.steps())
    if study.known()[0] is None:
        study.run()[2].raise_if_failed()
    draws = study.fill()
    while True:
        document, files, report = study.run()
        before, draws = draws, study.fill()  # times have become better known
        if draws <= before:
            break
    document["advice"] = advice
    document.update(_answer(request, draft, ReportData(document), named, study.known()[0]))
    return document, files, report


class _Sized:
    """A draft that is written in the size that fits the hours.

    Attributes:
        path: of the plan.
    """

    def __init__(self, request: BenchmarkRequest, draft: Draft, path: Path) -> None:
        self.request, self.draft, self.path = request, draft, path
        self.budget: float = 3600 * (request.hours or 0)
        if path.exists():
            plan = read_plan(path)
            same = draft.text(steps=plan.host.steps, draws=plan.draws, seeds=1)
            if _asked_for(path.read_text("utf-8")) != _asked_for(same):
                raise UsageFault(
                    "benchmark.hours-of-another-plan",
                    f"{path}: is not the plan of this command; take another folder, -o DIR, or go "
                    f"on with that plan: gansynth benchmark {shlex.quote(str(path))}",
                )

    def write(self, draws: int, steps: int) -> None:
        """Write the plan."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.draft.write(self.path, steps=steps, draws=draws, seeds=1)

    def run(self) -> tuple[dict[str, Any], dict[str, Path], GraphReport]:
        """Run what is missing of the plan."""
        return run_benchmark(read_plan(self.path), self._asked(self.path))

    def _asked(self, path: Path, **words: Any) -> BenchmarkRequest:
        passed = {key: getattr(self.request, key) for key in ("executor", "quiet", "pictures")}
        return BenchmarkRequest(plan=path, out=self.path.parent, **passed, **words)

    def steps(self) -> int:
        """Return the steps of a training of which enough fit the hours, by a dry run of one."""
        trial = self.path.with_name(".plan.yaml")
        trial.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.draft.write(trial, steps=STEPS, draws=1, seeds=1)
            with dry_run(self.request.reporter, max(BOUND, MEASURING * self.budget)):
                told = estimate(read_plan(trial), self._asked(trial, dry_run=True))
        finally:
            trial.unlink(missing_ok=True)
        seconds: float | None = _of_a_draw(told, 1)
        if seconds is None:
            self.request.reporter.say(
                f"how long a training takes was not measured in time: it has {FEWEST_STEPS} steps, "
                "and one of each arm may take longer than these hours"
            )
            return FEWEST_STEPS
        share = self.budget / (seconds * (REPETITIONS + SPARE))
        steps = STEPS if share >= 1 else max(FEWEST_STEPS, int(STEPS * share) // 10 * 10)
        least = seconds * FEWEST_STEPS / STEPS
        if least > self.budget:
            hours = _upwards(least * (REPETITIONS + SPARE) / 3600)
            longer = self.request.replace(hours=hours).command_line[1:]
            again = shlex.join(["gansynth", "benchmark", *longer])
            raise UsageFault(
                "benchmark.hours-too-few",
                f"{self.request.typed('hours')}: one training of each arm on {FEWEST_STEPS} steps "
                f"takes about {_upwards(least / 3600):g} h, expected hours for some; type: {again}",
            )
        return steps

    def known(self) -> tuple[float | None, int]:
        """Return what a draw takes, None before trainings have ended, and how many are done."""
        plan = read_plan(self.path)
        told = estimate(plan, self._asked(self.path, dry_run=True, no_probe=True))
        trainings = told["jobs"][TRAIN]
        done = (trainings["all"] - trainings["left"]) * plan.draws // trainings["all"]
        return _of_a_draw(told, plan.draws), done

    def fill(self) -> int:
        """Write the plan with as many draws as fit the hours, and those that it has; return them.

        Only times decide, and no result: a study that ends where it likes one shows nothing.
        """
        plan, (seconds, done) = read_plan(self.path), self.known()
        fit = 0 if not seconds else int(self.budget / seconds)
        draws = max(1, done, min(fit, MOST_DRAWS))
        if draws == done == plan.draws:
            return draws
        self.write(draws, plan.host.steps)
        self.request.reporter.say(
            f"{draws} training subset{'s' * (draws > 1)} of {plan.sizes[0]} subjects, "
            f"{len(plan.arms)} trainings of {plan.host.steps} steps on each, about "
            f"{draws * (seconds or 0) / 3600:.2f} h in all"
        )
        return draws


def _asked_for(plan: str) -> list[str]:
    """Return the lines of a plan, whichever version wrote it."""
    return [line for line in plan.splitlines() if not line.startswith("gansynth:")]


def _of_a_draw(told: Mapping[str, Any], draws: int) -> float | None:
    """Return the seconds of a draw by an estimate of a plan; None if a training's are not known."""
    if told["jobs"][TRAIN]["seconds_each"] is None:
        return None
    # Fits of which nothing is known yet are counted once the first is done.
    each = [jobs["all"] * (jobs["seconds_each"] or 0.0) for jobs in told["jobs"].values()]
    return float(sum(each)) / draws / (told["at_once"] or 1)


# -- the answer ------------------------------------------------------------------------------------


def _answer(
    request: BenchmarkRequest, draft: Draft, study: ReportData, named: str, seconds: float | None
) -> dict[str, Any]:
    """Return ``answer``, with samples, without, or cannot tell, and ``use``, what to type then."""
    places = places_of(study, study.primary)
    chance = [each for each in places if each.arm.kind == "again" and each.finding in (GAIN, LOSS)]
    asked = [each for each in places if each.arm.node.get("generator")]
    gains = [each for each in asked if each.finding is GAIN]
    title, words = study.show.title, shared(request) | {"data": named}
    without = AugmentRequest(**(words | {"unlabelled": (), "ratio": "1:0"})).command_line
    if gains and not chance:
        best = max(gains, key=lambda each: each.gain)
        arm = best.arm.node
        # Trained as the arm was: in own cases, in scans that are vouched for, or on marked scans.
        share = arm.get("self_train")
        words["unlabelled"] = words.get("unlabelled", ()) if arm.get("unlabelled") else ()
        words |= {"self_train": share} if share else {"lesion_free": bool(words["unlabelled"])}
        use = AugmentRequest(**words, ratio="1:1").command_line
        generator = str(arm["generator"])
        if generator != draft.rule.generator:
            fitted = shared(request) | {"data": named, "out": Path("runs", generator)}
            fitted.pop("unlabelled", None)
            use = FitRequest(generator, **fitted).command_line
        return {"answer": f"with samples, those of {best.arm.key}: {_told(best)}", "use": use}
    if all(each.finding in (LOSS, SAME) for each in asked) and not chance:
        told = "; ".join([f"{each.arm.key}: {_told(each)}" for each in asked])
        return {"answer": f"without samples: {told}", "use": without}
    if chance:
        why = f"the control differs from itself, {title} {_told(chance[0])}"
    else:
        open_ones = [each for each in asked if each.finding not in (GAIN, LOSS, SAME)]
        why = "; ".join([f"{each.arm.key}: {_told(each)}" for each in open_ones])
    draws = study.document["draws"]
    needed = draws + 1 if chance else _draws_that_tell(asked, draws, len(places))
    if needed is None or seconds is None:
        subjects = study.document["data"]["test_subjects"]
        why += f"; no time would, with {subjects} subjects to test on: label more of them"
        return {"answer": f"cannot tell ({why}); until then without samples", "use": without}
    more = _upwards(max(0.01, (needed - draws) * seconds / 3600))
    # All draws are paid for: those that are done, and those that are missing.
    total = max(_upwards(needed * 1.1 * seconds / 3600), float(request.hours or 0) + more)
    use = ["benchmark", *request.replace(hours=_upwards(total)).command_line[1:]]
    return {"answer": f"cannot tell, {more:g} more hours would ({why})", "use": use}


def _told(place: ArmResult) -> str:
    """Return a difference in words."""
    difference, (low, high) = place.node.get("difference"), ends_of(place.node)
    if difference is None:
        return "nothing was finished"
    text = f"{place.show.title} {place.show.difference(difference)} {place.show.unit}"
    if low is None or high is None:
        few = f"of fewer than {REPETITIONS} training subsets"
        if place.node["draws"] >= REPETITIONS:
            few = f"of {place.node['subjects']} test subjects, so few that any would be possible"
        return f"{text}, {few}: says nothing"
    return f"{text} ({place.show.difference(low)} to {place.show.difference(high)})"


def _draws_that_tell(places: Sequence[ArmResult], draws: int, compared: int) -> int | None:
    """Return how many draws show a difference as large as one that was found; None: no number.

    ``compared``: arms that Holm corrects for; its first step takes the level over their number.
    """
    if draws < REPETITIONS:
        return REPETITIONS
    found = []
    for place in places:
        if place.finding in (GAIN, LOSS, SAME) or not place.node.get("difference"):
            continue
        parts = VarianceComponents(**place.node["variance"])
        size, subjects = abs(place.node["difference"]), place.node["subjects"]
        for number in range(draws + 1, FARTHEST + 1):
            if detectable(parts, number, 1, subjects, level=LEVEL / compared) <= size:
                found.append(number)
                break
    return min(found, default=None)


def _upwards(hours: float) -> float:
    return math.ceil(hours * 100) / 100
