"""What an export is to hold: how many cases, how often each; and what makes no data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankSize
from gansynth.core.space import Space
from gansynth.hosts.origin import find_origin
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth_deepmedic.layout import MAPS, TRAIN
from gansynth_deepmedic.shares import Share, share_on_disk
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.usable import refuse_unusable
from gansynth_deepmedic.weights import PER_CLASS, SamplingMaps

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import ModelConfig

SPARE = 16
"""Of so many crops one may turn out to have no place for a segment, in a very odd data set."""
TIMES = 2
"""A case written as float32 takes at most so many times the room of the user's files, usually."""
NOT_ANONYMOUS = (
    "synthetic cases are not anonymous: what surrounds each sample is a real training case. The "
    "lists name real cases, too, by their paths: keep those, and this folder, where they are"
)
Restricted = Literal["roi", "maps"]
"""How DeepMedic is told where segments of a synthetic case may be centred."""


@dataclass(frozen=True)
class ExportPlan:
    """One export, checked.

    Attributes:
        source: the data set it is made from.
        injection: where samples come from.
        folder: of the new data set, absolute.
        share: what every subepoch loads; ``repeats`` is 0 where real cases are left out.
        sampling: how segments are sampled.
        manifest: of the generator's run; None if samples come from a bank.
        generator: SHA-256 of the manifest of the generator that drew the samples.
    """

    source: DeepMedicSource
    injection: Injection
    folder: Path
    share: Share
    sampling: SamplingMaps
    manifest: dict[str, Any] | None
    generator: str

    @property
    def build(self) -> Path:
        """Where it is built."""
        return self.folder.with_name(f".{self.folder.name}.gansynth-export")

    @property
    def slots(self) -> int:
        """Synthetic cases."""
        assert self.share.synthetic is not None, "constant on disk"
        return self.share.synthetic

    @property
    def real(self) -> int:
        """Real training cases, each counted once."""
        return len(self.source.train_ids) if self.share.repeats else 0

    @property
    def draws(self) -> int:
        """Samples to draw: some more than slots where a crop may turn out not to fit."""
        whole = self.manifest is None or self.manifest["space"]["grid"] in ("native", "resample")
        return self.slots if whole else self.slots + ceil(self.slots / SPARE)

    @property
    def restricted(self) -> Restricted:
        """DeepMedic takes segments from the region of interest; but if it normalises images, then
        over that region, so that another one would change the images.
        """
        return "maps" if self.source.config.normalise else "roi"

    @property
    def rejected(self) -> Path | None:
        """Where pictures of samples go that were not admitted."""
        run = self.injection.run
        return None if run is None else run / "exports" / f"{self.folder.name}_rejected"

    def describe(self) -> dict[str, Any]:
        """A JSON document for the user."""
        listed = self.real * self.share.repeats
        each = self.share.segments // self.share.cases
        return {
            "target": "deepmedic",
            "data": self.source.name,
            "folder": str(self.folder),
            "content": "mixed",
            "ratio": str(self.injection.ratio),
            "realised": f"{listed}:{self.slots}",
            "synthetic_share": self.slots / self.share.cases,
            "cases_per_subepoch": {"real": listed, "synthetic": self.slots},
            "segments_per_subepoch": {"real": each * listed, "synthetic": each * self.slots},
            "real_cases": self.real,
            "each_real_case_listed": self.share.repeats,
            "real_in_generator_space": self.injection.real_in_generator_space,
            "said": [*self.share.said, *_repeated(self.source.config.processes)],
            "record": str(self.folder / "manifest.json"),
            "note": NOT_ANONYMOUS,
            "then": f"deepMedicRun -model MODEL -train {self.folder / TRAIN}",
        }


def _repeated(processes: int) -> tuple[str, ...]:
    """What is said of stock DeepMedic's random numbers: forked processes inherit the same ones."""
    if processes < 1:
        return ()
    return (
        f"num_processes_sampling: {processes} in the file: stock DeepMedic then repeats places of "
        "segments between cases and subepochs; 0 does not, nor does --deepmedic on the fly",
    )


def plan_export(
    source: DeepMedicSource,
    injection: Injection,
    name: str,
    size: BankSize | None,
    model: ModelConfig | None = None,
) -> ExportPlan:
    """Check an order for a data set.

    Args:
        source: the user's data set.
        injection: where samples come from, and at which ratio.
        name: folder of the new data set.
        size: how many samples, where the ratio does not say.
        model: of the network that is to be trained; None for the source's, if that knows it.

    Raises:
        DataFault: DeepMedic itself would stop at one of the real cases.
        UsageFault: a folder that cannot be, nothing synthetic is asked for, a configuration that
            cannot be extended, or the number of samples is said twice or more than there are.
        EnvironmentFault: the disk has no room.
    """
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            f"-o {folder}: exists already, expected a new folder; choose another, or remove it"
        )
    _check_order(source, injection)
    model = source.model if model is None else model
    refuse_unusable(source, model)
    origin = find_origin(injection)
    manifest, generator = origin.manifest, origin.described["manifest_sha256"]
    share = _share(source, injection, manifest, size)
    labels = tuple(source.schema.labels.values())
    sampling = SamplingMaps.of(source.config, labels, model)
    if model is None and source.config.normalise and sampling.kind == PER_CLASS:
        classes = (
            f"{MAPS}: one for each of {sampling.categories} classes, expected as many "
            "numberOfOutputClasses; name the network to be sure: --read model=modelConfig.cfg"
        )
        share = replace(share, said=(*share.said, classes))
    plan = ExportPlan(source, injection, folder, share, sampling, manifest, generator)
    _check_room(plan)
    return plan


