"""``gansynth augment --target deepmedic -o DIR``: a folder that stock DeepMedic trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.writer import Item, Writer
from gansynth.hosts.export import new_folder
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth_deepmedic.check import refuse_unusable
from gansynth_deepmedic.configs import PER_CLASS
from gansynth_deepmedic.exported_samples import (
    ExportedSample,
    SlotExport,
    SlotWriter,
    additions_for,
    largest,
    restricted,
)
from gansynth_deepmedic.layout import MAPS, TRAIN, write_layout
from gansynth_deepmedic.real_space import moved, training_cases
from gansynth_deepmedic.sampling_maps import SamplingMaps
from gansynth_deepmedic.subepoch_shares import SubepochShare, share_on_disk

MANIFEST = "manifest.json"
SPARE = 16  # one spare crop for this many, as a crop may have no room for a segment
TIMES = 2  # usual limit of a case's size as float32, relative to the user's files
NOT_ANONYMOUS = (
    "synthetic cases are not anonymous: a real training case surrounds each sample. The lists "
    "also name real cases by their paths: do not move those, or this folder"
)


class DeepMedicExport(SlotExport):
    """Real cases in place, each sample inserted into its real case, and the lists of both.

    Raises:
        DataFault: DeepMedic would fail on one of the real cases.
    """

    target = "deepmedic"
    trains = "DeepMedic trains"
    for_schedules = "Train on the fly for a schedule: --deepmedic CHECKOUT"
    fewer = "ask for fewer with --ratio, or train on the fly"
    share: SubepochShare  # cases and segments of every subepoch

    # -- the order -------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Return a new folder."""
        if self.content == "synthetic":
            raise UsageFault(
                "--content synthetic: synthetic cases of DeepMedic contain real training cases, "
                "which such data would disclose; expected mixed. Leave --content out"
            )
        return new_folder(name)

    def check_order(self) -> None:
        """Also reject cases at which DeepMedic fails, and the user's sampling maps."""
        super().check_order()
        config, model = self.source.config, self.source.model
        if config.weighted:
            raise UsageFault(
                f"{config.path}: weightedMapsForSamplingEachCategoryTrain is set, but "
                "synthetic cases have no such maps, expected a configuration without. Remove that "
                "key, so that DeepMedic derives them from labels and region of interest"
            )
        refuse_unusable(self.source, model)
        self.sampling = SamplingMaps.of(config, tuple(self.source.schema.labels.values()), model)

    def measure(self) -> int:
        """Estimate the bytes of a synthetic case on disk from the real ones."""
        sizes = (sum(file.stat().st_size for file in c.files) for c in self.source.config.train)
        return min(TIMES * max(sizes), self._volume_bytes())

    def _volume_bytes(self) -> int:
        """Return the bytes of the largest case in memory: images float32, labels and region."""
        voxels = max(prod(self.source.header(case).shape) for case in self.source.train_ids)
        return voxels * (4 * len(self.source.config.channels) + 4)

    def unsaid(self) -> int:
        """Return the number of cases that the user's file loads."""
        return self.source.config.cases

    def count(self, alone: int | None) -> tuple[int, int]:
        """Return the repeats of real cases and the synthetic cases of every subepoch."""
        config, real = self.source.config, len(self.source.train_ids)
        cases = config.cases if alone is None else alone
        share = share_on_disk(real, self.mix_config.ratio, cases, config.segments, config.batch)
        if alone is not None:
            text = "as many as a subepoch loads by the file; ask for another number with "
            text += "--bank-size"
            if self.size is not None:
                text = f"--bank-size {self.size}"
            elif self.mix_config.bank is not None:
                text = "all that the bank holds"
            count = f"{cases} synthetic case(s) and no real one: {text}"
            share = replace(share, repeats=0, notes=(count, *share.notes))
        if self.source.model is None and any(config.normalised) and self.sampling.kind == PER_CLASS:
            classes = (
                f"{MAPS}: one for each of {self.sampling.categories} classes, expected as many "
                "as numberOfOutputClasses; to check it: --read model=modelConfig.cfg"
            )
            share = replace(share, notes=(*share.notes, classes))
        self.share = share
        assert share.synthetic is not None, "constant on disk"
        return share.repeats, share.synthetic

    @property
    def drawn(self) -> int:
        """Number of samples to generate, with spare ones for crops that do not fit."""
        whole = self.manifest is None or self.manifest["space"]["grid"] in ("native", "resample")
        return self.samples if whole else self.samples + ceil(self.samples / SPARE)

    def room(self) -> int:
        """Return the bytes of the files and of the bank."""
        real = self.real if self.mix_config.real_in_generator_space else 0
        needed = (self.samples + real) * self.sample_bytes
        if self.manifest is None:
            return needed
        space, size = self.manifest["space"], self._volume_bytes()
        if space["grid"] == "crop":
            size = prod(space["size"]) * (4 * len(self.source.config.channels) + 2)
        return needed + self.drawn * size

    # -- what is in it ---------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return a JSON document for the user."""
        listed = self.real * self.repeats
        each = self.share.segments // self.share.cases
        return {
            "target": "deepmedic",
            "data": self.source.name,
            "folder": str(self.folder),
            "content": "mixed",
            "ratio": str(self.mix_config.ratio),
            "realised": f"{listed}:{self.samples}",
            "synthetic_share": self.samples / self.share.cases,
            "cases_per_subepoch": {"real": listed, "synthetic": self.samples},
            "segments_per_subepoch": {"real": each * listed, "synthetic": each * self.samples},
            "real_cases": self.real,
            "each_real_case_listed": self.repeats,
            "real_in_generator_space": self.mix_config.real_in_generator_space,
            "said": [*self.share.notes, *_repeated(self.source.config.processes)],
            "record": str(self.record),
            "note": NOT_ANONYMOUS,
            "then": f"deepMedicRun -model MODEL -train {self.folder / TRAIN}",
        }

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, folder: Path) -> Writer:
        """See ``DataSetExport.begin``."""
        cases = training_cases(self.source, self.mix_config, folder, self.request.reporter)
        self.writer = _ExportWriter(folder, self, cases, self.patches)
        return self.writer

    def items(self, reader: BankReader) -> Iterator[Item]:
        """Yield samples until there are enough cases of them."""
        with self.request.reporter.task(self.samples, "write") as bar:
            for sample in map(reader.read, reader.ids()):
                done, image = len(self.writer.slots), np.asarray(sample.image)
                yield Item(sample.id, image, sample.labels, facts=dict(sample.provenance))
                bar.advance(len(self.writer.slots) - done)
                if len(self.writer.slots) == self.samples:
                    return

    def made(self, reader: BankReader, rejected: Mapping[str, Any]) -> dict[str, Any]:
        """Also say what a subepoch sees."""
        self.patches = restricted(reader)
        description = self.describe()
        del description["record"]
        origin = {"train_config_of": str(self.source.config.path)}
        return {**super().made(reader, rejected), **description, **origin}

    def where(self, slots: SlotWriter) -> dict[str, Any]:
        """Describe where DeepMedic may centre segments of synthetic cases."""
        size = largest(slots.slots)
        verb = "predict" if self.sampling.pad else "see"
        by = {"roi": "their regions of interest", "maps": "their sampling maps"}[self.restricted]
        where = f"where the sample is, by {by}" if slots.patches else "anywhere, as of real cases"
        entry: dict[str, Any] = {
            "segments_of": f"synthetic cases are centred {where}; a segment may {verb} up to "
            f"{size} voxels along an axis, else some case is too near its border for any"
        }
        if slots.patches and self.restricted == "maps":
            entry["categories"] = self.sampling.categories
        return entry


