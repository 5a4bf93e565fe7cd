"""Opening a run folder to fit into: a new one, or one whose run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gansynth.errors import IntegrityFault, UsageFault
from gansynth.inherit import begin, descend
from gansynth.integrity import write_bytes_atomic, write_json_atomic
from gansynth.job import Job
from gansynth.lineage import Lineage
from gansynth.privacy import KEY
from gansynth.private_fit import same_terms
from gansynth.reporting import Reporter
from gansynth.run import MANIFEST, new_manifest, read_manifest
from gansynth.settings import flat


def open_folder(job: Job, out: Path, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Start a run folder, or take up the one that is there if it is the same run."""
    config = job.config()
    reporter.say(
        f"{job.source.name} fold {job.source.fold}: {len(job.source.train_ids)} training case(s), "
        f"{len(job.source.held_out_ids)} held out; reading and hashing"
    )
    lineage = job.cache.lineage()
    if job.ancestor is not None:
        lineage = descend(job.source, lineage, job.ancestor)
    begun = next((out / "checkpoints").glob("step-*"), None) is not None
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        same_run(out, manifest, config, lineage, resume)
        same_terms(out, manifest, job)
        job.generator.load_state(manifest["state"])
        if not begun:
            begin(job.generator, job.ancestor, reporter)
        manifest["config"] = config
        _write_config(out, config)
        return manifest
    if begun:
        raise IntegrityFault(
            f"{out}: holds checkpoints but no {MANIFEST}, so nobody knows which cases they have "
            "seen; expected both or neither. Choose another -o"
        )
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
    if job.generator.privacy is not None:
        manifest[KEY] = job.generator.privacy.to_json()
    _write_config(out, config)
    write_json_atomic(out / MANIFEST, manifest)
    return manifest


def rehearse(job: Job, reporter: Reporter) -> None:
    """Take over an ancestor's weights, and refuse one that has seen held-out cases; no writing."""
    if job.ancestor is not None:
        descend(job.source, job.cache.lineage(), job.ancestor)
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
    """Refuse to go on with anything but the same run; more steps are welcome."""
    if not resume:
        raise UsageFault(f"{out}: holds a run already, expected an empty folder; choose another -o")
    before, after = flat(manifest["config"]), flat(config)
    loose = (
        *(".steps", ".epochs", ".checkpoint_every", ".sample_every", ".log_every"),
        *(".precision", ".accumulate", ".diversity", "data.root", "recipe"),
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
    plain = lineage.plain.to_json()  # an older run's record holds no more
    before_it = Lineage.from_json(manifest["lineage"]).plain.to_json()
    if before_it != json.loads(json.dumps(plain)):
        raise UsageFault(
            f"{out}: the training cases have changed since this run began; expected the same "
            "cases to resume it; choose another -o"
        )
