"""``augment --unlabelled SCANS`` without a vow: a first training marks the scans.

Nobody says that they are free of lesions. So the target is first trained on real cases alone (or
the user names a training, ``--first``), which marks the scans; then it is trained with them
(``--self-train``). Each step that is done is found again when the command is typed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.conditions.condition_source import check_opens
from gansynth.core.identity import Door, HeldOut, refuse_seen
from gansynth.core.requests.hosts import AugmentRequest, PredictRequest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.nifti import VolumeSource
from gansynth.data.pictures import PictureSource
from gansynth.hosts.contract import record
from gansynth.hosts.contract.host import Framework
from gansynth.hosts.contract.prediction import (
    FILE,
    find_result,
    newest_session,
    raw_files,
    without_ignore,
)
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, read_json, write_json_atomic
from gansynth.runtime.progress import Reporter

SURE = 0.9
"""Probability from which a place is marked as sure."""
SHARE = 0.5
"""Share of samples that are marked scans, unless ``--self-train`` says another."""
MARKED, IMAGES, LABELS, DONE = "marked", "images", "labels", "marked.json"
"""Folder beside a training's results, and what is in it; the last is written when all are there."""
OF_FILES = frozenset(
    {"image", "label", "labels", "images", "masks", "mask_suffix", "splits", "folds", "seed"}
    | {"fold", "plans", "configuration", "root"}
)
"""Keys of ``--unlabelled-read`` that say where files are and which are taken."""


def unvouched(request: AugmentRequest, asked: SourceRequest) -> tuple[CaseSource, ...]:
    """Return the scans that nobody vouches for and no label map is of; none without samples.

    Args:
        asked: the training cases.
    """
    if request.lesion_free or request.bank is not None or not request.mix.synthetic:
        return ()
    scans = check_opens(request.samples, asked)
    bare = [each for each in scans if not each.schema.foreground]
    if len(bare) < len(scans) and (bare or request.first is not None):
        raise UsageFault(
            "hosts.scans-marked-already",
            f"{request.typed('first' if request.first is not None else 'unlabelled')}: "
            f"{scans[0].name} has label maps, which mark its scans; expected scans without, to be "
            "marked by a first training. Name them alone, or give all of them label maps",
        )
    return tuple(bare)


@dataclass(frozen=True)
class FirstTraining:
    """The training that marks scans.

    Attributes:
        request: of the training with them.
        source: the training cases.
        scans: to be marked.
        folder: of the first training's record.
        alone: the first training; None for one that the user names.
        trained: whether it is finished.
    """

    request: AugmentRequest
    source: CaseSource
    scans: Sequence[CaseSource]
    folder: Path
    alone: AugmentRequest | None = None
    trained: bool = True

    @property
    def is_done(self) -> bool:
        """Whether the scans are marked."""
        return self.trained and (self.out / DONE).is_file()

    @property
    def share(self) -> float:
        """Share of samples that are marked scans."""
        asked = self.request.self_train
        return SHARE if asked is None else asked

    def planned(self, hours: object) -> dict[str, Any]:
        """Return what a dry run says of it; it takes as long as the training with samples."""
        state = "is finished" if self.trained else "to be trained on real cases alone"
        return {
            "first_training": f"{self.folder}: {state}, and marks the scans",
            "first_training_hours": 0 if self.trained else hours,
            "self_train": self.share,
        }

    @property
    def out(self) -> Path:
        """Folder of the marked scans, whose name tells which they are."""
        from gansynth.core.case_store import digest

        which = [(str(each.request.to_json()), *each.train_ids) for each in self.scans]
        return self.folder / MARKED / digest(json.dumps(which))[:8]

    @property
    def marked(self) -> AugmentRequest:
        """The training with the scans, once they are marked."""
        typed = {k: v for k, v in self.request.unlabelled_read.items() if k not in OF_FILES}
        labels = self.source.schema.labels
        places, numbers = [], dict[str, int]()
        for number, each in enumerate(self.scans):
            place = self.out / str(number)
            kind = "nifti" if isinstance(each, VolumeSource) else "pictures"
            places.append(f"{kind}:{place}")
            told = read_json(place / LABELS / FILE) if (place / LABELS / FILE).is_file() else {}
            numbers |= told.get("labels") or labels
        named = ",".join(f"{name}:{value}" for name, value in numbers.items() if value)
        read = {"images": IMAGES, "masks": LABELS}
        if isinstance(self.scans[0], VolumeSource):
            read = {
                "image": f"{IMAGES}/{{case}}_{{channel}}.nii.gz",
                "label": f"{LABELS}/{{case}}.nii.gz",
            }
        return self.request.replace(
            without=("first",),
            unlabelled=tuple(places),
            unlabelled_read={**typed, **read, "labels": named},
            self_train=self.share,
        )

    def mark(
        self, predict: Callable[[PredictRequest], Any], reporter: Reporter
    ) -> Mapping[str, Any]:
        """Mark the scans, unless they are; return what did."""
        done = self.out / DONE
        if not done.is_file():  # the training is finished by now
            with disk_errors(self.out):
                shutil.rmtree(self.out, ignore_errors=True)  # of a command that was stopped
                for number, each in enumerate(self.scans):
                    self._mark(each, self.out / str(number), predict)
            about = {"first_training": str(self.folder), "sure": SURE}
            about["scans"] = sum(len(each.train_ids) for each in self.scans)
            write_json_atomic(done, about)
        found: Mapping[str, Any] = read_json(done)
        reporter.say(
            f"{found['scans']} scan(s) are marked in {self.out} by {self.folder}; foreground less "
            f"likely than {SURE:g}, and more than {1 - SURE:.2g}, is ignored"
        )
        if "self_train" not in self.request.given:
            reporter.say(
                f"--self-train {SHARE:g}: share of samples that are these scans; others "
                "are not measured"
            )
        return found

    def _mark(
        self, scans: CaseSource, place: Path, predict: Callable[[PredictRequest], Any]
    ) -> None:
        images = place / IMAGES
        images.mkdir(parents=True)
        scratch = place / "scratch"
        for case in scans.train_ids:
            _copy(scans, case, images, scratch)
        shutil.rmtree(scratch, ignore_errors=True)
        predict(
            PredictRequest(
                self.folder,
                str(images),
                out=place / LABELS,
                sure=SURE,
                device=self.request.device,
                quiet=self.request.quiet,
            )
        )


