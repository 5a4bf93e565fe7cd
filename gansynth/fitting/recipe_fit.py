"""Fit the sets of a recipe, one after the other, each as an ordinary run folder.

``recipe.json`` beside them holds the request and the state of each set. After a set that fails, the
others are still tried. The same command resumes the sets that are not finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from gansynth.core.run_folder import MANIFEST, RunFolder, read_manifest
from gansynth.fitting import fit as fitting
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.cost import total_of
from gansynth.fitting.pipeline import FitArguments, Pipeline
from gansynth.fitting.recipe_plan import PlannedSet, RecipePlan
from gansynth.runtime.errors import GansynthError, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    elsewhere,
    read_json,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.version import build, check_format
from gansynth.sampling.open_run import check_weights

FILE = "recipe.json"
VERSION = 1


def fit_recipe(plan: RecipePlan, out: Path, **how: Unpack[FitArguments]) -> dict[str, Any]:
    """Fit every set of a recipe; finished ones are kept, the others are resumed.

    ``out`` holds the run folders of the sets; for one run, it is the run folder. ``how``
    is as in ``fit``, for each set; ``init_from`` with one set only.

    Returns:
        A JSON-able report with each set's under ``sets``; empty in all but the first of several
        processes.

    Raises:
        GansynthError: the error of the first set that failed, with its name; or options that do
            not fit together, before any set is fitted.
        Interrupted: as ``fit``; no further set is fitted.
    """
    init_from = how.get("init_from")
    if init_from is not None and len(plan.sets) > 1:
        raise UsageFault(
            "fitting.init-from-with-several-sets",
            f"--init-from {init_from}: recipe {plan.recipe.name} has {len(plan.sets)} sets here, "
            f"expected one that starts from it; choose it: --only {plan.sets[0].name}",
        )
    for note in plan.notes:
        how["reporter"].say(note)
    return _RecipeRuns(out, plan, how).run()


class _RecipeRuns(Pipeline[PlannedSet]):
    title = "set {0.name!r} ({1} of {2})"
    start_message = "{0.generator} on {0.request.kind}:{0.request.where}"
    skip_message = "finished already, kept"
    tries_all = True

    def __init__(self, out: Path, plan: RecipePlan, how: FitArguments) -> None:
        super().__init__(out, plan.sets, how)
        self.plan, self.recipe = plan, plan.recipe
        self.entries: dict[str, dict[str, Any]] = {}
        self.state_before = ""

    def fit(self, step: PlannedSet) -> dict[str, Any]:
        composite = step.composite
        plain = partial(fitting.fit, step.generator)
        begin = plain if composite is None else partial(fit_composite, composite)
        return begin(
            step.request,
            self.out / step.folder,
            settings=step.settings,
            edits=step.edits,
            recipe=step.sentence,
            **self.how,
        )

    def failure(self, failures: Mapping[str, Exception]) -> Exception:
        """Return the first failure, of the same type, with the name of its set."""
        (name, first), *others = failures.items()
        if self.plan.alone or not isinstance(first, GansynthError):
            return first
        suffix = f" Also failed: {', '.join(failed for failed, _ in others)}." if others else ""
        done = f"{len(self.steps) - len(failures)} of {len(self.steps)} sets are finished"
        suffix = (
            "" if self.dry_run else f".{suffix} {done}; the same command tries the others again"
        )
        named = first.reworded(f"set {name!r}: {first}{suffix}")
        named.__cause__ = first
        return named

    def open(self) -> list[str]:
        """Start the file, or continue that of the same recipe.

        A set is kept if recipe, settings, and training and held-out cases are the same, and its
        manifest and weights are unchanged. Its cases are not read again. Any other set goes through
        ``fit``, which compares the cases and resumes, or refuses.
        """
        self._take_up()
        if self.dry_run:
            return []
        for step in self.steps:
            new = {"folder": step.folder, "state": "waiting"}
            self.entries[step.name] = new | self.entries.get(step.name, {})
        with disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        self._write()
        return [step.name for step in self.steps if self._unchanged(step)]

    def _take_up(self) -> None:
        name, path = self.recipe.name, self.out / FILE
        if path.exists():
            before = read_json(path, hint="remove it; finished sets are then checked again")
            made = before.get("gansynth")
            check_format(path, before.get("version"), VERSION, made, elsewhere(self.out))
            if before.get("recipe") != name:
                raise UsageFault(
                    "fitting.record-of-other-recipe",
                    f"{path}: of recipe {before.get('recipe')!r}, expected {name!r}; choose "
                    f"another: {elsewhere(self.out)}",
                )
            if not self.how.get("resume", True):
                raise UsageFault(
                    "fitting.folder-holds-recipe-sets",
                    f"{self.out}: holds sets of recipe {name} already, expected an empty "
                    f"folder; choose another: {elsewhere(self.out)}",
                )
            self.entries = before.get("sets", {})
        if not self.plan.alone and (self.out / MANIFEST).exists():
            raise UsageFault(
                "fitting.folder-holds-run-not-recipe",
                f"{self.out}: holds a run, expected a folder for the runs of recipe {name}; "
                f"choose another: {elsewhere(self.out)}",
            )

    def _write(self) -> None:
        recipe, spec = self.recipe, self.recipe.spec
        document: dict[str, Any] = {
            "version": VERSION,
            "recipe": recipe.name,
            "file_sha256": recipe.sha256,
            "gansynth": build(),
            "summary": spec.summary,
            "paper": spec.paper,
            "generator": spec.generator,
        }
        document.update(self.plan.request)
        document |= {"open": list(spec.open), "reports": spec.reports, "sets": self.entries}
        write_json_atomic(self.out / FILE, document)

    def _unchanged(self, step: PlannedSet) -> bool:
        entry, folder = self.entries[step.name], self.out / step.folder
        same = entry.get("asked") == step.asked and entry.get("split") == self.plan.split
        if entry["state"] != "complete" or not same:
            return False
        if not self.ended_with(step, entry.get("manifest_sha256")):
            return False
        try:
            check_weights(RunFolder(folder))
        except GansynthError:
            return False
        return True

    def note(self, step: PlannedSet, state: str, error: str | None = None) -> None:
        entry, folder = self.entries[step.name], self.out / step.folder
        if state == "running":
            self.state_before = entry["state"]
        if state == "failed" and self.state_before == "complete":
            # A finished set that was not changed stays complete.
            state = "complete" if self.ended_with(step, entry.get("manifest_sha256")) else state
        elif state == "complete":
            manifest = read_manifest(folder)
            entry.update(
                run_id=manifest["run_id"],
                steps=manifest["steps"],
                train_cases=len(manifest["lineage"]["cases"]),
                asked=step.asked,
                split=self.plan.split,
                manifest_sha256=sha256_file(folder / MANIFEST),
            )
        entry.update(state=state, error=error)
        self._write()

    def report(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        report_of = self._estimated if self.dry_run else self._fitted
        sets = {step.name: report_of(step, reports.get(step.name, {})) for step in self.steps}
        if self.plan.alone:
            [report] = sets.values()
            return {"recipe": self.recipe.name} | report
        whole: dict[str, Any] = {"recipe": self.recipe.name, "run": str(self.out)}
        if self.dry_run:
            whole |= {"dry_run": True} | total_of(sets.values())
            whole["estimated_hours"] = round(whole["estimated_minutes"] / 60, 2)
            whole["open"] = list(self.recipe.spec.open)
        whole["sets"] = sets
        return whole

    def _fitted(self, step: PlannedSet, report: dict[str, Any]) -> dict[str, Any]:
        if report:
            return report
        entry: dict[str, Any] = {"run": str(self.out / step.folder)}
        for key in ("run_id", "steps", "train_cases"):
            entry[key] = self.entries[step.name].get(key)
        entry["kept"] = True
        return entry

    def _estimated(self, step: PlannedSet, report: dict[str, Any]) -> dict[str, Any]:
        hours = round(report["estimated_minutes"] / 60, 4)
        # The report is about the single run.
        paper = dict(self.recipe.spec.reports) if self.plan.alone else {}
        paper.update(step.reports)
        return dict(report, estimated_hours=hours, paper=paper)
