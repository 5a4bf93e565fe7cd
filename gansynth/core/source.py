"""The CaseSource contract: the training cases of one fold, and nothing that is held out."""

from __future__ import annotations

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
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema, content_hash
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.serialise import Document


@dataclass(frozen=True)
class SourceRequest(Document, later=("synthetic",)):
    """What a user asked for; plain values, so that another process can open the same source.

    Attributes:
        where: what follows the colon, e.g. ``004`` or a path.
        fold: fold number as text, or ``"all"``.
        configuration: the host's configuration (nnU-Net: ``2d``, ``3d_fullres``), if it has any.
        plans: name of the host's plans; None for its default.
        subjects: CSV (``case,subject`` columns) or regular expression whose first group is the
            subject; None makes every case a subject of its own, unless the source knows better.
        root: folder that holds the host's folders; None takes the host's own environment.
        read: how to read it, key -> text as typed after ``--read``; each kind has its own keys.
        view: what a part of a composite run sees of it (see ``gansynth.data.views``).
        synthetic: the run or bank that drew its cases, if they are synthetic.
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
        """Read ``kind:where``. Raises UsageFault: if the text has no kind."""
        kind, colon, where = text.partition(":")
        if not colon or not kind or not where:
            raise UsageFault(f"--data {text!r}: expected KIND:WHERE, for example nnunet:004")
        return cls(kind=kind, where=where, **fields)


@dataclass(frozen=True)
class Original:
    """A case as its files have it, on the grid of what the source's ``load`` makes of it.

    Attributes:
        image: float32 (C, D, H, W) in the files' own units: nothing is normalised.
        labels: int16 (D, H, W).
        spacing: mm along D, H, W, by the files' headers.
        stored: for each axis (x, y, z) of the files, the axis (x, y, z) of ``load`` it has become
            and the direction, 1 or -1, it is read in: nibabel's orientation.
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


