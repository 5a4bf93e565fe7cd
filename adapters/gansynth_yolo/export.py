"""``gansynth augment --target yolo -o DIR``: a folder that stock detectors train on by themselves.

It is built in a hidden folder beside its place and gets its name by one rename at the end. A killed
export leaves that hidden folder; the same command goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.synthetic import KEY
from gansynth.hosts.export import exporting, hashes_of
from gansynth.report.png import png_bytes
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.identifiers import names_in
from gansynth.sampling.sharing import forget_times
from gansynth_yolo.export_plan import ExportPlan
from gansynth_yolo.labels import as_rows, label_text
from gansynth_yolo.mirror import names_of, parts, place
from gansynth_yolo.mixed import corners, pixels

MANIFEST = "manifest.json"
REAL, SYNTHETIC = "real", "synth"
"""Folders in ``images`` and ``labels``."""


@dataclass(frozen=True)
class Written:
    """A synthetic image on disk: its name, its sample's id, how many boxes it has."""

    name: str
    id: str
    boxes: int


def export_dataset(plan: ExportPlan, *, dry_run: bool, reporter: Reporter) -> dict[str, Any]:
    """Draw synthetic images and write them as a data set; see ``Adapter.export``.

    Raises:
        EnvironmentFault: the disk has no room, or another process exports there.
        TrainingFault: the generator mostly draws what cannot be admitted.
    """
    if dry_run:
        return {"dry_run": True, **plan.describe()}
    with exporting(
        plan.injection, plan.source, "yolo", plan.samples, plan.generator,
        build=plan.build, folder=plan.folder, rejected=plan.rejected, reporter=reporter,
    ) as (folder, reader, rejected):  # fmt: skip
        manifest = _write(plan, folder, reader, rejected, reporter)
    told = {"ratio_of_images": manifest["images"], "ratio_of_lesions": manifest["lesions"]}
    free = len(manifest["lesion_free"])
    return {**plan.describe(), **told, "lesion_free": free, "rejected": rejected}


# -- writing -------------------------------------------------------------------------------------