def _copy(scans: CaseSource, case: str, folder: Path, scratch: Path) -> None:
    """Link to, or write, the images of a scan under its name."""
    from gansynth.data.case_writer import ENDING, own_name

    if isinstance(scans, PictureSource):
        file = scans.found.pictures[case].image
        (folder / f"{own_name(case)}{file.suffix}").symlink_to(file.absolute())
        return
    scratch.mkdir(exist_ok=True)
    for number, file in enumerate(raw_files(scans, case, len(scans.schema.channels), scratch)):
        target = folder / f"{own_name(case)}_{number:04d}{ENDING}"
        if file.parent != scratch and file.name.endswith(ENDING):
            target.symlink_to(file.absolute())
        else:
            shutil.copyfile(file, target)


def check_markable(
    request: AugmentRequest,
    cls: type[Framework],
    source: CaseSource,
    scans: Sequence[CaseSource],
    vow: str = "or vouch that they are free of lesions: --lesion-free",
) -> None:
    """Refuse what could not mark the scans, before anything is trained.

    Args:
        vow: what else can be typed; empty where nothing can.
    """
    typed = request.typed("unlabelled")
    odd = [each for each in scans if not isinstance(each, VolumeSource | PictureSource)]
    if odd:
        raise UsageFault(
            "hosts.scans-of-other-kind",
            f"{typed}: {odd[0].request.kind} cannot be marked here, expected nifti or pictures; "
            f"mark them yourself (gansynth predict RESULT IMAGES --sure {SURE:g})"
            + f", {vow}"
            * bool(vow),
        )
    if request.first is None and (request.export is not None or not cls.predicts_levels()):
        why, ways = f"{cls.name} has no probabilities to mark them by", [vow.removeprefix("or ")]
        if request.export is not None:
            why = "an export trains nothing that could mark them"
            ways = ["name the results of a training that can: --first RESULT", vow]
        raise UsageFault(
            "hosts.scans-unvouched",
            f"{typed}: nobody says that these scans are free of lesions, and {why}; "
            + ": ".join(["expected one of both", *filter(None, ["; ".join(ways)])]),
        )
    if source.schema.ignore is None:
        raise without_ignore(f"{typed}: {source.name}", vow)


def check_named(folder: Path, held_out: HeldOut) -> None:
    """Refuse a training of ``--first`` that has seen held-out people."""
    door = Door("--first", "Name a training on this fold, or leave --first out: one is made")
    for lineage in record.lineages_of(newest_session(folder)):
        refuse_seen(lineage, held_out, door)


def named_first(request: AugmentRequest) -> Path:
    """Return the folder of the training that ``first`` names."""
    assert request.first is not None
    typed = PredictRequest(request.first, "IMAGES", out="DIR")
    return find_result(typed, Path(request.first))
