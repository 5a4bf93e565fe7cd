"""A preprocessed data set dealt out otherwise: nnU-Net's three folders anew, made of links.

nnU-Net reads its split from beside the plans and writes below ``nnUNet_results``. So another split,
and another training of the same fold, take folders of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gansynth.core.source import SourceRequest
from gansynth.data.divided import Division, json_text, write_small
from gansynth.runtime.files import disk_errors, read_json
from gansynth_nnunet.cases import Preprocessed, hashes_of
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.splits import SPLITS, SUBJECTS

COPIED = ("dataset.json", "dataset_fingerprint.json")
ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")
"""Of a preprocessed case's files."""
TRUTH = "gt_segmentations"


def write_root(source: Preprocessed, division: Division) -> SourceRequest:
    """Write nnU-Net's folders for a split of a data set.

    Raises:
        EnvironmentFault: the disk refuses, or has no links.
    """
    root, plans = NnunetRoot.find(division.folder), source.plans
    old, new = plans.folder, root.preprocessed / source.dataset
    with disk_errors(new):
        for folder in (root.raw, new, root.results):
            folder.mkdir(parents=True, exist_ok=True)
    for name in (*COPIED, plans.path.name):
        if (old / name).is_file():
            write_small(new / name, (old / name).read_text("utf-8"))
    raw = source.root.raw / source.dataset
    if raw.is_dir():
        _link(raw, root.raw / source.dataset)
    for folder in _data_folders(source):
        names = [f"{case}{ending}" for case in division.cases for ending in ENDINGS]
        _link_files(folder, new / folder.name, names)
        _copy_hashes(folder, new / folder.name, names)
    ending = str(source.dataset_json.get("file_ending", ".nii.gz"))
    _link_files(old / TRUTH, new / TRUTH, [f"{case}{ending}" for case in division.cases])
    write_small(new / SUBJECTS, division.subjects.read_text("utf-8"))
    write_small(new / SPLITS, json_text(division.splits))
    return replace(
        source.request,
        where=source.dataset,
        fold="0",
        root=str(division.folder),
        subjects=str(division.subjects),
    )


def _data_folders(source: Preprocessed) -> list[Path]:
    """Where the cases of the configuration lie, and of a cascade's first stage."""
    names = [source.configuration, source.config.get("previous_stage")]
    folders = [source.plans.data_folder(str(name)) for name in names if name]
    return list(dict.fromkeys(folders))


def _link_files(old: Path, new: Path, names: Iterable[str]) -> None:
    if not old.is_dir():
        return
    with disk_errors(new):
        new.mkdir(exist_ok=True)
    for name in names:
        if (old / name).is_file():
            _link(old / name, new / name)


def _link(old: Path, new: Path) -> None:
    """Let a file or folder have another name; a link that is there already stays."""
    target = os.path.realpath(old)
    with disk_errors(new), contextlib.suppress(FileExistsError):
        os.symlink(target, new, target_is_directory=old.is_dir())
    if os.path.realpath(new) != target:  # it was moved since
        with disk_errors(new):
            new.unlink()
            os.symlink(target, new, target_is_directory=old.is_dir())


def _copy_hashes(old: Path, new: Path, names: Iterable[str]) -> None:
    """What ``prepare`` noted of these files goes on being compared."""
    noted = hashes_of(old)
    if noted.is_file():
        known = read_json(noted)
        kept = {name: known[name] for name in names if name in known}
        write_small(hashes_of(new), json_text(kept))
