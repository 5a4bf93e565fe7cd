"""Fit a composite run: its parts one after the other, under one folder and one lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from gansynth.core.lineage import Lineage, guard
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_plan import Plan, PlannedPart, make_plan
from gansynth.fitting.composite_spec import ChainSpec, Spec
from gansynth.runtime.devices import pick_device
from gansynth.runtime.distributed import Team, team
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import (
    remove_temporaries,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.sampling.composite import NAME, NOTHING, PARTS, least_labelled
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.sampling.run import MANIFEST, check_lockable, locked, new_manifest, read_manifest

COLUMNS = 8
"""Samples on the sheet that all parts draw together."""


def fit_composite(
    spec: Spec,
    request: SourceRequest,
    out: Path,
    *,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str = "auto",
    memory: int | None = None,
    init_from: Path | None = None,
    resume: bool = True,
    dry_run: bool = False,
    log: Sequence[str] = (),
    recipe: str = "",
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit every part of a composite run, in order; finished ones are kept.

    Args:
        spec: the parts.
        request: where the training cases come from.
        out: run folder; one that was interrupted goes on where it stopped.
        settings: ``--set`` values, put over those of every part.
        edits: condition edits; None takes the chain's, or its first drawing part's own.
        device: ``auto``, ``cpu``, ``cuda:0``.
        memory: as in ``fit``, for each part.
        init_from: run that every part starts from; of a composite one, its part of the same name.
        resume: False refuses a folder that already holds a run.
        dry_run: measure every part, write nothing.
        log: loggers of every part.
        recipe: the recipe that asks for it, in words, for every part's ``config.yaml``.
        reporter: shows progress.

    Returns:
        A JSON-able report, with each part's under ``parts``.

    Raises:
        GansynthError: as ``fit``; and for parts that do not fit together.
        Interrupted: as ``fit``; finished parts are kept.
    """
    plan = make_plan(spec, request, settings, edits)
    _guard_own_data(plan)
    options = dict(edits=plan.edits, device=device, memory=memory, dry_run=dry_run, log=log)
    options["recipe"] = recipe
    # Of a chain, what one part has no use for may be another's.
    options["typed"] = () if recipe or isinstance(spec, ChainSpec) else tuple(settings)
    if dry_run:
        check_lockable(out)
        _Folder(out, plan, leads=True).take_up(plan.config(init_from), resume)
        parts = {p.name: _fit_part(p, out, init_from, options, reporter) for p in plan.parts}
        return _dry_report(out, plan, parts)
    with team(pick_device(device)) as processes, _alone(out, processes):
        folder = _Folder(out, plan, processes.leads)
        if processes.leads:
            remove_temporaries(out)
            folder.open(plan.config(init_from), resume)
        else:
            reporter = NullReporter()
        kept, fitted = processes.tell(folder.kept), {}
        for part in plan.parts:
            if part.name in kept:
                reporter.say(f"part {part.name!r}: fitted already, kept")
                continue
            reporter.say(f"part {part.name!r}: {part.generator} on {part.request.kind}")
            fitted[part.name] = _fit_part(part, out, init_from, options, reporter)
            folder.note(part)
            processes.wait()
        return folder.finish(fitted, device) if processes.leads else {}


def _alone(out: Path, processes: Team) -> AbstractContextManager[None]:
    """Hold the folder, in the process that writes it."""
    return locked(out) if processes.leads else nullcontext()


def _fit_part(
    part: PlannedPart,
    out: Path,
    init_from: Path | None,
    options: Mapping[str, Any],
    reporter: Reporter,
) -> dict[str, Any]:
    from gansynth.fitting.fit import fit

    request = part.requested(out)
    drawn_by = request.view.get("labels_by")
    if options["dry_run"] and drawn_by and not (out / part.folder / drawn_by / MANIFEST).exists():
        # What draws its label maps is not fitted yet: the source's own labels are as large.
        view = {k: v for k, v in request.view.items() if k != "labels_by"}
        request = replace(request, view=view if "channels" in view else {})
    start = None if init_from is None else _beginning(init_from, part.name)
    if start is None and part.init_from is not None and not options["dry_run"]:
        start = out / PARTS / part.init_from
    return fit(
        part.generator,
        request,
        out / part.folder,
        settings=part.settings,
        init_from=start,
        reporter=reporter,
        **options,
    )


def _beginning(folder: Path, part: str) -> Path:
    """The run a part starts from: of a composite one the part of the same name."""
    manifest = read_manifest(folder)
    if PARTS not in manifest:
        return folder
    for other in manifest[PARTS]:
        if other["name"] == part:
            return folder / str(other["folder"])
    raise UsageFault(
        f"--init-from {folder}: has no part {part!r}, expected one of the same name; it has "
        f"{', '.join(other['name'] for other in manifest[PARTS])}"
    )


def _guard_own_data(plan: Plan) -> None:
    """Refuse data of a part's own that hold what the composite's fold holds out."""
    others = [part.request for part in plan.parts if part.own_data]
    if not others:
        return
    held_out = plan.source.records(plan.source.held_out_ids)
    for request in others:
        lineage = open_source(request).lineage()
        guard(lineage, held_out, what="part's data", dataset=plan.source.name)


