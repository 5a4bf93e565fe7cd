"""``check_writer``: conformance checks of a format of samples, on toy cases."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gansynth.core.case_pool import TrainingCases
from gansynth.core.conformance import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.core.writer import Item, Writer
from gansynth.data.batches import CaseCache
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.deidentify import REPEATED, SharedSamples
from gansynth.sampling.writing import check_writer as check_writer_request
from gansynth.sampling.writing import intensities_of, write
from gansynth.testing.toy import ToySource

PERSON = "Mustermann_0042"
"""The case that every item comes from, which no file for sharing may name."""
CASES = 3


def check_writer(
    cls: type[Writer], *, options: Mapping[str, Any] | None = None, ndim: Sequence[int] = (3, 2)
) -> ConformanceReport:
    """Write toy cases in a format, for each of its numbers of axes.

    They are as from a run, with boxes if the format needs them. Where the class names its
    ``reader``, the folder is read back.
    """
    report = ConformanceReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        if axes == 3 and 3 not in cls.ndim:
            continue
        with TemporaryDirectory() as folder:
            bench = _Bench(cls, cls.Options(**dict(options or {})), axes, Path(folder))
            if report.run(f"{axes}d: writes, with the mark", bench.writes):
                for name in ("same_bytes_twice", "whole_or_nothing", "names_no_case", "round_trip"):
                    report.run(f"{axes}d: {name.replace('_', ' ')}", getattr(bench, name))
    return report


class _Bench:
    def __init__(self, cls: type[Writer], options: Any, axes: int, folder: Path) -> None:
        self.cls, self.options, self.folder = cls, options, folder
        self.source = ToySource(axes, boxes="boxes" in cls.needs)
        self.schema = self.source.schema
        try:
            check_writer_request(cls, options, self.schema, "toys")
        except UsageFault:  # a format of one channel
            self.schema = replace(self.schema, channels=self.schema.channels[:1])

    def items(self, fault: bool = False) -> Iterator[Item]:
        for number, case in enumerate(map(self.source.load, self.source.train_ids[:CASES])):
            if fault and number == 1:
                raise ZeroDivisionError
            facts = {"index": number, "seed": 1, "case": PERSON, REPEATED: 0.0, "class": PERSON}
            image = case.image[: len(self.schema.channels)]
            # Files for sharing are refused if they show a training case.
            grain = np.random.default_rng(number).normal(0, image.std() / 2, image.shape)
            image = image + grain.astype(np.float32)
            yield Item(f"sample-{number:04d}", image, case.labels, case.boxes, facts=facts)

    def write(self, name: str, **how: Any) -> Path:
        out, items = self.folder / name, how.pop("items", None) or self.items()
        cases, schema = TrainingCases(CaseCache(self.source)), self.schema
        intensities = intensities_of(cases)[: len(schema.channels)]
        how["made"] = {"normalised": True}
        write(
            lambda f: self.cls(f, schema, self.options, lambda: intensities),
            items,
            schema,
            out,
            **how,
        )
        return out

    def writes(self) -> None:
        self.write("once")

    def same_bytes_twice(self) -> None:
        one, two = _contents(self.folder / "once"), _contents(self.write("twice"))
        changed = sorted(path for path in one.keys() | two if one.get(path) != two.get(path))
        if changed:
            raise CheckFailed(f"{changed[0]} differs the second time, expected equal bytes")

    def whole_or_nothing(self) -> None:
        try:
            self.write("broken", items=self.items(fault=True))
        except ZeroDivisionError:
            if list(self.folder.glob("*broken*")):
                raise CheckFailed("a fault in the second case leaves files behind") from None

    def names_no_case(self) -> None:
        lineage = Lineage("nifti:toys", "0", (CaseRecord(PERSON, PERSON, "0" * 64),))
        maker, record = {"run": "0", "generator": "toy"}, self.folder / "record.json"
        how = (lineage, maker, record, NullReporter())
        shared = SharedSamples(self.folder / "shared", self.source, None, *how)
        for path, data in _contents(self.write("shared", shared=shared)).items():
            if PERSON in path or PERSON.encode() in data:
                raise CheckFailed(f"{path} names the case {PERSON}, expected no case for sharing")

    def round_trip(self) -> None:
        if not self.cls.reader:
            raise CheckSkipped("names no source that reads its folder")
        where = str(self.folder / "once")
        request = SourceRequest(self.cls.reader, where, fold="all", synthetic="run")
        opener = installed().load("sources", self.cls.reader)
        source = opener(request)
        cases, channels = list(map(source.load, source.train_ids)), len(source.schema.channels)
        try:
            real = opener(replace(request, synthetic=None))
            list(map(real.load, real.train_ids))
        except IntegrityFault:
            pass
        else:
            raise CheckFailed(f"{self.cls.reader}: reads generated cases as real ones")
        if len(cases) != CASES or channels != len(self.schema.channels):
            raise CheckFailed(
                f"{self.cls.reader}: reads {len(cases)} cases of {channels} channel(s), expected "
                f"{CASES} of {len(self.schema.channels)}"
            )
        for item, case in zip(self.items(), cases, strict=True):
            if case.labels is None:
                continue
            written = item.labels if (case.labels < 0).any() else item.mask
            if written is None or (case.labels.ravel() != written.ravel()).any():
                raise CheckFailed(f"{case.id}: the label map read back is not that written")


def _contents(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted([path for path in folder.rglob("*") if path.is_file()]):
        data = path.read_bytes()
        files[str(path.relative_to(folder))] = (
            gzip.decompress(data) if path.suffix == ".gz" else data
        )
    return files
