"""Samples as PNG files with a manifest, for viewing and for other software.

``pictures:FOLDER`` reads the folder back. ``images/`` holds the images (several channels: a folder
for each), ``masks/`` label numbers, ``overlays/`` optional overlays. ``labels/`` has boxes in
YOLO's format, with their names in ``classes.txt``. The manifest is ``manifest.csv`` and
``manifest.json``. If one file has all channels there is also ``dataset.json`` and, with boxes,
``data.yaml``, for ``pictures:`` and ``yolo:``. No file names a patient, a case or a path, and no
sample repeats a real image, so the folder may be shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from gansynth.core.schema import Boxes, FloatArray, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.core.synthetic import marked_pixels
from gansynth.data.case_writer import yolo_lines
from gansynth.report.png import outlined, png_bytes, scaled
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, whole_folder
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.dataset_writer import write_names
from gansynth.sampling.deidentify import SharedSamples, check_new, forget_times
from gansynth.sampling.identifiers import names_in
from gansynth.sampling.png_manifest import PngManifest
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.sampling.replay import noted, settings_of
from gansynth.sampling.sampler import Sampler

COLOUR = ("red", "green", "blue")
AT_ONCE = 16  # samples generated at once
LARGE = 512  # pixels along the longest edge of a picture with outlines, about
FOLDS = 5  # one in so many pictures with boxes is for validation
TOLD = 3  # kinds of flaws that a warning lists, the most common ones
LOOKED_AT = 64  # training cases whose percentiles define the window


@dataclass(frozen=True)
class PngOptions:
    """How samples become pictures."""

    bits: Literal[8, 16] = 8  # 8 or 16 per pixel
    # `LOW:HIGH` in the source's units, or percentiles of its training cases (`1%:99%`); one for all
    # channels, or one for each, separated by commas. All pictures of a run have the same window.
    window: str = "0.5%:99.5%"
    overlay: bool = False  # also write images with the outlines of labels, or of boxes without them
    keep_flawed: bool = False  # also write samples that the generator itself rejects


def export_pictures(
    drawer: Sampler,
    n: int,
    out: Path,
    options: PngOptions,
    reporter: Reporter,
    shared: SharedSamples,
) -> dict[str, Any]:
    """Generate samples and write them as PNG files with a manifest: the whole folder, or nothing.

    Args:
        n: samples to generate; rejected ones are left out, and counted.
        out: the folder; it must be empty or missing.
        shared: watches all written samples.

    Returns:
        A JSON-able report: folder, samples written and left out, window, seconds per sample.

    Raises:
        UsageFault: samples are volumes, the folder is not empty, or a window is invalid.
        EnvironmentFault: the files cannot be written.
        IntegrityFault: a sample repeats a real image.
    """
    import time

    check_export(drawer, out)
    windows = find_windows(options.window, drawer.source, drawer.run.space)
    began, batch = time.perf_counter(), min(AT_ONCE, n)
    settings = settings_of(drawer, batch, "float32")
    with whole_folder(out) as temporary:
        writer = _PngWriter(temporary, drawer, windows, options, shared)
        with reporter.task(n, "sample") as bar, disk_errors(out):
            for first in range(0, n, batch):
                for sample in drawer.draw(first, batch)[: n - first]:
                    writer.add(noted(sample, settings))
                    bar.advance(1)
            writer.finish()
            shared.finish()
            forget_times(temporary)
    reject_reasons = writer.manifest.reject_reasons
    if reject_reasons:
        counts = "; ".join(
            f"{count} x {reject_reason}"
            for reject_reason, count in reject_reasons.most_common(TOLD)
        )
        outcome = "but kept" if options.keep_flawed else "and left out; --keep-flawed keeps them"
        reporter.warn(
            f"{out}: {reject_reasons.total()} of {n} samples were rejected {outcome}: {counts}"
        )
    return {
        "folder": str(out),
        "samples": len(writer.manifest.rows),
        "rejected": reject_reasons.total(),
        "window": {name: list(w) for name, w in writer.manifest.windows.items()},
        "clipped": writer.manifest.clipped,
        "seconds_per_sample": (time.perf_counter() - began) / max(n, 1),
    }


def check_export(drawer: Sampler, out: Path) -> None:
    """Refuse an impossible export before anything is generated."""
    generator = drawer.run.generator
    if generator.schema.ndim != 2:
        size = " x ".join(map(str, generator.size)) or "volumes"
        raise UsageFault(
            f"--format png: samples of {drawer.run.folder} are volumes ({size}), expected slices; "
            "leave --format out (NIfTI), or fit on slices: --data slices:KIND:WHERE"
        )
    check_new(out)


def find_windows(text: str, source: CaseSource, space: Space) -> tuple[tuple[float, float], ...]:
    """Return the intensities that become black and white, for each channel.

    Percentiles are those of training cases: at most 64 of them, always the same ones. All exports
    of a run, and its real cases, can therefore be shown alike.
    """
    from pydantic import TypeAdapter, ValidationError

    from gansynth.data.planes import IntensityWindow, Windows

    try:
        parsed: Sequence[IntensityWindow] = TypeAdapter(Windows).validate_python(text)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageFault(f"--window {text}: {message}") from None
    channels = len(source.schema.channels)
    if len(parsed) not in (1, channels):
        raise UsageFault(
            f"--window {text}: {len(parsed)} for {channels} channel(s), expected one for all, or "
            "one for each, separated by commas"
        )
    windows = tuple(parsed) * (channels if len(parsed) == 1 else 1)
    intensities = _intensities(source) if any(w.percent for w in windows) else [None] * channels
    return tuple(w.bounds(values) for w, values in zip(windows, intensities, strict=True))


def _intensities(source: CaseSource) -> list[FloatArray]:
    rng = np.random.default_rng(0)
    ids = source.train_ids
    chosen = sorted(rng.choice(len(ids), min(LOOKED_AT, len(ids)), replace=False).tolist())
    parts = []
    for number in chosen:
        image = source.load(ids[number]).image
        flat = image.reshape(len(image), -1)
        parts.append(flat[:, :: max(1, flat.shape[1] // 10**5)])
    return list(np.concatenate(parts, axis=1))


class _PngWriter:
    def __init__(
        self,
        folder: Path,
        drawer: Sampler,
        windows: Sequence[tuple[float, float]],
        options: PngOptions,
        shared: SharedSamples,
    ) -> None:
        self.folder, self.options, self.shared = folder, options, shared
        # With the samples' own axes, and the labels of a composite run's samples.
        self.schema: Schema = drawer.run.space.generator_schema(drawer.source.schema)
        named = dict(zip(self.schema.channels, windows, strict=True))
        # Three colours fit into one file, but Pillow supports none of 16 bits.
        self.names = names_in(drawer.lineage, drawer.source.schema)
        self.colour = self.schema.channels == COLOUR and options.bits == 8
        self.manifest = PngManifest(
            {
                "run": drawer.run.run_id,
                "generator": drawer.run.generator.name,
                "gansynth": __version__,
            },
            self.schema,
            named,
            options.bits,
            one_file=self.colour or len(named) == 1,
        )

    def add(self, sample: Sample) -> None:
        """Write a sample's files, unless it is rejected."""
        provenance = dict(sample.provenance)
        told = {key: provenance[key] for key in ("class", "reject_reason") if provenance.get(key)}
        sample = replace(sample, provenance={**provenance, **self.names.blanked(told)})
        if reject_reason := sample.provenance.get("reject_reason"):
            self.manifest.reject_reasons[reject_reason_of(reject_reason)] += 1
            if not self.options.keep_flawed:
                return
        name = f"sample-{provenance['index']:04d}"
        self.shared.add(name, sample.image, provenance)
        sample = flat(sample)
        windows = list(self.manifest.windows.values())
        pixels, beyond = scaled(sample.image, windows, self.options.bits)
        self.manifest.pixels[0] += pixels.size
        self.manifest.pixels[1] += beyond
        pictures = [np.moveaxis(pixels, 0, -1)] if self.colour else list(pixels)
        files = {
            "images": [
                self._save(f"{folder}/{name}.png", marked_pixels(picture))
                for folder, picture in zip(self.manifest.folders, pictures, strict=True)
            ]
        }
        labels = sample.labels
        if labels is not None:
            dtype = np.uint8 if labels.max() < 256 else np.uint16
            files["mask"] = [self._save(f"masks/{name}.png", np.maximum(labels, 0).astype(dtype))]
        if sample.boxes is not None and self.schema.box_classes:
            files["labels"] = self._save_boxes(name, sample.boxes, sample.image.shape[1:])
        boxes = sample.boxes if labels is None else None
        if self.options.overlay and (labels is not None or boxes is not None):
            grey = scaled(sample.image, windows, 8)[0][0]
            values = self.schema.foreground
            picture = outlined(grey, labels, values, edge=LARGE, boxes=boxes)
            files["overlay"] = [self._save(f"overlays/{name}.png", picture)]
        self.manifest.add(name, sample, files)

    def finish(self) -> None:
        """Write the files that exist once."""
        rows = self.manifest.rows
        if any("labels" in row for row in rows):
            names = "".join(f"{name}\n" for name in self.schema.box_classes)
            (self.folder / "classes.txt").write_text(names, encoding="utf-8")
            if self.manifest.one_file:
                self._write_data_yaml([f"./{row['images'][0]['file']}" for row in rows])
        if self.manifest.one_file:
            masked = any("mask" in row for row in rows)
            made = {"normalised": True, "spacing": list(self.schema.spacing)}
            write_names(self.folder, self.schema, masked, len(rows), ".png", made)
        self.manifest.write(self.folder)

    def _write_data_yaml(self, images: list[str]) -> None:
        val = images[FOLDS - 1 :: FOLDS] or images[-1:]
        for split, listed in (("train", [i for i in images if i not in val]), ("val", val)):
            (self.folder / f"{split}.txt").write_text("".join(f"{i}\n" for i in listed), "utf-8")
        document = {
            "train": "train.txt",
            "val": "val.txt",
            "names": dict(enumerate(self.schema.box_classes)),
            "channels": 3 if self.colour else 1,
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        (self.folder / "data.yaml").write_text(text, "utf-8")

    def _save_boxes(self, name: str, boxes: Boxes, size: tuple[int, ...]) -> list[tuple[str, str]]:
        """Write a file of boxes for each image, as a detector expects them beside ``images``."""
        data = yolo_lines(boxes, size).encode()
        folders = [folder.replace("images", "labels", 1) for folder in self.manifest.folders]
        return [self._save_bytes(f"{folder}/{name}.txt", data) for folder in folders]

    def _save(self, name: str, pixels: npt.NDArray[Any]) -> tuple[str, str]:
        return self._save_bytes(name, png_bytes(pixels, synthetic=True))

    def _save_bytes(self, name: str, data: bytes) -> tuple[str, str]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name, hashlib.sha256(data).hexdigest()


def flat(sample: Sample) -> Sample:
    """Return a sample in its own plane, where the adapter treats it as a volume of one slice."""
    if sample.image.ndim == 3:
        return sample
    boxes = sample.boxes
    if boxes is not None:
        boxes = Boxes(boxes.coords[:, [1, 2, 4, 5]], boxes.labels)
    labels = None if sample.labels is None else sample.labels[0]
    return Sample(sample.image[:, 0], labels, boxes, sample.provenance)
