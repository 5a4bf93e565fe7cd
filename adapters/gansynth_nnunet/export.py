"""``gansynth augment --export``: a data set on disk that stock nnU-Net trains on without gansynth.

``mixed``: real and synthetic cases in nnU-Net's preprocessed form, for the plain
``nnUNetv2_train``. ``synthetic``: raw synthetic cases alone, which may be shared: with the axes of
files, and in units that others understand.
"""

# ruff: noqa: D102 - methods that override those of DataSetExport and Writer

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.bank.reader import BankReader
from gansynth.core.ratio import listed_counts
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.core.synthetic import KEY
from gansynth.core.writer import Item, Writer
from gansynth.data.case_writer import ENDING, names_of, write_volume
from gansynth.hosts.export import DataSetExport
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import folder_bytes, write_json_atomic
from gansynth_nnunet.converter import drawn_size, sample_bytes
from gansynth_nnunet.dataset import FINGERPRINT, NAME, SPLITS, TRUTH
from gansynth_nnunet.mixed import Key
from gansynth_nnunet.source import NnunetSource

MANIFEST = "gansynth.json"  # record of how its samples were made; it names no case of the source
ONE_FOLD = (
    "it has one fold, 0, with this fold's held-out cases for validation: the generator has seen "
    "those of every other fold, which would leak; 'fold all' would validate on synthetic cases"
)
NOT_ANONYMOUS = (
    "synthetic is not anonymous: label maps are edited ones of training cases, or generated "
    "by what has learnt from them, and a generator can memorise training cases. Look at the "
    "samples before you share them"
)
NOTES = {"mixed": ONE_FOLD, "synthetic": NOT_ANONYMOUS}
UNITS = {
    "CTNormalization": "Hounsfield units, cut off where the data set's were",
    "NoNormalization": "as in the original images",
    "RGBTo01Normalization": "0 to 255",
    "RescaleTo01Normalization": "0 to 1, as nnU-Net rescales each image",
    "ZScoreNormalization": "z-scores, as nnU-Net makes them of each image",
}


class NnunetExport(DataSetExport):
    """An nnU-Net data set, which nnU-Net finds by the number in its name."""

    target = "nnunet"
    option = "--export"
    source: NnunetSource

    # -- the request -----------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        root, match = self.source.root, NAME.fullmatch(name)
        if match is None:
            raise UsageFault(
                f"--export {name!r}: expected DatasetNNN_Name with three digits, for example "
                "Dataset510_HippocampusPlus"
            )
        taken = {dataset[7:10]: dataset for dataset in root.datasets()}
        if match[1] in taken:  # nnU-Net would not find it, or confuse both
            free = next((f"{n:03d}" for n in range(500, 1000) if f"{n:03d}" not in taken), "none")
            raise UsageFault(
                f"--export {name}: {taken[match[1]]} has that number, expected one that none of "
                f"nnU-Net's folders has; take another (free: {free}), or remove what is there"
            )
        return (root.preprocessed if self.content == "mixed" else root.raw) / name

    def check_order(self) -> None:
        super().check_order()
        source = self.source
        if self.content == "mixed" and not source.held_out_ids:
            raise UsageFault(
                f"--export with --fold {source.request.fold}: nothing is held out, so nnU-Net "
                "would have nothing to validate on; name a fold, or share samples alone: --content "
                "synthetic"
            )

    def measure(self) -> int:
        # Uncompressed: float32 images, int16 labels.
        source, bank, size = self.source, self.request.bank, self.source.patch
        if self.manifest is not None:
            size = drawn_size(source, self.manifest)
        elif bank is not None and (ids := BankReader(bank).ids()):
            size = BankReader(bank).read(ids[0]).image.shape[1:]
        return sample_bytes(source, size, 4)

    def count(self, alone: int | None) -> tuple[int, int]:
        # nnU-Net draws cases uniformly, so their share is the ratio's.
        if alone is not None:
            return 0, alone
        ratio, cases = self.request.mix.ratio, len(self.source.train_ids)
        _, count, _ = listed_counts(cases, ratio, 1, least=0)
        if count < 1:
            raise UsageFault(
                f"--export with --ratio {ratio}: {count} synthetic cases beside {cases} training "
                "cases, expected at least one; change --ratio"
            )
        return 1, count

    def room(self) -> int:
        return self.samples * self.sample_bytes if self.request.bank is None else 0

    # -- its content -----------------------------------------------------------------------------

    @property
    def real(self) -> tuple[str, ...]:
        """Real training cases in the data set, sorted."""
        return self.source.train_ids if self.repeats else ()

    @property
    def held_out(self) -> tuple[str, ...]:
        """Real validation cases, sorted."""
        return self.source.held_out_ids if self.content == "mixed" else ()

    @property
    def names(self) -> list[str]:
        """Names of the synthetic cases, distinct from those of all real cases."""
        real = (*self.real, *self.held_out)
        stems = itertools.chain(["synthetic"], (f"synthetic{n}" for n in itertools.count(2)))
        stem = next(s for s in stems if not any(c.startswith(f"{s}_") for c in real))
        return [f"{stem}_{number:04d}" for number in range(1, self.samples + 1)]

    def describe(self) -> dict[str, Any]:
        source, number = self.source, int(self.folder.name[7:10])
        train = f"nnUNetv2_train {number} {source.configuration} 0 -p {source.plans.path.stem}"
        verify = f"nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"
        return {
            "target": "nnunet",
            "data": source.name,
            "fold": source.request.fold,
            "folder": str(self.folder),
            "content": self.content,
            "synthetic_cases": self.samples,
            "real_training_cases": len(self.real),
            "held_out_cases": len(self.held_out),
            "synthetic_share": self.samples / (self.samples + len(self.real)),
            "bytes": self.samples * self.sample_bytes,
            "record": str(self.record),
            "then": train if self.content == "mixed" else verify,
            "note": NOTES[self.content],
        }

    def begin(self, folder: Path) -> Writer:
        return (MixedWriter if self.content == "mixed" else RawWriter)(folder, self)

    def items(self, reader: BankReader) -> Iterator[Item]:
        with self.reporter.task(self.samples, "write") as bar:
            for name, sample_id in zip(self.names, reader.ids(), strict=False):  # may hold more
                stored = reader.read(sample_id)
                assert stored.labels is not None  # see adapter.finalise
                yield Item(
                    name, np.asarray(stored.image), stored.labels, facts=dict(stored.provenance)
                )
                bar.advance()

    def made(self, reader: BankReader, rejected: Mapping[str, Any]) -> dict[str, Any]:
        # No name and no number of a source case in what may be shared.
        source, document = self.source, super().made(reader, rejected)
        document |= {"note": NOTES[self.content], "synthetic_cases": self.samples}
        if self.content != "mixed":
            return {**document, "units": units(source)}
        return {
            **document,
            "ratio": str(self.request.mix.ratio),
            "real_training_cases": len(self.real),
            "data": source.name,
            "configuration": source.configuration,
            "fold": source.request.fold,
        }


