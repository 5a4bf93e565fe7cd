"""Choice of an arm by successive halving on inner folds of a training set, or of no generator.

Arms are trained briefly on every inner fold. The better share is trained longer, and so on
(Jamieson and Talwalkar 2016). An arm must beat the best arm of real cases by more than one standard
error of the difference, else the answer is "not known, use none". The error is the larger one of
those over subjects and over folds (one-standard-error rule, Breiman et al. 1984). No held-out case
of the outer fold is read: the spec names none. An arm whose generator or samples fail is dropped.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any

from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import FoldSplit
from gansynth.hosts.deciding.trials import shortened, trials_of
from gansynth.metrics.segmentation.measures import LESIONS, beside, cost_words, measure_of
from gansynth.metrics.statistics import LEVEL
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth_benchmark.analysis import of_subjects
from gansynth_benchmark.jobs.attempt import UNTRAINED
from gansynth_benchmark.jobs.executor import parse_executor
from gansynth_benchmark.jobs.graph import GraphProgress, JobPhase, run_jobs
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from gansynth_benchmark.jobs.table import JobTable
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import TuneRequest, augment_request, fit_request
from gansynth_benchmark.study import (
    BenchmarkStudy,
    ComputationSpec,
    JobFactory,
    fit_spec,
    inner_folds,
    train_spec,
)
from gansynth_benchmark.subject_split import SubjectSplit, largest_set


class Tuning:
    """One choice of an arm."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        places: Mapping[str, Any],
        folder: Path,
        *,
        executor: str = "local:1",
        env: Mapping[str, str] = MappingProxyType({}),
        on_change: Callable[[GraphProgress], None] = lambda progress: None,
    ) -> None:
        self.spec, self.places, self.folder = spec, places, folder
        self.executor, self.env, self.on_change = executor, env, on_change
        self._spent: dict[str, float] = {}
        self.dropped: dict[str, str] = {}  # arm -> why it could not be trained
        self.store = ResultStore(folder / "inner")
        self.records = {case: [case, subject, sha] for case, subject, sha in spec["train"]}
        self.subject_of = {case: subject for case, subject, _ in spec["train"]}
        self.folds = inner_folds(spec)
        self.real = [name for name, arm in spec["arms"].items() if arm["generator"] is None]
        """Arms without synthetic samples: the answer "use none"."""
        self.sign = 1.0 if measure_of(spec["by"]).better == "higher" else -1.0

    # -- specs -----------------------------------------------------------------------------------

    def fit(self, arm: str, fold: FoldSplit) -> ComputationSpec | None:
        """Return the fit of an arm's generator on an inner fold, for ``fit_share`` of its steps."""
        generator = self._generator(arm)
        if generator is None:
            return None
        title = f"fit for {arm}, {self._called(fold)}"
        return fit_spec(self._shared(fold), generator, self.spec["seed"], title)

    def train(self, arm: str, fold: FoldSplit, rung: int) -> ComputationSpec:
        """Return a training on an inner fold, for the rung's share of the steps."""
        share = self.spec["tune"]["rungs"][rung]
        words = self.spec["arms"][arm]["augment"]
        trials = trials_of(words["target"])
        document = self._shared(fold)
        document |= {
            "judged": self._of(fold["val"]),
            "augment": dict(words, set=trials.shortened(words["set"], share)),
            "regions": self.spec["regions"],
            "measures": [*dict.fromkeys((self.spec["by"].partition("/")[0], *LESIONS))],
            "seed": self.spec["seed"],
        }
        title = f"train {arm}, {self._called(fold)}, {share:.0%} of the steps"
        return train_spec(document, self.fit(arm, fold), title)

    def _called(self, fold: FoldSplit) -> str:
        return f"inner fold {self.folds.index(fold) + 1} of {len(self.folds)}"

    def _generator(self, arm: str) -> dict[str, Any] | None:
        name = self.spec["arms"][arm]["generator"]
        if name is None:
            return None
        generator = dict(self.spec["generators"][name])
        share = self.spec["tune"]["fit_share"]
        generator["set"] = shortened(generator.get("set", {}), share, "steps")
        return generator

    def _shared(self, fold: FoldSplit) -> dict[str, Any]:
        keys = ("format", "gansynth", "data", "configuration", "plans", "read")
        shared = {key: self.spec[key] for key in keys}
        shared["train"] = self._of(fold["train"])
        return shared

    def _of(self, cases: Sequence[str]) -> list[list[str]]:
        return [self.records[case] for case in sorted(cases)]

    # -- the race --------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train the arms rung by rung, and choose one."""
        left, rungs = list(self.spec["arms"]), []
        for rung, share in enumerate(self.spec["tune"]["rungs"]):
            found = self._values(left, rung)
            scores = {arm: self._ranked(arm, values) for arm, values in found.items()}
            order = sorted(scores, key=lambda arm: -mean(scores[arm].values()))
            means = {arm: self.sign * mean(scores[arm].values()) for arm in order}
            keys = [beside(name, self.spec["by"]) for name in LESIONS]
            lesion_scores: dict[str, dict[str, float | None]] = {}
            for key in keys:
                if all(key in found[arm] for arm in order):
                    lesion_scores[key] = {}
                    for arm in order:
                        values = found[arm][key].values()
                        lesion_scores[key][arm] = mean(values) if values else None
            rungs.append({"share": share, "scores": means, "beside": lesion_scores})
            left = going_on(order, self.spec["tune"]["keep"], self.real)
        [real, *_] = [arm for arm in order if arm in self.real]
        folds = {self.subject_of[c]: n for n, fold in enumerate(self.folds) for c in fold["val"]}
        gains = gains_over(scores, real, folds)
        chosen, why = choose(gains, real)
        if chosen != real:
            costs = {}
            for key in lesion_scores:
                both = {arm: found[arm][key] for arm in (chosen, real)}
                gain = gains_over(both, real, folds).get(chosen)
                known = None if gain is None else (gain["gain"], finite(gain["error"]))
                costs[key.partition("/")[0]] = known
            why += f"; with it {cost_words(costs)}" if costs else ""
        why += f"; could not be trained: {', '.join(self.dropped)}" if self.dropped else ""
        shown: dict[str, dict[str, Any]] = {}
        for arm, gain in gains.items():
            shown[arm] = dict(gain, error=finite(gain["error"]), words=words_of(gain))
        return {
            "chosen": chosen,
            "why": why,
            "rungs": rungs,
            "by": self.spec["by"],
            "folds": len(self.folds),
            "seconds": sum(self._spent.values()),
            "dropped": self.dropped,
            "compared_with": real,
            "gains": shown,
        }

    def _values(self, arms: Sequence[str], rung: int) -> dict[str, dict[str, dict[str, float]]]:
        """Return arm -> measure -> subject -> value, without the arms dropped now."""
        jobs: dict[str, JobSpec] = {}
        keys: dict[str, list[str]] = {arm: [] for arm in arms}
        made = JobFactory(self.folder, self.store, self.places["request"], self.env)
        for arm in arms:
            for fold in self.folds:
                for spec, held_out in (
                    (self.fit(arm, fold), fold["val"]),
                    (self.train(arm, fold, rung), []),
                ):
                    if spec is not None:
                        jobs.setdefault(spec.key, made.of(spec, held_out))
                        keys[arm].append(spec.key)
        executor = parse_executor(self.executor)
        report = run_jobs(jobs.values(), self.store, executor, on_change=self.on_change)
        lost = {status.job.key: status for status in report.of(JobPhase.FAILED, JobPhase.SKIPPED)}
        for arm in arms:
            failures = [lost[key] for key in keys[arm] if key in lost]
            if not failures:
                continue
            failed = failures[0]
            if arm in self.real or failed.code != UNTRAINED:
                raise TrainingFault("benchmark.tuning-jobs-failed", "; ".join(report.lines()[1:]))
            self.dropped[arm] = failed.why
        done = [arm for arm in arms if arm not in self.dropped]
        spent = {key for arm in done for key in keys[arm]}
        self._spent |= {key: self.store.result(key).get("seconds") or 0.0 for key in spent}
        return {arm: self._of_people(arm, rung) for arm in done}

    def _of_people(self, arm: str, rung: int) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for fold in self.folds:  # a subject is in one of them
            document = self.store.result(self.train(arm, fold, rung).key)["document"]
            for key in document["scores"]:
                found.setdefault(key, {}).update(of_subjects(document, key, self.subject_of))
        return found

    def _ranked(self, arm: str, values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return subject -> score, higher is better."""
        scores = values.get(self.spec["by"])
        if not scores:
            raise TrainingFault(
                "benchmark.tuning-subjects-without-measure",
                f"{arm}: no subject of the inner folds has a {self.spec['by']}, expected at least "
                "one; choose by another measure (primary)",
            )
        return {subject: self.sign * value for subject, value in scores.items()}


def going_on(order: Sequence[str], keep: float, real: Sequence[str]) -> list[str]:
    """Return the arms of the next rung: the better share, and the best one of real cases only.

    Args:
        keep: share of the arms that is kept.
        real: arms without synthetic samples; the winner is compared with the best of them.
    """
    left = list(order[: max(1, math.ceil(len(order) * keep))])
    best = [arm for arm in order if arm in real][:1]
    return left if set(best) <= set(left) else left + best


Gain = Mapping[str, float]
"""`gain` of an arm over real cases, its standard `error`, `subjects`, and inner `folds`."""


def gains_over(
    scores: Mapping[str, Mapping[str, float]], real: str, fold_of: Mapping[str, int]
) -> dict[str, Gain]:
    """Return the gain of every other arm over ``real``; an unknown error is infinite.

    Args:
        scores: arm -> subject -> score of the last rung, higher is better.
        real: an arm without synthetic samples.
        fold_of: subject -> inner fold. Subjects of a fold share one training: the standard error
            is the larger one of those over subjects and over folds.
    """
    found: dict[str, Gain] = {}
    for arm in scores:
        gains, folds = [], dict[int, list[float]]()
        for subject in sorted(scores[arm].keys() & scores[real].keys()) if arm != real else ():
            gains.append(scores[arm][subject] - scores[real][subject])
            folds.setdefault(fold_of[subject], []).append(gains[-1])
        if gains:
            error = max(_error(gains), _error([mean(values) for values in folds.values()]))
            found[arm] = {
                "gain": mean(gains),
                "error": error,
                "subjects": len(gains),
                "folds": len(folds),
            }
    return found


def choose(gains: Mapping[str, Gain], real: str) -> tuple[str, str]:
    """Return the arm whose gain is surest, if chance hardly gives one of them that, else ``real``.

    Chance gives one of all arms such a gain once in 20 times (Student's t of the folds, each of
    which is one training, and Bonferroni's correction).

    Returns:
        The arm, and why.
    """
    if not gains:
        return real, "not known, use none: no other arm was trained"
    needed = {arm: _needed_errors(gain, len(gains)) for arm, gain in gains.items()}
    best = max(gains, key=lambda arm: gains[arm]["gain"] - needed[arm] * gains[arm]["error"])
    text = f"{best} against {real}: {words_of(gains[best])}"
    limit = f"{needed[best]:.1f} standard errors, which chance exceeds once in 20 times"
    if gains[best]["gain"] > needed[best] * gains[best]["error"]:
        return best, f"{text}, more than {limit}"
    return real, f"not known, use none: {text}, not more than {limit}"


def _needed_errors(gain: Gain, arms: int) -> float:
    """Return by how many standard errors a gain must exceed 0; infinite for a single fold."""
    from scipy.special import stdtrit

    return float(stdtrit(gain["folds"] - 1, 1 - LEVEL / arms)) if gain["folds"] > 1 else math.inf


def finite(value: float) -> float | None:
    """Return a number for JSON, which has no infinity."""
    return value if math.isfinite(value) else None


def words_of(gain: Gain) -> str:
    """Return a gain with its standard error and number of subjects."""
    return "{gain:+.4f} (standard error {error:.4f}, {subjects} subject(s))".format(**gain)


def _error(gains: Sequence[float]) -> float:
    """Return the standard error of a mean; infinite for a single value."""
    return stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf


# -- gansynth tune ---------------------------------------------------------------------------------

CHOICE = "choice.json"


def open_choice(
    plan: BenchmarkPlan, request: TuneRequest
) -> tuple[ComputationSpec, BenchmarkStudy]:
    """Return the spec of a choice and its study; nothing is trained."""
    parse_executor(request.executor)
    study = BenchmarkStudy(plan, "", request.folder(plan.name))
    cases = _cases(plan, study.division, request)
    names = candidates(plan)
    spec = study.choice(names, cases, request.draw, f"choose among {', '.join(names)}")
    study.refuse_neighbours([spec])
    return spec, study


def candidates(plan: BenchmarkPlan) -> tuple[str, ...]:
    """Return the arms to choose from: those that a tuned arm of the plan names, else all."""
    named = [arm.tune for arm in plan.arms if arm.tune]
    names = tuple(named[0] if named else [arm.name for arm in plan.arms if arm.real == 1])
    if len(names) < 2 or all(plan.arm(name).generator for name in names):
        raise UsageFault(
            "benchmark.tuning-too-few-arms",
            f"{plan.name}: {len(names)} arm(s) to choose from, expected at least two, one of them "
            "without a generator; name them in the plan: arms: - {name: tuned, tune: [default, "
            "unedited]}",
        )
    return names


def choose_arm(plan: BenchmarkPlan, request: TuneRequest) -> dict[str, Any]:
    """Choose an arm and write ``choice.json``; finished trainings are reused."""
    spec, study = open_choice(plan, request)
    folder = request.folder(plan.name).absolute() / spec.key
    places = {"request": study.source.request.to_json(), "held_out": []}
    with JobTable(quiet=request.quiet) as table:
        how: dict[str, Any] = {"executor": request.executor, "env": plan.host.env}
        tuning = Tuning(spec.document, places, folder, on_change=table, **how)
        result = tuning.run()
    document = {
        "plan": plan.name,
        "plan_hash": plan.hash,
        "data": study.source.name,
        "training_cases": len(spec.document["train"]),
        "candidates": list(candidates(plan)),
    }
    document.update(result)
    document["use"] = commands(study, spec, result["chosen"], request.folder(plan.name))
    write_json_atomic(request.folder(plan.name) / CHOICE, document)
    return document


def commands(study: BenchmarkStudy, spec: ComputationSpec, chosen: str, folder: Path) -> list[str]:
    """Return the commands that train with the chosen arm, on the subjects it was chosen on.

    Held out are subjects that the plan evaluates on while it is developed, then others of the pool,
    and sealed ones only if there is nobody else. The list of cases is written into ``folder``.
    """
    division, train = study.division, [case for case, *_ in spec.document["train"]]
    others = [set(division.cases_of(people)) - set(train) for people in division.parts]
    [held_out, *_] = filter(None, others)
    split = FoldSplit(train=train, val=sorted(held_out))
    request = replace(study.source.divided([split], folder / "data" / spec.key), fold="0")
    arm: Mapping[str, Any] = spec.document["arms"][chosen]
    lines: list[FitRequest | AugmentRequest] = []
    run = None
    if arm["generator"] is not None:
        run = Path("runs") / str(arm["generator"])
        lines.append(fit_request(spec.document["generators"][arm["generator"]], request, 0, run))
    lines.append(augment_request(dict(arm, seed=0), request, run, None))
    return [f"gansynth {shlex.join(request.command_line)}" for request in lines]


def _cases(plan: BenchmarkPlan, division: SubjectSplit, request: TuneRequest) -> tuple[str, ...]:
    if request.size is None:
        return division.cases_of(division.pool)
    if request.size > len(division.pool):
        raise UsageFault(
            "benchmark.tuning-size-exceeds-pool",
            f"--size {request.size}: expected at most the "
            f"{len(division.pool)} subjects of the pool",
        )
    largest = max(request.size, largest_set(plan))
    least = min(request.size, plan.sizes[0])
    return division.cases_of(division.training_set(request.size, request.draw, least, largest))
