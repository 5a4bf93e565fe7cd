"""``gansynth augment --target deepmedic --export DIR``: a folder that stock DeepMedic trains on.

Real cases stay in place; each sample is inserted into its real case. Stock DeepMedic takes segments
from anywhere in the region of interest, so that of a synthetic case is limited to the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gansynth import (
    BankReader,
    DataFault,
    DataSetExport,
    Item,
    Sample,
    UsageFault,
    Writer,
    write_json_atomic,
)
from gansynth_deepmedic.check import refuse_unusable, samplings_of
from gansynth_deepmedic.insertion import HostCase, insert, misfit, position_of
from gansynth_deepmedic.layout import (
    ENDING,
    ROI,
    TRAIN,
    moved,
    read_host,
    training_cases,
    write_case,
    write_layout,
    write_volume,
)
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare, share_on_disk

MANIFEST = "manifest.json"
SLOTS = "synth"  # folder of the slots
SPARE = 16  # one spare crop for this many, as a crop may have no room for a segment
TIMES = 2  # usual limit of a case's size as float32, relative to the user's files
USUAL_OUTPUT, USUAL_SEGMENT = 21, 37
"""Voxels along an axis of output and segment of DeepMedic's example network. They define the border
if the network is unknown, but at most a quarter of an axis at each end.
"""
NOT_ANONYMOUS = (
    "synthetic cases are not anonymous: a real training case surrounds each sample. The lists "
    "also name real cases by their paths: do not move those, or this folder"
)


class DeepMedicExport(DataSetExport):
    """Real cases in place, each sample inserted into its real case, and the lists of both."""

    notes: ClassVar[Mapping[str, str]] = {"mixed": NOT_ANONYMOUS}
    source: DeepMedicSource
    share: SubepochShare  # cases and segments of every subepoch

    def folder_for(self, name: str) -> Path:
        if self.content == "synthetic":
            raise UsageFault(
                "deepmedic.synthetic-cases-disclose-real",
                "--content synthetic: synthetic cases of DeepMedic contain real training cases, "
                "which such data would disclose; expected mixed. Leave --content out",
            )
        return self.new_folder(name)

    def check_order(self) -> None:
        super().check_order()
        refuse_unusable(self.source, self.source.model, mixed=True)
        (self.sampling,) = samplings_of(self.source.config, self.source.model, "train")

    def measure(self) -> int:
        largest = 0
        for case in self.source.config.train:
            largest = max(largest, sum([file.stat().st_size for file in case.everything]))
        return min(TIMES * largest, self._volume_bytes())

    def _volume_bytes(self) -> int:
        """Return the bytes of the largest case in memory: images float32, labels and region."""
        voxels = [prod(self.source.header(case).shape) for case in self.source.train_ids]
        return max(voxels) * (4 * len(self.source.config.channels) + 4)

    def unsaid(self) -> int:
        return self.source.config.cases

    def count(self, alone: int | None) -> tuple[int, int]:
        config, real = self.source.config, len(self.source.train_ids)
        cases = config.cases if alone is None else alone
        share = share_on_disk(real, self.request.mix.ratio, cases, config.segments, config.batch)
        if alone is not None:
            text = "as many as a subepoch loads by the file; ask for another number with "
            text += "--bank-size"
            if self.size is not None:
                text = f"--bank-size {self.size}"
            elif self.request.bank is not None:
                text = "all that the bank holds"
            count = f"{cases} synthetic case(s) and no real one: {text}"
            share = replace(share, repeats=0, notes=(count, *share.notes))
        self.share = share
        assert share.synthetic is not None, "constant on disk"
        return share.repeats, share.synthetic

    @property
    def drawn(self) -> int:
        whole = self.manifest is None or self.manifest["space"]["grid"] in ("native", "resample")
        return self.samples if whole else self.samples + ceil(self.samples / SPARE)

    def room(self) -> int:
        real = len(self.source.train_ids) if self.request.real_in_generator_space else 0
        needed = (self.samples + real) * self.sample_bytes
        if self.manifest is None:
            return needed
        space, size = self.manifest["space"], self._volume_bytes()
        if space["grid"] == "crop":
            size = prod(space["size"]) * (4 * len(self.source.config.channels) + 2)
        return needed + self.drawn * size

    def describe(self) -> dict[str, Any]:
        cases, segments = self.share.described
        listed, processes = cases["real"], self.source.config.processes
        said = list(self.share.notes)
        if processes > 0:  # forks inherit one random state
            said.append(
                f"num_processes_sampling: {processes} in the file: stock DeepMedic then repeats "
                "places of segments between cases and subepochs; 0 does not, nor does --deepmedic "
                "on the fly"
            )
        document = super().describe()
        document |= {
            "realised": f"{listed}:{self.samples}",
            "cases_per_subepoch": cases,
            "segments_per_subepoch": segments,
            "real_cases": len(self.source.train_ids) if listed else 0,
            "real_in_generator_space": self.request.real_in_generator_space,
            "said": said,
            "then": f"deepMedicRun -model MODEL -train {self.folder / TRAIN}",
        }
        return document

    def begin(self, folder: Path) -> Writer:
        cases = training_cases(self.source, self.request, folder, self.reporter)
        self.writer = _SlotWriter(folder, self, cases, self.patches)
        return self.writer

    def items(self, reader: BankReader) -> Iterator[Item]:
        with self.reporter.task(self.samples, "write") as bar:
            for sample in map(reader.read, reader.ids()):
                done, image = len(self.writer.slots), np.asarray(sample.image)
                yield Item(sample.id, image, sample.labels, facts=dict(sample.provenance))
                bar.advance(len(self.writer.slots) - done)
                if len(self.writer.slots) == self.samples:
                    return

    def made(self, reader: BankReader, rejected: Mapping[str, Any]) -> dict[str, Any]:
        self.patches = False
        for sample in reader.ids():
            seat = position_of(reader.read(sample).provenance)
            if seat is not None and seat.corner is not None:
                self.patches = True
                break
        description = self.describe()
        del description["record"]
        description["train_config_of"] = str(self.source.config.path)
        return super().made(reader, rejected) | description


class _SlotWriter(Writer):
    """Writes the files of every slot, until there are enough of them, then the lists.

    ``cases``: the real training cases. ``patches``: whether some sample is a patch, to which
    segments must be restricted, so that real cases, too, get a region of interest.
    """

    name = "deepmedic"
    ndim = frozenset({3})
    needs = frozenset({"labels"})

    def __init__(
        self, folder: Path, export: DeepMedicExport, cases: Sequence[HostCase], patches: bool
    ) -> None:
        super().__init__(folder, export.source.schema)
        self.export, self.cases, self.patches = export, {case.id: case for case in cases}, patches
        self.slots: dict[str, dict[str, Any]] = {}  # name -> what the manifest says of it
        self.written: list[HostCase] = []  # the case of each slot
        self.left_out = Counter[str]()  # why -> how many samples were left out
        self._read = lru_cache(maxsize=1)(lambda case_id: read_host(self.cases[case_id]))

    def add(self, item: Item) -> None:
        source, home = self.export.source, self.folder / SLOTS / f"slot_{len(self.slots):04d}"
        sample = Sample(item.image, item.labels, provenance=item.facts)
        seat = position_of(item.facts)
        if seat is None or misfit(self.cases, sample):
            self.left_out["has no place in a training case"] += 1
            return
        case = self.cases[seat.case]
        made = insert(case, self._read(case.id), sample)
        allowed = np.ones(made.labels.shape, np.int16) if made.roi is None else made.roi
        if made.core is not None:
            allowed = np.where(made.core, allowed, np.int16(0))
        centres = self.export.sampling.centres(made.labels, allowed)
        if source.model is None:  # the border that the usual network needs
            usual = ((USUAL_OUTPUT if source.config.pad else USUAL_SEGMENT) - 1) // 2
            inner = np.zeros_like(centres)
            borders = [(min(usual, n // 4), n) for n in centres.shape]
            inner[tuple([slice(border, n - border) for border, n in borders])] = True
            centres &= inner
        if not centres.any():
            self.left_out["leaves no place for a segment"] += 1
            return
        made = replace(made, roi=allowed) if self.patches else made
        self.written.append(write_case(home, source, case, made, synthetic=True))
        self.slots[home.name] = {
            "case": case.id,
            "corner": seat.corner,
            "sample": item.name,
            "share_of_voxels": float(centres.mean()),
            "provenance": dict(item.facts),
        }

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        export, folder = self.export, self.folder
        if len(self.slots) < export.samples:
            reasons = [f"{n} {why}" for why, n in self.left_out.most_common()]
            raise DataFault(
                "deepmedic.too-few-samples-become-cases",
                f"{export.request.bank or export.request.run}: {len(self.slots)} of "
                f"{len(self.slots) + self.left_out.total()} samples can become cases, expected "
                f"{export.samples}; left out: {', '.join(reasons) or 'none'}. Ask for fewer with "
                "--ratio, or take another generator or bank",
            )
        cases = list(self.cases.values())
        if self.patches and all(case.roi is None for case in cases):
            for number, case in enumerate(cases):  # full regions of interest, one file per shape
                shape = tuple([case.shape[2 - axis] for axis, _ in case.stored])
                file = folder / ROI / f"all_{'x'.join(map(str, shape))}{ENDING}"
                if not file.exists():
                    write_volume(file, np.ones(shape, np.int16), case.labels)
                cases[number] = replace(case, roi=str(file))
        listed = [*cases * export.repeats, *self.written]
        listed = [moved(case, folder, export.folder) for case in listed]
        values = dict(export.share.values, folderForOutput=str(export.folder / "output"))
        changed = write_layout(export.source, folder, listed, values, home=export.folder)
        where = "where the sample is, by their regions of interest"
        report = {
            "segments_of": "synthetic cases are centred "
            f"{where if self.patches else 'anywhere, as of real cases'}",
            "left_out": dict(self.left_out),
            "changed": changed,
        }
        manifest = dict(about) | report
        manifest["slots"] = self.slots
        write_json_atomic(folder / MANIFEST, manifest)
        return report