def generator_space(injection: Injection) -> Space:
    """The space of the generator that samples come from.

    Raises:
        UsageFault: no run of one is named.
    """
    from gansynth.sampling.run import read_manifest

    if injection.run is None:
        raise UsageFault(
            "--real-in-generator-space: no run of a generator is named, expected one, whose space "
            "it is; name it by --generator"
        )
    return Space.from_json(read_manifest(injection.run)["space"])


def _check_order(source: DeepMedicSource, injection: Injection) -> None:
    config = source.config
    if injection.schedule.kind != "constant":
        raise UsageFault(
            f"-o with --schedule {injection.schedule}: a data set on disk cannot change while "
            "DeepMedic trains; expected a constant ratio. Train on the fly for a schedule: "
            "--deepmedic CHECKOUT, or --engine torch"
        )
    if injection.ratio.p == 0:
        raise UsageFault(
            f"-o with --ratio {injection.ratio}: asks for no synthetic case; expected more than 0, "
            "for example 1:2"
        )
    if injection.bank is not None and not BankReader(injection.bank).spec.frozen:
        raise UsageFault(
            f"-o with --bank {injection.bank}: that bank is kept fresh, its samples come and go; "
            "expected a frozen one, or --generator"
        )
    if config.weighted:
        raise UsageFault(
            f"{config.path}: weightedMapsForSamplingEachCategoryTrain is set, and nobody knows "
            "such maps of a synthetic case; expected a configuration without, so that DeepMedic "
            "derives them from labels and region of interest. Remove that key"
        )


def _share(
    source: DeepMedicSource,
    injection: Injection,
    manifest: dict[str, Any] | None,
    size: BankSize | None,
) -> Share:
    """What every subepoch loads."""
    config, ratio, real = source.config, injection.ratio, len(source.train_ids)
    held = None if injection.bank is None else BankReader(injection.bank).count()
    cases, said = config.cases, ""
    if size is not None and ratio.real > 0:
        raise UsageFault(
            f"-o with --bank-size {size} and --ratio {ratio}: the ratio says how many synthetic "
            f"cases there are beside {real} real ones; leave --bank-size out, or take --ratio 0:1"
        )
    if ratio.real == 0 and size is not None:
        cases, said = size.capacity(real, file_bytes(source)), f"--bank-size {size}"
    elif ratio.real == 0 and held is not None:
        cases, said = held, "all that the bank holds"
    elif ratio.real == 0:
        said = "as many as a subepoch loads by the file; ask for another number with --bank-size"
    share = share_on_disk(real, ratio, cases, config.segments, config.batch)
    if ratio.real == 0:
        count = f"{cases} synthetic case(s) and no real one: {said}"
        share = replace(share, repeats=0, said=(count, *share.said))
    if held is not None and held < (share.synthetic or 0):
        raise UsageFault(
            f"-o with --bank {injection.bank}: holds {held} samples, expected {share.synthetic} "
            f"beside {share.real} real cases; change --ratio, or take --generator"
        )
    return share


def volume_bytes(source: DeepMedicSource) -> int:
    """Bytes that a case of the largest shape takes in memory: images float32, labels and region."""
    voxels = max(prod(source.shape(case)) for case in source.train_ids)
    return voxels * (4 * len(source.config.channels) + 4)


def file_bytes(source: DeepMedicSource) -> int:
    """Bytes that a synthetic case takes on disk, as far as one can tell by the real ones."""
    sizes = (sum(file.stat().st_size for file in case.files) for case in source.config.train)
    return min(TIMES * max(sizes), volume_bytes(source))


def sample_bytes(source: DeepMedicSource, size: Sequence[int]) -> int:
    """Bytes of a sample of this size, or of a whole volume where there is none."""
    return (prod(size) * (4 * len(source.config.channels) + 2)) if size else volume_bytes(source)


def _check_room(plan: ExportPlan) -> None:
    """Samples lie in a bank, uncompressed, until the data set is complete."""
    folder = next(f for f in plan.folder.parents if f.is_dir())
    real = plan.real if plan.injection.real_in_generator_space else 0
    needed = (plan.slots + real) * file_bytes(plan.source)
    if plan.manifest is not None:
        space = plan.manifest["space"]
        size = space["size"] if space["grid"] == "crop" else ()
        needed += plan.draws * sample_bytes(plan.source, size)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise EnvironmentFault(
            f"{folder}: {plan.slots} synthetic cases take about {needed} bytes while the data set "
            f"is made, {free} are free; make room, ask for fewer with --ratio, or train on the fly"
        )
