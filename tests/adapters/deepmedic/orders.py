"""Orders for the real program, made by hand: a toy data set, slots in its lists, a written bank."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth.runtime.files import write_json_atomic
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.training_order import ORDER, PROGRESS, SLOTS, TrainingOrder
from tests.adapters.deepmedic.arrays import write_bank
from tests.deepmedic_sets import CHANNELS, TRAIN_VALUES, Toy, toy_deepmedic

STORED = ((0, -1), (1, -1), (2, 1))
BRIGHT = 1000.0
"""What a synthetic voxel of sample n holds at least: n hundreds more than this."""
PATCH = (16, 18, 20)
FILES = (*CHANNELS, "labels", "roi")


@dataclass(frozen=True)
class Training:
    """One training, ready to start: its order and the order's file, the data set, the draw log."""

    order: TrainingOrder
    path: Path
    toy: Toy
    log: Path

    def told(self, key: str) -> list[Any]:
        """What the process told of one kind."""
        file = self.order.output / PROGRESS
        lines = file.read_text().splitlines() if file.exists() else []
        return [doc[key] for doc in map(json.loads, lines) if key in doc]


def host_case(toy: Toy, number: int, roi: bool) -> HostCase:
    """Training case of a toy data set, with its region of interest or without."""
    folder = toy.folder / "data" / f"pat_{number:02d}"
    *channels, labels, region = (str(folder / f"{name}.nii.gz") for name in FILES)
    shape: tuple[int, ...] = nib.load(labels).shape  # type: ignore[attr-defined]
    units = ((1.0, 0.0),) * len(CHANNELS)
    found = (tuple(channels), labels, region if roi else None, shape[::-1], STORED, units)
    return HostCase(f"pat_{number:02d}", *found)


def bright(case: HostCase, number: int) -> Sample:
    """A sample from the middle of a case, all of one value, with a lesion of both classes."""
    corner = [(n - m) // 2 for n, m in zip(case.shape, PATCH, strict=True)]
    image = np.full((len(case.channels), *PATCH), BRIGHT + 100 * number, np.float32)
    labels = np.zeros(PATCH, np.int16)
    labels[5:-5, 5:-5, 5:-5] = 1
    labels[7:-7, 7:-7, 7:-7] = 2
    place = {"corner": corner, "slice_index": None}
    told = {"case": case.id, "shape": list(case.shape), "placement": place}
    return Sample(image, labels, None, told)


def training(
    folder: Path,
    *,
    ratio: str = "1:2",
    mode: int = -1,
    epochs: int = 1,
    subepochs: int = 3,
    count: int = 6,
    listed: int | None = None,
    segments: int = 60,
    val: int = 0,
    values: Mapping[str, Any] | None = None,
    **more: Any,
) -> Training:
    """Everything for one training.

    ``mode`` is num_processes_sampling, ``count`` the cases of a subepoch, ``listed`` the slots in
    the lists (None for as many); ``values`` go into the configuration, ``more`` into the order,
    but ``model`` and ``roi`` into the toy data set.
    """
    made = {key: more.pop(key) for key in ("model", "roi") if key in more}
    counts = {"numberOfEpochs": epochs, "numberOfSubepochs": subepochs}
    counts |= {"numOfCasesLoadedPerSubepoch": count, "num_processes_sampling": mode}
    counts["numberTrainingSegmentsLoadedOnGpuPerSubep"] = segments
    wanted = {**TRAIN_VALUES, **counts, **(values or {})}
    toy = toy_deepmedic(folder, val=val, values=wanted, **made)
    cases = tuple(host_case(toy, n, made.get("roi", True)) for n in range(4))
    home, log = folder / "out" / SLOTS, folder / "draws"
    slots = [home / f"slot_{n:04d}" for n in range(count if listed is None else listed)]
    for name in FILES:
        file = toy.folder / f"training_{name}.cfg"
        if file.exists():
            lines = "".join(f"{slot / f'{name}.nii.gz'}\n" for slot in slots)
            file.write_text(file.read_text() + lines)
    if "plan" not in more:
        bank = write_bank(folder / "bank", [bright(cases[n % 4], n) for n in range(40)])
        parts = (bank, Ratio.parse(ratio))
        more["plan"] = MixerConfig[int](*parts, seed=7, stream=(0,), log=log, patience=1.0)
    fields: dict[str, Any] = {
        "output": folder / "out",
        "train_config": toy.train,
        "model_config": toy.model,
        "cases": cases,
        "count": count,
        "slots": tuple(str(slot / f"{CHANNELS[0]}.nii.gz") for slot in slots),
        "subepochs": subepochs,
        "seed": 3,
        "arguments": ("-dev", "cpu"),
    }
    order = TrainingOrder(**{**fields, **more})
    order.output.mkdir()
    path = order.output / ORDER
    write_json_atomic(path, order.to_json())
    return Training(order, path, toy, log)


def run(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a process to its end."""
    own: Any = {"capture_output": True, "text": True, "timeout": 600, "check": False}
    return subprocess.run(list(command), env={**os.environ, **environ}, **own)
