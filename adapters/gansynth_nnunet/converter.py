"""Conversion of samples from generators of raw scans into nnU-Net's space, by nnU-Net itself.

A sample is pasted into the scan of its condition, over the voxels it was conditioned on. The scan
is in the scanner's units and in the axes of nnU-Net's reader. It passes nnU-Net's own preprocessor
like a real case, and the generated part is cut out again. So whatever depends on a whole case
equals that of the real one, even if a sample is a crop.

Content hashes of two spaces cannot be compared. So ids must be equal: every case that the generator
has seen must be a training case of the fold. Equal ids alone prove nothing. So one of these cases
is converted like a sample, and must equal nnU-Net's own preprocessed case.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth import (
    Case,
    CaseRecord,
    CaseSource,
    DataFault,
    FloatArray,
    IntegrityFault,
    LabelArray,
    Placement,
    Sample,
    Schema,
    Space,
    UsageFault,
    case_records,
    open_source,
)
from gansynth.core.identity import refuse_cases
from gansynth.core.lineage import same_host
from gansynth.data.grid import resample, stored_axes

if TYPE_CHECKING:
    from gansynth import RunFolder
    from gansynth_nnunet.source import NnunetSource

log = logging.getLogger("gansynth")

BY = "nnU-Net's preprocessor"
REORIENT = "WithReorient"  # readers so called reorient to RAS, others return (z, y, x) as stored
READERS = ("SimpleITKIO", "NibabelIO", f"SimpleITKIO{REORIENT}", f"NibabelIO{REORIENT}")
SLAB = 8  # slices of a 2d sample; nnU-Net picks one at each draw
MAX_BYTES = 1 << 30  # limit of scans kept in memory
LABELS_OFF = 1e-3  # largest share of voxels whose labels may differ in a rehearsal
ALIKE = 0.99  # least correlation of each channel
ROUGHLY = 0.7  # least correlation of the best channel if the generator's source has interpolated
SHORTER = 0.05  # largest difference of lengths in that case, unless it is at most two voxels


@dataclass(frozen=True)
class RawScan:
    """A real scan as stored in its files, on the grid of its source's ``load``."""

    image: FloatArray  # float32 (C, D, H, W) in the files' own units: nothing is normalised
    labels: LabelArray  # int16 (D, H, W)
    spacing: tuple[float, ...]  # mm along D, H, W, by the files' headers
    axes: tuple[tuple[int, int], ...]  # axis and direction (1, -1) of each axis of the reader
    units: FloatArray  # float32 (C, 2, 1, 1, 1): factor and offset of each channel
    exact: bool  # whether nothing was interpolated
    outside: npt.NDArray[np.bool_]  # bool (D, H, W), where nnU-Net crops or writes -1


