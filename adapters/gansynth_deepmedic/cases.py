"""The cases of a DeepMedic configuration as a data set of volumes: found, not read."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gansynth.data.listing import SPLITS, SUBJECTS, Entry, Fault, VolumeSet, stem
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault
from gansynth.runtime.files import read_json
from gansynth_deepmedic.configs import Listed, ModelConfig, TrainConfig
from gansynth_deepmedic.folds import known_names
from gansynth_deepmedic.order import SLOTS

MANIFEST = "manifest.json"
_DEEPEST = 4
"""Folders above a file that a case's name is made of at most."""


@dataclass(frozen=True)
class Cases:
    """What a configuration lists."""

    listing: VolumeSet  # as a data set of volumes; cases are of part ``train`` or ``val``
    listed: Mapping[str, Listed]  # case -> its files
    model: ModelConfig | None  # the network's configuration, if it is known


def list_cases(
    kind: str, config: TrainConfig, model: ModelConfig | None, names: Sequence[str] | None
) -> Cases:
    """Name the cases of a configuration, and note what is wrong without reading an image."""
    everything = (*config.train, *config.validation)
    parts = ["train"] * len(config.train) + ["val"] * len(config.validation)
    ids = known_names(config, everything) or case_ids(everything, config.channels[0])
    listed = dict(zip(ids, everything, strict=True))
    drawn = list(_synthetic(listed))
    faults = [*_channel_faults(config, model), *drawn, *_both_sides(listed, config)]
    faults += _missing(listed, {fault.case for fault in drawn})
    entries = [
        Entry(case, tuple(file for file in files.channels if file), files.labels, part=part)
        for (case, files), part in zip(listed.items(), parts, strict=True)
    ]
    listing = VolumeSet(
        f"{kind}:{session(config)}",
        config.path.parent,
        config.path,
        tuple(sorted(entries, key=lambda entry: entry.case)),
        channels=tuple(names or config.channels),
        stacked=False,
        splits=config.path.parent / SPLITS,
        subjects=config.path.parent / SUBJECTS,
        labels=None if model is None else class_labels(model.classes),
        faults=tuple(faults),
        unvalidated=not config.validation,
    )
    return Cases(listing, listed, model)


def session(config: TrainConfig) -> str:
    """The configuration's own name for itself, else that of its folder."""
    named = config.values.get("sessionName") is not None
    return config.session if named else config.path.parent.name or config.path.stem


def class_labels(classes: int) -> dict[str, int]:
    """Names of DeepMedic's classes, which have numbers only."""
    return {"background": 0, **{f"label {number}": number for number in range(1, classes)}}


# -- names ---------------------------------------------------------------------------------------


def case_ids(cases: Sequence[Listed], channel: str) -> tuple[str, ...]:
    """The shortest name that tells all cases apart: of the folder, of the file, of both, ..."""

    def file(case: Listed) -> str:
        first = _first(case)
        name = stem(first.name) or first.stem
        ending = f"_{channel}".casefold()
        return name[: -len(ending)] if name.casefold().endswith(ending) else name

    def within(depth: int) -> Callable[[Listed], str]:
        return lambda case: "_".join((*_first(case).parent.parts[-depth:], file(case)))

    namings: list[Callable[[Listed], str]] = [
        lambda case: "" if case.labels is None else case.labels.parent.name,
        lambda case: _first(case).parent.name,
        file,
        *(within(depth) for depth in range(1, _DEEPEST + 1)),
    ]
    for naming in namings:
        names = tuple(naming(case).replace(os.sep, "_") for case in cases)
        alike = {unicodedata.normalize("NFC", name).casefold() for name in names}
        if all(names) and len(alike) == len(names):
            return names
    return tuple(f"case_{number:04d}" for number in range(len(cases)))


def _first(case: Listed) -> Path:
    return next(file for file in case.channels if file is not None)


# -- faults --------------------------------------------------------------------------------------


def _channel_faults(config: TrainConfig, model: ModelConfig | None) -> Iterator[Fault]:
    if model is not None and model.channels != len(config.channels):
        yield Fault(None, config.path, wrong_channels(config, model))


def wrong_channels(config: TrainConfig, model: ModelConfig) -> DataFault:
    """What is said where the network takes another number of channels than there are."""
    return DataFault(
        f"{model.path}: numberOfInputChannels is {model.channels}, expected {len(config.channels)} "
        f"as {config.path} lists ({', '.join(config.channels)}); correct one of them"
    )


def _missing(listed: Mapping[str, Listed], known: Collection[str | None]) -> Iterator[Fault]:
    for case, files in listed.items():
        for file in files.files:
            if case not in known and not os.path.isfile(file):
                message = (
                    f"{file}: missing, expected for case {case!r}; add it, or remove the case from "
                    "every list"
                )
                yield Fault(case, file, DataFault(message))


def _synthetic(listed: Mapping[str, Listed]) -> Iterator[Fault]:
    """Cases that a generator has drawn: none may learn from its like, or be judged by it."""
    exports: dict[Path, bool] = {}
    for case, files in listed.items():
        for file in files.files:
            homes = [home for home in _slot_folders(file) if _export(home, exports)]
            if homes:
                message = (
                    f"{file}: is a synthetic case of {homes[0]}, expected real ones, to train a "
                    "generator on and to validate on; list the real files, as the "
                    "configuration did that gansynth augment was given"
                )
                yield Fault(case, file, IntegrityFault(message))
                break


def _slot_folders(file: Path) -> Iterator[Path]:
    """Folders with a folder of synthetic cases in them that a file lies in."""
    for path in dict.fromkeys((file, Path(os.path.realpath(file)))):
        yield from (home.parent for home in path.parents if home.name == SLOTS)


def _export(folder: Path, known: dict[Path, bool]) -> bool:
    """Whether ``gansynth augment`` has written a folder."""
    if folder not in known:
        try:
            known[folder] = "gansynth" in read_json(folder / MANIFEST)
        except GansynthError:
            known[folder] = False
    return known[folder]


def _both_sides(listed: Mapping[str, Listed], config: TrainConfig) -> Iterator[Fault]:
    """Images that are both trained on and validated on."""
    ids = list(listed)
    trained = {os.path.realpath(_first(listed[case])): case for case in ids[: len(config.train)]}
    for case in ids[len(config.train) :]:
        file = _first(listed[case])
        other = trained.get(os.path.realpath(file))
        if other is not None:
            message = (
                f"{file}: is listed in {config.train_list.name}, to train on (case {other!r}), and "
                f"in {config.validation_list}, to validate on (case {case!r}); expected each case "
                "on one side; remove it from one"
            )
            yield Fault(case, file, IntegrityFault(message))
