"""Fit a generator on the training cases of one fold, for ``gansynth fit``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.core.registry import such_as
from gansynth.core.run_folder import write_manifest
from gansynth.core.source import SourceRequest
from gansynth.data.organs import organ_labels
from gansynth.fitting.chance import warn_at_chance
from gansynth.fitting.cost import fit_into, measure, peak_mib, refuse_low_memory
from gansynth.fitting.label_report import dice_text, inner_dice, report_label_maps
from gansynth.fitting.mode_collapse import report_diversity
from gansynth.fitting.run_report import CURVES, write_run_report
from gansynth.fitting.sample_grids import SampleGrid, final_sheets
from gansynth.fitting.setup import FitJob, open_folder, refuse_full_disk, rehearse, resolve
from gansynth.fitting.target_scans import TargetScans, check_given
from gansynth.fitting.warm_start import ParentRun
from gansynth.metrics.distances import spectrum_ratio
from gansynth.runtime.child import keep_to_cores
from gansynth.runtime.devices import pick_device
from gansynth.runtime.distributed import ProcessGroup, process_group
from gansynth.runtime.errors import TrainingFault
from gansynth.runtime.files import remove_temporaries, sha256_file
from gansynth.runtime.progress import NullReporter, Reporter, WarningLog
from gansynth.runtime.signals import Interrupted, StopRequest, stop_request
from gansynth.sampling.manifest import Run, locked
from gansynth.sampling.open_run import below_its_size
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loggers import FILE as LOSSES
from gansynth.training.loggers import TensorBoardLog
from gansynth.training.loop import TrainReport, steps_to_grow, train

SPECTRUM_SAMPLES = 16


def fit(
    generator: str,
    request: SourceRequest,
    out: Path,
    *,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    typed: Collection[str] = (),
    device: str = "auto",
    memory: int | None = None,
    init_from: Path | None = None,
    target_scans: Mapping[str, Any] | None = None,
    resume: bool = True,
    dry_run: bool = False,
    tensorboard: bool = False,
    recipe: str = "",
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit a generator and write its run folder.

    Args:
        generator: registered name, e.g. ``cgan3d``.
        request: source of the training cases.
        out: run folder; an unfinished run of the same configuration is resumed.
        settings: for the loop (``FitOptions``) or the generator's own options.
        edits: condition edits of previews and later samples; None: the generator's own.
        typed: settings that a user typed; they must have an effect.
        device: ``auto``, ``cpu``, ``cuda:0``.
        memory: most bytes to use; what is computed at once is halved until a step keeps to it.
        init_from: run with initial weights; its lineage is inherited.
        target_scans: scans of another site, a ``SourceRequest`` as JSON.
        resume: False refuses a folder that already holds a run.
        dry_run: measure a few steps, write nothing.
        tensorboard: whether to log for TensorBoard, besides ``metrics.csv``.
        recipe: description of the recipe, for ``config.yaml``.

    Returns:
        A JSON-able report: cases, steps, seconds, losses, spectrum ratio, paths. Empty in all but
        the first of several processes.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
        Interrupted: by SIGTERM or SIGINT, after a checkpoint.
    """
    began = time.perf_counter()
    with stop_request() as stop, process_group(pick_device(device)) as processes:
        reporter = warned = WarningLog(reporter if processes.is_main else NullReporter())
        keep_to_cores(reporter.say)
        chosen = dict(settings)
        if memory is not None:
            found = None
            if processes.is_main:
                arguments = (generator, request, settings, edits, device)
                found = fit_into(*arguments, memory, out, reporter, processes.size)
            chosen = processes.tell(found)
        job = resolve(generator, request, chosen, edits, device, typed)
        job.recipe = recipe
        if job.reason:
            reporter.say(job.reason)
        if late := grown_late(job):
            reporter.warn(late)
        _check_organs(job, reporter)
        if init_from is not None:
            job.parent_run = ParentRun.open(init_from)
        if target_scans is not None:
            scans = job.target_scans = TargetScans.open(target_scans, job.generator, job.source)
            job.batches.scans = scans.batches(job.batches.space, job.options.seed)
        check_given(job.target_scans, job.generator)
        refuse_full_disk(job, out)
        if dry_run:
            if not processes.is_main:
                return {}
            rehearse(job, out, resume, reporter)
            return measure(job, out, _end)
        refuse_low_memory(job, processes.size)
        with locked(out) if processes.is_main else nullcontext():
            manifest = None
            if processes.is_main:
                remove_temporaries(out)
                manifest = open_folder(job, out, resume, reporter)
            run = Run(out, job.generator, processes.tell(manifest))
            job.generator.load_state(run.manifest["state"])
            facts: dict[str, Any] = {
                "held_out_cases": len(job.source.held_out_ids),
                "warnings": warned.warnings,
            }
            try:
                preview = SampleGrid(job, run)
                report = _train(job, run, preview, tensorboard, reporter, stop, processes)
            except (Interrupted, TrainingFault) as end:
                if processes.is_main:
                    warned.warnings += [str(end)] * isinstance(end, TrainingFault)
                    write_run_report(run, reporter, facts, job.source)
                raise
            for note in report.notes:
                reporter.warn(note)
            if not processes.is_main:
                return {}
            finished = _finish(job, run, report, reporter)
            write_run_report(run, reporter, facts | finished, job.source)
            finished["total_seconds"] = round(time.perf_counter() - began, 2)
            return finished


def _end(job: FitJob, run: Run) -> None:
    """Do what is done after the last step, for a dry run that measures it."""
    nothing, silent = TrainReport(0, 0, 0, 0.0, {}), NullReporter()
    write_run_report(run, silent, _finish(job, run, nothing, silent))