# -- writing ---------------------------------------------------------------------------------------


class _ExportWriter(Writer):
    name = "nnunet"
    ndim = frozenset({3})
    needs = frozenset({"labels"})

    def __init__(self, folder: Path, export: NnunetExport) -> None:
        super().__init__(folder, export.source.schema)
        self.source = export.source

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        write_json_atomic(self.folder / MANIFEST, about)
        return {"bytes": folder_bytes(self.folder)}


class MixedWriter(_ExportWriter):
    """Preprocessed cases, real ones linked, with plans, ground truth and the fold."""

    def __init__(self, folder: Path, export: NnunetExport) -> None:
        super().__init__(folder, export)
        source, name = self.source, export.folder.name
        # Validation would look for a next stage, which is not exported.
        linked = ("inherits_from", "next_stage")
        configuration = {k: v for k, v in source.config.items() if k not in linked}
        plans = {
            **source.plans.doc,
            "dataset_name": name,
            "configurations": {source.configuration: configuration},
        }
        train = sorted((*export.real, *export.names))
        document = {k: v for k, v in source.dataset_json.items() if k != "dataset"}
        document |= {"name": name[11:], "numTraining": len(train), KEY: export.names}
        write_json_atomic(folder / source.plans.path.name, plans)
        write_json_atomic(folder / "dataset.json", document)
        write_json_atomic(folder / SPLITS, [{"train": train, "val": sorted(export.held_out)}])
        shutil.copyfile(source.plans.folder / FINGERPRINT, folder / FINGERPRINT)
        for part in (source.folder.name, TRUTH):
            (folder / part).mkdir()
        for file in source.files_of((*export.real, *export.held_out)):
            _link(source.plans.folder / file, folder / file)

    def add(self, item: Item) -> None:
        """Write a case by nnU-Net's own function, as its preprocessing does."""
        from nnunetv2.training.dataloading.nnunet_dataset import (
            comp_blosc2_params,
            nnUNetDatasetBlosc2,
        )

        assert item.labels is not None
        source, labels = self.source, item.labels
        data, seg = np.asarray(item.image, np.float32), np.asarray(labels[None], np.int16)
        (blocks, chunks), (blocks_seg, chunks_seg) = (
            comp_blosc2_params(array.shape, source.patch_size, array.itemsize)
            for array in (data, seg)
        )
        forward = source.plans.doc["transpose_forward"]
        properties = case_properties(labels, source.keys, source.schema.spacing, forward)
        nnUNetDatasetBlosc2.save_case(
            *(data, seg, properties, str(self.folder / source.folder.name / item.name)),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )


