"""The papers' own segmenters as a host: trained on real and synthetic cases of gansynth's sources.

Shin et al. 2018 judge synthetic MR images by a pix2pix that draws label maps from images; Sun et
al. 2020 (MM-GAN) by 3D U-Nets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter
    from gansynth.core.schema import FloatArray, LabelArray
    from gansynth_segmenter.inference import Segmenter

__all__ = ["judge", "load_segmenter"]


def _adapter() -> type[Adapter]:
    from gansynth_segmenter.adapter import SegmenterAdapter

    return SegmenterAdapter


@hookimpl
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    """Register ``segmenter``."""
    register("segmenter", _adapter)


def load_segmenter(folder: Path | str, device: str = "auto") -> Segmenter:
    """A segmenter that ``gansynth augment --target segmenter`` has trained.

    Args:
        folder: ``-o`` of that command.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Returns:
        What has ``predict(image (C, D, H, W)) -> labels int16 (D, H, W)``; images are in the units
        and the spacing of the source it was trained on.

    Raises:
        UsageFault: there is none, or none yet.
        IntegrityFault: damaged weights, or not those of its description.
        EnvironmentFault: there is no such device.
    """
    from gansynth_segmenter.inference import load

    return load(Path(folder), device)


def judge(
    folder: Path | str, pairs: Iterable[tuple[FloatArray, LabelArray]], device: str = "auto"
) -> dict[str, Any]:
    """How well a segmenter finds the label maps of images: real ones, or synthetic ones.

    Sun et al. 2020 (MM-GAN, fig. 7) compare both: a segmenter that was trained on real images of
    one modality is asked about real and about synthetic images of the same label maps.

    Args:
        folder: see ``load_segmenter``.
        pairs: image float32 (C, D, H, W) and labels int16 (D, H, W), in the units and the spacing
            of the source the segmenter was trained on.
        device: see ``load_segmenter``.

    Returns:
        A JSON document: ``dice`` (name -> mean, None where no pair has any of it), ``per_case`` (a
        list of name -> Dice), ``regions`` and ``rule``.

    Raises:
        GansynthError: see ``load_segmenter``.
        DataFault: a pair that does not fit.
    """
    from gansynth_segmenter.judging import judge_pairs

    return judge_pairs(load_segmenter(folder, device), pairs)
