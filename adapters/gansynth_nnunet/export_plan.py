"""What an export is to hold: its name, how many cases and bytes; and what makes no data set."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Content, Injection
from gansynth.core.bank_options import BankSize
from gansynth.hosts.origin import find_origin
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.sampling.sharing import refuse_real_images
from gansynth_nnunet.class_locations import Key, keys_of
from gansynth_nnunet.foreign_guard import drawn_size
from gansynth_nnunet.guards import host_size, sample_bytes
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.source import NnunetSource

_NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_.-]+")
ONE_FOLD = (
    "it has one fold, 0, with this fold's held-out cases for validation: the generator has seen "
    "those of every other fold, which would leak; 'fold all' would validate on synthetic cases"
)


NOT_ANONYMOUS = (
    "synthetic is not anonymous: label maps are edited ones of training cases, or drawn by what "
    "has learnt from them, and a generator can draw what it has learnt by heart. Look at the "
    "samples before they leave the house"
)
OTHERWISE = "export --content mixed for yourself"


@dataclass(frozen=True)
class ExportPlan:
    """One export, checked.

    Attributes:
        source: the data set it is made from.
        injection: where samples come from.
        name: of the new data set.
        content: what is in it.
        samples: synthetic cases.
        real: real training cases that go along, sorted.
        held_out: real cases it is validated on, sorted.
        manifest: of the generator's run; None if samples come from a bank.
        manifest_sha256: of the generator that drew the samples.
        sample_bytes: what one sample takes at most.
    """

    source: NnunetSource
    injection: Injection
    name: str
    content: Content
    samples: int
    real: tuple[str, ...]
    held_out: tuple[str, ...]
    manifest: dict[str, Any] | None
    manifest_sha256: str
    sample_bytes: int

    @property
    def home(self) -> Path:
        """nnU-Net's folder the data set belongs into."""
        root = self.source.root
        return root.preprocessed if self.content == "mixed" else root.raw

    @property
    def folder(self) -> Path:
        """The data set."""
        return self.home / self.name

    @property
    def build(self) -> Path:
        """Where it is built; nnU-Net looks at folders whose names begin with Dataset only."""
        return self.home / f".{self.name}.gansynth-export"

    @property
    def record(self) -> Path:
        """Which cases each sample came from: outside of the data set, which may be shared."""
        if self.injection.run is not None:
            return self.injection.run / "exports" / f"{self.name}.json"
        return self.home / f"gansynth_export_{self.name}.json"

    @property
    def real_cases(self) -> tuple[str, ...]:
        """Every real case in the data set."""
        return (*self.real, *self.held_out)

    @property
    def names(self) -> list[str]:
        """Names of the synthetic cases, none of which a real case could have."""
        stems = itertools.chain(["synthetic"], (f"synthetic{n}" for n in itertools.count(2)))
        stem = next(s for s in stems if not any(c.startswith(f"{s}_") for c in self.real_cases))
        return [f"{stem}_{number:04d}" for number in range(1, self.samples + 1)]

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net wants to know."""
        return keys_of(self.source.plans.doc, self.source.dataset_json)

    def describe(self) -> dict[str, Any]:
        """A JSON document for the user."""
        source, mixed = self.source, self.content == "mixed"
        train = f"nnUNetv2_train {self.number} {source.configuration} 0 -p {source.plans.path.stem}"
        verify = f"nnUNetv2_plan_and_preprocess -d {self.number} --verify_dataset_integrity"
        return {
            "target": "nnunet",
            "data": source.name,
            "fold": source.fold,
            "folder": str(self.folder),
            "content": self.content,
            "synthetic_cases": self.samples,
            "real_training_cases": len(self.real),
            "held_out_cases": len(self.held_out),
            "synthetic_share": self.samples / (self.samples + len(self.real)),
            "bytes": self.samples * self.sample_bytes,
            "record": str(self.record),
            "then": train if mixed else verify,
            "note": ONE_FOLD if mixed else NOT_ANONYMOUS,
        }

    @property
    def number(self) -> int:
        """What nnU-Net finds it by."""
        return int(self.name[7:10])


def plan_export(
    source: NnunetSource,
    injection: Injection,
    name: str,
    content: Content,
    size: BankSize | None,
) -> ExportPlan:
    """Check an order for a data set.

    Raises:
        UsageFault: the name is none or taken, nothing synthetic is asked for, the number of samples
            is not known or said twice, the bank holds too few, or real images would be shared.
        EnvironmentFault: the disk has no room for the samples.
    """
    check_name(source.root, name)
    _check_order(source, injection, content)
    origin = find_origin(injection)
    manifest, sha256 = origin.manifest, origin.described["manifest_sha256"]
    if content == "synthetic" and manifest is not None:
        assert injection.run is not None, "whose manifest it is"
        refuse_real_images(injection.run, manifest, "--content synthetic", OTHERWISE)
    one = _sample_bytes(source, injection, manifest)
    taken = content == "mixed" and injection.ratio.real > 0
    plan = ExportPlan(
        source=source,
        injection=injection,
        name=name,
        content=content,
        samples=_count(source, injection, size, one),
        real=source.train_ids if taken else (),
        held_out=source.held_out_ids if content == "mixed" else (),
        manifest=manifest,
        manifest_sha256=sha256,
        sample_bytes=one,
    )
    _check_room(plan)
    return plan


def check_name(root: NnunetRoot, name: str) -> None:
    """Refuse what nnU-Net would not find, or confuse: it finds data sets by number.

    Raises:
        UsageFault: with the next number that is free.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageFault(
            f"--export {name!r}: expected DatasetNNN_Name with three digits, for example "
            "Dataset510_HippocampusPlus"
        )
    folders = [f for f in (root.raw, root.preprocessed, root.results) if f.is_dir()]
    found = {e.name: e for f in folders for e in f.iterdir() if e.name.startswith("Dataset")}
    taken = [path for other, path in found.items() if other.startswith(f"Dataset{match[1]}")]
    if taken:
        numbers = {other[7:10] for other in found}
        order = [*range(int(match[1]) + 1, 1000), *range(1, int(match[1]))]
        free = next((f"{n:03d}" for n in order if f"{n:03d}" not in numbers), "none")
        raise UsageFault(
            f"--export {name}: {taken[0]} has that number, expected one that none of nnU-Net's "
            f"folders has; take another (free: {free}), or remove what is there"
        )


