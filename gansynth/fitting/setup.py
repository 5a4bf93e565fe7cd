"""A resolved fit before training, and its run folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import ValidationError

from gansynth.conditions.edit_chain import EditedLabelMaps, build_edits
from gansynth.core.case_pool import CasePool, TrainingCases
from gansynth.core.generator import ContextOf, Generator, capabilities_of, learn
from gansynth.core.lineage import LOOKS_ALONE, CaseRecord, Lineage, same_training_cases
from gansynth.core.registry import installed, such_as
from gansynth.core.run_folder import MANIFEST, read_manifest, write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case
from gansynth.core.source import CaseSource, SourceRequest, comparable_records, lineage_of
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.held_out import unnamed_people
from gansynth.data.views import channel_numbers, needed
from gansynth.fitting.target_scans import TargetScans
from gansynth.fitting.warm_start import ParentRun, apply_warm_start, extend_lineage
from gansynth.runtime.devices import pick_device, seeded
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import elsewhere, free_bytes, in_units, write_bytes_atomic
from gansynth.runtime.measuring import Tally, measuring
from gansynth.runtime.options import as_typed, overlay, split_settings
from gansynth.runtime.progress import PLAIN_SECONDS, Reporter, counting
from gansynth.sampling.manifest import Run, check_lockable, new_manifest
from gansynth.sampling.open_run import check_room, load_state
from gansynth.sampling.request_checks import GeneratorInfo, check_edits
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.training.checkpoint import KEPT_CHECKPOINTS, bytes_of
from gansynth.training.loggers import flat
from gansynth.training.loop import FitOptions, loop_options, steps_for

log = logging.getLogger("gansynth")
CROPS = 32
"""Most training crops that determine automatic options."""
OBSERVED, OBSERVED_VALUES = 256, 1 << 27
"""Least crops that a generator of label maps, or one without networks, observes; values of so many
crops that no more are cut than one of each case."""
TABLES, SHEETS, TILES = 256 << 10, 4 << 20, 64
"""Approximate bytes of a run's tables; most of these and of preview grids; images of a grid."""


