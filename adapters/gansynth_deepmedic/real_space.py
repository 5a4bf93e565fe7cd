"""Converts real cases through a generator's space, so that its losses are no cue.

Doncenco et al. (2022) train so: real volumes also go to the generator's shape and back.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.core.mix_config import MixConfig
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json, whole_folder, write_json_atomic
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

    Then ``folder/real/case_0000/`` and so on get images float32 in the files' own axes and units,
    labels and region of interest int16. Files of an earlier call with the same cases and space are
    reused, others are rewritten.

    Raises:
        DataFault: a case cannot be read.
        EnvironmentFault: the disk refuses.
    """
    cases = tuple(source.host_case(case) for case in source.train_ids)
    if not mix_config.real_in_generator_space:
        return cases
    assert mix_config.run is not None, "see the adapter"
    space, home = mix_config.run.space, folder.absolute() / REAL
    if space.grid != "resample":  # whole volumes: of crops only the window counts
        space = replace(space, grid="native", size=())
    document = {"space": space.to_json(), "cases": [case.to_json() for case in cases]}
    asked = json.loads(json.dumps(document))
    try:
        record = read_json(home / _RECORD)
    except DataFault:
        record = {}
    if {key: record.get(key) for key in asked} != asked:
        written = []
        with whole_folder(home, anew=True) as building:
            with reporter.task(len(cases), "real cases through the generator's space") as bar:
                for number, case in enumerate(cases):
                    place, loaded = building / f"case_{number:04d}", _brought(source, space, case)
                    new = write_case(place, source, case, loaded)
                    written.append(moved(new, building, home).to_json())
                    bar.advance(1)
            record = {**asked, "written": written}
            write_json_atomic(building / _RECORD, record)
    return tuple(HostCase.from_json(case) for case in record["written"])


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
    back = space.to_host(Sample(squeezed.image, squeezed.labels), case.shape)
    image, labels = back.image, back.labels
    assert labels is not None, "it had some"
    assert read.labels is not None, "as every case"
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