class RawWriter(_ExportWriter):
    """Synthetic cases alone, as a raw data set that may be shared: no headers of the source's."""

    def __init__(self, folder: Path, export: NnunetExport) -> None:
        super().__init__(folder, export)
        source, forward = self.source, self.source.plans.doc["transpose_forward"]
        self.order, self.affine = file_axes(source.schema.spacing, forward)
        written = "; ".join(f"{channel}: {text}" for channel, text in units(source).items())
        document = {
            **names_of(self.schema, labelled=False, cases=export.samples, ending=ENDING),
            "name": export.folder.name[11:],
            "description": f"Synthetic cases drawn by gansynth. Intensities: {written}",
            "labels": source.dataset_json["labels"],
            KEY: True,
        }
        if (order := source.dataset_json.get("regions_class_order")) is not None:
            document["regions_class_order"] = order
        write_json_atomic(folder / "dataset.json", document)

    def add(self, item: Item) -> None:
        labels = item.mask
        assert labels is not None
        assert item.labels is not None
        image = in_own_units(self.source, item.image, item.labels)
        volumes: dict[str, Any] = {
            f"imagesTr/{item.name}_{n:04d}": channel for n, channel in enumerate(image)
        }
        small = labels.max(initial=0) <= 255
        volumes[f"labelsTr/{item.name}"] = labels.astype(np.uint8) if small else labels
        for stem, volume in volumes.items():
            path, turned = self.folder / f"{stem}{ENDING}", volume.transpose(self.order)
            write_volume(path, turned, self.affine, synthetic=True)


def _link(file: Path, target: Path) -> None:
    file = file.resolve()
    try:
        with contextlib.suppress(OSError):
            os.link(file, target)
            return
        shutil.copy2(file, target)
    except FileNotFoundError:
        raise DataFault(
            f"{file}: missing, expected it from nnU-Net's preprocessing: its trainer reads it; "
            "run: gansynth prepare --force"
        ) from None


def case_properties(
    labels: LabelArray,
    keys: Sequence[Key],
    spacing: Sequence[float],
    transpose_forward: Sequence[int],
) -> dict[str, Any]:
    """Return nnU-Net's properties of a preprocessed case that was neither cropped nor resampled.

    ``spacing`` is in mm per axis of ``labels``; ``transpose_forward`` maps the file's axes to
    them.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    order, affine = file_axes(spacing, transpose_forward)
    shape, raw_spacing = tuple(labels.shape), [float(spacing[i]) for i in order]
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return {
        "spacing": raw_spacing,
        # As nnU-Net's readers set it, so that its predictions can be written.
        "sitk_stuff": {
            "spacing": tuple(raw_spacing[::-1]),
            "origin": (0.0,) * 3,
            "direction": identity,
        },
        "nibabel_stuff": {"original_affine": affine, "reoriented_affine": affine},
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
        "class_locations": DefaultPreprocessor._sample_foreground_locations(
            labels[None], list(keys)
        ),
    }


# -- raw files -------------------------------------------------------------------------------------


def file_axes(
    spacing: Sequence[float], transpose_forward: Sequence[int]
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the order that brings a volume's axes back to (Z, Y, X), and the affine of its file.

    ``transpose_forward`` maps nnU-Net's reading order (Z, Y, X) to the volume's axes, whose spacing
    is in mm.
    """
    order = [int(i) for i in np.argsort(transpose_forward)]
    return order, np.diag([*(float(spacing[i]) for i in reversed(order)), 1.0])


def units(source: NnunetSource) -> dict[str, str]:
    """Return the intensity unit of each channel."""
    schemes = source.config["normalization_schemes"]
    return {
        channel: UNITS.get(scheme, f"as nnU-Net's {scheme} leaves them")
        for channel, scheme in zip(source.schema.channels, schemes, strict=True)
    }


def in_own_units(source: NnunetSource, image: FloatArray, labels: LabelArray) -> FloatArray:
    """Convert a sample's image (C, D, H, W) to units that are meaningful outside of nnU-Net.

    Voxels outside (-1) get 0 if nnU-Net detects outside by zeros. In a z-scored image without a
    mask, where 0 is the mean, they get the channel's lowest value.
    """
    config, doc = source.config, source.plans.doc
    properties = doc.get("foreground_intensity_properties_per_channel", {})
    outside, out = labels == OUTSIDE, np.array(image, np.float32)
    for number, scheme in enumerate(config["normalization_schemes"]):
        channel = denormalise(out[number], scheme, properties.get(str(number), {}))
        zeros = scheme != "ZScoreNormalization" or config["use_mask_for_norm"][number]
        inside = channel[~outside]
        channel[outside] = 0 if zeros or not inside.size else inside.min()
        out[number] = channel
    return out


def denormalise(channel: FloatArray, scheme: str, properties: Mapping[str, float]) -> FloatArray:
    """Undo nnU-Net's normalisation of one channel (D, H, W), if it is invertible."""
    if scheme == "CTNormalization":
        hounsfield = channel * max(float(properties["std"]), 1e-8) + float(properties["mean"])
        low, high = properties["percentile_00_5"], properties["percentile_99_5"]
        return np.asarray(np.clip(hounsfield, low, high), np.float32)
    if scheme == "RGBTo01Normalization":
        return np.asarray(np.clip(channel * 255, 0, 255), np.float32)
    return channel