def grown_late(job: FitJob) -> str:
    """Return why a generator will not have grown to its size, and draws blocks; else empty."""
    stages, options = list(job.generator.stages()), job.options
    least = steps_to_grow(stages, options.batch_size)
    if options.steps >= least or not job.trains:
        return ""
    size = " x ".join(map(str, stages[-1].size or job.space.size))
    return (
        f"--set steps={options.steps}: {job.generator.name} has grown to {size} after {least} "
        "steps only; use more steps, or shorter stages, whose keys gansynth options "
        f"{job.generator.name} has"
    )


def _check_organs(job: FitJob, reporter: Reporter) -> None:
    """Warn where organs would be put into real images, as if they were lesions."""
    generator, schema = job.generator, job.source.schema
    can = generator.capabilities
    drawer = lesion_drawer(None, can.lesions)
    if "lesion" not in can.takes or drawer.options.where == "own":
        return
    names = {value: name for name, value in schema.labels.items()}
    chosen = [names[value] for value in drawer.classes(schema)]
    organs = [name for name in organ_labels(job.source) if name in chosen]
    if not organs:
        return
    lesions = [name for name in chosen if name not in organs]
    others = such_as(lambda able: able.from_labels and "lesion" not in able.takes)
    way_out = f"expected lesions; fit a generator of whole images, such as {others}"
    if lesions:
        way_out = f"{can.remedy('organs')}, here {', '.join(lesions)}"
    reporter.warn(
        f"{', '.join(organs)}: about as large in every case and in one place, as an organ is, and "
        f"{generator.name} would put it elsewhere, into other cases: {way_out}"
    )


def _train(
    job: FitJob,
    run: Run,
    preview: SampleGrid,
    tensorboard: bool,
    reporter: Reporter,
    stop: StopRequest,
    processes: ProcessGroup,
) -> TrainReport:
    out, manifest = run.folder, run.manifest

    def remember(path: Path, step: int) -> None:
        weights = path / "ema.safetensors"
        manifest["weights"] = {
            "path": weights.relative_to(out).as_posix(),
            "sha256": sha256_file(weights),
        }
        manifest["steps"] = step
        manifest["complete"] = step >= job.options.steps
        write_manifest(out, manifest)

    logged = out if tensorboard and processes.is_main else None
    with TensorBoardLog(logged, job.config(), reporter.warn) as log:

        def look(step: int) -> None:
            log.picture(step, preview(step))
            if job.generator.capabilities.draws == "labels":
                found = inner_dice(job, run)
                reporter.say(f"step {step}: {dice_text(found)}")
                log.scalars(step, {f"dice/{k}": v for k, v in found["dice"].items() if v})

        callbacks = TrainingCallbacks(
            checkpoint=remember,
            preview=look,
            metrics=log.scalars,
            reporter=reporter,
            stop=stop,
        )
        try:
            return train(
                job.generator,
                job.batches,
                job.options,
                device=job.device,
                folder=out,
                callbacks=callbacks,
                process_group=processes,
            )
        except TrainingFault as fault:
            if not processes.is_main:  # the first process reports for all
                raise SystemExit(fault.exit_code) from fault
            drawn = f". Drawn in {out / CURVES}" if (out / LOSSES).exists() else ""
            raise TrainingFault("fitting.training-failed", f"{fault}{drawn}") from fault
        except Interrupted as stopped:
            after = ""
            if job.trains:
                saved = f"after step {manifest['steps']}, which is checkpointed"
                after = f" {saved if manifest['weights'] else 'before the first checkpoint'}"
            reporter.warn(f"{out}: stopped{after}; {Interrupted.RESUME}")
            stopped.told = True
            raise


def _finish(job: FitJob, run: Run, trained: TrainReport, reporter: Reporter) -> dict[str, Any]:
    learns_images = job.trains and job.generator.capabilities.draws != "labels"
    levels = {
        f"{phase.player}/{name}": level
        for phase in job.generator.phases()
        for name, level in phase.chance.items()
    }
    remedy = job.generator.capabilities.remedy("at chance")
    warn_at_chance(run.folder / LOSSES, levels, reporter, remedy)
    ratio: Iterable[Any] = spectrum(job, run) if learns_images else ()
    sheets = final_sheets(job, run, reporter)
    report = {
        "run": str(run.folder),
        "run_id": run.manifest["run_id"],
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "steps": trained.steps if job.trains else None,
        "resumed_at": trained.resumed_at,
        "rollbacks": trained.rollbacks,
        "seconds": round(trained.seconds, 2),
        "waited_share": round(trained.waited, 4) if job.trains else None,
        "memory_mib": peak_mib(job.device),
        "losses": dict(trained.losses),
        "spectrum_ratio": [
            [None if np.isnan(v) else round(float(v), 4) for v in row] for row in ratio
        ],
        "diversity": report_diversity(job, run, reporter),
    }
    report["below_its_size"], report["steps_to_its_size"] = below_its_size(run)
    report.update(report_label_maps(job, run, reporter))
    report.update(sheets)
    return report


def spectrum(job: FitJob, run: Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the radial power spectrum of samples over that of real crops, (C, bands)."""
    samples = job.sampler(run, 1).draw_raw(0, SPECTRUM_SAMPLES)
    rng = np.random.default_rng(job.options.seed + 1)
    ids = rng.choice(job.source.train_ids, SPECTRUM_SAMPLES)
    real = [job.crops.cut(str(i), rng).image for i in ids]
    return spectrum_ratio([s.image for s in samples], real, job.generator.schema.spacing)
