"""Applies a network trained by the torch engine to further images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from gansynth.runtime.devices import pick_device, resolve
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.configs import ListedCase
from gansynth_deepmedic.engine.cutting import SegmentCutter, read_volume
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.infer import Predictor, host_case, read_held
from gansynth_deepmedic.engine.network import DualPath
from gansynth_deepmedic.engine.segmenter import load_network
from gansynth_deepmedic.engine.train import TrainingTask
from gansynth_deepmedic.training_order import ORDER, TrainingOrder


def predict(
    training: Path | str,
    channels: Sequence[Path | str | None],
    roi: Path | str | None = None,
    *,
    device: str = "auto",
    precision: Literal["auto", "bf16", "fp32"] = "auto",
) -> npt.NDArray[np.int16]:
    """Segment one case with the newest checkpoint of a training.

    Args:
        training: folder of the training's results.
        channels: NIfTI files in the order of the training; None for a missing channel.
        roi: file of the region of interest; labels outside it are 0.
        device: see ``gansynth.runtime.devices.pick_device``.
        precision: number format of the computation.

    Returns:
        Labels (X, Y, Z) as the files are stored.

    Raises:
        UsageFault: no training, or no checkpoint yet.
        DataFault: invalid files.
        IntegrityFault: every checkpoint is damaged.
    """
    folder = Path(training)
    task = TrainingTask.of(TrainingOrder.read(folder / ORDER))
    if len(channels) != task.model.channels or all(file is None for file in channels):
        raise DataFault(
            f"{len(channels)} channel(s) {[str(file) for file in channels]}, expected "
            f"{task.model.channels}, at least one of them a file, as {task.config.path} has"
        )
    files = tuple(None if file is None else Path(file) for file in channels)
    listed = ListedCase(files, None, None if roi is None else Path(roi), 1)
    case = read_held(host_case(listed, "case"), read_volume)
    network, where = DualPath(task.model), pick_device(device)
    load_network(network, folder)
    return Predictor(
        network.to(where, memory_format=torch.channels_last_3d),  # type: ignore[call-overload]
        SegmentGeometry.from_model(task.model, "inference"),
        SegmentCutter.from_configs(task.config, task.model),
        where,
        resolve(precision, where) == "bf16",
    ).labels(case)
