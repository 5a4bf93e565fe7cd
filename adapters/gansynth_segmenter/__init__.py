"""The segmenters of two papers as target frameworks, trained on real and synthetic cases.

Shin et al. 2018 evaluate synthetic MR images by a pix2pix that predicts label maps from images. Sun
et al. 2020 (MM-GAN) use 3D U-Nets.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.hookspecs import Register, hookimpl, lazily

if TYPE_CHECKING:
    from gansynth.core.schema import FloatArray, LabelArray
    from gansynth_segmenter.inference import Segmenter

__all__ = ["judge", "load_segmenter"]


@hookimpl
def register_hosts(register: Register) -> None:
    """Register ``segmenter``."""
    register("segmenter", lazily("gansynth_segmenter.host:SegmenterHost"))


def load_segmenter(folder: Path | str, device: str = "auto") -> Segmenter:
    """Load a segmenter that ``gansynth augment --target segmenter`` has trained.

    Args:
        folder: ``-o`` of that command.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Returns:
        A segmenter with ``predict(image (C, D, H, W)) -> labels int16 (D, H, W)``. Images are in
        the units and the spacing of the source it was trained on.

    Raises:
        UsageFault: the folder holds no trained segmenter.
        IntegrityFault: the weights are damaged, or are not those of the description.
        EnvironmentFault: the device does not exist.
    """
    from gansynth_segmenter.inference import load

    return load(Path(folder), device)


def judge(
    folder: Path | str, pairs: Iterable[tuple[FloatArray, LabelArray]], device: str = "auto"
) -> dict[str, Any]:
    """Measure how well a segmenter predicts the label maps of real or synthetic images.

    Sun et al. 2020 (MM-GAN, fig. 7) compare both. A segmenter trained on real images of one
    modality predicts real and synthetic images of the same label maps.

    Args:
        folder: see ``load_segmenter``.
        pairs: image float32 (C, D, H, W) and labels int16 (D, H, W). Units and spacing are those of
            the source the segmenter was trained on.
        device: see ``load_segmenter``.

    Returns:
        A JSON document: ``dice`` (name -> mean, None where no pair has the label), ``per_case`` (a
        list of name -> Dice), ``regions`` and ``rule``.

    Raises:
        GansynthError: see ``load_segmenter``.
        DataFault: image and labels of a pair differ in shape.
    """
    from gansynth_segmenter.inference import evaluate_pairs

    return evaluate_pairs(load_segmenter(folder, device), pairs)
