"""Segments with subsampled context, real and synthetic at a ratio: ``gansynth.mix_segments``.

Networks of several paths (Kamnitsas et al. 2017) see a segment at full resolution and its
surroundings at lower ones. All of them are parts of one larger crop. docs/mixing.md has an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import Dataset

from gansynth.core.ratio import Ratio
from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.core.schedule import Schedule
from gansynth.core.source import CaseSource
from gansynth.data.held_out import held_out_of
from gansynth.hosts.mixing.mixture import Mixture
from gansynth.hosts.mixing.training_data import Augment, CentredCrops, TrainingData, training_space
from gansynth.runtime.errors import UsageFault


def segment_margin(receptive: int, factors: Sequence[int]) -> int:
    """Return the voxels of a crop that are not predicted, at each side; see ``mix_segments``."""
    return (receptive // 2) * max((1, *factors))


def segment_parts(crop: Any, receptive: int, factors: Sequence[int]) -> list[Any]:
    """Return the segment in the middle of a crop (..., D, H, W), and its subsampled contexts.

    Contexts take every ``factor``-th voxel, without averaging, from the receptive field of the
    first predicted voxel on: DeepMedic's grid, which is off centre where the predicted part is no
    multiple of a factor. A path's output is repeated by the factor, and cut at the end.

    The parts are views of the crop, a tensor or an array.
    """
    half, margin = receptive // 2, segment_margin(receptive, factors)
    parts = []
    for factor in (1, *factors):
        part = [
            slice(
                margin - factor * half,
                margin + factor * (half + -(-(edge - 2 * margin) // factor) - 1) + 1,
                factor,
            )
            for edge in crop.shape[-3:]
        ]
        parts.append(crop[(..., *part)])
    return parts


class MixedSegments(Mixture, Dataset[dict[str, Any]]):
    """The segments of a whole training: item i is segment ``i % batch_size`` of its step.

    An item is ``{"parts": [float32 (C, D, H, W), ...], "labels": int64 (D', H', W'), "synthetic":
    bool ()}``: the segment and one context for each factor, and the labels of the predicted part,
    -1 outside the body. Items depend on seed and place alone, so a loader must not shuffle them.

    Args:
        source: opened as for the bank's generator, whose run has it: ``gansynth.load(run).source``.
            Its training cases are cut, its held-out cases must not have been seen.
        bank: folder of the sample bank, or what ``fill_bank`` returns; None only with ``"1:0"``.
            Samples need the voxels of a segment with its contexts.
        steps: batches of the whole training.
        batch_size: segments of a batch.
        segment: voxels along each axis of the input at full resolution.
        receptive: receptive field of the network's paths, which have no padding; odd.
        factors: subsampling factor of each further path.
        centred: whether segments are centred at voxels of each class equally often, background too.
        augment: applied to crops: image (C, D, H, W), labels (D, H, W), numpy's generator -> both.

    Raises:
        UsageFault: an invalid option, or cases that are not volumes.
        IntegrityFault: the bank's generator has seen a held-out case.
    """

    def __init__(
        self,
        source: CaseSource,
        bank: Path | str | None,
        ratio: Ratio | str,
        *,
        steps: PositiveInt,
        batch_size: PositiveInt = 10,
        segment: PositiveInt = 25,
        receptive: PositiveInt = 17,
        factors: Sequence[int] = (3,),
        centred: bool = True,
        augment: Augment | None = None,
        schedule: Schedule | str = "constant",
        seed: NonNegativeInt = 0,
        log: Path | str | None = None,
        strict: bool = False,
    ) -> None:
        factors = tuple(factors)
        if receptive % 2 == 0 or receptive > segment or min((1, *factors)) < 1:
            raise UsageFault(
                "hosts.segment-sizes-wrong",
                f"segment={segment}, receptive={receptive}, factors={factors}: expected an odd "
                "receptive field, segments of at least its size, and factors from 1",
            )
        self.receptive, self.factors, self.batch_size = receptive, factors, batch_size
        edge = segment - receptive + 1 + 2 * segment_margin(receptive, factors)
        space = training_space(source, (edge, edge, edge))
        subjects = {case: source.header(case).subject for case in source.train_ids}
        held_out = None if bank is None else held_out_of(source)
        super().__init__(
            bank,
            ratio,
            subjects,
            schedule=schedule,
            batches=steps,
            held_out=held_out,
            seed=seed,
            rank=0,
            log=log,
            strict=strict,
        )
        self.data = TrainingData(
            source,
            CentredCrops(**vars(space)) if centred else space,
            self.plan,
            steps=steps,
            batch_size=batch_size,
            augment=augment,
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item, margin = self.data[index], segment_margin(self.receptive, self.factors)
        if not self._units.over:
            self._units.look(item["image"], synthetic=item["synthetic"])
        parts = segment_parts(torch.from_numpy(item["image"]), self.receptive, self.factors)
        inner = tuple(slice(margin, edge - margin) for edge in item["labels"].shape)
        return {
            "parts": [part.contiguous() for part in parts],
            "labels": torch.from_numpy(item["labels"][inner].astype(np.int64)),
            "synthetic": torch.tensor(item["synthetic"]),
        }


mix_segments = with_checked_arguments(MixedSegments, "mix_segments", options=Mixture)
