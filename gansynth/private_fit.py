"""A fit under differential privacy: who is drawn, on what terms, and the key to its noise.

The unit is a person, as the source names them: a step draws each training subject with the same
probability, independently, and one random crop of each who is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gansynth.errors import IntegrityFault, UsageFault
from gansynth.generator import Batch, Stage
from gansynth.integrity import disk_errors, reading, temporary_beside
from gansynth.parallel import expected_size
from gansynth.precision import resolve
from gansynth.privacy import KEY, KEY_FILE, terms
from gansynth.private import KEY_BYTES, Mechanism
from gansynth.sources.batches import CaseBatches

if TYPE_CHECKING:
    from gansynth.job import Job

ALWAYS = (
    "how the source reads cases, where that looks at all of them (windows, a host's fingerprint, a "
    "selector of slices)",
    "manifest.json, which names cases and subjects, and how many of them there are",
    "sheets, nearest.json, diversity.csv and whatever else fit and sample write or print of real "
    "cases",
    "what is chosen by looking at these: settings, when to stop, filters, other runs on the same "
    "people",
    "rounding of floating-point numbers, and how long steps take",
)


@dataclass(frozen=True)
class PeopleBatches:
    """Real cases of whom a private step draws.

    Attributes:
        mechanism: where chance comes from.
        crops: the cases, cut in the generator's space.
        people: the cases of each subject, subjects and cases in order.
    """

    mechanism: Mechanism
    crops: CaseBatches
    people: Mapping[str, tuple[str, ...]]

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """One crop of each person drawn, on the CPU: image (B, C, ...), B from 0 to all.

        Args:
            step: optimiser step.
            stage: not looked at.
            which: not looked at: how many are drawn is chance.
        """
        number, rate = self.mechanism.number(step), self.mechanism.agreed.rate
        lots = self.mechanism.uniform(len(self.people), "people", number)
        drawn = [who for who, lot in zip(self.people, lots, strict=True) if lot < rate]
        images = [self._crop(who, number) for who in drawn]
        channels = len(self.crops.cache.source.schema.channels)
        none = np.zeros((0, channels, *self.crops.space.size), np.float32)
        return Batch(torch.from_numpy(np.stack(images) if images else none))

    def _crop(self, who: str, number: int) -> Any:
        """The image of a random place of one of a person's cases; nobody else has a part in it."""
        rng = np.random.default_rng(self.mechanism.seed("crop", number, who))
        cases = self.people[who]
        return self.crops.cut(cases[int(rng.integers(len(cases)))], rng).image


def protected(job: Job) -> Job:
    """A job whose discriminator learns in private, if its generator asks for that; else as it is.

    Raises:
        UsageFault: terms that cannot be, or something beside them that would break the promise.
        EnvironmentFault: Opacus is not installed.
    """
    mechanism = job.generator.privacy
    if mechanism is None:
        return job
    _check(job)
    people: dict[str, tuple[str, ...]] = {}
    for case in sorted(job.source.train_ids):
        who = job.source.subject(case)
        people[who] = (*people.get(who, ()), case)
    people = dict(sorted(people.items()))
    mechanism.terms = terms(
        noise=mechanism.noise,
        epsilon=mechanism.epsilon,
        clip=mechanism.clip,
        delta=mechanism.delta,
        people=len(people),
        batch_size=job.options.batch_size,
        steps=job.options.steps,
    )
    mechanism.uncovered = (*mechanism.uncovered, *_of_source(job, len(people)), *ALWAYS)
    return replace(job, batches=PeopleBatches(mechanism, job.crops, people))


def _of_source(job: Job, people: int) -> list[str]:
    found = []
    if job.space.window is not None:
        found.append("the window of intensities, learnt from all cases")
    if people == len(job.source.train_ids):
        found.append(
            "people with several cases, if there are any: the source names none, and each case "
            "counts as a subject of its own (--subjects says who is who)"
        )
    return found


def _check(job: Job) -> None:
    """Refuse what would break the promise, or has not been shown to keep it."""
    options = job.options
    wrong = {
        f"--set accumulate={options.accumulate}: a private step is done at once, expected 1; leave "
        "accumulate out (memory is kept low by itself)": options.accumulate > 1,
        f"torchrun with {expected_size()} processes: each would draw people of its own, expected "
        "one process for a private fit; start it without torchrun": expected_size() > 1,
        "--set precision=fp16: its loss scale would scale the noise as well, expected bf16 or "
        "fp32; leave precision out": resolve(options.precision, job.device) == "fp16",
        f"--set patch={list(options.patch or ())}: a private fit learns from crops of the whole "
        "space, expected none; leave patch out": options.patch is not None,
    }
    for message, found in wrong.items():
        if found:
            raise UsageFault(message)


def refuse_ancestor(job: Job, ancestor: Path | None) -> None:
    """Refuse to start a private run from another run's weights.

    Raises:
        UsageFault: they have been learnt from people on other terms, or on none.
    """
    if ancestor is not None and job.generator.privacy is not None:
        raise UsageFault(
            f"--init-from {ancestor}: its weights have been learnt from people on other terms, "
            "expected a private run to start from nothing; leave --init-from out"
        )


def same_terms(out: Path, manifest: Mapping[str, Any], job: Job) -> None:
    """Refuse to go on with a private run on other terms.

    Raises:
        UsageFault: naming what differs.
    """
    if job.generator.privacy is None:
        return
    before, now = manifest.get(KEY) or {}, job.generator.privacy.agreed.to_json()
    differing = [
        f"{key} is {now[key]!r}, was {before.get(key)!r}"
        for key in now
        if now[key] != before.get(key)
    ]
    if differing:
        raise UsageFault(
            f"{out}: was begun on other terms of privacy ({'; '.join(differing)}), expected the "
            "same to go on (the noise for privacy_epsilon depends on the steps); choose another -o"
        )


# -- the key ---------------------------------------------------------------------------------------


def take_key(out: Path, manifest: Mapping[str, Any]) -> bytes:
    """The key of a run's noise, made if the run is new, or was done and is trained further.

    Raises:
        IntegrityFault: the run has begun, and its key is gone or damaged.
    """
    path = out / KEY_FILE
    if path.exists():
        with reading(path):
            text = path.read_text("ascii", "replace")
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise IntegrityFault(
                f"{path}: damaged, expected {2 * KEY_BYTES} hexadecimal digits; restore it from a "
                "copy, or choose another -o"
            )
        return key
    begun = next((out / "checkpoints").glob("step-*"), None) is not None
    if begun and not manifest["complete"]:
        raise IntegrityFault(
            f"{path}: missing, expected the key of a private run that is not done; restore it from "
            "a copy, or choose another -o"
        )
    key = os.urandom(KEY_BYTES)
    temporary = temporary_beside(path)
    with disk_errors(path):
        # For its owner alone from the beginning.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(key.hex())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return key


def drop_key(out: Path) -> None:
    """Destroy the key of a run that is done: from now on its noise stays on."""
    with disk_errors(out / KEY_FILE):
        (out / KEY_FILE).unlink(missing_ok=True)