class _Folder:
    """The composite's own folder; its manifest is written after every part."""

    def __init__(self, out: Path, plan: Plan, leads: bool) -> None:
        self.out, self.plan, self.leads = out, plan, leads
        self.manifest: dict[str, Any] = {}
        self.kept: list[str] = []

    def open(self, config: dict[str, Any], resume: bool) -> None:
        """Start a run folder, or take up the one that is there; see ``take_up``."""
        self.take_up(config, resume)
        self.manifest["config"] = config
        for part in self.manifest[PARTS]:
            if part["name"] not in self.kept:
                part["manifest_sha256"] = None
        self._write()

    def take_up(self, config: dict[str, Any], resume: bool) -> None:
        """Read the manifest that is there if it is the same run, or begin one; nothing is written.

        Raises:
            UsageFault: another run, or one that must not be resumed.
        """
        from gansynth.fitting.setup import same_run

        lineage = self.plan.source.lineage()
        if (self.out / MANIFEST).exists():
            self.manifest = read_manifest(self.out)
            if PARTS not in self.manifest:
                raise UsageFault(
                    f"{self.out}: holds a run that is not composite, expected an empty folder; "
                    "choose another -o"
                )
            ancestors = Lineage.from_json(self.manifest["lineage"]).ancestors
            whole = replace(lineage, ancestors=ancestors)
            same_run(self.out, self.manifest, config, whole, resume)
            before, after = self.manifest["config"][PARTS], json.loads(json.dumps(config))[PARTS]
            self.kept = [
                part["name"]
                for part in self.manifest[PARTS]
                if before[part["name"]] == after[part["name"]] and self._unchanged(part)
            ]
            self._check_labels()
        else:
            self.manifest = self._new(lineage)

    def _check_labels(self) -> None:
        """Refuse to go on with what draws label maps when others have learnt from them."""
        by = self.plan.labels_by
        learnt = [
            part.name
            for part in self.plan.parts
            if "labels_by" in part.request.view and (self.out / part.folder / MANIFEST).exists()
        ]
        if by is not None and by not in self.kept and learnt:
            raise UsageFault(
                f"{self.out}: part {by!r} has changed, or would be trained further, and part "
                f"{learnt[0]!r} has learnt from label maps it drew; expected it as it was. Choose "
                "another -o, or set steps of the other parts only"
            )

    def _unchanged(self, part: Mapping[str, Any]) -> bool:
        path = self.out / part["folder"] / MANIFEST
        return path.is_file() and bool(sha256_file(path) == part["manifest_sha256"])

    def _new(self, lineage: Lineage) -> dict[str, Any]:
        source, plan = self.plan.source, self.plan
        space = replace(source.space, window=None)
        return {
            **new_manifest(NAME, source, space, lineage, plan.edits),
            "request": {**source.request.to_json(), "view": plan.view},
            PARTS: [
                {
                    "name": part.name,
                    "folder": part.folder,
                    "generator": part.generator,
                    "draws": list(part.draws) or (NOTHING if part.begins else "labels"),
                    **({"classes": list(part.classes)} if part.classes else {}),
                    "manifest_sha256": None,
                }
                for part in plan.parts
            ],
        }

    def _write(self) -> None:
        parts = self.manifest[PARTS]
        self.manifest["complete"] = all(part["manifest_sha256"] for part in parts)
        config = yaml.safe_dump(self.manifest["config"], sort_keys=False).encode()
        write_bytes_atomic(self.out / "config.yaml", config)
        write_json_atomic(self.out / MANIFEST, self.manifest)

    def note(self, part: PlannedPart) -> None:
        """Remember a part that is fitted: its manifest's hash, and what it has seen."""
        if not self.leads:
            return
        own = read_manifest(self.out / part.folder)
        lineage = Lineage.from_json(self.manifest["lineage"])
        seen = Lineage.from_json(own["lineage"]).everyone()
        # What has learnt from some of the whole's cases, those of a class, adds nothing to them.
        joined = lineage.joined(*(one for one in seen if not one.within(lineage)))
        self.manifest["lineage"] = joined.to_json()
        for entry in self.manifest[PARTS]:
            if entry["name"] == part.name:
                entry["manifest_sha256"] = sha256_file(self.out / part.folder / MANIFEST)
        self.manifest["steps"] = max(self.manifest["steps"], own["steps"])
        labelling = (whole.get("labelling", "asked") for whole in (self.manifest, own))
        self.manifest["labelling"] = least_labelled(labelling)
        self._write()

    def finish(self, fitted: Mapping[str, Any], device: str) -> dict[str, Any]:
        """Draw a sheet with all parts; the report."""
        return {
            "run": str(self.out),
            "run_id": self.manifest["run_id"],
            "train_cases": len(self.plan.source.train_ids),
            "held_out_cases": len(self.plan.source.held_out_ids),
            "seconds": round(sum(part["seconds"] for part in fitted.values()), 2),
            "sheet": str(self._sheet(device)),
            "parts": {
                name: {key: part[key] for key in ("run_id", "steps", "seconds", "losses")}
                for name, part in fitted.items()
            },
        }

    def _sheet(self, device: str) -> Path:
        from gansynth.report.sheets import write_sheet

        path = self.out / "samples" / "composite.png"
        run = load_run(self.out, device)
        drawer = SampleDrawer(run, self.plan.source, self.plan.edits)
        samples = drawer.draw_raw(0, COLUMNS)
        real = [drawer.beside(sample) for sample in samples]
        path.parent.mkdir(exist_ok=True)
        write_sheet(path, samples, real, drawer.sampler.schema, title="all parts")
        return path


def _dry_report(out: Path, plan: Plan, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dry_run": True,
        "run": str(out),
        "generator": NAME,
        "train_cases": len(plan.source.train_ids),
        "held_out_cases": len(plan.source.held_out_ids),
        "estimated_minutes": round(sum(p["estimated_minutes"] for p in parts.values()), 2),
        "memory_mib": max(p["memory_mib"] for p in parts.values()),
        "parts": dict(parts),
    }
