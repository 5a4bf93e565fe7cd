"""Opening a run folder to fit into: a new one, or one whose run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gansynth.core.lineage import Lineage, plain_host
from gansynth.fitting.setup import Job
from gansynth.fitting.warm_start import begin, descend
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import free_bytes, write_bytes_atomic, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import MANIFEST, check_lockable, new_manifest, read_manifest
from gansynth.training.checkpoint import KEPT, bytes_of
from gansynth.training.loggers import flat

SHEETS = 4 << 20
"""Bytes for sheets and tables, about."""


def refuse_full_disk(job: Job, out: Path) -> None:
    """Refuse a disk without room for a run's checkpoints: those it keeps, and one in writing.

    Raises:
        EnvironmentFault: naming the folder, and the bytes needed and free.
    """
    kept = (out / "checkpoints").rglob("*")
    there = sum(path.stat().st_size for path in kept if path.is_file())
    one = bytes_of(job.generator.nets, job.generator.ema)
    needed, free = (KEPT + 1) * one + SHEETS - there, free_bytes(out)
    if isinstance(free, int) and free < needed:
        raise EnvironmentFault(
            f"{out}: {needed} bytes needed ({KEPT + 1} checkpoints of {one}, and sheets), {free} "
            "bytes free there. Make room, or choose another -o"
        )


def open_folder(job: Job, out: Path, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Start a run folder, or take up the one that is there if it is the same run."""
    config = job.config()
    lineage, manifest = check_folder(job, out, resume, reporter)
    if manifest is not None:
        job.generator.load_state(manifest["state"])
        if not _begun(out):
            begin(job.generator, job.ancestor, reporter)
        manifest["config"] = config
        _write_config(out, config)
        return manifest
    rng = np.random.default_rng(job.options.seed)
    job.generator.observe(job.observed(rng))
    manifest = {
        **new_manifest(job.generator.name, job.source, job.space, lineage, job.edits),
        "options": config["options"],
        "labelling": job.generator.labelling,
        "heeds": sorted(job.generator.heeds),
        "config": config,
        "init_from": begin(job.generator, job.ancestor, reporter),
        "state": job.generator.state(),
    }
    _write_config(out, config)
    write_json_atomic(out / MANIFEST, manifest)
    return manifest


def check_folder(
    job: Job, out: Path, resume: bool, reporter: Reporter
) -> tuple[Lineage, dict[str, Any] | None]:
    """Read and hash all cases, and compare them with what is in a run's folder; no writing.

    Returns:
        The lineage of the run, and the manifest of the one that is there and goes on.

    Raises:
        GansynthError: cases that cannot be read, leakage, or a folder that holds something else.
    """
    reporter.say(
        f"{job.source.name} fold {job.source.fold}: {len(job.source.train_ids)} training case(s), "
        f"{len(job.source.held_out_ids)} held out; reading and hashing"
    )
    lineage = job.cache.lineage()
    if job.ancestor is not None:
        lineage = descend(job.source, lineage, job.ancestor)
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        same_run(out, manifest, job.config(), lineage, resume)
        return lineage, manifest
    if _begun(out):
        raise IntegrityFault(
            f"{out}: holds checkpoints but no {MANIFEST}, so nobody knows which cases they have "
            "seen; expected both or neither. Choose another -o"
        )
    return lineage, None


def _begun(out: Path) -> bool:
    return next((out / "checkpoints").glob("step-*"), None) is not None


def rehearse(job: Job, out: Path, resume: bool, reporter: Reporter) -> None:
    """What ``open_folder`` does and refuses, without writing."""
    check_lockable(out)
    check_folder(job, out, resume, reporter)
    begin(job.generator, job.ancestor, reporter)


def _write_config(out: Path, config: Mapping[str, Any]) -> None:
    write_bytes_atomic(out / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())


def same_run(
    out: Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    lineage: Lineage,
    resume: bool,
) -> None:
    """Refuse to go on with anything but the same run; more steps are welcome.

    The data set may have been moved or renamed.
    """
    if not resume:
        raise UsageFault(f"{out}: holds a run already, expected an empty folder; choose another -o")
    before, after = flat(manifest["config"]), flat(config)
    loose = (
        *(".steps", ".epochs", ".checkpoint_every", ".sample_every", ".log_every"),
        *(".precision", ".accumulate", ".diversity", "data.root", "data.where", "recipe"),
    )
    differing = [
        f"{k} is {after.get(k)!r}, was {before.get(k)!r}"
        for k in sorted(before.keys() | after.keys())
        if before.get(k) != after.get(k) and not k.endswith(loose)
    ]
    if differing:
        raise UsageFault(
            f"{out}: holds another run ({'; '.join(differing[:3])}), expected the same options to "
            "resume it; choose another -o"
        )
    # An older run's record holds no more than the plain one.
    if _unnamed(Lineage.from_json(manifest["lineage"]).plain) != _unnamed(lineage.plain):
        raise UsageFault(
            f"{out}: the training cases have changed since this run began; expected the same "
            "cases to resume it; choose another -o"
        )


def _unnamed(lineage: Lineage) -> list[Any]:
    """A lineage without the names of data sets."""
    return [(one.fold, one.cases, plain_host(one.host)) for one in lineage.everyone()]
