"""Fit a generator on the training cases of one fold: the whole job behind ``gansynth fit``."""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import gansynth
from gansynth.curves import write_curves
from gansynth.errors import IntegrityFault, TrainingFault, UsageFault
from gansynth.generator import Generator
from gansynth.integrity import (
    remove_temporaries,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.parallel import Team, team
from gansynth.precision import pick_device
from gansynth.quality.spectrum import spectrum_ratio
from gansynth.registry import installed
from gansynth.reporting import NullReporter, Reporter
from gansynth.run import MANIFEST, VERSION, Run, locked, read_manifest
from gansynth.sampling import SampleDrawer, build_edits
from gansynth.schema import Sample
from gansynth.settings import split_settings
from gansynth.sheets import write_sheet
from gansynth.signals import Interrupted, StopRequest, stop_request
from gansynth.sources.base import CaseSource, SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.space import Space
from gansynth.training import Callbacks, FitOptions, TrainReport, train

SHEET = 8
"""Columns of a preview sheet."""
SPECTRUM_SAMPLES = 16
MEASURED_STEPS = 3
"""Steps a dry run measures, after one to warm up."""


@dataclass
class _Job:
    """Everything a fit needs, resolved."""

    source: CaseSource
    cache: CaseCache
    space: Space
    generator: Generator
    options: FitOptions
    edits: tuple[str, ...]
    batches: CaseBatches
    device: torch.device


def fit(
    generator: str,
    request: SourceRequest,
    out: Path,
    *,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str = "auto",
    resume: bool = True,
    dry_run: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit a generator and leave a run folder behind.

    Args:
        generator: registered name, e.g. ``cgan3d``.
        request: where the training cases come from.
        out: run folder; an unfinished run of the same configuration is resumed.
        settings: ``--set`` values, for the loop (``FitOptions``) or the generator's own options.
        edits: condition edits of the previews and the later samples; None takes the generator's.
        device: ``auto``, ``cpu``, ``cuda:0``.
        resume: False refuses a folder that already holds a run.
        dry_run: measure three steps, write nothing.
        reporter: shows progress.

    Returns:
        A JSON-able report: cases, steps, seconds, losses, spectrum ratio, paths.

    Raises:
        GansynthError: typed by cause, see ``gansynth.errors``.
        Interrupted: by SIGTERM or SIGINT; what was trained is checkpointed.
    """
    with stop_request() as stop, team(pick_device(device)) as processes:
        if not processes.leads:
            reporter = NullReporter()
        job = _resolve(generator, request, settings, edits, device)
        if dry_run:
            return _measure(job, out)
        with locked(out) if processes.leads else nullcontext():
            manifest = _together(job, out, resume, processes, reporter)
            report = _train(job, out, manifest, _Session(reporter, stop, processes))
            for note in report.notes:
                reporter.warn(note)
            if not processes.leads:
                return {}
            return _finish(job, out, manifest, report, reporter)


def _together(
    job: _Job, out: Path, resume: bool, processes: Team, reporter: Reporter
) -> dict[str, Any]:
    """The run's manifest: the first process opens the folder, the others hear of it."""
    manifest = None
    if processes.leads:
        remove_temporaries(out)
        manifest = _open_folder(job, out, resume, reporter)
    heard: dict[str, Any] = processes.tell(manifest)
    job.generator.load_state(heard["state"])
    return heard


def _resolve(
    name: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
) -> _Job:
    cls = installed().generator(name)
    loop, own = split_settings(settings, FitOptions, cls.Options, generator=name)
    names = cls.default_edits if edits is None else tuple(edits)
    build_edits(names)
    picked = pick_device(device)
    source = installed().open_source(request)
    cache = CaseCache(source)

    def build(space: Space) -> Generator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)
            return cls(space.generator_schema(source.schema), space.size, own)

    space = source.space
    built = build(space)
    if built.intensity == "tanh":
        space = space.with_window(cache(i) for i in source.train_ids)
        built = build(space)
    batches = CaseBatches(cache, space, seed=loop.seed, context=built.context)
    return _Job(source, cache, space, built, loop, names, batches, picked)


def _open_folder(job: _Job, out: Path, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Start a run folder, or take up the one that is there if it is the same run."""
    config = _config(job)
    reporter.say(
        f"{job.source.name} fold {job.source.fold}: {len(job.source.train_ids)} training case(s), "
        f"{len(job.source.held_out_ids)} held out; reading and hashing"
    )
    lineage = job.source.lineage()
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        _same_run(out, manifest, config, lineage.to_json(), resume)
        job.generator.load_state(manifest["state"])
        manifest["config"] = config
        _write_config(out, config)
        return manifest
    if next((out / "checkpoints").glob("step-*"), None) is not None:
        raise IntegrityFault(
            f"{out}: holds checkpoints but no {MANIFEST}, so nobody knows which cases they have "
            "seen; expected both or neither. Choose another -o"
        )
    rng = np.random.default_rng(job.options.seed)
    job.generator.observe(job.batches.cut(i, rng) for i in job.source.train_ids)
    manifest = {
        "version": VERSION,
        "run_id": uuid.uuid4().hex[:12],
        "generator": job.generator.name,
        "options": config["options"],
        "schema": job.source.schema.to_json(),
        "space": job.space.to_json(),
        "lineage": lineage.to_json(),
        "edits": list(job.edits),
        "request": job.source.request.to_json(),
        "config": config,
        "state": job.generator.state(),
        "weights": None,
        "steps": 0,
        "complete": False,
        "versions": {
            "gansynth": gansynth.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write_config(out, config)
    write_json_atomic(out / MANIFEST, manifest)
    return manifest


def _write_config(out: Path, config: Mapping[str, Any]) -> None:
    write_bytes_atomic(out / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())


def _config(job: _Job) -> dict[str, Any]:
    return {
        "generator": job.generator.name,
        "data": job.source.request.to_json(),
        "size": list(job.space.size),
        "edits": list(job.edits),
        "fit": job.options.model_dump(mode="json"),
        "options": job.generator.options.model_dump(mode="json"),
    }


def _same_run(
    out: Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    lineage: Mapping[str, Any],
    resume: bool,
) -> None:
    """Refuse to go on with anything but the same run; more steps are welcome."""
    if not resume:
        raise UsageFault(f"{out}: holds a run already, expected an empty folder; choose another -o")
    before, after = _flat(manifest["config"]), _flat(config)
    loose = ("fit.steps", "fit.checkpoint_every", "fit.sample_every", "fit.log_every", "data.root")
    differing = [
        f"{k} is {after.get(k)!r}, was {before.get(k)!r}"
        for k in sorted(before.keys() | after.keys())
        if before.get(k) != after.get(k) and k not in loose
    ]
    if differing:
        raise UsageFault(
            f"{out}: holds another run ({'; '.join(differing[:3])}), expected the same options to "
            "resume it; choose another -o"
        )
    if manifest["lineage"] != json.loads(json.dumps(lineage)):
        raise UsageFault(
            f"{out}: the training cases have changed since this run began; expected the same "
            "cases to resume it; choose another -o"
        )


def _flat(doc: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in doc.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@dataclass
class _Session:
    """What goes on around a training."""

    reporter: Reporter
    stop: StopRequest
    team: Team


def _train(job: _Job, out: Path, manifest: dict[str, Any], session: _Session) -> TrainReport:
    run = Run(out, job.generator, manifest)
    drawer = SampleDrawer(run, job.source, job.edits, seed=job.options.seed)

    def remember(path: Path, step: int) -> None:
        weights = path / "ema.safetensors"
        manifest["weights"] = {
            "path": weights.relative_to(out).as_posix(),
            "sha256": sha256_file(weights),
        }
        manifest["steps"] = step
        manifest["complete"] = step >= job.options.steps or not job.generator.phases()
        write_json_atomic(out / MANIFEST, manifest)

    def preview(step: int) -> None:
        samples = drawer.draw_raw(0, SHEET)
        rng = np.random.default_rng(job.options.seed)
        ids = islice(job.source.train_ids, SHEET)
        real = [job.batches.cut(i, rng) for i in ids]
        schema = job.generator.schema
        write_sheet(
            out / "samples" / f"step-{step:08d}.png", samples, real, schema, title=f"step {step}"
        )

    try:
        return train(
            job.generator,
            job.batches,
            job.options,
            device=job.device,
            folder=out,
            callbacks=Callbacks(
                checkpoint=remember,
                preview=preview,
                reporter=session.reporter,
                stop=session.stop,
            ),
            team=session.team,
        )
    except TrainingFault as fault:
        curves = _draw_curves(out)
        raise TrainingFault(f"{fault}. Drawn in {curves}" if curves else str(fault)) from fault
    except Interrupted:
        session.reporter.warn(
            f"{out}: stopped by a signal after step {manifest['steps']}, which is checkpointed; "
            "the same command goes on from there"
        )
        raise


def _draw_curves(out: Path) -> Path | None:
    """Draw the losses of a run, if it has any yet."""
    if not (out / "metrics.csv").exists():
        return None
    return write_curves(out / "metrics.csv", out / "samples" / "curves.png")


def _finish(
    job: _Job, out: Path, manifest: Mapping[str, Any], trained: TrainReport, reporter: Reporter
) -> dict[str, Any]:
    ratio = spectrum(job, Run(out, job.generator, dict(manifest)))
    for name, row in zip(job.generator.schema.channels, ratio, strict=True):
        bands = " ".join(f"{value:.2f}" for value in row)
        reporter.say(f"power spectrum synthetic/real, low to high frequency, {name}: {bands}")
    _draw_curves(out)
    return {
        "run": str(out),
        "run_id": manifest["run_id"],
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "steps": trained.steps,
        "resumed_at": trained.resumed_at,
        "seconds": round(trained.seconds, 2),
        "losses": dict(trained.losses),
        "spectrum_ratio": [
            [None if np.isnan(v) else round(float(v), 4) for v in row] for row in ratio
        ],
    }


def spectrum(job: _Job, run: Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Radial power spectrum of samples over real crops, (C, bands)."""
    drawer = SampleDrawer(run, job.source, job.edits, seed=job.options.seed + 1)
    samples: list[Sample] = drawer.draw_raw(0, SPECTRUM_SAMPLES)
    rng = np.random.default_rng(job.options.seed + 1)
    ids = rng.choice(job.source.train_ids, SPECTRUM_SAMPLES)
    real = [job.batches.cut(str(i), rng).image for i in ids]
    return spectrum_ratio([s.image for s in samples], real, job.generator.schema.spacing)


def _measure(job: _Job, out: Path) -> dict[str, Any]:
    """What a fit would be: sizes, parameters, and time and memory from a few real steps."""
    import psutil

    rng = np.random.default_rng(job.options.seed)
    job.generator.observe(job.batches.cut(i, rng) for i in job.source.train_ids)
    changes: dict[str, Any] = {"log_every": 1, "sample_every": 10**9}
    warm = job.options.model_copy(update={**changes, "steps": 1})
    timed = job.options.model_copy(update={**changes, "steps": MEASURED_STEPS})
    train(job.generator, job.batches, warm, device=job.device)
    report = train(job.generator, job.batches, timed, device=job.device)
    per_step = report.seconds / MEASURED_STEPS
    cuda = job.device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated(job.device) if cuda else psutil.Process().memory_info().rss
    )
    parameters = {
        name: sum(p.numel() for p in net.parameters()) for name, net in job.generator.nets.items()
    }
    return {
        "dry_run": True,
        "run": str(out),
        **_config(job),
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "device": str(job.device),
        "parameters": parameters,
        "seconds_per_step": round(per_step, 4),
        "estimated_minutes": round(per_step * job.options.steps / 60, 2),
        "memory_mib": round(peak / 2**20),
    }
