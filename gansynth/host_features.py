"""What a trained host makes of images, whichever host it is: features for t-SNE and other measures.

Han et al. 2019 (sec. 5) look at real and synthetic images by "features extracted from the last
layer of each trained classifier". Here that is whatever the user has trained: an nnU-Net, say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gansynth._vetting import strangers_code
from gansynth.adapter import Adapter, Mask
from gansynth.errors import DataFault, UsageFault
from gansynth.registry import Registry, installed
from gansynth.schema import FloatArray, LabelArray, Schema, validate_arrays


def host_features(
    folder: Path | str,
    images: Sequence[FloatArray],
    schema: Schema,
    *,
    labels: Sequence[LabelArray] | None = None,
    device: str = "auto",
    registry: Registry | None = None,
) -> tuple[FloatArray, str]:
    """What the host that was trained in a folder makes of images.

    Real and synthetic images are to be given alike: both with labels or both without, cut alike.

    Args:
        folder: that a training has left, see ``Adapter.recognises``: of nnU-Net a fold's
            (``nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0``), of other hosts ``-o`` of
            ``gansynth augment``.
        images: float32 (C, D, H, W) or (C, H, W), in the units and the spacing of the cases that
            the host was trained on: what a source loads, what ``Space.to_host`` gives of samples.
        schema: of these images.
        labels: int16 (D, H, W) or (H, W) of each image: features are averaged over what is above
            background. A lesion of few voxels is lost in the mean of a whole image. None averages
            over all of it.
        device: ``auto``, ``cpu``, ``cuda:1``.
        registry: what is installed, if None.

    Returns:
        Features float32 (N, K), in the order of the images, and a title: host and training.

    Raises:
        UsageFault: nothing that a host has trained is there; or what that host refuses.
        DataFault: no image, images or labels that cannot be used, an image without foreground,
            other channels than the host was trained on, or features that are not finite.
        GansynthError: see ``Adapter.features``.
    """
    folder = Path(folder)
    where = _checked(images, schema, labels)
    adapter = find_host(folder, registry)
    found, title = adapter.features(folder, images, schema, where=where, device=device)
    if found.ndim != 2 or len(found) != len(images):
        raise UsageFault(
            f"{folder}: {adapter.name} gave features of shape {found.shape} for {len(images)} "
            "images, expected a row for each; its adapter is at fault (gansynth.testing)"
        )
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if bad.size:
        raise DataFault(
            f"{folder}: features of image {bad[0]} are not finite, expected numbers; did the "
            "training diverge? Name another one"
        )
    return np.asarray(found, np.float32), title


def find_host(folder: Path, registry: Registry | None = None) -> type[Adapter]:
    """The adapter of the host that was trained in a folder, by what is in it.

    Raises:
        UsageFault: no adapter knows it, or two do.
    """
    registry = registry or installed()
    knowing, offering, broken = [], [], []
    for name in registry.names("adapters"):
        try:
            adapter = registry.adapter(name)
            with strangers_code():
                mine = folder.is_dir() and adapter.recognises(folder)
        except Exception:  # whatever a stranger's module raises, it is not in the others' way
            broken.append(name)
            continue
        # Of a method of a class Python makes a new object each time.
        if adapter.recognises.__func__ is not Adapter.recognises.__func__:  # type: ignore[attr-defined]
            offering.append(name)
        knowing += [adapter] if mine else []
    if len(knowing) > 1:
        raise DataFault(
            f"{folder}: {' and '.join(adapter.name for adapter in knowing)} both take it for "
            "theirs, expected one host's; name the folder of one training"
        )
    if not knowing:
        missing = "no host has been trained in it" if folder.is_dir() else "no such folder"
        failed = f" ({', '.join(broken)} could not be asked)" if broken else ""
        asked = ", ".join(offering) or "a host"
        raise UsageFault(
            f"{folder}: {missing}, expected what a training of {asked} has left{failed}: of "
            "nnunet a fold's folder with a checkpoint, of others -o of gansynth augment"
        )
    return knowing[0]


def _checked(
    images: Sequence[FloatArray], schema: Schema, labels: Sequence[LabelArray] | None
) -> list[Mask] | None:
    """Check images and labels; where to average, if there are labels."""
    if not len(images):
        raise DataFault("no image, expected at least one for a host to look at")
    if labels is not None and len(labels) != len(images):
        raise DataFault(f"{len(labels)} label maps for {len(images)} images, expected one of each")
    for number, image in enumerate(images):
        validate_arrays(
            f"image {number}", image, None if labels is None else labels[number], schema
        )
    if labels is None:
        return None
    where = [np.asarray(one > 0, np.bool_) for one in labels]
    for number, chosen in enumerate(where):
        if not chosen.any():
            raise DataFault(
                f"image {number}: its labels have no voxel above background, expected some to "
                "average a host's features over; average whole images, or leave it out"
            )
    return where
