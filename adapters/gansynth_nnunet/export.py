"""``gansynth augment --export``: a data set on disk that stock nnU-Net trains on without gansynth.

``mixed``: real and synthetic cases in nnU-Net's preprocessed form, for the plain
``nnUNetv2_train``. ``synthetic``: raw synthetic cases alone, which may be shared (``export_raw``).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.ratio import listed_counts
from gansynth.core.schema import LabelArray
from gansynth.core.synthetic import KEY
from gansynth.core.writer import Item, Writer
from gansynth.hosts.export import DataSetExport
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth_nnunet.class_locations import Key, keys_of
from gansynth_nnunet.export_raw import ENDING, in_own_units, nifti, units
from gansynth_nnunet.guards import drawn_size, host_size, sample_bytes
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.splits import SPLITS

_NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_.-]+")
MANIFEST = "gansynth.json"  # record of how its samples were made; it names no case of the source
PARTS = (".b2nd", "_seg.b2nd", ".pkl")  # files of one preprocessed case
FINGERPRINT = "dataset_fingerprint.json"
TRUTH = "gt_segmentations"
ONE_FOLD = (
    "it has one fold, 0, with this fold's held-out cases for validation: the generator has seen "
    "those of every other fold, which would leak; 'fold all' would validate on synthetic cases"
)
NOT_ANONYMOUS = (
    "synthetic is not anonymous: label maps are edited ones of training cases, or generated "
    "by what has learnt from them, and a generator can memorise training cases. Look at the "
    "samples before you share them"
)


class NnunetExport(DataSetExport):
    """An nnU-Net data set, which nnU-Net finds by the number in its name."""

    target = "nnunet"
    option = "--export"
    trains = "nnU-Net trains"
    for_schedules = "Train with gansynth augment instead"
    source: NnunetSource

    # -- the request -----------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Return a folder in preprocessed data if there are real cases, else in raw data."""
        root = self.source.root
        check_name(root, name)
        return (root.preprocessed if self.content == "mixed" else root.raw) / name

    def check_order(self) -> None:
        """Also refuse a mixed data set that nnU-Net could not train, or validate, on."""
        super().check_order()
        source = self.source
        if self.content == "mixed" and not source.held_out_ids:
            raise UsageFault(
                f"--export with --fold {source.request.fold}: nothing is held out, so nnU-Net "
                "would have "
                "nothing to validate on; name a fold, or share samples alone: --content synthetic"
            )

    def measure(self) -> int:
        """Return the bytes of one sample, uncompressed: float32 images, int16 labels."""
        source, bank = self.source, self.mix_config.bank
        size = patch = host_size(source.patch_size)
        if self.manifest is not None:
            size = drawn_size(self.manifest, source, patch)
        elif bank is not None and (ids := BankReader(bank).ids()):
            size = BankReader(bank).read(ids[0]).image.shape[1:]
        return sample_bytes(size, patch, len(source.schema.channels), 4, 0)

    def count(self, alone: int | None) -> tuple[int, int]:
        """Return case numbers: nnU-Net draws cases uniformly, so their share is the ratio's."""
        if alone is not None:
            return 0, alone
        _, count, _ = listed_counts(len(self.source.train_ids), self.mix_config.ratio, 1, least=0)
        if count < 1:
            raise UsageFault(self._uneven(count, ""))
        return 1, count

    def known(self) -> str:
        """See ``DataSetExport.known``."""
        cases = len(self.source.train_ids)
        return (
            f"the ratio says how many already, {self.count(None)[1]} beside {cases} training cases"
        )

    def shortage(self, held: int) -> str:
        """See ``DataSetExport.shortage``."""
        return self._uneven(self.samples, f", the bank {self.mix_config.bank} holds {held}")

    def _uneven(self, count: int, there: str) -> str:
        return (
            f"--export with --ratio {self.mix_config.ratio}: {count} synthetic cases beside "
            f"{len(self.source.train_ids)} training cases{there}; expected at least one, and no "
            "more than there are. Change --ratio"
        )

    def room(self) -> int:
        """Capacity of the bank."""
        return self.samples * self.sample_bytes if self.mix_config.bank is None else 0

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

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net needs."""
        return keys_of(self.source.plans.doc, self.source.dataset_json)

    def describe(self) -> dict[str, Any]:
        """Return a JSON document for the user."""
        source, mixed, number = self.source, self.content == "mixed", int(self.folder.name[7:10])
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
            "then": train if mixed else verify,
            "note": ONE_FOLD if mixed else NOT_ANONYMOUS,
        }

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, folder: Path) -> Writer:
        """See ``DataSetExport.begin``."""
        return (_MixedWriter if self.content == "mixed" else RawWriter)(folder, self)

    def items(self, reader: BankReader) -> Iterator[Item]:
        """Yield the samples as the bank has them."""
        with self.request.reporter.task(self.samples, "write") as bar:
            for name, sample_id in zip(self.names, reader.ids(), strict=False):  # may hold more
                stored = reader.read(sample_id)
                assert stored.labels is not None  # see adapter.finalise
                yield Item(
                    name, np.asarray(stored.image), stored.labels, facts=dict(stored.provenance)
                )
                bar.advance()

    def made(self, reader: BankReader, rejected: Mapping[str, Any]) -> dict[str, Any]:
        """Also say what the data set is; no name and no number of a source case to be shared."""
        source, mixed = self.source, self.content == "mixed"
        document = {**super().made(reader, rejected), "note": ONE_FOLD if mixed else NOT_ANONYMOUS}
        document["synthetic_cases"] = self.samples
        if not mixed:
            return {**document, "units": units(source)}
        return {
            **document,
            "ratio": str(self.mix_config.ratio),
            "real_training_cases": len(self.real),
            "data": source.name,
            "configuration": source.configuration,
            "fold": source.request.fold,
        }


class ExportWriter(Writer):
    """Writes the cases of an export, and at last how they were made."""

    name = "nnunet"
    ndim = frozenset({3})
    needs = frozenset({"labels"})

    def __init__(self, folder: Path, export: NnunetExport) -> None:
        super().__init__(folder, export.source.schema)
        self.export, self.source, self.names = export, export.source, list[str]()

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write how the cases were made; return the bytes of all files."""
        write_json_atomic(self.folder / MANIFEST, about)
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {"bytes": sum(path.stat().st_size for path in files)}


