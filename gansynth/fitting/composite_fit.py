"""Fit a composite run: its parts in order, under one folder and one lineage."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from gansynth.core.capabilities import of_parts
from gansynth.core.generator import capabilities_of
from gansynth.core.identity import Door, refuse_seen
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.requests.base import as_texts
from gansynth.core.run_folder import MANIFEST, RunFolder, read_manifest, write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.data.held_out import held_out_of
from gansynth.fitting import fit as fitting
from gansynth.fitting.composite_plan import CompositePlan, PlannedPart, make_plan
from gansynth.fitting.composite_spec import ChainSpec, Spec
from gansynth.fitting.cost import total_of
from gansynth.fitting.pipeline import FitArguments, Pipeline
from gansynth.fitting.run_report import write_run_report
from gansynth.fitting.setup import same_run, write_config
from gansynth.report.image_grid import write_sample_grid
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import elsewhere, sha256_file
from gansynth.sampling.manifest import COMPOSITE, NOTHING, PARTS, Run, new_manifest
from gansynth.sampling.open_run import below_its_size, load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler

log = logging.getLogger("gansynth")
COLUMNS = 8
"""Samples on the preview grid of all parts together."""


def fit_composite(
    spec: Spec,
    request: SourceRequest,
    out: Path,
    *,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    recipe: str = "",
    **how: Unpack[FitArguments],
) -> dict[str, Any]:
    """Fit every part of a composite run, in order; finished ones are kept.

    ``settings`` override those of every part that has them. ``edits`` None: those of the chain,
    or of its first part that generates images. Other arguments are as in ``fit``, for each part. A
    part starts from the part of the same name of a composite ``init_from``.

    Returns:
        A JSON-able report, with each part's under ``parts``.

    Raises:
        GansynthError: as ``fit``; or parts that do not fit together.
        Interrupted: as ``fit``; finished parts are kept.
    """
    plan = make_plan(spec, request, settings, edits)
    _guard_own_data(plan)
    # In a chain, a setting without effect for one part may be another's.
    typed = () if recipe or isinstance(spec, ChainSpec) else tuple(settings)
    return _CompositeRun(out, plan, typed, recipe, how).run()


def _beginning(folder: Path, part: str) -> Path:
    manifest = read_manifest(folder)
    if PARTS not in manifest:
        return folder
    for entry in manifest[PARTS]:
        if entry["name"] == part:
            return folder / str(entry["folder"])
    names = [entry["name"] for entry in manifest[PARTS]]
    raise UsageFault(
        "fitting.composite-start-lacks-part",
        f"--init-from {folder}: has no part {part!r}, expected one of the same name; it has "
        f"{', '.join(names)}",
    )


def _guard_own_data(plan: CompositePlan) -> None:
    requests = [part.request for part in plan.parts if part.own_data]
    if not requests:
        return
    held_out = held_out_of(plan.source)
    door = Door("part's data", "Leave these cases out of the part's data")
    for request in requests:
        for text in refuse_seen(lineage_of(open_source(request)), held_out, door).warnings:
            log.warning("%s:%s: %s", request.kind, request.where, text)


class _CompositeRun(Pipeline[PlannedPart]):
    title = "part {0.name!r}"
    start_message = "{0.generator} on {0.request.kind}"
    skip_message = "fitted already, kept"

    def __init__(
        self, out: Path, plan: CompositePlan, typed: Collection[str], recipe: str, how: FitArguments
    ) -> None:
        super().__init__(out, plan.parts, how)
        self.plan, self.typed, self.recipe = plan, typed, recipe
        self.manifest: dict[str, Any] = {}

    def fit(self, step: PlannedPart) -> dict[str, Any]:
        folder, view = self.out / step.folder, dict(step.request.view)
        drawn_by = view.get("labels_by")
        if self.dry_run and drawn_by and not (folder / drawn_by / MANIFEST).exists():
            # The part with its label maps is not fitted yet: the source's labels have equal size.
            del view["labels_by"]
            view = view if "channels" in view else {}
        if view:
            view["home"] = str(folder.absolute())
        start = self.how.get("init_from")
        if start is not None:
            start = _beginning(start, step.name)
        elif step.init_from is not None and not self.dry_run:
            start = self.out / PARTS / step.init_from
        how = self.how.copy()
        how.update({"init_from": start, "resume": True})
        settings = dict(step.settings)
        if not step.classes:
            # Parts of a chain get no context when sampling: training cases must not determine it.
            can = capabilities_of(installed().generator(step.generator))
            settings = as_texts(can.in_chain) | settings
        return fitting.fit(
            step.generator,
            replace(step.request, view=view),
            folder,
            settings=settings,
            edits=self.plan.edits if step.draws or step.begins else (),
            typed=self.typed,
            recipe=self.recipe,
            **how,
        )

    def open(self) -> list[str]:
        config = self.plan.config(self.how.get("init_from"))
        lineage, whole = lineage_of(self.plan.source), list[str]()
        if (self.out / MANIFEST).exists():
            self.manifest = read_manifest(self.out)
            whole = self._take_up(config, lineage)
            self._check_labels(whole)
        else:
            self.manifest = self._new(lineage)
        if self.dry_run:
            return []
        self.manifest["config"] = config
        for part in self.manifest[PARTS]:
            if part["name"] not in whole:
                part["manifest_sha256"] = None
        self._write()
        return whole

    def _take_up(self, config: Mapping[str, Any], lineage: Lineage) -> list[str]:
        """Return the fitted parts; refuse another run, or one that must not be resumed."""
        if PARTS not in self.manifest:
            raise UsageFault(
                "fitting.run-not-composite",
                f"{self.out}: holds a run that is not composite, expected an empty folder; "
                f"choose another: {elsewhere(self.out)}",
            )
        ancestors = Lineage.from_json(self.manifest["lineage"]).ancestors
        lineage = replace(lineage, ancestors=ancestors)
        resume = self.how.get("resume", True)
        same_run(self.out, self.manifest, config, lineage, self.plan.source, resume)
        before, after = self.manifest["config"][PARTS], json.loads(json.dumps(config))[PARTS]
        noted = {part["name"]: part["manifest_sha256"] for part in self.manifest[PARTS]}
        return [
            part.name
            for part in self.steps
            if before[part.name] == after[part.name] and self.ended_with(part, noted[part.name])
        ]

    def _check_labels(self, whole: Collection[str]) -> None:
        """Refuse to change a part whose label maps other parts have learnt from."""
        by = self.plan.labels_by
        learnt = [
            part.name
            for part in self.steps
            if "labels_by" in part.request.view and (self.out / part.folder / MANIFEST).exists()
        ]
        if by is not None and by not in whole and learnt:
            raise UsageFault(
                "fitting.labelling-part-changed",
                f"{self.out}: part {by!r} has changed, or would be trained further, and part "
                f"{learnt[0]!r} has learnt from its label maps; expected it unchanged. Choose "
                f"another: {elsewhere(self.out)}, or set steps of the other parts only",
            )

    def _new(self, lineage: Lineage) -> dict[str, Any]:
        source, plan = self.plan.source, self.plan
        space = replace(source.space, window=None)
        manifest = new_manifest(COMPOSITE, source, space, lineage, plan.edits)
        manifest["request"] = dict(source.request.to_json(), view=plan.view)
        manifest[PARTS] = []
        for part in self.steps:
            entry: dict[str, Any] = {"name": part.name, "folder": part.folder}
            entry["generator"] = part.generator
            entry["draws"] = list(part.draws) or (NOTHING if part.begins else "labels")
            if part.classes:
                entry["classes"] = list(part.classes)
            entry["manifest_sha256"] = None
            manifest[PARTS].append(entry)
        return manifest

    def _write(self) -> None:
        parts = self.manifest[PARTS]
        self.manifest["complete"] = all(part["manifest_sha256"] for part in parts)
        write_config(self.out, self.manifest["config"])
        write_manifest(self.out, self.manifest)

    def note(self, step: PlannedPart, state: str, error: str | None = None) -> None:
        if state != "complete":
            return
        manifest = read_manifest(self.out / step.folder)
        lineage = Lineage.from_json(self.manifest["lineage"])
        lineages = Lineage.from_json(manifest["lineage"]).everyone()
        # A part on a subset of the cases, those of a class, adds nothing to the lineage.
        parents = [parent_run for parent_run in lineages if not parent_run.within(lineage)]
        self.manifest["lineage"] = lineage.joined(*parents).to_json()
        for entry in self.manifest[PARTS]:
            if entry["name"] == step.name:
                entry["manifest_sha256"] = sha256_file(self.out / step.folder / MANIFEST)
        self.manifest["steps"] = max(self.manifest["steps"], manifest["steps"])
        fitted = [
            RunFolder(self.out / part["folder"]).capabilities
            for part in self.manifest[PARTS]
            if part["manifest_sha256"] and part["draws"] not in (NOTHING, "labels")
        ]
        if fitted:
            self.manifest["capabilities"] = of_parts(fitted).to_json()
        self._write()

    def report(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        source, parts = self.plan.source, reports.values()
        cases = {
            "train_cases": len(source.train_ids),
            "held_out_cases": len(source.held_out_ids),
        }
        report: dict[str, Any]
        if self.dry_run:
            report = {"dry_run": True, "run": str(self.out), "generator": COMPOSITE}
            report.update(cases)
            report |= total_of(parts)
            report["parts"] = dict(reports)
            return report
        run = load_run(self.out, self.device)
        sheet = self._sheet(run)
        write_run_report(RunFolder.known(self.out, self.manifest), self.how["reporter"], cases)
        report = {"run": str(self.out), "run_id": self.manifest["run_id"]}
        report.update(cases)
        report["seconds"] = round(sum([part["seconds"] for part in parts]), 2)
        report["sheet"] = str(sheet)
        report["below_its_size"], report["steps_to_its_size"] = below_its_size(run)
        report["parts"] = {}
        for name, part in reports.items():
            kept = {key: part[key] for key in ("run_id", "steps", "seconds", "losses")}
            report["parts"][name] = kept
        return report

    def _sheet(self, run: Run) -> Path:
        path = self.out / "samples" / "composite.png"
        sampler = Sampler(run, self.plan.source, SampleRequest(edits=tuple(self.plan.edits)))
        samples = sampler.draw_raw(0, COLUMNS)
        real = [sampler.matching_real_case(sample) for sample in samples]
        path.parent.mkdir(exist_ok=True)
        schema, oriented = sampler.sampler.schema, run.space.oriented
        write_sample_grid(path, samples, real, schema, title="all parts", oriented=oriented)
        return path