@dataclass
class FitJob:
    """Everything a fit needs.

    Attributes:
        space: the generator's space; samples are of its size.
        edits: edits of the conditions of previews and samples.
        batches: training crops, of ``options.patch`` if that is given.
        crops: cases cut in the whole space, for previews and statistics.
        ancestor: the run with the initial weights, if any.
        target_scans: scans of another site, if any.
        recipe: description of the recipe; empty without one.
        reason: why automatic options are as they are; empty without such.
        reading: how many training cases were read, as the first step.
        observing: how much of ``observed`` was taken.
    """

    source: CaseSource
    cache: CaseCache
    space: Space
    generator: Generator
    options: FitOptions
    edits: tuple[str, ...]
    batches: CaseBatches
    crops: CaseBatches
    device: torch.device
    parent_run: ParentRun | None = None
    target_scans: TargetScans | None = None
    recipe: str = ""
    reason: str = ""
    reading: Tally = field(default_factory=lambda: Tally(()))
    observing: Tally = field(default_factory=lambda: Tally(()))
    _sampler: Sampler | None = None  # of the last run that one was asked for

    @property
    def trains(self) -> bool:
        """Whether the fit has training steps; options of a generator may leave none."""
        return self.generator.capabilities.trains

    def config(self) -> dict[str, Any]:
        """Return the resolved settings, as in ``config.yaml``."""
        config = {
            "generator": self.generator.name,
            "data": self.source.request.to_json(),
            "size": list(self.space.size),
            "edits": list(self.edits),
            "fit": self.options.model_dump(mode="json", include=None if self.trains else {"seed"}),
            "options": self.generator.options.model_dump(mode="json"),
        }
        if self.parent_run is not None:
            config["init_from"] = self.parent_run.run_id
        if self.target_scans is not None:
            config["target_scans"] = dict(self.target_scans.asked)
        if self.recipe:
            config["recipe"] = self.recipe
        return config

    def observed(self, rng: np.random.Generator) -> Iterator[Case]:
        """Yield what a generator observes before training: a crop of each training case.

        A generator of label maps sees several crops of each if there are few cases: slices and
        places differ, and it rejects what it has not seen. So does one that only observes.
        """
        only = self.generator.capabilities.draws == "both" or not self.trains
        values = len(self.source.schema.channels) * math.prod(self.space.size)
        least = min(OBSERVED, OBSERVED_VALUES // values) if only else 0
        self.observing = Tally(self.enough(self.source.train_ids, least))
        return self._cut(self.observing, rng)

    def shown(self, ids: Sequence[str], rng: np.random.Generator, least: int) -> Iterator[Case]:
        """Return a crop of each case, and more of cases with several, at least ``least`` in all."""
        return self._cut(self.enough(ids, least), rng)

    def _cut(self, ids: Iterable[str], rng: np.random.Generator) -> Iterator[Case]:
        cut = self.crops.cut  # not ``self``, which leads to the source
        return (cut(case_id, rng) for case_id in ids)

    def enough(self, ids: Sequence[str], least: int) -> list[str]:
        """Return the ids, those of cases with several crops again, at least ``least`` in all."""
        chosen = list(ids)
        if len(ids) < least:
            several = [case_id for case_id in ids if self._has_several(case_id)]
            missing = least - len(ids) if several else 0
            chosen += [several[index % len(several)] for index in range(missing)]
        return chosen

    def sampler(self, run: Run, offset: int = 0) -> Sampler:
        """Return a drawer of samples; other offsets to the fit's seed give other samples."""
        if self._sampler is None or self._sampler.run is not run:
            request = SampleRequest(self.options.seed, tuple(self.edits))
            self._sampler = Sampler(run, self.source, request, cache=self.cache)
        return self._sampler.with_seed(self.options.seed + offset)

    def _has_several(self, case_id: str) -> bool:
        if self.space.grid not in ("crop", "slice"):
            return False
        shape = self.source.header(case_id).shape
        plane = shape[-len(self.space.size) :]
        if self.space.grid == "slice" and shape[0] > 1:
            return True
        return any(n > size for n, size in zip(plane, self.space.size, strict=True))


def resolve(
    name: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
    typed: Collection[str] = (),
) -> FitJob:
    """Open the source and build the generator, writing nothing. Arguments are as in ``fit``."""
    cls = installed().generator(name)
    defaults = as_typed(capabilities_of(cls).loop)
    texts = overlay(defaults, settings)
    given, options = split_settings(
        texts, loop_options(cls), cls.Options, generator=name, typed=typed
    )
    can = capabilities_of(cls, options)
    names = can.edits if edits is None else tuple(edits)
    build_edits(names)
    picked = pick_device(device)
    source = open_source(needed(request, can))
    cache = CaseCache(source)
    cases = TrainingCases(cache)

    def build(space: Space) -> Generator:
        with seeded(given.seed):
            return cls(space.generator_schema(source.schema), space.size, options)

    space = source.space
    check_room(space, source.schema, source.name)
    built = build(space)
    channel_numbers(built.schema, can.channels)
    check_labels(built, source)
    check_edits(edits or (), GeneratorInfo(name, can))
    if can.range == "tanh":
        space = space.with_window(map(cases, cases.ids))
        built = build(space)
    options, reason = built.automatic_options(chain(_some_crops(cases, space, given.seed)))
    if options != built.options:
        built = build(space)
    trains = isinstance(given, FitOptions) and built.capabilities.trains
    if trains != bool(built.phases()):
        raise UsageFault(
            "fitting.phases-and-trains-disagree",
            f"{name}: phases() of the generator and trains of its capabilities disagree, expected "
            "phases where it trains, and else none; this is a fault of its plugin",
        )
    if isinstance(given, FitOptions) and trains:
        loop = given
    else:
        for key in FitOptions.model_fields.keys() & set(typed) - {"seed"}:
            raise UsageFault(
                "fitting.setting-without-training-steps",
                f"--set {key}={settings[key]}: has no effect, as {name} learns by no training "
                f"steps here; leave {key} out",
            )
        loop = FitOptions.model_validate({"seed": given.seed, "steps": 0})
    if loop.epochs is not None:
        images = loop.epochs * len(source.train_ids)
        steps = steps_for(images, list(built.stages()), loop.batch_size)
        loop = loop.model_copy(update={"steps": steps, "epochs": None})
    context = ContextOf(built)
    cut = partial(CaseBatches, cases, seed=loop.seed, context=context, accepts=built.accepts)
    crops = cut(space)
    small = space if loop.patch is None else _patch_space(space, loop.patch)
    maps = _asked_maps(built, small, cases)
    # The same object if possible: whole cases are then held once.
    batches = crops if loop.patch is None and maps is None else cut(small, asked=maps)
    return FitJob(source, cache, space, built, loop, names, batches, crops, picked, reason=reason)


def _some_crops(cases: TrainingCases, space: Space, seed: int) -> Iterator[Case]:
    ids, rng, crops = cases.ids, np.random.default_rng(seed), CaseBatches(cases, space)
    for index in np.linspace(0, len(ids) - 1, min(len(ids), CROPS)).round().astype(int):
        yield crops.cut(ids[index], rng)


def _asked_maps(generator: Generator, space: Space, cases: TrainingCases) -> EditedLabelMaps | None:
    can = generator.capabilities
    if not can.fit_edits:
        return None
    edits = build_edits(can.fit_edits)
    for edit in edits:
        if edit.in_turns:
            raise UsageFault(
                "fitting.fit-edits-in-turns",
                f"fit_edits: {edit.name} takes cases in turns, but a step takes them at random; "
                f"expected {edit.name} without it, for example {edit.name}:pairs=any",
            )
    pool = CasePool(cases, space)
    context = ContextOf(generator)
    return EditedLabelMaps(pool, edits, context=context, follows=can.follows)


def check_labels(generator: Generator, source: CaseSource) -> None:
    """Refuse cases without labels or boxes, for a generator that learns from them."""
    can = generator.capabilities
    if "boxes" in can.takes and not source.schema.box_classes:
        raise UsageFault(
            "fitting.cases-without-boxes",
            f"{source.name}: its cases have no boxes, expected some: {generator.name} generates "
            "images from boxes. Read a data set of boxes, or boxes of label maps: --data "
            "slices:... --read boxes=yes",
        )
    if can.draws != "image" and source.schema.ignore is not None:
        raise UsageFault(
            "fitting.ignore-label-in-generated-maps",
            f"{source.name}: has an ignore label, and {generator.name} is set to generate label "
            "maps: it would learn that what is ignored is background; expected a generator of "
            f"images, such as {such_as(lambda able: able.from_labels)}, or labels that are known "
            "everywhere and no ignore label",
        )
    if not can.labelled or source.schema.foreground:
        return
    if can.draws != "image":
        raise UsageFault(
            "fitting.no-label-maps-to-generate",
            f"{source.name}: its cases have no label maps, expected some: {generator.name} is set "
            "to generate them. Add them, or have it generate images alone",
        )
    raise UsageFault(
        "fitting.no-label-maps-to-condition",
        f"{source.name}: its cases have no label maps, expected some: {generator.name} generates "
        "images from label maps. Add them, or fit a generator from noise, such as "
        f"{such_as(lambda able: not able.takes)}",
    )


def _patch_space(space: Space, patch: tuple[int, ...]) -> Space:
    typed = f"--set patch={','.join(map(str, patch))}"
    if space.grid not in ("crop", "slice"):
        raise UsageFault(
            "fitting.patch-of-whole-cases",
            f"{typed}: cases of grid {space.grid!r} are trained on whole; leave patch out",
        )
    fits = len(patch) == len(space.size)
    for edge, longest in zip(patch, space.size, strict=False):
        fits = fits and 1 <= edge <= longest
    if not fits:
        example = [str(min(32, n)) for n in space.size]
        most = ",".join(map(str, space.size))
        raise UsageFault(
            "fitting.patch-size-wrong",
            f"{typed}: expected {len(space.size)} whole numbers of voxels, none above {most}, as "
            f"patch={','.join(example)}",
        )
    return replace(space, size=patch)


def refuse_full_disk(job: FitJob, out: Path) -> None:
    """Refuse a disk without room for a run's checkpoints: those kept, and a new one."""
    files = (out / "checkpoints").rglob("*")
    used = sum([path.stat().st_size for path in files if path.is_file()])
    size = bytes_of(job.generator.nets)
    sheets = job.options.steps // job.options.sample_every + 4
    pixels = len(job.generator.schema.channels) * math.prod(job.generator.size[-2:])
    others = min(SHEETS, TABLES + sheets * TILES * pixels)
    needed, free = (KEPT_CHECKPOINTS + 1) * size + others - used, free_bytes(out)
    if isinstance(free, int) and free < needed:
        raise EnvironmentFault(
            "fitting.disk-lacks-room",
            f"{out}: {in_units(needed)} needed ({KEPT_CHECKPOINTS + 1} checkpoints of "
            f"{in_units(size)}, up to {in_units(others)} of previews and tables), {in_units(free)} "
            "free there. Make room, or name a folder on another disk with -o",
        )


def open_folder(job: FitJob, out: Path, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Start a run folder, or resume an existing one of the same run."""
    config = job.config()
    lineage, manifest = check_folder(job, out, resume, reporter)
    if manifest is not None:
        load_state(job.generator, out, manifest)
        if not _begun(out):
            apply_warm_start(job.generator, job.parent_run, reporter)
        manifest["config"] = config
        write_config(out, config)
        return manifest
    rng = np.random.default_rng(job.options.seed)
    scans: Iterable[Case] = ()
    if job.target_scans is not None:
        scans = job.target_scans.crops(job.space, job.options.seed)
    # A bare generator shows its frame.
    state = learn(job.generator, chain(job.observed(rng)), scans)
    manifest = new_manifest(job.generator.name, job.source, job.space, lineage, job.edits)
    manifest |= {
        "capabilities": job.generator.capabilities.to_json(),
        "options": config["options"],
        "config": config,
        "init_from": apply_warm_start(job.generator, job.parent_run, reporter),
        "state": state,
    }
    write_config(out, config)
    write_manifest(out, manifest)
    return manifest


def check_folder(
    job: FitJob, out: Path, resume: bool, reporter: Reporter
) -> tuple[Lineage, dict[str, Any] | None]:
    """Read and hash all cases, and compare them with the content of a run folder; no writing.

    Returns the run's lineage, and the manifest of an existing run that is resumed. Raises
    GansynthError: cases cannot be read, leakage, or the folder holds something else.
    """
    say_what_is_read(job, reporter)
    lineage = _read_lineage(job, reporter)
    if job.parent_run is not None:
        lineage = extend_lineage(job.source, lineage, job.parent_run)
    if job.target_scans is not None:
        lineage = lineage.joined(job.target_scans.seen(job.source))
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        before = _named_today(manifest["config"], job.generator)
        same_run(out, manifest | {"config": before}, job.config(), lineage, job.source, resume)
        return lineage, manifest
    if _begun(out):
        raise IntegrityFault(
            "fitting.checkpoints-without-manifest",
            f"{out}: holds checkpoints but no {MANIFEST}, so their training cases are "
            f"unknown; expected both or neither. Choose another: {elsewhere(out)}",
        )
    return lineage, None


def _named_today(config: dict[str, Any], generator: Generator) -> dict[str, Any]:
    """Return a run's settings with options as its generator names them now, if it knows them."""
    with suppress(ValidationError):
        return config | {"options": generator.Options(**config["options"]).model_dump(mode="json")}
    return config


def say_what_is_read(job: FitJob, reporter: Reporter) -> None:
    """Say what the fold holds, and warn of people who may be on both sides."""
    reporter.say(
        f"{job.source.name} fold {job.source.request.fold}: {len(job.source.train_ids)} training "
        f"case(s), {len(job.source.held_out_ids)} held out; reading and hashing"
    )
    if job.source.note:
        reporter.say(job.source.note)
    warning = unnamed_people(job.source)
    if warning:
        reporter.warn(warning)


def _read_lineage(job: FitJob, reporter: Reporter) -> Lineage:
    job.reading = Tally(job.source.train_ids)
    with counting(reporter, "read cases", after=PLAIN_SECONDS) as progress:

        def record(case: str) -> CaseRecord:
            found = job.cache.record(case)
            job.reading.done += 1
            progress(job.reading.done, len(job.reading.names))
            return found

        return lineage_of(job.source, record)


def _begun(out: Path) -> bool:
    return next((out / "checkpoints").glob("step-*"), None) is not None


def rehearse(job: FitJob, out: Path, resume: bool, reporter: Reporter) -> None:
    """Run the checks of ``open_folder`` that ``measure`` does not, without writing.

    It reads all cases anyway; here they are read only to compare them with a run that is there.
    """
    check_lockable(out)
    if (out / MANIFEST).exists() or _begun(out) or job.parent_run is not None or job.target_scans:
        compared = partial(check_folder, job, out, resume, reporter)
        measuring().part("comparing all cases with those of the earlier run", compared, 0.5)
    else:
        say_what_is_read(job, reporter)
    apply_warm_start(job.generator, job.parent_run, reporter)


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write resolved settings beside the manifest."""
    write_bytes_atomic(out / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())


def same_run(
    out: Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    lineage: Lineage,
    source: CaseSource,
    resume: bool,
) -> None:
    """Refuse to resume another run; more steps are allowed.

    The data set may have been moved or renamed.
    """
    if not resume:
        raise UsageFault(
            "fitting.folder-holds-run",
            f"{out}: holds a run already, expected an empty folder; choose another: "
            f"{elsewhere(out)}",
        )
    before, after = flat(manifest["config"]), flat(config)
    loose = (
        ".steps",
        ".epochs",
        ".checkpoint_every",
        ".sample_every",
        ".log_every",
        ".precision",
        ".accumulate",
        ".diversity",
        "data.root",
        "data.where",
        "target_scans.where",
        "recipe",
    )
    # As a config names them: the generator, the data, and what follows from both.
    keys = [k for k in before | after if before.get(k) != after.get(k)]
    differing = [k for k in keys if not k.endswith(loose)]
    if differing:
        # Another place alone is no other run, but says most of how other data differ.
        told = [k for k in keys if k in differing or k == "data.where"]
        words = [f"{k} is {after.get(k)!r}, was {before.get(k)!r}" for k in told]
        raise UsageFault(
            "fitting.folder-holds-other-run",
            f"{out}: holds another run ({'; '.join(words)}), expected the same options to "
            f"resume it; choose another: {elsewhere(out)}",
        )
    recorded = Lineage.from_json(manifest["lineage"])
    if not recorded.as_stored:
        log.warning("%s: %s", out, LOOKS_ALONE)
        lineage = replace(lineage, cases=comparable_records(recorded, source))
    if not same_training_cases(recorded, lineage):
        raise UsageFault(
            "fitting.training-cases-changed",
            f"{out}: the training cases have changed since this run began; expected the same "
            f"cases to resume it; choose another: {elsewhere(out)}",
        )
