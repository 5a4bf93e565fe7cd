"""``gansynth_session.json`` beside a segmenter's training: what each session mixed in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.hosts import record
from gansynth.runtime.errors import UsageFault
from gansynth_segmenter.options import WHAT_IS_TRAINED

if TYPE_CHECKING:
    from gansynth_segmenter.session import Job

FILE = "gansynth_session.json"
COMPARED = record.COMPARED
ANEW = "start anew without resume, into another folder"
OURS = frozenset(
    {"gansynth_draws", "gansynth_rejected", ".lock", ".holder", "gansynth_launch.log"}
    | {f"gansynth_producer.{end}" for end in ("log", "json")}
)
"""What a training that never began may have left behind."""


def describe(job: Job) -> dict[str, Any]:
    """What one session mixes into what."""
    origin = job.origin
    lineage, described = (None, None) if origin is None else (origin.lineage, origin.described)
    request = job.source.request
    return {
        **record.describe_session(job.injection, described, lineage),
        "data": f"{request.kind}:{request.where}",
        "read": dict(request.read),
        "counted_in": "steps",
        "training_seed": job.seed,
        "settings": trained(job),
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }


def trained(job: Job) -> dict[str, Any]:
    """Settings that decide what is trained, and on what."""
    document = job.options.model_dump(mode="json", include=set(WHAT_IS_TRAINED))
    return {**document, "space": list(job.space.size), "grid": job.space.grid}


def check_output(job: Job) -> None:
    """Refuse a folder that holds something, or another training than is to go on.

    Raises:
        UsageFault: with the way out.
        IntegrityFault: the record there is damaged.
    """
    output = job.output
    if output.exists() and not output.is_dir():
        raise UsageFault(f"{output}: is a file, expected a folder; take another: -o")
    if job.options.resume:
        _check_resumable(job)
        return
    record.check_new_folder(output, FILE, OURS.__contains__)


def _check_resumable(job: Job) -> None:
    earlier = record.read_sessions(job.output / FILE)
    if not earlier:
        raise UsageFault(
            f"{job.output}: holds no {FILE}, expected a training to go on with; start it without "
            "--set resume=yes"
        )
    before: Mapping[str, Any] = {**earlier[-1]["settings"], "seed": earlier[-1]["training_seed"]}
    now = {**trained(job), "seed": job.seed}
    for key, value in now.items():
        if before.get(key) != value:
            raise UsageFault(
                f"{job.output}: holds a training with {key} {before.get(key)}, not {value}, "
                f"expected the same to go on with; say that one, or {ANEW}"
            )


def newest_step(output: Path) -> int:
    """Step of the newest whole checkpoint in a folder; 0 if there is none.

    Raises:
        IntegrityFault: every one is damaged.
    """
    from gansynth.training import checkpoint

    found = checkpoint.latest(output / "checkpoints")
    return 0 if found is None else int(found.state["step"])