class _ExportWriter(SlotWriter):
    """Also writes the lists of both kinds of cases, and the manifest."""

    export: DeepMedicExport

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write what exists once."""
        super().finish(about)
        export, folder, listed = self.export, self.folder, self.cases
        if export.mix_config.real_in_generator_space:
            listed = tuple(moved(case, folder, export.folder) for case in self.cases)
        additions = additions_for(export, folder, self.cases, self)
        config = export.source.config
        _, changed = write_layout(
            config, folder, export.share, listed, len(self.slots), additions=additions
        )
        report = {**export.where(self), "left_out": dict(self.left_out), "changed": changed}
        slots = {slot.name: _told(slot) for slot in self.slots}
        write_json_atomic(folder / MANIFEST, {**about, **report, "slots": slots})
        return {key: report[key] for key in ("segments_of", "left_out", "changed")}


def _repeated(processes: int) -> tuple[str, ...]:
    """Return a note on stock DeepMedic, whose forked processes inherit the same random state."""
    if processes < 1:
        return ()
    return (
        f"num_processes_sampling: {processes} in the file: stock DeepMedic then repeats places of "
        "segments between cases and subepochs; 0 does not, nor does --deepmedic on the fly",
    )


def _told(slot: ExportedSample) -> dict[str, Any]:
    return {
        "case": slot.case,
        "corner": slot.corner,
        "sample": slot.sample,
        "share_of_voxels": slot.centres,
        "provenance": slot.provenance,
    }
