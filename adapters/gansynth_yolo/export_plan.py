"""What an export is to hold: how many images, how often each; and what makes no data set."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Content, Injection
from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.hosts.origin import find_origin
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.sampling.sharing import refuse_real_images
from gansynth_yolo.guards import sample_bytes
from gansynth_yolo.source import YoloSource

MOST_REPEATS = 8
"""How often a real image is listed at most, so that R:S comes out even."""
_PARTS = 10**6
"""Ratios are taken as fractions of whole numbers up to here."""
NOT_ANONYMOUS = (
    "synthetic is not anonymous: boxes are like those of training images, and a generator can draw "
    "what it has learnt by heart. Look at the images before they leave the house"
)
WRITTEN = (
    "real images are skull-stripped copies of your own; detectors write their caches into this "
    "folder only"
)
OTHERWISE = "export --content mixed for yourself"
LINKED = (
    "real images and labels are links to your own: keep those where they are; detectors write "
    "their caches into this folder only"
)


@dataclass(frozen=True)
class ExportPlan:
    """One export, checked.

    Attributes:
        source: the data set it is made from.
        injection: where samples come from.
        folder: of the new data set, absolute.
        content: what is in it.
        samples: synthetic images.
        repeats: how often every real training image is listed; 0 for none.
        manifest: of the generator's run; None if samples come from a bank.
        generator: SHA-256 of the manifest of the generator that drew the samples.
    """

    source: YoloSource
    injection: Injection
    folder: Path
    content: Content
    samples: int
    repeats: int
    manifest: dict[str, Any] | None
    generator: str

    @property
    def note(self) -> str:
        """What whoever gets the folder must know."""
        if self.content != "mixed":
            return NOT_ANONYMOUS
        return WRITTEN if self.source.options.skull_strip else LINKED

    @property
    def build(self) -> Path:
        """Where it is built."""
        return self.folder.with_name(f".{self.folder.name}.gansynth-export")

    @property
    def real(self) -> int:
        """Real training images, each counted once."""
        return len(self.source.train_ids) if self.repeats else 0

    @property
    def record(self) -> Path | None:
        """What may not leave the house with synthetic images; None if it lies in the data set."""
        if self.content == "mixed":
            return None
        apart = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        name = f"{self.folder.name}_{apart}.json"
        if self.injection.run is not None:
            return self.injection.run / "exports" / name
        return self.folder.with_name(f"gansynth_export_{name}")

    @property
    def rejected(self) -> Path | None:
        """Where pictures of samples go that were not admitted."""
        run = self.injection.run
        return None if run is None else run / "exports" / f"{self.folder.name}_rejected"

    def describe(self) -> dict[str, Any]:
        """A JSON document for the user."""
        mixed = self.content == "mixed"
        listed = self.repeats * self.real
        document = {
            "target": "yolo",
            "data": self.source.name,
            "folder": str(self.folder),
            "content": self.content,
            "ratio": str(self.injection.ratio),
            "ratio_written": f"{listed}:{self.samples}",
            "synthetic_images": self.samples,
            "real_images": self.real,
            "each_real_image_listed": self.repeats,
            "images_per_epoch": listed + self.samples,
            "held_out_images": len(self.source.held_out_ids) if mixed else 0,
            "synthetic_share": self.samples / (listed + self.samples),
            "record": str(self.record or self.folder / "manifest.json"),
            "note": self.note,
        }
        if mixed:
            document["then"] = f"any YOLO detector, with data={self.folder / 'data.yaml'}"
        return document


def plan_export(
    source: YoloSource, injection: Injection, name: str, content: Content, size: BankSize | None
) -> ExportPlan:
    """Check an order for a data set.

    Raises:
        UsageFault: a folder that cannot be, nothing synthetic is asked for, R:S does not come out
            even, the number of samples is not known or said twice, or the bank holds too few.
        EnvironmentFault: the disk has no room.
    """
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    _check_folder(folder, source)
    _check_order(injection)
    origin = find_origin(injection)
    manifest, generator = origin.manifest, origin.described["manifest_sha256"]
    if content == "synthetic" and manifest is not None:
        assert injection.run is not None, "whose manifest it is"
        refuse_real_images(injection.run, manifest, "--content synthetic", OTHERWISE)
    one = _sample_bytes(injection, manifest)
    repeats, samples = _count(source, injection, content, size, one)
    plan = ExportPlan(
        source=source,
        injection=injection,
        folder=folder,
        content=content,
        samples=samples,
        repeats=repeats if content == "mixed" else 0,
        manifest=manifest,
        generator=generator,
    )
    _check_room(plan, one)
    return plan


def _check_folder(folder: Path, source: YoloSource) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            f"-o {folder}: exists already, expected a new folder; choose another, or remove it"
        )
    home = Path(os.path.realpath(source.file.home))
    if Path(os.path.realpath(folder)).is_relative_to(home):
        raise UsageFault(
            f"-o {folder}: lies in the data set's own folder {home}, where its images might be "
            "taken for the data set's; choose a folder outside of it"
        )
    # Of a path with more than one, libreyolo looks for labels where there are none.
    if any(part in ("images", "labels") for part in folder.parts):
        raise UsageFault(
            f"-o {folder}: a part of this path is called images or labels, by which detectors find "
            "label files; expected none that is; choose another folder"
        )


def _check_order(injection: Injection) -> None:
    if injection.schedule.kind != "constant":
        raise UsageFault(
            f"-o with --schedule {injection.schedule}: a data set on disk cannot change while a "
            "detector trains; expected a constant ratio. Leave -o out to train with a schedule"
        )
    if injection.ratio.p == 0:
        raise UsageFault(
            f"-o with --ratio {injection.ratio}: asks for no synthetic image; expected more than "
            "0, for example 1:2"
        )
    if injection.bank is not None and not BankReader(injection.bank).spec.frozen:
        raise UsageFault(
            f"-o with --bank {injection.bank}: that bank is kept fresh, its samples come and go; "
            "expected a frozen one, or --generator"
        )


def _count(
    source: YoloSource, injection: Injection, content: Content, size: BankSize | None, one: int
) -> tuple[int, int]:
    """How often each real image is listed, and synthetic images."""
    ratio, images = injection.ratio, len(source.train_ids)
    held = None if injection.bank is None else BankReader(injection.bank).count()
    if size is not None and (content == "synthetic" or ratio.real == 0):
        repeats, samples = 0, size.capacity(images, one)
    elif size is not None:
        raise UsageFault(
            f"-o with --bank-size {size} and --ratio {ratio}: the ratio says how many synthetic "
            f"images there are beside {images} real ones; leave --bank-size out, or take --ratio "
            "0:1"
        )
    elif ratio.real == 0:
        if held is None:
            raise UsageFault(
                f"-o with --ratio {ratio}: does not say how many images; give --bank-size N, or 3x "
                "for three for each training image"
            )
        repeats, samples = 0, held
    else:
        repeats, samples = exact_counts(images, ratio, nearest=injection.nearest)
    if held is not None and held < samples:
        raise UsageFault(
            f"-o with --bank {injection.bank}: holds {held} samples, expected {samples} beside "
            f"{repeats * images} real images listed; change --ratio, or take --generator"
        )
    return repeats, samples


def exact_counts(images: int, ratio: Ratio, *, nearest: bool = False) -> tuple[int, int]:
    """How often each of some real images is listed, and synthetic ones, to be R:S exactly.

    Args:
        images: real ones.
        ratio: R:S.
        nearest: take the nearest ratio that comes out, where this one does not.

    Raises:
        UsageFault: naming the nearest ratio that comes out, if real images would have to be listed
            more than ``MOST_REPEATS`` times.
    """
    synthetic, real = (
        Fraction(number).limit_denominator(_PARTS) for number in (ratio.synthetic, ratio.real)
    )
    wanted = images * synthetic / real
    repeats = wanted.denominator
    if repeats > MOST_REPEATS or wanted == 0:
        even = ((n, max(1, round(n * wanted))) for n in range(1, MOST_REPEATS + 1))
        times, count = min(even, key=lambda one: abs(Fraction(one[1], one[0]) - wanted))
        if nearest:
            return times, count
        raise UsageFault(
            f"-o with --ratio {ratio}: {images} real images ask for {float(wanted):.6g} synthetic "
            f"ones, which comes out even only if each is listed {repeats} times, expected at most "
            f"{MOST_REPEATS}; the nearest is --ratio {times * images}:{count}, by --nearest, too"
        )
    return repeats, int(wanted * repeats)


def _sample_bytes(injection: Injection, manifest: dict[str, Any] | None) -> int:
    """Bytes of one sample, uncompressed: float32 images."""
    if manifest is not None:
        return 2 * sample_bytes(manifest)
    assert injection.bank is not None
    reader = BankReader(injection.bank)
    return sum(reader.read(held).image.size * 4 for held in reader.ids()[:1])


def _check_room(plan: ExportPlan, one: int) -> None:
    """Samples lie in a bank, uncompressed, until the data set is complete."""
    folder = next(f for f in plan.folder.parents if f.is_dir())
    made = 0 if plan.injection.bank is not None else one
    needed = plan.samples * (one // 4 + made)  # a file takes a byte a value at most
    if (free := shutil.disk_usage(folder).free) < needed:
        raise EnvironmentFault(
            f"{folder}: {plan.samples} samples take {needed} bytes while the data set is made, "
            f"{free} are free; make room, or ask for fewer with --ratio"
        )
