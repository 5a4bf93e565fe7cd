"""Converts real cases through a generator's space, so that its losses are no cue.

Doncenco et al. (2022) train so: real volumes also go to the generator's shape and back.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.mix_config import MixConfig
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, Case, Sample
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import disk_errors, read_json, whole_folder, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.layout import folder_names, read_host, write_case
from gansynth_deepmedic.source import DeepMedicSource

REAL = "real"
_RECORD = "real.json"


def training_cases(
    source: DeepMedicSource, mix_config: MixConfig, folder: Path, reporter: Reporter
) -> tuple[HostCase, ...]:
    """Return the real training cases, converted through the generator's space if requested."""
    if not mix_config.real_in_generator_space:
        return tuple(source.host_case(case) for case in source.train_ids)
    assert mix_config.run is not None, "see guards"
    return bring_real(source, mix_config.run.space, folder, reporter)


def bring_real(
    source: DeepMedicSource, space: Space, folder: Path, reporter: Reporter
) -> tuple[HostCase, ...]:
    """Write every real training case after conversion to a generator's space and back.

    ``folder/real/<case>/`` gets images float32 in the files' own axes and units, labels and region
    of interest int16. Files of an earlier call with the same cases and space are reused, others are
    rewritten.

    Returns:
        The training cases in the source's order, with the written files.

    Raises:
        DataFault: a case cannot be read.
        UsageFault: ``folder/real`` holds other files.
        EnvironmentFault: the disk refuses.
    """
    home = folder.absolute() / REAL
    cases = tuple(source.host_case(case) for case in source.train_ids)
    whole = whole_space(space)
    order = {"space": whole.to_json(), "cases": [case.to_json() for case in cases]}
    order = json.loads(json.dumps(order))
    names = folder_names([case.id for case in cases])
    done = _done(home, order)
    if done is None:
        if (home / _RECORD).is_file():
            shutil.rmtree(home)
        with disk_errors(home), whole_folder(home) as building:
            with reporter.task(len(cases), "real cases through the generator's space") as bar:
                done = []
                for name, case in zip(names, cases, strict=True):
                    loaded = _brought(source, whole, case)
                    written = write_case(building / name, source.config.channels, case, loaded)
                    done.append(moved(written, building, home))
                    bar.advance(1)
            record = {**order, "written": [case.to_json() for case in done]}
            write_json_atomic(building / _RECORD, record)
    return tuple(done)


def whole_space(space: Space) -> Space:
    """Return a generator's space for whole volumes: its window, and its shape if it resamples."""
    return space if space.grid == "resample" else replace(space, grid="native", size=())


def into(case: Case, part: Sample, space: Space) -> Case:
    """Replace a case by its converted part: all of it, or the middle of a frame.

    Args:
        case: image (C, D, H, W) and labels (D, H, W) in the source's voxels.
    """
    shape = case.image.shape[1:]
    corner = [-first for first in space.frame_corner(shape)]
    if not corner:
        return replace(case, image=part.image, labels=part.labels)
    assert case.labels is not None
    assert part.labels is not None
    inside = crop_pad(np.ones(part.labels.shape, np.bool_), corner, shape, False)
    image = np.where(inside, crop_pad(part.image, corner, shape, 0), case.image)
    labels = np.where(inside, crop_pad(part.labels, corner, shape, 0), case.labels)
    return replace(case, image=image, labels=labels)


def moved(case: HostCase, before: Path, after: Path) -> HostCase:
    """Return a case whose folder has been renamed."""

    def path(file: str) -> str:
        return file if file == MISSING else str(after / Path(file).relative_to(before))

    return replace(
        case,
        channels=tuple(map(path, case.channels)),
        labels=path(case.labels),
        roi=None if case.roi is None else path(case.roi),
    )


def _done(home: Path, order: dict[str, Any]) -> list[HostCase] | None:
    """Return the cases that an earlier call with the same order has written, or None."""
    try:
        record = read_json(home / _RECORD)
    except DataFault:
        return None
    written = [HostCase.from_json(case) for case in record.pop("written", [])]
    return written if record == order else None


def _brought(source: DeepMedicSource, space: Space, case: HostCase) -> LoadedCase:
    """Convert a case in the files' axes and units; labels outside the region do not change."""
    real, read = read_host(case), source.load(case.id)
    squeezed = space.to_generator(read)
    if read.image.shape[1:] != case.shape or read.labels is None:
        raise DataFault(
            f"{case.labels}: case {case.id!r} is read in shape {read.image.shape[1:]}, expected "
            f"{case.shape} as its files have; leave --read spacing= out"
        )
    back = into(read, space.to_host(Sample(squeezed.image, squeezed.labels), case.shape), space)
    assert back.labels is not None, "it had some"
    image, labels = real.image.copy(), real.labels.copy()
    for number, (scale, offset) in enumerate(case.units):
        if case.channels[number] != MISSING:
            case.view(image[number])[...] = back.image[number] * np.float32(scale) + offset
    np.copyto(case.view(labels), back.labels, where=back.labels != OUTSIDE)
    return LoadedCase(image, labels, real.roi, None, case.id)
