"""The CaseSource contract: the cases of one fold, training cases apart from held-out ones."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from gansynth.core.fingerprint import prints_of
from gansynth.core.lineage import CaseRecord, Lineage, read_lineage
from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Schema, content_hash
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.serialise import Document


@dataclass(frozen=True)
class SourceRequest(Document, later=("synthetic",)):
    """A user's request of a source; plain values, so another process can open the same one.

    Attributes:
        where: the text behind the colon, e.g. ``004`` or a path.
        fold: fold number as text, or ``"all"``.
        configuration: the host's configuration (nnU-Net: ``2d``, ``3d_fullres``), if it has any.
        plans: name of the host's plans; None for its default.
        subjects: CSV (``case,subject`` columns) or regular expression with the subject as first
            group. None: every case is a subject, unless the source knows better.
        root: folder that holds the host's folders; None takes the host's own environment.
        read: options of reading, key -> text as typed after ``--read``; keys depend on the kind.
        view: the view of a part of a composite run (see ``gansynth.data.views``).
        synthetic: the run or bank that generated its cases, if they are synthetic.
    """

    kind: str
    where: str
    fold: str = "0"
    configuration: str | None = None
    plans: str | None = None
    subjects: str | None = None
    root: str | None = None
    read: Mapping[str, str] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)
    synthetic: str | None = None

    @classmethod
    def parse(cls, text: str, **fields: Any) -> SourceRequest:
        """Parse ``kind:where``. Raises UsageFault: the text has no kind."""
        kind, colon, where = text.partition(":")
        if not colon or not kind or not where:
            raise UsageFault(f"--data {text!r}: expected KIND:WHERE, for example msd:Task04")
        return cls(kind=kind, where=where, **fields)


@dataclass(frozen=True)
class OriginalCase:
    """A case as stored in its files, on the grid of the source's ``load``.

    Attributes:
        image: float32 (C, D, H, W) in the files' own units: nothing is normalised.
        labels: int16 (D, H, W).
        spacing: mm along D, H, W, by the files' headers.
        stored: for each axis (x, y, z) of the files, the axis (x, y, z) of ``load`` it maps to,
            and direction, 1 or -1 (nibabel's orientation).
        units: of each channel, (scale, offset): ``load`` times scale plus offset is ``image``.
        exact: whether nothing was interpolated.
    """

    image: FloatArray
    labels: LabelArray
    spacing: tuple[float, ...]
    stored: tuple[tuple[int, int], ...]
    units: tuple[tuple[float, float], ...]
    exact: bool

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.image.nbytes + self.labels.nbytes


StoredCase = tuple[FloatArray, LabelArray, npt.NDArray[np.float64] | None]
"""Image (C, D, H, W), labels (D, H, W), and the affine (4, 4) of their files, None without such."""


def places_of(request: SourceRequest) -> tuple[Path, ...]:
    """Return the file or folder that a request names, behind any kind; empty if none exists."""
    text = request.where
    while text:
        path = Path(os.path.abspath(os.path.expanduser(text)))
        if path.exists():
            return (path,)
        text = text.partition(":")[2]  # slices:nifti:FOLDER
    return ()


class CaseSource(ABC):
    """Labelled cases of one fold, split into training and held-out ones."""

    request: SourceRequest

    @property
    @abstractmethod
    def name(self) -> str:
        """Stable name of the data set, e.g. ``nnunet:Dataset004_Hippocampus``."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """Meaning of the arrays of ``load``."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space of generators for this source, with the host's record."""

    @property
    @abstractmethod
    def train_ids(self) -> tuple[str, ...]:
        """Cases a generator may see, sorted."""

    @property
    @abstractmethod
    def held_out_ids(self) -> tuple[str, ...]:
        """Validation and test cases of the fold, sorted; a generator never sees them."""

    @abstractmethod
    def load(self, case_id: str) -> Case:
        """Read one case, float32 (C, D, H, W), int16 (D, H, W); DataFault if it cannot."""

    def subject(self, case_id: str) -> str:
        """Return the subject of a case; the case's id if unknown."""
        return case_id

    def label_class(self, case_id: str) -> int | None:
        """Return the number of a case's class, or None; the base class reads the whole case."""
        return self.load(case_id).label_class if self.schema.classes else None

    @property
    def fold(self) -> str:
        """The fold, as text."""
        return self.request.fold

    @property
    def places(self) -> tuple[Path, ...]:
        """Files and folders of its cases, as far as known."""
        return places_of(self.request)

    @property
    def unit(self) -> str:
        """Unit of spacings and distances: ``mm``, or ``px`` if no voxel size is known."""
        return "mm"

    @property
    def host(self) -> Mapping[str, Any]:
        """The record of the source's space, which must match before samples enter its host."""
        return self.space.host

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """Lineages of the generators of its label maps or cases, if any."""
        if self.request.synthetic is None:
            return ()
        folder = Path(self.request.synthetic).expanduser()
        try:
            return (read_lineage(folder),)
        except DataFault as fault:
            raise DataFault(
                f"--synthetic-source {folder}: neither a run nor a bank, expected the one that "
                "generated these cases"
            ) from fault

    def cases(self, ids: Iterable[str] | None = None) -> Iterator[Case]:
        """Load cases one by one; the training cases if no ids are given."""
        for case_id in self.train_ids if ids is None else ids:
            yield self.load(case_id)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Return the spatial shape of a case in voxels; the base class reads the whole case."""
        return self.load(case_id).image.shape[1:]

    def spacing(self, case_id: str) -> tuple[float, ...]:
        """Return the spacing of a case's arrays, in ``unit``; here that of all cases."""
        return self.schema.spacing

    def original(self, case_id: str) -> OriginalCase:
        """Return a case as stored in its files; UsageFault: unsupported, as in the base class."""
        raise UsageFault(
            f"{self.name}: cases of {self.request.kind}: have no way back to whole volumes as "
            "their files hold them. A host's own preprocessing starts from these; expected a "
            "generator fitted on volumes as their files hold them, or on the host's own cases"
        )

    def stored(self, case_id: str, labels: LabelArray) -> StoredCase:
        """Return a case, with a label map on the grid of ``load``, on the grid of its files.

        The image is in the files' units. Axes run from feet to head, back to front, left to right;
        a picture is a volume of one slice. The base class knows no files and returns its arrays.
        """
        return self.load(case_id).image, labels, None

    def predicted(self, case_id: str, file: Path) -> LabelArray:
        """Return a host's prediction of a case, int16 on the grid of ``load``.

        ``file``: the host's label map, on the grid of the case's own files. Raises UsageFault: the
        source has no such files, as in the base class. DataFault: a damaged file, another grid or
        other labels.
        """
        raise UsageFault(
            f"{self.name}: a host's label maps of cases of {self.request.kind}: cannot be brought "
            "to their voxels; expected volumes as their files hold them"
        )

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        """Return the boxes of a sample's label map, for hosts that learn from boxes, or None.

        ``labels``: int16, in the generator's voxels.
        """
        return None

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Return the same cases in other folds, for any process to open; no image is copied.

        Fold k trains on ``splits[k]["train"]`` and holds out ``splits[k]["val"]``, of any cases of
        the data set. Lists, links and small files are written into ``folder``, which must persist.
        Returns the request of fold 0. Raises UsageFault: an unsupported kind, unknown cases, an
        empty side, or another split in the folder; IntegrityFault: a subject on both sides;
        EnvironmentFault: a failed write.
        """
        raise UsageFault(
            f"{self.name}: cases of {self.request.kind} cannot be split into other folds; expected "
            "the cases of another source, as files or in the layout of a host"
        )

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """Return a case's lineage record; without image hashes if the image is constant."""
        case = (load or self.load)(case_id)
        subject, content = self.subject(case.id), self.content(case_id, lambda _: case)
        if not np.ptp(case.image):
            return CaseRecord(case.id, subject, content)
        image = content_hash(case.image)
        return CaseRecord(
            case.id, subject, content, image, prints_of(case.image, self.schema.spacing)
        )

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """Return ``sha256`` of a case's record; may be cheaper than the whole record.

        Blank images are all alike, so it is of their name, too.
        """
        case = (load or self.load)(case_id)
        content = content_hash(case.image, case.labels)
        if np.ptp(case.image.reshape(len(case.image), -1), axis=1).any():
            return content
        return hashlib.sha256(f"{content} {self.name} {case_id}".encode()).hexdigest()

    def records(self, ids: Iterable[str]) -> tuple[CaseRecord, ...]:
        """Return lineage records of cases, sorted by id."""
        return tuple(self.record(case_id) for case_id in sorted(ids))

    def lineage(self) -> Lineage:
        """Return the lineage of models trained on this source's training cases."""
        records = self.records(self.train_ids)
        return Lineage(self.name, self.fold, records, dict(self.host), self.ancestors)


class WrappedSource(CaseSource):
    """A source derived from another one; it delegates all that a subclass does not override."""

    def __init__(self, base: CaseSource) -> None:
        self.base, self.request = base, base.request

    @property
    def name(self) -> str:
        """Name of the base source."""
        return self.base.name

    @property
    def schema(self) -> Schema:
        """Schema of the base source."""
        return self.base.schema

    @property
    def space(self) -> Space:
        """Space of the base source, with its host's record."""
        return self.base.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the base source."""
        return self.base.train_ids

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Held-out cases of the base source."""
        return self.base.held_out_ids

    def load(self, case_id: str) -> Case:
        """Read a case of the base source."""
        return self.base.load(case_id)

    def stored(self, case_id: str, labels: LabelArray) -> StoredCase:
        """Return image, labels and affine from the base source."""
        return self.base.stored(case_id, labels)

    def subject(self, case_id: str) -> str:
        """Return the subject of a case."""
        return self.base.subject(case_id)

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        """Return the boxes of a sample's label map, or None."""
        return self.base.boxes_around(labels)

    def label_class(self, case_id: str) -> int | None:
        """Return the number of a case's class; None without classes."""
        return self.base.label_class(case_id)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Return the spatial shape of a case in voxels."""
        return self.base.shape(case_id)

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """Return the base source's lineage record of the whole case."""
        return self.base.record(case_id)

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """Return the ``sha256`` of ``record``."""
        return self.base.content(case_id)

    @property
    def unit(self) -> str:
        """Unit of the base source."""
        return self.base.unit

    @property
    def places(self) -> tuple[Path, ...]:
        """Places of the base source."""
        return self.base.places

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """Ancestors of the base source."""
        return self.base.ancestors


class FoldSplit(TypedDict):
    """One fold: its training and its held-out cases."""

    train: list[str]
    val: list[str]
