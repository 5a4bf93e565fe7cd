"""``nnunet-raw:ID``: the raw volumes of an nnU-Net data set, without nnU-Net's preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gansynth.core.findings import Checked
from gansynth.core.source import SourceRequest
from gansynth.data.folds import absolute
from gansynth.data.listing import VolumeSet
from gansynth.data.names import pick
from gansynth.data.nifti_source import VolumeSource
from gansynth.data.reading import VolumeOptions, parse_read, reads
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.check import check_nnunet, volume_set
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.raw_files import NIFTI, raw_cases


@reads(VolumeOptions)
def open_raw(request: SourceRequest) -> VolumeSource:
    """Open the cases of ``imagesTr`` and ``labelsTr``; ``splits_final.json`` is kept to.

    Raises:
        UsageFault: unknown data set or fold, options that do not fit, or files that are no NIfTI.
        DataFault: ``dataset.json``, a case or a split cannot be used.
        IntegrityFault: a subject is in training and in validation.
    """
    options = parse_read(VolumeOptions, request)
    root = NnunetRoot.find(request.root)
    dataset = root.dataset(request.where)
    raw = raw_cases(root.raw / dataset)
    if raw.ending not in NIFTI:
        raise UsageFault(
            f"nnunet-raw:{request.where}: files end in {raw.ending}, expected .nii.gz or .nii; "
            f"preprocess them and use nnunet:{request.where}"
        )
    listing = volume_set(raw, root.preprocessed / dataset)
    listing = _with_channels(listing, options.channels)
    return VolumeSource(absolute(request, request.where), listing, options)


def _with_channels(listing: VolumeSet, asked: Sequence[str] | None) -> VolumeSet:
    """A data set with the channels that are asked for, called as they are asked."""
    if asked is None:
        return listing
    places = pick(asked, listing.channels or (), listing.where)
    entries = tuple(
        replace(entry, images=tuple(entry.images[place] for place in places))
        for entry in listing.entries
    )
    return replace(listing, entries=entries, channels=tuple(asked))


def check_raw(request: SourceRequest, progress: Callable[[int, int], None]) -> Checked:
    """Find everything that is wrong with ``nnunet-raw:ID``, as with ``nnunet:ID``."""
    parse_read(VolumeOptions, request)
    return check_nnunet(replace(request, read={}), progress)
