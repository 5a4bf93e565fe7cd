"""Label maps of new images, by a training that ``gansynth augment`` has finished or begun."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gansynth.core.identity import HeldOut, LineageMatch, matches
from gansynth.core.lineage import read_lineage, some_names
from gansynth.core.requests.base import Request
from gansynth.core.run_folder import MANIFEST
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource, case_records, same_data_as
from gansynth.core.volumes import read_volume, read_volume_header, written_ending
from gansynth.data.case_writer import ENDING, affine_of, own_name, write_prediction, write_volume
from gansynth.data.grid import axes_in, axes_of, oriented, whole_labels
from gansynth.data.held_out import named_by
from gansynth.data.images import open_images
from gansynth.data.nifti import VolumeSource
from gansynth.hosts.contract import record
from gansynth.metrics.segmentation.evaluation import THRESHOLDS, Prediction
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import (
    TEMPORARY,
    disk_errors,
    remove_dead,
    temporary_beside,
    write_json_atomic,
)
from gansynth.runtime.nifti import named_as_packed
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import build

FILE = "gansynth_prediction.json"  # what predicted the files beside it


@dataclass(frozen=True)
class PredictJob:
    """Images to predict, and the training that predicts them.

    Attributes:
        folder: of the training's results.
        session: the newest one of its record.
        images: folder, file or KIND:WHERE of the images.
        read: how they are read.
        out: folder for what is predicted.
        device: auto, cpu, cuda or cuda:N.
        sure: least probability of foreground, or of background, at which a label is written; else
            the ignore label is. None for the likeliest label everywhere.
    """

    folder: Path
    session: Mapping[str, Any]
    images: str
    read: Mapping[str, str]
    out: Path
    device: str
    reporter: Reporter
    sure: float | None = None

    axes_of = staticmethod(axes_of)

    def opened(self, channels: Sequence[str], like: CaseSource | None = None) -> CaseSource:
        """Open the images; see ``open_images``. Fold ``all`` has every one.

        Raises:
            UsageFault: a prediction would replace a file that is not one, such as an image.
        """
        source = open_images(self.images, self.read, channels, like)
        self._refuse_other_files()
        text = seen_in_training(source, self.session)
        if text:
            self.reporter.say(text)
        return source

    def check_sure(self, ignore: int | None) -> None:
        """Refuse ``sure`` if the labels of the training have no value to ignore."""
        if self.sure is not None and ignore is None:
            raise without_ignore(f"--sure {self.sure:g}: {self.folder}")

    def with_unsure(self, labels: LabelArray, levels: LabelArray, ignore: int) -> LabelArray:
        """Return labels with the ignore value where the foreground is neither sure nor absent.

        Args:
            levels: of the foreground's probability, as ``Prediction.levels_of`` returns them.
        """
        assert self.sure is not None
        sides = np.array([1 - self.sure, self.sure]) - 1e-6  # for 1 - .95 is more than .05
        least, most = np.searchsorted(THRESHOLDS, sides)
        unsure = (levels > least) & (levels <= most)
        return np.where(unsure, np.int16(ignore), labels).astype(np.int16)

    def mark_unsure(
        self, file: Path, probabilities: FloatArray, foreground: Sequence[int], ignore: int
    ) -> None:
        """Write the ignore value into a predicted volume where its probabilities are unsure.

        Args:
            probabilities: (K, D, H, W), along the axes of the file.
            foreground: channels of labels above background.
        """
        volume = read_volume(file, labels=True)
        labels = whole_labels(file, oriented(volume.array, volume.affine))
        levels = oriented(Prediction.levels_of(probabilities, foreground).T, volume.affine)
        write_volume(file, self.with_unsure(labels, levels, ignore), volume.affine)

    def say_turned(self, images: CaseSource, axes: str) -> None:
        """Say which images are turned along the axes of a training's files, if these are known."""
        turned = list[str]()
        for case in images.train_ids if axes else ():
            own = _own_axes(images, case)
            turned += [f"{case} ({own})"] if own != axes else []
        if turned:
            self.reporter.say(
                f"{some_names(turned)}: not stored along the axes of the training cases, {axes}; "
                "turned to be predicted, and back"
            )

    def place_labels(self, source: CaseSource, case: str, predicted: Path) -> Path:
        """Bring a predicted file to its place in ``out``, in its image's format, named as its case.

        It is turned back along the axes of the image.
        """
        own = _own_axes(source, case)
        back = turned_along(predicted, own, predicted.with_name(f"back{ENDING}"))
        if not isinstance(source, VolumeSource):
            labels = whole_labels(back, read_volume(back, labels=True).array)
            return write_labels(source, case, labels[..., 0].T, self.out)
        target = self.out / f"{own_name(case)}{written_ending(source.entry(case).images[0])}"
        with disk_errors(target):
            if target.name.endswith(ENDING) and named_as_packed(back):
                back.replace(target)
                return target
        volume = read_volume(back, labels=True)
        labels = whole_labels(back, oriented(volume.array, volume.affine))
        return write_volume(target, labels, volume.affine)

    def _refuse_other_files(self) -> None:
        there = sorted(self.out.iterdir()) if self.out.is_dir() else []
        held = [path for path in there if not fnmatch(path.name, TEMPORARY)]
        if held and not (self.out / FILE).is_file():
            raise UsageFault(
                "hosts.prediction-folder-holds-others",
                f"{self.out}: holds {held[0].name}, expected a new or empty folder, or one of "
                "earlier predictions; take another one: -o",
            )

    def begin(self, **about: Any) -> None:
        """Make the folder, and write what predicts; EnvironmentFault: the disk refuses."""
        if (self.out / FILE).is_file():
            self.reporter.say(
                f"{self.out}: holds an earlier prediction; files of the same names are replaced"
            )
        with disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            remove_dead(self.out, within=True)
        document: dict[str, Any] = {"gansynth": build(), "trained_in": str(self.folder)}
        document.update(about)
        document["images"] = self.images
        write_json_atomic(self.out / FILE, document)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for files on their way into ``out``, on the same disk, after ``begin``.

        What a killed process leaves in it is removed by the next prediction.
        """
        folder = temporary_beside(self.out.resolve() / "scratch")
        with disk_errors(folder):
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def without_ignore(what: str, instead: str = "") -> UsageFault:
    """Return the error that labels have no value for unsure places; ``instead``: another way."""
    also = f"; {instead}" if instead else ""
    return UsageFault(
        "hosts.sure-without-ignore-label",
        f"{what}: its labels have none that is ignored, expected one for unsure places; train with "
        "one, which no map needs to hold: --read labels=lesion:1,ignore:2, or of nnU-Net in "
        f"dataset.json before it prepares{also}",
    )


def find_result(request: Request, folder: Path) -> Path:
    """Return the folder of a training's record: the one that is named, or the only one below.

    Args:
        request: the command that names the folder as ``result``.
    """
    if not folder.is_dir():
        raise UsageFault(
            "hosts.result-folder-missing",
            f"{folder}: no such folder, expected one that gansynth augment has made",
        )
    if (folder / record.FILE).is_file():
        return folder.absolute()
    found = sorted(folder.rglob(record.FILE), key=lambda path: -path.stat().st_mtime)
    if len(found) == 1:
        return found[0].parent.absolute()
    if not found:
        raise UsageFault(
            "hosts.result-folder-without-training",
            f"{folder}: holds no training, expected the folder of results that gansynth augment "
            "has named at its end",
        )
    newest, *others = [path.parent for path in found]
    typed = shlex.join(["gansynth", *request.replace(result=str(newest)).command_line])
    raise UsageFault(
        "hosts.result-folder-with-several-trainings",
        f"{folder}: holds {len(found)} trainings, expected one; by the newest: {typed} (or take "
        f"{some_names([str(other) for other in others])})",
    )


def trained_sessions(folder: Path) -> list[dict[str, Any]]:
    """Return the sessions of a training, of which the last has trained."""
    sessions = record.TrainingResult.sessions_in(folder)
    if not sessions or not sessions[-1]["epochs"][1]:
        raise UsageFault(
            "hosts.nothing-trained-yet",
            f"{folder}: nothing is trained yet, expected a training with a checkpoint; type its "
            "gansynth augment again",
        )
    return sessions


def newest_session(folder: Path) -> Mapping[str, Any]:
    """Return the newest session of a training."""
    sessions = trained_sessions(folder)
    if "target" not in sessions[-1]:
        document = record.read_record(folder)
        raise UsageFault(
            "hosts.target-framework-not-recorded",
            f"{folder}: was trained by gansynth {document.get('gansynth')}, which did not record "
            "its target framework; predict with that framework's own command",
        )
    return sessions[-1]


def seen_in_training(images: CaseSource, session: Mapping[str, Any]) -> str:
    """Return in words which images a training has seen, as far as its record tells; "" if none.

    The record has hashes. Looks are compared if the run of its generator is still there.
    """
    everyone = list(record.lineages_of(session))
    run = (session.get("generator") or {}).get("folder")
    if run and (Path(run) / MANIFEST).is_file():
        everyone += read_lineage(Path(run)).everyone()
    if not everyone:
        return ""
    naming = (session.get("source") or {}).get("subjects") or ""
    ids = [case.id for each in everyone for case in each.cases]
    named = named_by(naming, ids, case_records(images, images.train_ids))
    asked = HeldOut(named, same_data_as(images, named))
    seen: dict[str, LineageMatch] = {}
    for each in everyone:
        seen = matches(each, asked) | seen
    if not seen:
        return ""
    names = [f"{case} ({match})" for case, match in seen.items()]
    return (
        f"{len(seen)} of {len(named)} image(s) were seen in training, or show people who were: "
        f"{some_names(names)}; what is measured on them says nothing about new patients"
    )


def write_labels(
    source: CaseSource,
    case: str,
    labels: LabelArray,
    folder: Path,
    numbers: Mapping[int, int] = MappingProxyType({}),
) -> Path:
    """Write a label map on the grid of the case's own file, under the case's name.

    Args:
        labels: int16 (D, H, W) or (H, W), on the grid of ``source.load``.
        numbers: label -> its number in a picture, as training masks hold it, where they differ.
    """
    written = write_prediction(source, case, labels, folder, numbers=numbers)
    if written is None:
        raise DataFault(
            "hosts.case-without-own-file",
            f"{source.name}: case {case!r} has no file of its own, expected volumes or pictures "
            "on whose grid its label map can be written",
        )
    return written


def raw_files(
    source: CaseSource,
    case: str,
    channels: int,
    scratch: Path,
    axes: str = "",
    *,
    labels: bool = False,
) -> list[Path]:
    """Return a NIfTI file of three axes for each channel: its own, or written to ``scratch``.

    Args:
        axes: along which they are stored, as those of a training; by default along their own.
        labels: whether the file of the case's label map comes last, if it has one.
    """
    files = _channel_files(source, case, channels, scratch)
    if labels and isinstance(source, VolumeSource):
        truth = source.entry(case).labels
        files += [] if truth is None else [truth]
    turned = [scratch / f"turned_{number:04d}{ENDING}" for number in range(len(files))]
    return [turned_along(*each) for each in zip(files, [axes] * len(files), turned, strict=True)]


def _channel_files(source: CaseSource, case: str, channels: int, scratch: Path) -> list[Path]:
    if isinstance(source, VolumeSource):
        own = source.entry(case).images
        if len(own) == channels and all(
            named_as_packed(f) and len(read_volume_header(f).shape) == 3 for f in own
        ):
            return list(own)
        stored = source.files(case)
        assert stored.arrays is not None
        assert stored.affine is not None
        image, affine = stored.arrays()[0], stored.affine
    else:  # as it is imported: a picture is a volume of one slice
        image, affine = source.load(case).image, affine_of(source.schema.spacing)
    if len(image) != channels:
        raise DataFault(
            "hosts.case-channels-differ",
            f"{source.name}: {case}: {len(image)} channel(s), expected {channels}",
        )
    files = [scratch / f"image_{number:04d}{ENDING}" for number in range(channels)]
    for file, channel in zip(files, image, strict=True):
        write_volume(file, np.atleast_3d(channel.T).T, affine)
    return files


# -- along which axes files lie ------------------------------------------------------------------


def _own_axes(source: CaseSource, case: str) -> str:
    if isinstance(source, VolumeSource):
        return source.entry(case).axes
    return axes_in(affine_of(source.schema.spacing))


def turned_along(file: Path, axes: str, copy: Path) -> Path:
    """Return a file as NIfTI along other axes: itself, if it is and lies so, or a copy.

    Without ``axes`` it keeps its own.
    """
    import nibabel
    from nibabel import orientations

    own = axes_in(read_volume_header(file).affine)
    along = axes in ("", own)
    if along and file.name.lower().endswith((".nii", ENDING)):
        return file
    volume = read_volume(file)
    array = volume.array.astype("u1") if volume.array.dtype == bool else volume.array
    image: Any = nibabel.Nifti1Image(array, volume.affine, dtype=array.dtype)
    if not along:
        turns = orientations.ornt_transform(*map(orientations.axcodes2ornt, (own, axes)))
        image = image.as_reoriented(turns)
    nibabel.save(image, copy)
    return copy
