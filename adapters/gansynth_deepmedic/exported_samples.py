"""Synthetic cases on disk: each sample in its real case, and the allowed centres of segments.

Stock DeepMedic takes segments from anywhere in the region of interest. For R:S of segments, a
synthetic case must give synthetic segments. So its region of interest is limited to the sample. If
DeepMedic normalises over that region, its sampling maps are limited instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.schema import Sample
from gansynth.core.writer import Item, Writer
from gansynth.hosts.export import DataSetExport
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase, insert, position_of
from gansynth_deepmedic.layout import (
    ENDING,
    MAP,
    SyntheticAdditions,
    affine_of,
    folder_names,
    nifti,
    read_host,
    slot_folder,
    stored_shape,
    write_case,
)
from gansynth_deepmedic.sampling_maps import Allowed, SamplingMaps
from gansynth_deepmedic.source import DeepMedicSource

MAPS, ROIS = "maps", "roi"  # folders of additional files of real cases
_AUGMENTED, _ORDER = "augm_img_prms_tr", "interp_order_wmaps"
OUTPUT = "output"
OF_ITS_OWN = "results apart from those of a training on real cases only"


class SlotExport(DataSetExport):
    """An export of synthetic cases as slots."""

    source: DeepMedicSource
    sampling: SamplingMaps  # how segments are sampled

    @property
    def real(self) -> int:
        """Real training cases, each counted once."""
        return len(self.source.train_ids) if self.repeats else 0

    @property
    def restricted(self) -> Literal["roi", "maps"]:
        """How the centres of segments of a synthetic case are restricted.

        DeepMedic takes segments from the region of interest. If it normalises images over that
        region, changing the region would change the images.
        """
        return "maps" if any(self.source.config.normalised) else "roi"


@dataclass(frozen=True)
class ExportedSample:
    """A synthetic case on disk."""

    name: str  # of its folder
    case: str  # the real one around it
    sample: str  # id in the bank
    # first voxel (D, H, W) of the sample in that case; None for a whole volume
    corner: tuple[int, int, int] | None
    centres: float  # share of the case's voxels that are allowed centres
    largest: int  # see ``SamplingMaps.largest``
    lacking: tuple[int, ...]  # channels that the real case lacks
    provenance: dict[str, Any]  # of the sample


class SlotWriter(Writer):
    """Writes the files of every slot, until there are enough of them.

    ``cases``: the real training cases. ``patches``: whether real cases, too, get a region of
    interest or sampling maps, as some sample is a patch.
    """

    name = "deepmedic"
    ndim = frozenset({3})
    needs = frozenset({"labels"})

    def __init__(
        self, folder: Path, export: SlotExport, cases: Sequence[HostCase], patches: bool
    ) -> None:
        super().__init__(folder, export.source.schema)
        self.export, self.cases, self.patches = export, cases, patches
        self.slots: list[ExportedSample] = []
        self.left_out = Counter[str]()  # why -> how many samples were left out
        self._index = {case.id: case for case in cases}
        self._read = lru_cache(maxsize=1)(lambda case_id: read_host(self._index[case_id]))

    def add(self, item: Item) -> None:
        """Write one slot, unless the sample fits no case or leaves no place for a segment."""
        sample = Sample(item.image, item.labels, provenance=item.facts)
        seat = position_of(item.facts)
        if seat is None or seat.case not in self._index:
            self.left_out["has no place in a training case"] += 1
            return
        case, export = self._index[seat.case], self.export
        try:
            made = insert(case, self._read(seat.case), sample)
        except DataFault:
            self.left_out["does not fit its case"] += 1
            return
        allowed = _allowed(made)
        centres = export.sampling.centres(made.labels, allowed)
        if not centres.any():
            self.left_out["leaves no place for a segment"] += 1
            return
        home = slot_folder(self.folder, len(self.slots))
        limited = replace(made, roi=allowed)
        written = limited if self.patches and export.restricted == "roi" else made
        write_case(home, export.source.config.channels, case, written, synthetic=True)
        if self.patches and export.restricted == "maps":
            _write_maps(export, home, case, made, allowed)
        self.slots.append(
            ExportedSample(
                home.name,
                case.id,
                item.name,
                seat.corner,
                float(centres.mean()),
                export.sampling.largest(centres),
                tuple(n for n, file in enumerate(case.channels) if file == MISSING),
                dict(item.facts),
            )
        )

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Refuse a data set of too few slots."""
        if len(self.slots) < self.export.samples:
            raise _too_few(self.export, len(self.slots), self.left_out)
        return None