class SpaceConverter:
    """Converts samples of a source's space to nnU-Net's; call it on a ``Sample``."""

    def __init__(self, source: CaseSource, space: Space, host: NnunetSource) -> None:
        self.source = source = unviewed(source)
        self.host, self.space = host, space
        flat = space.generator_schema(self.source.schema).ndim < 3
        check_schema(source.schema, host.schema, source.name, flat=flat)
        self._order = [source.schema.channels.index(c) for c in host.schema.channels]
        reader = str(host.plans.doc.get("image_reader_writer"))
        if reader not in READERS:
            raise UsageFault(
                "nnunet.axis-order-unknown",
                f"{host.plans.path}: image_reader_writer is {reader}, whose order of axes is "
                f"unknown here; expected one of {', '.join(READERS)}. Fit the generator on "
                f"nnunet:{host.dataset[7:10]}",
            )
        self._reorients = reader.endswith(REORIENT)
        self._plans = host.plans.manager
        self._config = self._plans.get_configuration(host.configuration)
        with contextlib.redirect_stdout(io.StringIO()):
            self._preprocessor = self._config.preprocessor_class(verbose=False)
        self._scans: OrderedDict[str, RawScan] = OrderedDict()

    def __call__(self, sample: Sample) -> Sample:
        """Preprocess a sample, with its condition's provenance, as nnU-Net does a real case.

        Returns:
            Image float32 (C, D, H, W), labels int16 (D, H, W) with -1 outside: the generated part,
            or a crop of it of about 4/3 of the patch.
        """
        image, labels = self.whole(sample)
        case = Case(sample.provenance["case"], "", image, labels)
        keys = [int(sample.provenance.get(key, 0)) for key in ("seed", "index")]
        cut = Space("crop", tuple(map(min, labels.shape, kept_size(self.host))))
        case = cut.to_generator(case, cut.place(case, np.random.default_rng(keys)))
        provenance = dict(sample.provenance, converted_by=BY)
        return Sample(case.image, case.labels, provenance=provenance)

    def whole(self, sample: Sample) -> tuple[FloatArray, LabelArray]:
        """Return the generated part, preprocessed: image (C, D, H, W) and labels (D, H, W)."""
        if sample.labels is None:
            raise DataFault(
                "nnunet.sample-without-labels",
                "sample: no labels, expected them: nnU-Net learns from nothing else",
            )
        scan = self.scan(str(sample.provenance["case"]))
        image, labels, box = self._paste(scan, sample, sample.labels)
        with contextlib.redirect_stdout(io.StringIO()):
            arrays, seg, properties = self._preprocessor.run_case_npy(
                in_axes(image[self._order], scan.axes),
                in_axes(labels, scan.axes)[None],
                {"spacing": [scan.spacing[axis] for axis, _ in scan.axes]},
                self._plans,
                self._config,
                dict(self.host.dataset_json),
            )
        # Follow the box through reader, transposition, crop and resampling, to whole voxels.
        turned = []
        for axis, way in scan.axes:
            (first, end), length = box[axis], labels.shape[axis]
            turned.append((first, end) if way > 0 else (length - end, length - first))
        shape, at = arrays.shape[1:], []
        for axis, crop, old, new in zip(
            self._plans.transpose_forward,
            properties["bbox_used_for_cropping"],
            properties["shape_after_cropping_and_before_resampling"],
            shape,
            strict=True,
        ):
            low, high = crop
            first, end = [int(min(max(n, low), high) - low) for n in turned[axis]]
            at.append(slice(-(-first * new // old), end * new // old))
        size = tuple(cut.stop - cut.start for cut in at)
        patch = self.host.patch
        if any(n < min(p, w) for n, p, w in zip(size, patch, shape, strict=True)):
            raise DataFault(
                "nnunet.sample-smaller-than-patch",
                f"sample: size is {size} voxels after {BY}, expected at least the patch {patch} "
                "or the whole case; fit the generator on larger crops: --read size=Z,Y,X",
            )
        # Copies: a crop must not keep the whole case in memory.
        return arrays[(slice(None), *at)].astype(np.float32), seg[0][tuple(at)].astype(np.int16)

    def _paste(
        self, scan: RawScan, sample: Sample, drawn: LabelArray
    ) -> tuple[FloatArray, LabelArray, list[tuple[int, int]]]:
        corner: tuple[int, ...] = (0,) * 3
        if self.space.grid == "crop" or self.space.frame:
            corner = Placement.from_json(sample.provenance["placement"]).corner
        box = [
            (max(c, 0), min(c + n, whole))
            for c, n, whole in zip(corner, drawn.shape, scan.labels.shape, strict=True)
        ]
        there = tuple(slice(first, end) for first, end in box)
        mine = [slice(f - c, e - c) for (f, e), c in zip(box, corner, strict=True)]
        image, labels = scan.image.copy(), scan.labels.copy()
        generated = sample.image[(slice(None), *mine)] * scan.units[:, 0] + scan.units[:, 1]
        labels[there] = drawn[tuple(mine)]
        # A generator gives almost zeros where a real case has zeros: nnU-Net would neither crop
        # them nor call them outside.
        outside = scan.outside[there] & (labels[there] <= 0)
        image[(slice(None), *there)] = np.where(outside, np.float32(0), generated)
        return image, labels, box

    def scan(self, case_id: str) -> RawScan:
        """Return a scan, from memory or its files."""
        if case_id not in self._scans:
            self._scans[case_id] = self._read_scan(case_id)
            while len(self._scans) > 1 and sum(map(_bytes, self._scans.values())) > MAX_BYTES:
                self._scans.popitem(last=False)
        self._scans.move_to_end(case_id)
        return self._scans[case_id]

    def _read_scan(self, case_id: str) -> RawScan:
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

        source = self.source
        files = source.files(case_id)
        if files is None or files.affine is None or files.arrays is None or files.units is None:
            raise UsageFault(
                "nnunet.no-way-back-to-volumes",
                f"{source.name}: cases of {source.request.kind}: have no way back to whole volumes "
                "as their files hold them. A host's own preprocessing starts from these; expected "
                "a generator fitted on volumes (nnunet-raw:, nifti:, msd:), or on the host's own "
                "cases",
            )
        image, labels = files.arrays()
        if labels is None:
            raise UsageFault(
                "nnunet.source-case-without-labels",
                f"{source.name}: case {case_id!r} has no labels, expected some for a framework "
                "that learns from them; add label maps",
            )
        units = np.array(files.units(image), np.float32).reshape(-1, 2, 1, 1, 1)
        old, new = labels.shape, source.header(case_id).shape
        if new != old:
            image, drawn = resample(case_id, image, labels, new)
            labels = drawn if drawn is not None else labels
        spacing = tuple(s * (o / n) for s, o, n in zip(files.spacing, old, new, strict=True))
        # The file's (z, y, x): axes of (x, y, z), counted from the other end.
        axes = tuple((2 - axis, way) for axis, way in reversed(stored_axes(files.affine)))
        if self._reorients:
            axes = ((0, 1), (1, 1), (2, 1))
        return RawScan(image, labels, spacing, axes, units, new == old, ~create_nonzero_mask(image))


def _bytes(scan: RawScan) -> int:
    return scan.image.nbytes + scan.labels.nbytes + scan.outside.nbytes


def unviewed(source: CaseSource) -> CaseSource:
    """Return a source as its files have it, its channels named as a view names them."""
    view = source.request.view
    if not view:
        return source
    names = {key: view[key] for key in ("names",) if key in view}
    return open_source(replace(source.request, view=names))


def in_axes(array: npt.NDArray[Any], axes: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """Return an array (..., D, H, W) with these axes, in these directions, instead."""
    lead = array.ndim - 3
    array = array.transpose([*range(lead)] + [lead + axis for axis, _ in axes])
    flips = [lead + i for i, (_, way) in enumerate(axes) if way < 0]
    return np.ascontiguousarray(np.flip(array, tuple(flips)))


def kept_size(host: NnunetSource) -> tuple[int, ...]:
    """Return the largest size (D, H, W) of a converted sample: 4/3 of the patch; 2d: a slab."""
    size = host.space.size
    return (SLAB, *size) if len(size) == 2 else size


def check_schema(schema: Schema, target: Schema, name: str, *, flat: bool = False) -> None:
    """Refuse channels or labels other than nnU-Net's; the order of channels may differ."""
    if schema.ndim != 3 or flat:
        raise UsageFault(
            "nnunet.generator-makes-slices",
            f"{name}: the generator makes slices, which nnU-Net's preprocessor cannot put back "
            "into their volume; expected one fitted on volumes, or on nnunet: -c 2d",
        )
    channels, needed = schema.channels, target.channels
    labels = {name: value for name, value in schema.labels.items() if value}
    wanted = {name: value for name, value in target.labels.items() if value}
    if sorted(channels) != sorted(needed) or len(set(needed)) < len(needed) or labels != wanted:
        named = ",".join([f"{label}:{value}" for label, value in wanted.items()])
        raise DataFault(
            "nnunet.generator-channels-or-labels-differ",
            f"{name}: the generator makes the channels {', '.join(channels)} and the labels "
            f"{labels}, nnU-Net has {', '.join(needed)} and {wanted}; expected the same, each "
            f"once. Name them as dataset.json does: --read channels={','.join(needed)} --read "
            f"labels={named}",
        )


# -- checks before a training ----------------------------------------------------------------------


def converts(host: Mapping[str, Any], source: NnunetSource) -> bool:
    """Whether samples must be converted: their generator was not fitted on nnU-Net's cases."""
    return not same_host(host, source.space.host) and "plans" not in host


def drawn_size(source: NnunetSource, manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the largest size (D, H, W) of a run's samples in nnU-Net's voxels, or the patch."""
    foreign = converts(manifest["lineage"]["host"], source)
    size = kept_size(source) if foreign else manifest["space"]["size"]
    return (1, *size)[-3:] if size else source.patch


def sample_bytes(source: NnunetSource, size: Sequence[int], width: int) -> int:
    """Return an upper bound of a sample's bytes, by its size and the bytes of a value."""
    voxels = int(np.prod(np.maximum(size, source.patch)))
    schema = source.schema
    return voxels * (len(schema.channels) * width + 2) + 8000 * (len(schema.labels) + 1)


def check_converter(
    run: RunFolder, host: NnunetSource, held_out: Sequence[CaseRecord]
) -> dict[str, Any]:
    """Check a generator of raw scans; return the converter's name, and seconds per sample."""
    request = replace(run.request, root=run.request.root or host.request.root)
    source = unviewed(open_source(request))
    check_seen(run, source, host, held_out)
    SpaceConverter(source, run.space, host)  # checks that it is possible at all
    seconds = rehearse(run.folder, source, run.space, host, run.lineage.cases[0].id)
    log.info("%s: samples are converted by %s, in about %.2f s each", run.folder, BY, seconds)
    return {"by": BY, "seconds": round(seconds, 3)}


def check_seen(
    run: RunFolder, source: CaseSource, host: CaseSource, held_out: Sequence[CaseRecord]
) -> None:
    """Refuse a generator that has seen other cases than training cases of the fold.

    By id, and by content as far as ``source`` has the held-out scans. Ancestors may have seen other
    data sets; ``check_samples`` has compared the held-out cases.
    """
    lineage, training = run.lineage, set(host.train_ids) - {record.id for record in held_out}
    for parent_run in lineage.everyone():
        unknown = sorted({case.id for case in parent_run.cases} - training)
        if unknown and parent_run.dataset == lineage.dataset:
            raise IntegrityFault(
                "nnunet.generator-saw-other-cases",
                f"leakage: {run.folder}: the generator has seen {len(unknown)} case(s) of "
                f"{parent_run.dataset} that are no training cases of {host.name} fold "
                f"{host.request.fold}, {unknown[0]!r} first; expected training cases only, under "
                "the same ids. Give both data sets the same ids and split, or fit the generator on "
                f"{host.request.kind}:{host.request.where}",
            )
    there = {*source.train_ids, *source.held_out_ids}
    ids = [record.id for record in held_out if record.id in there]
    refuse_cases(lineage, case_records(source, ids))
    if len(ids) < len(held_out):
        log.warning(
            "%s: %d of %d held-out cases are not in %s; whether the generator has seen one of them "
            "under another id cannot be checked",
            lineage.dataset,
            len(held_out) - len(ids),
            len(held_out),
            source.name,
        )


def rehearse(
    folder: Path, source: CaseSource, space: Space, host: NnunetSource, case_id: str
) -> float:
    """Convert a real case like a sample, and compare it with nnU-Net's own.

    Returns the seconds it took, including reading the scan.
    """
    case = source.load(case_id)
    convert = SpaceConverter(source, Space(), host)
    began = time.perf_counter()
    image, labels = convert.whole(Sample(case.image, case.labels, provenance={"case": case_id}))
    seconds = time.perf_counter() - began
    converted = Case(case_id, "", image, labels)
    problem = _difference(converted, host.load(case_id), convert.scan(case_id).exact)
    if problem:
        raise DataFault(
            "nnunet.converted-case-differs",
            f"{folder}: case {case_id!r} of {source.name}, converted by {BY}, is not the one in "
            f"{host.folder}: {problem}; expected the same scan. Fit the generator on the files "
            "that nnU-Net was given, or preprocess them again",
        )
    if space.grid == "crop" or space.frame:  # crops that nnU-Net would have to pad are refused
        placement = space.centre(case)
        plain = replace(space, window=None)
        cut = plain.to_generator(case, placement)
        provenance = {"case": case.id, "placement": placement.to_json()}
        sample = plain.to_host(Sample(cut.image, cut.labels, provenance=provenance))
        try:
            SpaceConverter(source, space, host).whole(sample)
        except DataFault as fault:
            raise UsageFault("nnunet.samples-smaller-than-patch", f"{folder}: {fault}") from fault
    return seconds


def _difference(converted: Case, expected: Case, exact: bool) -> str:
    assert converted.labels is not None
    assert expected.labels is not None
    shapes = converted.labels.shape, expected.labels.shape
    slack = [0 if exact else max(2, round(SHORTER * n)) for n in shapes[1]]
    if any(abs(a - b) > s for a, b, s in zip(*shapes, slack, strict=True)):
        return f"its shape is {shapes[0]}, not {shapes[1]}"
    image = (
        converted.image if exact else resample(converted.id, converted.image, None, shapes[1])[0]
    )
    off = float(np.mean(converted.labels != expected.labels)) if exact else 0
    if off > LABELS_OFF:
        return f"labels differ in {off:.1%} of the voxels"
    alike = []
    for a, b in zip(image, expected.image, strict=True):
        varies = a.std() > 0 < b.std()  # constant channels are alike if both are
        alike.append(np.corrcoef(a.ravel(), b.ravel())[0, 1] if varies else a.std() == b.std())
    least, limit = (min(alike), ALIKE) if exact else (max(alike), ROUGHLY)
    return "" if least >= limit else f"images correlate with {least:.2f} only"
