"""Converts real cases through a generator's space, so that its losses are no cue.

Doncenco et al. (2022) train so: real volumes also go to the generator's shape and back.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.core.mix_config import MixConfig
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import disk_errors, read_json, whole_folder, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.layout import read_host, write_case
from gansynth_deepmedic.source import DeepMedicSource

REAL = "real"
_RECORD = "real.json"


def training_cases(
    source: DeepMedicSource, mix_config: MixConfig, folder: Path, reporter: Reporter
) -> tuple[HostCase, ...]:
    """Return the real training cases, converted through the generator's space if requested.

    Then ``folder/real/<case>/`` gets images float32 in the files' own axes and units, labels and
    region of interest int16. Files of an earlier call with the same cases and space are reused,
    others are rewritten.

    Raises:
        DataFault: a case cannot be read.
        UsageFault: ``folder/real`` holds other files.
        EnvironmentFault: the disk refuses.
    """
    cases = tuple(source.host_case(case) for case in source.train_ids)
    if not mix_config.real_in_generator_space:
        return cases
    assert mix_config.run is not None, "see guards"
    space, home = mix_config.run.space, folder.absolute() / REAL
    if space.grid != "resample":  # whole volumes: of crops only the window counts
        space = replace(space, grid="native", size=())
    order = json.loads(
        json.dumps({"space": space.to_json(), "cases": [c.to_json() for c in cases]})
    )
    try:
        record = read_json(home / _RECORD)
    except DataFault:
        record = {}
    if {key: record.get(key) for key in order} == order:
        return tuple(HostCase.from_json(case) for case in record["written"])
    if (home / _RECORD).is_file():
        shutil.rmtree(home)
    written = []
    with disk_errors(home), whole_folder(home) as building:
        with reporter.task(len(cases), "real cases through the generator's space") as bar:
            for name, case in zip(folder_names([c.id for c in cases]), cases, strict=True):
                loaded = _brought(source, space, case)
                new = write_case(building / name, source.config.channels, case, loaded)
                written.append(moved(new, building, home))
                bar.advance(1)
        record = {**order, "written": [case.to_json() for case in written]}
        write_json_atomic(building / _RECORD, record)
    return tuple(written)


def folder_names(cases: list[str]) -> list[str]:
    """Return unique folder names for cases."""
    plain = [name for name in cases if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name)]
    if len({name.lower() for name in plain}) == len(cases):
        return cases
    return [f"case_{number:04d}" for number in range(len(cases))]


def moved(case: HostCase, before: Path, after: Path) -> HostCase:
    """Return a case whose folder has been renamed."""

    def path(file: str) -> str:
        return file if file == MISSING else str(after / Path(file).relative_to(before))

    roi = None if case.roi is None else path(case.roi)
    channels = tuple(map(path, case.channels))
    return replace(case, channels=channels, labels=path(case.labels), roi=roi)


def _brought(source: DeepMedicSource, space: Space, case: HostCase) -> LoadedCase:
    """Convert a case in the files' axes and units; labels outside the region do not change.

    Of a space with a frame, only the case's middle is converted.
    """
    real, read = read_host(case), source.load(case.id)
    squeezed = space.to_generator(read)
    if read.image.shape[1:] != case.shape or read.labels is None:
        raise DataFault(
            f"{case.labels}: case {case.id!r} is read in shape {read.image.shape[1:]}, expected "
            f"{case.shape} as its files have; leave --read spacing= out"
        )
    back = space.to_host(Sample(squeezed.image, squeezed.labels), case.shape)
    assert back.labels is not None, "it had some"
    image, labels = back.image, back.labels
    if corner := [-first for first in space.frame_corner(case.shape)]:
        inside = crop_pad(np.ones(labels.shape, np.bool_), corner, case.shape, False)
        image = np.where(inside, crop_pad(image, corner, case.shape, 0), read.image)
        labels = np.where(inside, crop_pad(labels, corner, case.shape, 0), read.labels)
    files, drawn = real.image.copy(), real.labels.copy()
    for number, (scale, offset) in enumerate(case.units):
        if case.channels[number] != MISSING:
            case.view(files[number])[...] = image[number] * np.float32(scale) + offset
    np.copyto(case.view(drawn), labels, where=labels != OUTSIDE)
    return LoadedCase(files, drawn, real.roi, None, case.id)
