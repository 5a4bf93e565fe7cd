"""Fit the sets of a recipe, one after the other, each as an ordinary run folder.

``recipe.json`` beside them says what was asked for and how far each set has come. A set that fails
does not keep the others from being tried; the same command again goes on with what is not finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.fitting.recipe import Recipe
from gansynth.fitting.recipe_plan import PlannedSet, RecipePlan, plan_recipe
from gansynth.runtime.devices import pick_device
from gansynth.runtime.distributed import Team, team
from gansynth.runtime.errors import FAULTS, GansynthError, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    read_json,
    remove_temporaries,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.open_run import check_weights
from gansynth.sampling.run import MANIFEST, check_lockable, locked, read_manifest

FILE = "recipe.json"
VERSION = 1


def fit_recipe(
    recipe: Recipe,
    generator: str,
    request: SourceRequest,
    out: Path,
    *,
    scale: str | None = None,
    only: Sequence[str] = (),
    others: Mapping[str, str] = MappingProxyType({}),
    others_read: Mapping[str, str] = MappingProxyType({}),
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str = "auto",
    memory: int | None = None,
    init_from: Path | None = None,
    resume: bool = True,
    dry_run: bool = False,
    log: Sequence[str] = (),
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit every set of a recipe; finished ones are kept, the others go on where they stopped.

    Args:
        recipe: the recipe.
        generator: registered name; the recipe's.
        request: where the training cases come from; its ``read`` is put over the recipe's.
        out: folder of the sets' run folders; of a recipe of one run, the run folder itself.
        scale: overrides of the recipe by name, if any.
        only: names of the sets to fit; all if none.
        others: KIND:WHERE of the further sources that the recipe needs, by name.
        others_read: how these are read, NAME.KEY -> text.
        settings: ``--set`` values, put over the recipe's.
        edits: condition edits; None takes the recipe's, or else the generator's own.
        device: ``auto``, ``cpu``, ``cuda:0``.
        memory: as in ``fit``, for each set.
        init_from: run to start from; with one set only.
        resume: False refuses folders that already hold runs.
        dry_run: measure every set, write nothing.
        log: loggers of every set.
        reporter: shows progress.

    Returns:
        A JSON-able report with each set's under ``sets``; empty in all but the first of several
        processes.

    Raises:
        GansynthError: what the first set that failed has raised, naming the set; or, before any
            has begun, what does not fit together.
        Interrupted: as ``fit``; no further set is begun.
    """
    if generator != recipe.spec.generator:
        own = recipe.spec.generator
        raise UsageFault(
            f"--recipe {recipe.name}: its generator is {own}, got {generator}; say: gansynth fit "
            f"{own} --recipe {recipe.name}"
        )
    plan = plan_recipe(
        recipe,
        request,
        settings=settings,
        edits=edits,
        scale=scale,
        only=only,
        others=others,
        others_read=others_read,
    )
    if init_from is not None and len(plan.sets) > 1:
        raise UsageFault(
            f"--init-from {init_from}: recipe {recipe.name} has {len(plan.sets)} sets here, "
            f"expected one that starts from it; choose it: --only {plan.sets[0].name}"
        )
    for note in plan.notes:
        reporter.say(note)
    options = dict(
        device=device, memory=memory, init_from=init_from, resume=resume, dry_run=dry_run, log=log
    )
    begin = partial(_fit_set, plan, out, options)
    if dry_run:
        check_lockable(out)
        _Record(out, plan, resume).before_it()
        reports = {one.name: _rehearse(plan, one, begin, reporter) for one in plan.sets}
        return _dry_report(plan, out, reports) if all(reports.values()) else {}
    with team(pick_device(device)) as processes:
        hold = not plan.alone and processes.leads  # a run alone is held by its own fit
        with locked(out) if hold else nullcontext():
            record = _Record(out, plan, resume)
            if processes.leads:
                record.open(request, settings, scale)
            else:
                reporter = NullReporter()
            kept = processes.tell(record.kept())
            reports = _fit_all(plan, kept, record, begin, processes, reporter)
            return _report(plan, out, reports) if processes.leads else {}