def _write(
    plan: ExportPlan,
    folder: Path,
    reader: BankReader,
    rejected: Mapping[str, Any],
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the data set into the hidden folder, and what may not be shared to where it belongs.

    Returns:
        The manifest.
    """
    with disk_errors(plan.folder):
        folder.mkdir()
        splits = _write_real(plan, folder)
        ids = reader.ids()[: plan.samples]  # a bank may hold more
        written = []
        with reporter.task(len(ids), "write") as bar:
            for number, sample_id in enumerate(ids):
                written.append(_write_sample(plan, folder, number, reader.read(sample_id)))
                bar.advance(1)
        if plan.content == "mixed":
            real = [folder / "images" / REAL / n for n in splits.pop("train")] * plan.repeats
            synthetic = [folder / "images" / SYNTHETIC / f"{one.name}.png" for one in written]
            lines = [str(plan.folder / p.relative_to(folder)) for p in (*real, *synthetic)]
            (folder / "train.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (folder / "data.yaml").write_text(_data_yaml(plan, tuple(splits)), "utf-8")
        manifest = _manifest(plan, reader, written, rejected) | {"files": hashes_of(folder)}
        private = _private(plan, reader, written)
        if plan.record is None:
            manifest |= private
        else:
            plan.record.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(plan.record, {**manifest, **private, "folder": str(plan.folder)})
        write_json_atomic(folder / MANIFEST, manifest)
        if plan.content == "synthetic":
            forget_times(folder)
    return manifest


def _write_real(plan: ExportPlan, folder: Path) -> dict[str, list[str]]:
    """Link real images and labels; names of the image files by split."""
    if plan.content == "synthetic":
        return {}
    splits = {}
    for split, images in parts(plan.source).items():
        if not images or (split == "train" and not plan.repeats):
            continue
        home = REAL if split == "train" else split
        splits[split] = names_of(images)
        for name, image in zip(splits[split], images, strict=True):
            place(image, name, folder / "images" / home, folder / "labels" / home)
    splits.setdefault("train", [])
    return splits


def _write_sample(plan: ExportPlan, folder: Path, number: int, sample: BankSample) -> Written:
    """One synthetic image, 8 bits as detectors read the real ones, and its label file."""
    if sample.boxes is None:
        raise DataFault(
            f"sample {sample.id}: has no boxes, expected a list of them, which may be empty; take "
            "a generator that is asked for boxes, such as cpggan"
        )
    image = pixels(sample.image, len(plan.source.schema.channels))
    boxes, labels = corners(sample.boxes)
    name = f"synth_{number:0{len(str(plan.samples))}d}"
    for part in ("images", "labels"):
        (folder / part / SYNTHETIC).mkdir(parents=True, exist_ok=True)
    flat = image[..., 0] if image.shape[2] == 1 else image
    (folder / "images" / SYNTHETIC / f"{name}.png").write_bytes(png_bytes(flat, synthetic=True))
    rows = as_rows(boxes[:, [1, 0, 3, 2]], labels, image.shape[:2])
    (folder / "labels" / SYNTHETIC / f"{name}.txt").write_text(label_text(rows), "utf-8")
    return Written(name, sample.id, len(boxes))


def _data_yaml(plan: ExportPlan, held_out: Sequence[str]) -> str:
    """``data.yaml``: absolute where it is for this machine, relative where it is to be shared."""
    file = plan.source.file
    if plan.content == "mixed":
        where = {"path": str(plan.folder), "train": "train.txt"}
        where |= {split: f"images/{split}" for split in held_out}
    else:
        where = {"train": f"images/{SYNTHETIC}"}
    document = {
        **where,
        "nc": len(file.names),
        "names": dict(enumerate(file.names)),
        "channels": file.channels,
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


# -- what is said of it --------------------------------------------------------------------------


def _manifest(
    plan: ExportPlan, reader: BankReader, written: Sequence[Written], rejected: Mapping[str, Any]
) -> dict[str, Any]:
    """What may leave the house with the data set: no name and no number of a source image."""
    mixed = plan.content == "mixed"
    boxes = sum(len(plan.source.image(case).rows) for case in plan.source.train_ids)
    synthetic = sum(one.boxes for one in written)
    document: dict[str, Any] = {
        "gansynth": __version__,
        KEY: not mixed,
        "content": plan.content,
        "names": list(plan.source.file.names),
        "images": {"synthetic": len(written)},
        "lesions": {"synthetic": synthetic},
        "lesion_free": [one.name for one in written if not one.boxes],
        "generator": None if plan.manifest is None else plan.manifest["generator"],
        "manifest_sha256": plan.generator,
        "edits": list(reader.spec.samples.edits or ()),
        "seed": reader.spec.samples.seed,
        "rejected": dict(rejected),
        "note": plan.note,
    }
    if not mixed:
        names = names_in(reader.spec.lineage, plan.source.schema)
        document |= {key: names.blanked(document[key]) for key in ("edits", "rejected")}
    else:
        listed = plan.repeats * plan.real
        document["images"] = {"real": listed, **document["images"]}
        document["lesions"] = {"real": plan.repeats * boxes, **document["lesions"]}
        document["ratio"] = str(plan.injection.ratio)
        document["each_real_image_listed"] = plan.repeats
    return document


def _private(plan: ExportPlan, reader: BankReader, written: Sequence[Written]) -> dict[str, Any]:
    """Which images each sample came from, and all that its maker has seen."""
    return {
        "data": plan.source.name,
        "data_file": str(plan.source.file.path),
        "boxes": reader.spec.samples.boxes,
        "judged": not reader.spec.samples.keep_flawed,
        "held_out": list(plan.source.held_out_ids),
        "lineage": reader.spec.lineage.to_json(),
        "samples": {one.name: dict(reader.read(one.id).provenance) for one in written},
    }