def _check_order(source: NnunetSource, injection: Injection, content: Content) -> None:
    if injection.schedule.kind != "constant":
        raise UsageFault(
            f"--export with --schedule {injection.schedule}: a data set on disk cannot change "
            "while nnU-Net trains; expected a constant ratio. Train with gansynth augment instead"
        )
    if injection.ratio.p == 0:
        raise UsageFault(
            f"--export with --ratio {injection.ratio}: asks for no synthetic case; expected more "
            "than 0, for example 1:2"
        )
    if content == "mixed" and source.config.get("previous_stage"):
        raise UsageFault(
            f"--export with -c {source.configuration}: a cascade's second stage needs the "
            "first one's predictions of every case, which synthetic cases do not have; expected "
            "3d_fullres, 3d_lowres or 2d"
        )
    if content == "mixed" and not source.held_out_ids:
        raise UsageFault(
            f"--export with --fold {source.fold}: nothing is held out, so nnU-Net would "
            "have nothing to validate on; name a fold, or share samples alone: --content synthetic"
        )
    if injection.bank is not None and not BankReader(injection.bank).spec.frozen:
        raise UsageFault(
            f"--export with --bank {injection.bank}: that bank is kept fresh, its samples come and "
            "go; expected a frozen one, or --generator"
        )


def _count(source: NnunetSource, injection: Injection, size: BankSize | None, one: int) -> int:
    """Synthetic cases: nnU-Net draws cases uniformly, so their share is the ratio's."""
    ratio, cases = injection.ratio, len(source.train_ids)
    held = None if injection.bank is None else BankReader(injection.bank).count()
    if ratio.real == 0:
        if size is None and held is None:
            raise UsageFault(
                f"--export with --ratio {ratio}: does not say how many cases; give --bank-size N, "
                "or 3x for three for each training case"
            )
        count = held if size is None else size.capacity(cases, one)
    else:
        count = round(cases * ratio.synthetic / ratio.real)
        if size is not None:
            raise UsageFault(
                f"--export with --bank-size {size} and --ratio {ratio}: the ratio says how many "
                f"already, {count} beside {cases} training cases; leave --bank-size out, or take "
                "--ratio 0:1"
            )
    assert count is not None
    if count < 1 or (held is not None and held < count):
        there = "" if held is None else f", the bank {injection.bank} holds {held}"
        raise UsageFault(
            f"--export with --ratio {ratio}: {count} synthetic cases beside {cases} training "
            f"cases{there}; expected at least one, and no more than there are. Change --ratio"
        )
    return count


def _sample_bytes(
    source: NnunetSource, injection: Injection, manifest: dict[str, Any] | None
) -> int:
    """Bytes of one sample, uncompressed: float32 images, int16 labels."""
    size = patch = host_size(source.patch_size)
    if manifest is not None:
        size = host_size(drawn_size(manifest, source) or size)
    elif injection.bank is not None and (ids := BankReader(injection.bank).ids()):
        size = BankReader(injection.bank).read(ids[0]).image.shape[1:]
    return sample_bytes(size, patch, len(source.schema.channels), 4, 0)


def _check_room(plan: ExportPlan) -> None:
    """Samples lie in a bank, uncompressed, until the data set is complete."""
    folder = next(f for f in (plan.home, *plan.home.parents) if f.is_dir())
    needed, free = plan.samples * plan.sample_bytes, shutil.disk_usage(folder).free
    if plan.injection.bank is None and free < needed:
        raise EnvironmentFault(
            f"{plan.home}: {plan.samples} samples take {needed} bytes while the data set is made, "
            f"{free} are free; make room, or ask for fewer with --ratio"
        )
