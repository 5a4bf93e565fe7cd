"""Conversion of samples from generators of raw scans into nnU-Net's space, by nnU-Net itself.

A sample is pasted into the scan of its condition, over the voxels it was conditioned on. The scan
is in the scanner's units and in the axes of nnU-Net's reader. It passes nnU-Net's own preprocessor
like a real case, and the generated part is cut out again. So whatever depends on a whole case
equals that of the real one, even if a sample is a crop.
"""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.grid import resample, stored_axes
from gansynth.data.views import SourceView
from gansynth.runtime.errors import DataFault, UsageFault

if TYPE_CHECKING:
    from gansynth_nnunet.source import NnunetSource

BY = "nnU-Net's preprocessor"
READERS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
"""nnU-Net's readers, and whether they reorient to RAS as gansynth's sources do; else they return
(z, y, x) as stored."""
SLAB = 8  # slices of a 2d sample; nnU-Net picks one at each draw
MAX_BYTES = 1 << 30  # limit of scans kept in memory


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

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.image.nbytes + self.labels.nbytes + self.outside.nbytes


class SpaceConverter:
    """Converts samples of a source's space to nnU-Net's; call it on a ``Sample``.

    Raises:
        UsageFault: an unsupported source or reader.
        DataFault: other channels or labels.
    """

    def __init__(self, source: CaseSource, space: Space, host: NnunetSource) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.source = source.base if isinstance(source, SourceView) else source
        self.host, self.space = host, space
        flat = space.generator_schema(self.source.schema).ndim < 3
        check_schema(self.source.schema, host.schema, self.source.name, flat=flat)
        self._order = [self.source.schema.channels.index(c) for c in host.schema.channels]
        reader = str(host.plans.doc.get("image_reader_writer"))
        if reader not in READERS:
            raise UsageFault(
                f"{host.plans.path}: image_reader_writer is {reader}, whose order of axes is "
                f"unknown here; expected one of {', '.join(READERS)}. Fit the generator on "
                f"nnunet:{host.dataset[7:10]}"
            )
        self._reorients = READERS[reader]
        self._plans = PlansManager(dict(host.plans.doc))
        self._config = self._plans.get_configuration(host.configuration)
        with contextlib.redirect_stdout(io.StringIO()):
            self._preprocessor = self._config.preprocessor_class(verbose=False)
        self._scans: OrderedDict[str, RawScan] = OrderedDict()

    def __call__(self, sample: Sample) -> Sample:
        """Preprocess a sample, with its condition's provenance, as nnU-Net does a real case.

        Returns:
            Image float32 (C, D, H, W), labels int16 (D, H, W) with -1 outside: the generated part,
            or a crop of it of about 4/3 of the patch.

        Raises:
            DataFault: no labels, or smaller than both the patch and the case it was drawn for.
        """
        image, labels = self.whole(sample)
        case = Case(sample.provenance["case"], "", image, labels)
        keys = [int(sample.provenance.get(key, 0)) for key in ("seed", "index")]
        cut = Space("crop", tuple(map(min, labels.shape, kept_size(self.host))))
        case = cut.to_generator(case, cut.place(case, np.random.default_rng(keys)))
        provenance = {**sample.provenance, "converted_by": BY}
        return Sample(case.image, case.labels, provenance=provenance)

    def whole(self, sample: Sample) -> tuple[FloatArray, LabelArray]:
        """Return the generated part, preprocessed: image (C, D, H, W) and labels (D, H, W)."""
        if sample.labels is None:
            raise DataFault("sample: no labels, expected them: nnU-Net learns from nothing else")
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
        turned = [
            box[axis] if way > 0 else tuple(labels.shape[axis] - n for n in reversed(box[axis]))
            for axis, way in scan.axes
        ]
        shape, at = arrays.shape[1:], []
        for axis, crop, old, new in zip(
            self._plans.transpose_forward,
            properties["bbox_used_for_cropping"],
            properties["shape_after_cropping_and_before_resampling"],
            shape,
            strict=True,
        ):
            low, high = crop
            first, end = (int(min(max(n, low), high) - low) for n in turned[axis])
            at.append(slice(-(-first * new // old), end * new // old))
        size = tuple(cut.stop - cut.start for cut in at)
        patch = (1, *self.host.patch_size)[-3:]
        if any(n < min(p, w) for n, p, w in zip(size, patch, shape, strict=True)):
            raise DataFault(
                f"sample: size is {size} voxels after {BY}, expected at least the patch {patch} "
                "or the whole case; fit the generator on larger crops: --read size=Z,Y,X"
            )
        # Copies: a crop must not keep the whole case in memory.
        return arrays[(slice(None), *at)].astype(np.float32), seg[0][tuple(at)].astype(np.int16)

    def _paste(
        self, scan: RawScan, sample: Sample, drawn: LabelArray
    ) -> tuple[FloatArray, LabelArray, list[tuple[int, int]]]:
        """Paste a sample into a scan; also return its first and end voxels along D, H, W."""
        corner: tuple[int, ...] = (0,) * 3
        if self.space.grid == "crop" or self.space.frame:
            corner = Placement.from_json(sample.provenance["placement"]).corner
        box = [
            (max(c, 0), min(c + n, whole))
            for c, n, whole in zip(corner, drawn.shape, scan.labels.shape, strict=True)
        ]
        there = tuple(slice(first, end) for first, end in box)
        mine = tuple(slice(f - c, e - c) for (f, e), c in zip(box, corner, strict=True))
        image, labels = scan.image.copy(), scan.labels.copy()
        generated = sample.image[(slice(None), *mine)] * scan.units[:, 0] + scan.units[:, 1]
        labels[there] = drawn[mine]
        # A generator gives almost zeros where a real case has zeros: nnU-Net would neither crop
        # them nor call them outside.
        outside = scan.outside[there] & (labels[there] <= 0)
        image[(slice(None), *there)] = np.where(outside, np.float32(0), generated)
        return image, labels, box

    def scan(self, case_id: str) -> RawScan:
        """Return a scan, from memory or its files."""
        if case_id not in self._scans:
            scan = self._read_scan(case_id)
            while (
                self._scans
                and scan.nbytes + sum(kept.nbytes for kept in self._scans.values()) > MAX_BYTES
            ):
                self._scans.popitem(last=False)
            self._scans[case_id] = scan
        self._scans.move_to_end(case_id)
        return self._scans[case_id]

    def _read_scan(self, case_id: str) -> RawScan:
        """Read a case in its files' units, on the grid of ``load``."""
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

        source = self.source
        files = source.files(case_id)
        if files is None or files.affine is None or files.arrays is None or files.units is None:
            raise UsageFault(
                f"{source.name}: cases of {source.request.kind}: have no way back to whole volumes "
                "as their files hold them. A host's own preprocessing starts from these; expected "
                "a generator fitted on volumes (nnunet-raw:, nifti:, msd:), or on the host's own "
                "cases"
            )
        image, labels = files.arrays()
        if labels is None:
            raise UsageFault(
                f"{source.name}: case {case_id!r} has no labels, expected some for a framework "
                "that learns from them; add label maps"
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


def in_axes(array: npt.NDArray[Any], axes: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """Return an array (..., D, H, W) with these axes, in these directions, instead."""
    lead = array.ndim - 3
    array = array.transpose((*range(lead), *(lead + axis for axis, _ in axes)))
    flips = tuple(lead + i for i, (_, way) in enumerate(axes) if way < 0)
    return np.ascontiguousarray(np.flip(array, flips))


def kept_size(host: NnunetSource) -> tuple[int, ...]:
    """Return the largest size (D, H, W) of a converted sample: 4/3 of the patch; 2d: a slab."""
    size = host.space.size
    return (SLAB, *size) if len(size) == 2 else size


def check_schema(schema: Schema, target: Schema, name: str, *, flat: bool = False) -> None:
    """Refuse channels or labels other than nnU-Net's; the order of channels may differ."""
    if schema.ndim != 3 or flat:
        raise UsageFault(
            f"{name}: the generator makes slices, which nnU-Net's preprocessor cannot put back "
            "into their volume; expected one fitted on volumes, or on nnunet: -c 2d"
        )
    channels, needed = schema.channels, target.channels
    if sorted(channels) != sorted(needed) or len(set(needed)) < len(needed):
        raise DataFault(
            f"{name}: the generator makes the channels {', '.join(channels)}, nnU-Net has "
            f"{', '.join(needed)}; expected the same names, each once. Name them as dataset.json "
            f"does: --read channels={','.join(needed)}"
        )
    produced, labels = (
        {name: value for name, value in each.labels.items() if value} for each in (schema, target)
    )
    if produced != labels:
        raise DataFault(
            f"{name}: the generator makes the labels {produced}, nnU-Net has {labels}; expected "
            "the same names and values. Name them as dataset.json does: --read labels="
            f"{','.join(f'{name}:{value}' for name, value in labels.items())}"
        )