class _MixedWriter(ExportWriter):
    """Preprocessed cases, real ones linked, with plans, ground truth and the fold."""

    def __init__(self, folder: Path, export: NnunetExport) -> None:
        super().__init__(folder, export)
        source, self.data, truth = self.source, folder / self.source.folder.name, folder / TRUTH
        name = export.folder.name
        # Validation would look for a next stage, which is not exported.
        linked = ("inherits_from", "next_stage")
        configuration = {k: v for k, v in source.config.items() if k not in linked}
        plans = {
            **source.plans.doc,
            "dataset_name": name,
            "configurations": {source.configuration: configuration},
        }
        write_json_atomic(folder / source.plans.path.name, plans)
        document = {k: v for k, v in source.dataset_json.items() if k != "dataset"}
        document |= {"name": name[11:], "numTraining": len(export.real) + len(export.names)}
        document[KEY] = export.names
        write_json_atomic(folder / "dataset.json", document)
        shutil.copyfile(source.plans.folder / FINGERPRINT, folder / FINGERPRINT)
        self.data.mkdir()
        truth.mkdir()
        ending = str(source.dataset_json["file_ending"])
        for case in (*export.real, *export.held_out):
            for part in PARTS:
                _link(source.folder / f"{case}{part}", self.data)
            _link(source.plans.folder / TRUTH / f"{case}{ending}", truth)

    def add(self, item: Item) -> None:
        """Write a case as nnU-Net's preprocessing does."""
        assert item.labels is not None
        write_case(self.source, self.export.keys, self.data / item.name, item.image, item.labels)
        self.names.append(item.name)

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Also write the fold."""
        export, folder = self.export, self.folder
        fold = {"train": sorted((*export.real, *self.names)), "val": sorted(export.held_out)}
        write_json_atomic(folder / SPLITS, [fold])
        return super().finish(about)


class RawWriter(ExportWriter):
    """Synthetic cases alone, as a raw data set that may be shared: no headers of the source's."""

    def add(self, item: Item) -> None:
        """Write ``imagesTr`` and ``labelsTr`` of a case, in units that others understand."""
        source, labels = self.source, item.mask
        assert labels is not None
        assert item.labels is not None
        forward, spacing = source.plans.doc["transpose_forward"], source.schema.spacing
        small = labels.astype(np.uint8 if labels.max(initial=0) <= 255 else np.int16)
        image = in_own_units(source, item.image, item.labels)
        channels = {f"imagesTr/{item.name}_{n:04d}": channel for n, channel in enumerate(image)}
        for stem, volume in {**channels, f"labelsTr/{item.name}": small}.items():
            path = self.folder / f"{stem}{ENDING}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(nifti(volume, spacing, forward))
        self.names.append(item.name)

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Also write ``dataset.json``."""
        source = self.source
        told = "; ".join(f"{channel}: {text}" for channel, text in units(source).items())
        document = {
            "name": self.export.folder.name[11:],
            "description": f"Synthetic cases drawn by gansynth. Intensities: {told}",
            "channel_names": {str(i): name for i, name in enumerate(source.schema.channels)},
            "labels": source.dataset_json["labels"],
            "numTraining": len(self.names),
            "file_ending": ENDING,
            KEY: True,
        }
        if (order := source.dataset_json.get("regions_class_order")) is not None:
            document["regions_class_order"] = order
        write_json_atomic(self.folder / "dataset.json", document)
        return super().finish(about)


def check_name(root: NnunetRoot, name: str) -> None:
    """Refuse names that nnU-Net would not find, or confuse: it finds data sets by number."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageFault(
            f"--export {name!r}: expected DatasetNNN_Name with three digits, for example "
            "Dataset510_HippocampusPlus"
        )
    folders = [f for f in (root.raw, root.preprocessed, root.results) if f.is_dir()]
    datasets = {e.name: e for f in folders for e in f.iterdir() if e.name.startswith("Dataset")}
    taken = [path for dataset, path in datasets.items() if dataset.startswith(f"Dataset{match[1]}")]
    if taken:
        numbers = {dataset[7:10] for dataset in datasets}
        order = [*range(int(match[1]) + 1, 1000), *range(1, int(match[1]))]
        free = next((f"{n:03d}" for n in order if f"{n:03d}" not in numbers), "none")
        raise UsageFault(
            f"--export {name}: {taken[0]} has that number, expected one that none of nnU-Net's "
            f"folders has; take another (free: {free}), or remove what is there"
        )


def _link(file: Path, folder: Path) -> None:
    """Hard-link a file, or copy it where that is impossible (another disk, say)."""
    file, target = file.resolve(), folder / file.name
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


def write_case(
    source: NnunetSource, keys: Sequence[Key], stem: Path, image: Any, labels: LabelArray
) -> None:
    """Write one case by nnU-Net's own function, as its preprocessing does.

    Args:
        keys: labels or regions whose voxels nnU-Net needs.
        stem: path without suffix.
        image: (C, D, H, W).
        labels: int16 (D, H, W), -1 outside.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    data, seg = np.asarray(image, np.float32), np.asarray(labels[None], np.int16)
    (blocks, chunks), (blocks_seg, chunks_seg) = (
        comp_blosc2_params(array.shape, source.patch_size, array.itemsize) for array in (data, seg)
    )
    properties = case_properties(
        labels, keys, source.schema.spacing, source.plans.doc["transpose_forward"]
    )
    nnUNetDatasetBlosc2.save_case(
        data,
        seg,
        properties,
        str(stem),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )


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

    shape, back = tuple(labels.shape), np.argsort(transpose_forward)
    raw_spacing = [float(spacing[i]) for i in back]
    affine = np.diag([*raw_spacing[::-1], 1.0])
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