def _fit_all(
    plan: RecipePlan,
    kept: Sequence[str],
    record: _Record,
    begin: Callable[[PlannedSet, Reporter], dict[str, Any]],
    processes: Team,
    reporter: Reporter,
) -> dict[str, dict[str, Any]]:
    """Fit what is not kept; what the first failure raised is raised when all were tried."""
    reports: dict[str, dict[str, Any]] = {}
    failures: dict[str, Exception] = {}
    for number, one in enumerate(plan.sets, 1):
        told = f"set {one.name!r} ({number} of {len(plan.sets)})"
        if one.name in kept:
            reporter.say(f"{told}: finished already, kept")
            reports[one.name] = record.kept_report(one)
            continue
        reporter.say(f"{told}: {one.generator} on {one.request.kind}:{one.request.where}")
        record.started(one)
        try:
            reports[one.name] = begin(one, reporter)
            record.finished(one)
        except Exception as error:  # of whatever kind: the other sets are not to be lost
            failures[one.name] = error
            record.failed(one, _one_line(error))
            if processes.size > 1:  # the others may wait for this process within this set
                break
            if len(plan.sets) > 1:
                reporter.warn(f"{told}: {_one_line(error)}")
        except BaseException:
            record.note(one, state="stopped")
            raise
    if failures:
        raise _naming(failures, plan)
    return reports


def _naming(failures: Mapping[str, Exception], plan: RecipePlan) -> Exception:
    """The first failure, as what it was, with the name of its set."""
    name, first = next(iter(failures.items()))
    if plan.alone or not isinstance(first, GansynthError):
        return first
    others = [other for other in failures if other != name]
    more = f" So failed: {', '.join(others)}." if others else ""
    return _named(
        name,
        first,
        f".{more} {len(plan.sets) - len(failures)} of {len(plan.sets)} sets are finished; the same "
        "command tries the others again",
    )


def _named(name: str, fault: GansynthError, more: str = "") -> GansynthError:
    """A set's fault, with its name."""
    named = FAULTS.get(fault.exit_code, type(fault))(f"set {name!r}: {fault}{more}")
    named.__cause__ = fault
    return named


def _fit_set(
    plan: RecipePlan, out: Path, options: Mapping[str, Any], one: PlannedSet, reporter: Reporter
) -> dict[str, Any]:
    from gansynth.fitting.composite_fit import fit_composite
    from gansynth.fitting.fit import fit

    what = one.composite
    begin = partial(fit, one.generator) if what is None else partial(fit_composite, what)
    return begin(
        one.request,
        _folder(out, plan, one),
        settings=one.settings,
        edits=one.edits,
        recipe=one.sentence,
        reporter=reporter,
        **options,
    )


def _folder(out: Path, plan: RecipePlan, one: PlannedSet) -> Path:
    return out if plan.alone else out / one.name


