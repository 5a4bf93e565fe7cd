"""Conversion of samples from generators of raw scans into nnU-Net's space, by nnU-Net itself.

A sample is pasted into the scan of its condition, over the voxels it was conditioned on. The scan
is in the scanner's units and in the axes of nnU-Net's reader. It passes nnU-Net's own preprocessor
like a real case, and the generated part is cut out again. So whatever depends on a whole case
equals that of the real one, even if a sample is a crop.

Axes: gansynth's volume sources return (z, y, x) after reorientation to RAS. So do nnU-Net's
``...WithReorient`` readers; SimpleITKIO and NibabelIO return (z, y, x) as stored.
"""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
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
STORED = ("SimpleITKIO", "NibabelIO")  # nnU-Net's readers that keep the axes of a file
TURNED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
"""nnU-Net's readers that reorient to RAS, as gansynth's sources do."""
SLAB = 8  # slices of a 2d sample; nnU-Net picks one at each draw
MAX_BYTES = 1 << 30  # limit of scans kept in memory

Box = tuple[tuple[int, int], ...]  # first and end voxel along D, H, W


@dataclass(frozen=True)
class RawScan:
    """A real scan as stored in its files, on the grid of its source's ``load``."""

    image: FloatArray  # float32 (C, D, H, W) in the files' own units: nothing is normalised
    labels: LabelArray  # int16 (D, H, W)
    spacing: tuple[float, ...]  # mm along D, H, W, by the files' headers
    stored: tuple[tuple[int, int], ...]  # see ``stored_axes``
    units: tuple[tuple[float, float], ...]  # of each channel: see ``StoredCase.units``
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
        self._turned = _reader(host) in TURNED
        self._plans = PlansManager(dict(host.plans.doc))
        self._config = self._plans.get_configuration(host.configuration)
        with _quiet():
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
        size = self._size(labels.shape)
        cut = Space("crop", size)
        case = cut.to_generator(case, cut.place(case, np.random.default_rng(keys)))
        provenance = {**sample.provenance, "converted_by": BY}
        return Sample(case.image, case.labels, provenance=provenance)

    def whole(self, sample: Sample) -> tuple[FloatArray, LabelArray]:
        """Return the generated part, preprocessed: image (C, D, H, W) and labels (D, H, W)."""
        if sample.labels is None:
            raise DataFault("sample: no labels, expected them: nnU-Net learns from nothing else")
        scan = self.scan(str(sample.provenance["case"]))
        image, labels, box = self._pasted(scan, sample, sample.labels)
        arrays, seg, properties = self._preprocess(image, labels, scan)
        box = _through(box, properties, self._plans.transpose_forward, arrays.shape[1:])
        at = tuple(slice(first, end) for first, end in box)
        self._refuse_small(tuple(end - first for first, end in box), arrays.shape[1:])
        # Copies: a crop must not keep the whole case in memory.
        return arrays[(slice(None), *at)].astype(np.float32), seg[0][at].astype(np.int16)

    def _preprocess(
        self, image: FloatArray, labels: LabelArray, scan: RawScan
    ) -> tuple[FloatArray, LabelArray, Mapping[str, Any]]:
        """Run nnU-Net's own ``run_case_npy``; arrays as its reader returns them."""
        spacing = list(scan.spacing if self._turned else stored_spacing(scan))
        with _quiet():
            arrays, seg, properties = self._preprocessor.run_case_npy(
                image,
                labels[None],
                {"spacing": spacing},
                self._plans,
                self._config,
                dict(self.host.dataset_json),
            )
        return arrays, seg, properties

    def _pasted(
        self, scan: RawScan, sample: Sample, labels: LabelArray
    ) -> tuple[FloatArray, LabelArray, Box]:
        """Paste a sample into a scan, in the reader's axes; also return its box."""
        shape = scan.labels.shape
        corner = (0,) * len(shape)
        if self.space.grid == "crop" or self.space.frame:
            corner = Placement.from_json(sample.provenance["placement"]).corner
        ends = [c + n for c, n in zip(corner, labels.shape, strict=True)]
        box = tuple((max(c, 0), min(e, n)) for c, e, n in zip(corner, ends, shape, strict=True))
        there = tuple(slice(first, end) for first, end in box)
        mine = tuple(slice(f - c, e - c) for (f, e), c in zip(box, corner, strict=True))
        image, seg = scan.image.copy(), scan.labels.copy()
        units = np.array(scan.units, np.float32).reshape(-1, 2, 1, 1, 1)
        generated = sample.image[(slice(None), *mine)] * units[:, 0] + units[:, 1]
        seg[there] = labels[mine]
        # A generator gives almost zeros where a real case has zeros: nnU-Net would neither crop
        # them nor call them outside.
        outside = scan.outside[there] & (seg[there] <= 0)
        image[(slice(None), *there)] = np.where(outside, np.float32(0), generated)
        image = image[self._order]
        if self._turned:
            return image, seg, box
        turned = tuple(
            (box[axis] if way > 0 else (shape[axis] - box[axis][1], shape[axis] - box[axis][0]))
            for axis, way in _array_axes(scan.stored)
        )
        return as_stored(image, scan.stored), as_stored(seg, scan.stored), turned

    def scan(self, case_id: str) -> RawScan:
        """Return a scan, from memory or its files."""
        if case_id not in self._scans:
            scan = read_scan(self.source, case_id)
            while self._scans and _bytes(self._scans) + scan.nbytes > MAX_BYTES:
                self._scans.popitem(last=False)
            self._scans[case_id] = scan
        self._scans.move_to_end(case_id)
        return self._scans[case_id]

    # -- sizes -----------------------------------------------------------------------------------

    def _size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of a converted sample: 4/3 of the patch, or all if it is smaller."""
        return tuple(min(n, m) for n, m in zip(shape, kept_size(self.host), strict=True))

    def _refuse_small(self, size: Sequence[int], whole: Sequence[int]) -> None:
        """Refuse a part that nnU-Net would pad although it would not pad the real case."""
        patch = self.host.patch_size
        patch = (1, *patch) if len(patch) == 2 else patch
        if any(n < min(p, w) for n, p, w in zip(size, patch, whole, strict=True)):
            raise DataFault(
                f"sample: size is {tuple(size)} voxels after {BY}, expected at least the patch "
                f"{tuple(patch)} or the whole case; fit the generator on larger crops: "
                "--read size=Z,Y,X"
            )


def read_scan(source: CaseSource, case_id: str) -> RawScan:
    """Read a case in its files' units, on the grid of ``load``; UsageFault: it has no such "
    "files."""
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    files = source.files(case_id)
    if files is None or files.affine is None or files.arrays is None or files.units is None:
        raise UsageFault(
            f"{source.name}: cases of {source.request.kind}: have no way back to whole volumes as "
            "their files hold them. A host's own preprocessing starts from these; expected a "
            "generator fitted on volumes (nnunet-raw:, nifti:, msd:), or on the host's own cases"
        )
    image, labels = files.arrays()
    if labels is None:
        raise UsageFault(
            f"{source.name}: case {case_id!r} has no labels, expected some for a framework that "
            "learns from them; add label maps"
        )
    units, old, new = files.units(image), labels.shape, source.header(case_id).shape
    if new != old:
        image, drawn = resample(case_id, image, labels, new)
        labels = drawn if drawn is not None else labels
    spacing = tuple(s * (o / n) for s, o, n in zip(files.spacing, old, new, strict=True))
    outside = ~create_nonzero_mask(image)
    stored = stored_axes(files.affine)
    return RawScan(image, labels, spacing, stored, units, new == old, outside)


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
    produced = {name: value for name, value in schema.labels.items() if value}
    labels = {name: value for name, value in target.labels.items() if value}
    if produced != labels:
        raise DataFault(
            f"{name}: the generator makes the labels {produced}, nnU-Net has {labels}; expected "
            "the same names and values. Name them as dataset.json does: --read labels="
            f"{','.join(f'{name}:{value}' for name, value in labels.items())}"
        )