def restricted(reader: BankReader) -> bool:
    """Return whether any sample is a patch, to which segments must be restricted."""
    samples = (reader.read(sample_id) for sample_id in reader.ids())
    seats = (position_of(sample.provenance) for sample in samples)
    return any(seat is not None and seat.corner is not None for seat in seats)


def _allowed(made: LoadedCase) -> Allowed:
    """Return the region of interest (or everywhere) within the sample."""
    region = np.ones(made.labels.shape, np.int16) if made.roi is None else made.roi
    return region if made.core is None else np.where(made.core, region, np.int16(0))


def _too_few(export: SlotExport, usable: int, left_out: Counter[str]) -> DataFault:
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.most_common()) or "none"
    maker = export.mix_config.bank or export.mix_config.run
    return DataFault(
        f"{maker}: {usable} of {usable + left_out.total()} samples can become cases, "
        f"expected {export.samples}; left out: {reasons}. Ask for fewer with --ratio, or take "
        "another generator or bank"
    )


# -- what real cases need beside them --------------------------------------------------------------


def additions_for(
    export: SlotExport, folder: Path, cases: Sequence[HostCase], slots: SlotWriter
) -> SyntheticAdditions:
    """Write the files of real cases that the restriction of synthetic ones requires."""
    apart = {"folderForOutput": (str(export.folder / OUTPUT), OF_ITS_OWN)}
    lacking = [slot.lacking for slot in slots.slots]
    additions = SyntheticAdditions(home=export.folder, lacking=lacking, values=apart)
    if not slots.patches:
        return additions
    if export.restricted == "roi":
        bare = all(case.roi is None for case in cases)
        return replace(additions, rois=_whole_rois(export, folder, cases)) if bare else additions
    return replace(
        additions, maps=_real_maps(export, folder, cases), values={**apart, **_augmented(export)}
    )


def _whole_rois(export: SlotExport, folder: Path, cases: Sequence[HostCase]) -> list[str]:
    """Write full regions of interest for real cases, one file per shape."""
    (folder / ROIS).mkdir(exist_ok=True)
    rois = []
    for case in cases:
        shape = stored_shape(case)
        file = Path(ROIS) / f"all_{'x'.join(map(str, shape))}{ENDING}"
        if not (folder / file).exists():
            everywhere = np.ones(shape, np.int16)
            (folder / file).write_bytes(nifti(everywhere, affine_of(case.labels)))
        rois.append(str(export.folder / file))
    return rois


def _real_maps(export: SlotExport, folder: Path, cases: Sequence[HostCase]) -> list[list[str]]:
    """Write each real case's sampling maps by category, as DeepMedic would derive them."""
    maps: list[list[str]] = [[] for _ in range(export.sampling.categories)]
    if not export.real:
        return maps
    for name, case in zip(folder_names([case.id for case in cases]), cases, strict=True):
        real, home = read_host(case), Path(MAPS) / name
        _write_maps(export, folder / home, case, real, real.roi)
        for number, listed in enumerate(maps):
            listed.append(str(export.folder / home / f"{MAP}_{number}{ENDING}"))
    return maps


def _write_maps(
    export: SlotExport, home: Path, case: HostCase, loaded: LoadedCase, allowed: Allowed | None
) -> None:
    home.mkdir(parents=True, exist_ok=True)
    affine = affine_of(case.labels)
    for number, sampling_map in enumerate(export.sampling.maps(loaded.labels, allowed)):
        (home / f"{MAP}_{number}{ENDING}").write_bytes(nifti(sampling_map, affine))


def _augmented(export: SlotExport) -> dict[str, tuple[Any, str]]:
    """Let sampling maps of rotated and scaled images use the label maps' interpolation."""
    values = export.source.config.values.get(_AUGMENTED)
    if not isinstance(values, dict):
        return {}
    affine = values.get("affine")
    if not isinstance(affine, dict) or _ORDER in affine:
        return {}
    changed = {**values, "affine": {**affine, _ORDER: affine.get("interp_order_lbls", 0)}}
    return {_AUGMENTED: (changed, f"{_ORDER}: sampling maps follow the label maps")}


def largest(slots: Iterable[ExportedSample]) -> int:
    """Return the largest size for all slots; see ``SamplingMaps.largest``."""
    return min((slot.largest for slot in slots), default=0)