class _Record:
    """``recipe.json``; only the first of several processes opens it, and then writes it."""

    def __init__(self, out: Path, plan: RecipePlan, resume: bool) -> None:
        self.out, self.plan, self.resume = out, plan, resume
        self.document: dict[str, Any] = {}
        self.before: dict[str, Any] = {}

    def open(self, request: SourceRequest, settings: Mapping[str, str], scale: str | None) -> None:
        """Begin the file, or take up the one that is there; see ``before_it``."""
        recipe = self.plan.recipe
        sets = self.before_it().get("sets", {})
        for one in self.plan.sets:
            new = {"folder": "." if self.plan.alone else one.name, "state": "waiting"}
            sets[one.name] = {**new, **sets.get(one.name, {})}
        spec = recipe.spec
        self.document = {
            "version": VERSION,
            "recipe": recipe.name,
            "file_sha256": recipe.sha256,
            "gansynth": __version__,
            "summary": spec.summary,
            "paper": spec.paper,
            "generator": spec.generator,
            "scale": scale,
            "data": request.to_json(),
            "settings": dict(settings),
            "open": list(spec.open),
            "reports": spec.reports,
            "sets": sets,
        }
        with disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.out)
        self._write()

    def before_it(self) -> dict[str, Any]:
        """The file that is there if it is of the same recipe; empty if there is none.

        Raises:
            UsageFault: the folder holds something else.
        """
        recipe, path = self.plan.recipe, self.out / FILE
        before: dict[str, Any] = {}
        if path.exists():
            before = read_json(path, way_out="remove it; finished sets are then looked at anew")
            if before.get("recipe") != recipe.name:
                raise UsageFault(
                    f"{path}: of recipe {before.get('recipe')!r}, expected {recipe.name!r}; choose "
                    "another -o"
                )
            if not self.resume:
                raise UsageFault(
                    f"{self.out}: holds sets of recipe {recipe.name} already, expected an empty "
                    "folder; choose another -o"
                )
        if not self.plan.alone and (self.out / MANIFEST).exists():
            raise UsageFault(
                f"{self.out}: holds a run, expected a folder for the runs of recipe {recipe.name}; "
                "choose another -o"
            )
        return before

    def kept(self) -> list[str]:
        """Names of the sets that are finished and are what would be fitted now.

        Their cases are not read again: a set is kept if the recipe, the settings, and which cases
        are trained on and held out are the same, and its manifest and weights are those it ended
        with. Any other goes through ``fit``, which compares the cases and goes on, or refuses.
        """
        return [one.name for one in self.plan.sets if self.resume and self._unchanged(one)]

    def _unchanged(self, one: PlannedSet) -> bool:
        entry = self.document.get("sets", {}).get(one.name, {})
        folder = _folder(self.out, self.plan, one)
        path = folder / MANIFEST
        if entry.get("state") != "complete" or entry.get("asked") != one.asked:
            return False
        if entry.get("split") != self.plan.split or not path.is_file():
            return False
        if sha256_file(path) != entry.get("manifest_sha256"):
            return False
        try:
            check_weights(folder, read_manifest(folder))
        except GansynthError:
            return False
        return True

    def kept_report(self, one: PlannedSet) -> dict[str, Any]:
        """What is known of a set that is kept."""
        entry = self.document.get("sets", {}).get(one.name, {})
        known = {k: entry.get(k) for k in ("run_id", "steps", "train_cases")}
        return {"run": str(_folder(self.out, self.plan, one)), **known, "kept": True}

    def started(self, one: PlannedSet) -> None:
        """Note that a set is begun, or gone on with."""
        self.before = dict(self.document.get("sets", {}).get(one.name, {}))
        self.note(one, state="running", error=None)

    def failed(self, one: PlannedSet, error: str) -> None:
        """Note why a set failed; one that was finished, and that was not touched, stays so."""
        path = _folder(self.out, self.plan, one) / MANIFEST
        whole = self.before.get("state") == "complete" and path.is_file()
        whole = whole and sha256_file(path) == self.before.get("manifest_sha256")
        self.note(one, state="complete" if whole else "failed", error=error)

    def note(self, one: PlannedSet, **changes: Any) -> None:
        """Write what has become of a set."""
        if self.document:
            self.document["sets"][one.name].update(changes)
            self._write()

    def finished(self, one: PlannedSet) -> None:
        """Note that a set is finished, and by what it is known again."""
        if not self.document:
            return
        folder = _folder(self.out, self.plan, one)
        manifest = read_manifest(folder)
        self.note(
            one,
            state="complete",
            run_id=manifest["run_id"],
            steps=manifest["steps"],
            train_cases=len(manifest["lineage"]["cases"]),
            asked=one.asked,
            split=self.plan.split,
            manifest_sha256=sha256_file(folder / MANIFEST),
        )

    def _write(self) -> None:
        write_json_atomic(self.out / FILE, self.document)


def _report(plan: RecipePlan, out: Path, reports: Mapping[str, Any]) -> dict[str, Any]:
    if plan.alone:
        return {"recipe": plan.recipe.name, **next(iter(reports.values()))}
    return {"recipe": plan.recipe.name, "run": str(out), "sets": dict(reports)}


def _rehearse(
    plan: RecipePlan,
    one: PlannedSet,
    begin: Callable[[PlannedSet, Reporter], dict[str, Any]],
    reporter: Reporter,
) -> dict[str, Any]:
    """A dry run's report of a set, with what the paper reports of it."""
    try:
        report = begin(one, reporter)
    except GansynthError as fault:
        raise (fault if plan.alone else _named(one.name, fault)) from fault
    if not report:
        return report
    hours = round(report["estimated_minutes"] / 60, 4)
    whole = plan.recipe.spec.reports if plan.alone else {}  # of one run, it is about that
    return {**report, "estimated_hours": hours, "paper": {**whole, **one.reports}}


def _dry_report(plan: RecipePlan, out: Path, reports: Mapping[str, Any]) -> dict[str, Any]:
    if plan.alone:
        return {"recipe": plan.recipe.name, **next(iter(reports.values()))}
    hours = sum(report["estimated_hours"] for report in reports.values())
    return {
        "recipe": plan.recipe.name,
        "run": str(out),
        "dry_run": True,
        "estimated_hours": round(hours, 2),
        "memory_mib": max(report["memory_mib"] for report in reports.values()),
        "open": list(plan.recipe.spec.open),
        "sets": dict(reports),
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GansynthError) else f"{type(error).__name__}: {text}"