# -- axes ----------------------------------------------------------------------------------------


def as_stored(array: npt.NDArray[Any], stored: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """Return an array (..., z, y, x) of RAS in the axes of its file, also (..., z, y, x)."""
    lead = array.ndim - 3
    axes = _array_axes(stored)
    array = array.transpose((*range(lead), *(lead + axis for axis, _ in axes)))
    flips = tuple(lead + i for i, (_, way) in enumerate(axes) if way < 0)
    return np.ascontiguousarray(np.flip(array, flips))


def stored_spacing(scan: RawScan) -> tuple[float, ...]:
    """Return the voxel size in mm of ``as_stored`` arrays, along (z, y, x) of the file."""
    return tuple(scan.spacing[axis] for axis, _ in _array_axes(scan.stored))


def _array_axes(stored: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Map the file's axes (z, y, x) to axes of a (z, y, x) array, with directions."""
    return [(2 - axis, way) for axis, way in reversed(stored)]


def _through(
    box: Box, properties: Mapping[str, Any], forward: Sequence[int], shape: Sequence[int]
) -> Box:
    """Map a box through nnU-Net's transposition, crop and resampling, to whole voxels."""
    mapped = []
    old = properties["shape_after_cropping_and_before_resampling"]
    crop = properties["bbox_used_for_cropping"]
    for axis, (low, high), n, m in zip(forward, crop, old, shape, strict=True):
        first, end = (int(min(max(v, low), high) - low) for v in box[axis])
        mapped.append((-(-first * m // n), end * m // n))
    return tuple(mapped)


def _reader(host: NnunetSource) -> str:
    """Return the name of the reader in nnU-Net's plans; refuse one with unknown axes."""
    name = str(host.plans.doc.get("image_reader_writer"))
    if name not in (*STORED, *TURNED):
        raise UsageFault(
            f"{host.plans.path}: image_reader_writer is {name}, whose order of axes is unknown "
            f"here; expected one of {', '.join((*STORED, *TURNED))}. Fit the generator on "
            f"nnunet:{host.dataset[7:10]}"
        )
    return name


def _bytes(scans: Mapping[str, RawScan]) -> int:
    return sum(scan.nbytes for scan in scans.values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress nnU-Net's output for every case."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