def places_of(request: SourceRequest) -> tuple[Path, ...]:
    """The file or folder that a request names, behind any kind; none if there is no such one."""
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
        """What the arrays of ``load`` mean."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space a generator for this source works in, with the host's record."""

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
        """The person a case belongs to; the case itself where nothing else is known."""
        return case_id

    def label_class(self, case_id: str) -> int | None:
        """Number of a case's class, or None; this one reads the whole case."""
        return self.load(case_id).label_class if self.schema.classes else None

    @property
    def fold(self) -> str:
        """The fold, as text."""
        return self.request.fold

    @property
    def places(self) -> tuple[Path, ...]:
        """Files and folders its cases lie in, as far as that is known."""
        return places_of(self.request)

    @property
    def unit(self) -> str:
        """What spacings, and so distances, are in: ``mm``, or ``px`` where no size is known."""
        return "mm"

    @property
    def host(self) -> Mapping[str, Any]:
        """The record of the source's space that must match before samples enter its host."""
        return self.space.host

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """Lineages of what drew its label maps, or whole cases, if a generator did."""
        if self.request.synthetic is None:
            return ()
        folder = Path(self.request.synthetic).expanduser()
        try:
            return (read_lineage(folder),)
        except DataFault as fault:
            raise DataFault(
                f"--synthetic-source {folder}: neither a run nor a bank, expected the one that "
                "drew these cases"
            ) from fault

    def cases(self, ids: Iterable[str] | None = None) -> Iterator[Case]:
        """Load cases one by one; the training cases if no ids are given."""
        for case_id in self.train_ids if ids is None else ids:
            yield self.load(case_id)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Spatial shape of a case in voxels; this one reads the whole case."""
        return self.load(case_id).image.shape[1:]

    def spacing(self, case_id: str) -> tuple[float, ...]:
        """Spacing of a case's arrays, in ``unit``; here that of all cases."""
        return self.schema.spacing

    def original(self, case_id: str) -> Original:
        """A case as its files have it; UsageFault: not known, as of this one."""
        raise UsageFault(
            f"{self.name}: cases of {self.request.kind}: have no way back to whole volumes as "
            "their files hold them, which a host's own preprocessing starts from; expected a "
            "generator fitted on volumes (nnunet-raw:, nifti:, msd:), or on the host's own cases"
        )

    def stored(self, case_id: str) -> tuple[FloatArray, npt.NDArray[np.float64]]:
        """The image of a case in its files' own units and on their grid, and their affine (4, 4).

        Of a source without such files as ``load`` has it, of a slice a volume of one: float32 (C,
        D, H, W), axes from feet to head, back to front, left to right.
        """
        image, mm = self.load(case_id).image, self.schema.spacing
        if self.schema.ndim == 2:
            image, mm = image[:, None], (1.0, *mm)
        return image, np.diag([*mm[::-1], 1.0])

    def predicted(self, case_id: str, file: Path) -> LabelArray:
        """What a host has made of a case, int16 on the grid of ``load``.

        ``file``: the host's label map, on the grid of the case's own files. Raises UsageFault: the
        source has no such files; this one never does; DataFault: damaged, or of another grid or
        labels.
        """
        raise UsageFault(
            f"{self.name}: a host's label maps of cases of {self.request.kind}: cannot be brought "
            "to their voxels; expected volumes as their files hold them: nnunet-raw:, nifti:, msd:"
        )

    def divided(self, splits: Sequence[Split], folder: Path) -> SourceRequest:
        """The same cases in other folds, for any process to open; no image is copied.

        Fold k trains on ``splits[k]["train"]`` and holds out ``splits[k]["val"]``, of any cases of
        the data set. Lists, links and small files are written into ``folder``, which must live on.
        Returns the request of fold 0. Raises UsageFault: the kind cannot; unknown cases, an empty
        side, or another split there; IntegrityFault: a subject is on both sides; EnvironmentFault:
        the disk refuses.
        """
        raise UsageFault(
            f"{self.name}: cases of {self.request.kind}: cannot be dealt out otherwise, expected a "
            "data set as its files have it: nnunet:, nnunet-raw:, nifti:, msd:, pictures:, yolo:, "
            "deepmedic:, or slices: of one of these"
        )

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """What lineage remembers of a case; of an image that shows nothing, no image."""
        case = (load or self.load)(case_id)
        subject, content = self.subject(case.id), self.content(case_id, lambda _: case)
        if not np.ptp(case.image):
            return CaseRecord(case.id, subject, content)
        image = content_hash(case.image)
        return CaseRecord(case.id, subject, content, image, prints_of(case.image))

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """``sha256`` of a case's record alone: whether it is still the same is cheaper to know."""
        case = (load or self.load)(case_id)
        return content_hash(case.image, case.labels)

    def records(self, ids: Iterable[str]) -> tuple[CaseRecord, ...]:
        """Lineage records of cases, sorted by id."""
        return tuple(self.record(case_id) for case_id in sorted(ids))

    def lineage(self) -> Lineage:
        """The lineage of whatever learns from this source's training cases."""
        records = self.records(self.train_ids)
        return Lineage(self.name, self.fold, records, dict(self.host), self.ancestors)


class Wrapped(CaseSource):
    """A source seen otherwise: all that a subclass does not say anew is that of the one behind."""

    def __init__(self, base: CaseSource) -> None:
        self.base, self.request = base, base.request

    @property
    def name(self) -> str:
        """The source's behind."""
        return self.base.name

    @property
    def schema(self) -> Schema:
        """The source's behind."""
        return self.base.schema

    @property
    def space(self) -> Space:
        """The source's behind, with its host's record."""
        return self.base.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        """The source's behind."""
        return self.base.train_ids

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """The source's behind."""
        return self.base.held_out_ids

    def load(self, case_id: str) -> Case:
        """A case of the source behind."""
        return self.base.load(case_id)

    def stored(self, case_id: str) -> tuple[FloatArray, npt.NDArray[np.float64]]:
        """As the source behind has it."""
        return self.base.stored(case_id)

    def subject(self, case_id: str) -> str:
        """The person a case belongs to."""
        return self.base.subject(case_id)

    def label_class(self, case_id: str) -> int | None:
        """Number of a case's class; None where there are none."""
        return self.base.label_class(case_id)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Spatial shape of a case in voxels."""
        return self.base.shape(case_id)

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """Lineage record of the whole case, as the source behind keeps it."""
        return self.base.record(case_id)

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """As ``record`` has it."""
        return self.base.content(case_id)

    @property
    def unit(self) -> str:
        """The source's behind."""
        return self.base.unit

    @property
    def places(self) -> tuple[Path, ...]:
        """The source's behind."""
        return self.base.places

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """The source's behind."""
        return self.base.ancestors


class Split(TypedDict):
    """One fold: its training and its held-out cases."""

    train: list[str]
    val: list[str]
