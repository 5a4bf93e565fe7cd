"""The CaseSource contract: the cases of one fold, training cases apart from held-out ones."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from gansynth.core.case_store import Arrays, CaseStore, kept_in
from gansynth.core.fingerprint import Prints, prints_of
from gansynth.core.identity import same_data
from gansynth.core.lineage import CaseRecord, Lineage, look_alike, read_lineage
from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Schema, content_hash
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.runtime.workers import in_processes, processes_for

if TYPE_CHECKING:
    from gansynth.core.requests.base import Request

STORED = 8
"""How many times larger a case's image is in memory than its files, about."""
COPIES = 4
"""How many times its image a process takes of memory at most to make a record."""


@dataclass(frozen=True)
class SlicePosition:
    """Position of a 2D case among the others of its subject; None where unknown.

    ``stack``: the volume, or the subject. ``thickness``: from slice to slice, in the source's unit.
    """

    stack: str
    index: int | None = None
    thickness: float | None = None


@dataclass(frozen=True)
class SourceRequest(Document, optional=("synthetic", "sites")):
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
        sites: CSV (``case,site`` columns) or regular expression with the site as first group.
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
    sites: str | None = None

    @classmethod
    def parse(cls, text: str, **fields: Any) -> SourceRequest:
        """Parse ``kind:where``. Raises UsageFault: the text has no kind."""
        kind, colon, where = text.partition(":")
        if not colon or not kind or not where:
            raise UsageFault(
                "source.data-malformed",
                f"--data {text!r}: expected KIND:WHERE, for example msd:Task04",
            )
        return cls(kind=kind, where=where, **fields)

    @property
    def usual(self) -> SourceRequest:
        """The same data, read as they are where nothing is said of it."""
        return type(self)(self.kind, self.where)

    def words(self, model: type[Request], **fields: Any) -> list[str]:
        """Return the words after ``gansynth`` of a command on these data, read as these are.

        Every next command and way out is made here: nothing of the request is lost on the way.

        Args:
            model: the command's request; what it does not take is left out.
            fields: its other fields, or the same with other values.
        """
        usual = self.usual
        taken = {"data": f"{self.kind}:{self.where}", "source": f"{self.kind}:{self.where}"}
        taken |= {"synthetic_source": self.synthetic} if self.synthetic else {}
        for name in ("configuration", "plans", "fold", "subjects", "sites", "read", "root"):
            if getattr(self, name) != getattr(usual, name):
                taken[name] = getattr(self, name)
        known = {name: value for name, value in taken.items() if name in model.model_fields}
        return model.typed_as(known | fields)

    def command(self, model: type[Request], **fields: Any) -> str:
        """Return the command of ``words`` as it is pasted."""
        return shlex.join(["gansynth", *self.words(model, **fields)])

    def absolute(self, where: str | Path = "") -> SourceRequest:
        """Return it with absolute paths, for a run's record: ``where``, splits and tables."""
        read = dict(self.read)
        tables: dict[str, Any] = {
            key: str(Path(text).absolute())
            for key, text in (("subjects", self.subjects), ("sites", self.sites))
            if text is not None and os.path.isfile(text)
        }
        if "splits" in read:
            read["splits"] = str(Path(read["splits"]).expanduser().absolute())
        path = str(where) or str(Path(self.where).expanduser().absolute())
        return replace(self, where=path, read=read, **tables)

    def check(self, **fields: Any) -> str:
        """Return the command that finds what is wrong with these data; see ``command``."""
        from gansynth.core.requests.samples import CheckRequest

        return self.command(CheckRequest, **fields)


@dataclass(frozen=True)
class Finding:
    """One finding; one with an ``error`` makes the data set unusable as it is.

    ``cure``: words of ``gansynth check`` that mend it, ``{"write_subjects": "subjects.csv"}``.
    """

    level: Literal["error", "warning"]
    case: str | None
    file: Path
    message: str
    cure: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, case: str | None, file: Path, fault: GansynthError) -> Finding:
        """Return a fault as a finding; one of the machine (EnvironmentFault) is raised instead."""
        if isinstance(fault, EnvironmentFault):
            raise fault
        return cls("error", case, file, str(fault))


class Looked(NamedTuple):
    """What ``gansynth.data.plausibility`` says: what is wrong, or why that cannot be told."""

    wrong: str = ""
    unclear: str = ""


@dataclass(frozen=True)
class CheckReport:
    """The findings of one pass, errors first; ``will_it_harm``: of samples beside the cases.

    ``request``: of the data that were checked; ``source``: opened, if they have no error.
    ``lineage_verified``: whether a run's record is that of the data; None if nobody asked.
    ``looked``: what is said of label maps' places; None if it was not asked.
    ``site_gaps``: comparisons of sites, see ``gansynth.hosts.data_sets.sites``.
    """

    name: str
    cases: int
    findings: Sequence[Finding]
    will_it_harm: Mapping[str, Any] = field(default_factory=dict)
    request: SourceRequest | None = None
    source: CaseSource | None = None
    lineage_verified: bool | None = None
    looked: Looked | None = None
    site_gaps: Sequence[Mapping[str, Any]] = ()

    def with_findings(self, findings: Iterable[Finding]) -> CheckReport:
        """Return a report of these in place of its findings: errors first, then by case."""
        in_order = sorted(findings, key=lambda f: (f.level, f.case or ""))
        return replace(self, findings=in_order)


Check = Callable[[SourceRequest, Callable[[int, int], None]], CheckReport]
"""(request, progress(done, total)) -> all findings, in one pass over every file."""


@dataclass(frozen=True)
class CaseHeader:
    """A case without its arrays.

    Attributes:
        subject: whose case it is; the case's id if unknown.
        shape: of the arrays of ``load``, (D, H, W) or (H, W), in voxels.
        spacing: of these voxels, in the source's ``unit``.
        label_class: number of the case's class; None without classes.
    """

    subject: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    label_class: int | None = None


@dataclass(frozen=True)
class StoredCase:
    """How a case lies in its files, and how label maps get there and back.

    Attributes:
        folders: of the data set.
        truth: the file of its label map, if any.
        shape: of the files' grid, (D, H, W) from feet to head, back to front, left to right, or
            (H, W); None if no label map of the case can be brought to it.
        affine: (4, 4) of the files; of a picture, of a volume of one slice. None as ``shape``.
        spacing: of the files' voxels along ``shape``, by their headers, in the source's ``unit``.
        ending: of label maps that are written for it: of its own format, if that is written.
        own_labels: whether labels of ``load`` are those of the files, resampled or not.
        position: where a slice lies among others.
        arrays: reads image, float32 (C, D, H, W) or (C, H, W) in the files' own units, and labels,
            int16 or None, on the files' grid.
        units: of such an image, for each channel: (scale, offset); ``load`` times scale plus offset
            is the image.
        read: reads a host's label map of the case, int16 on the files' grid. DataFault: damaged,
            on another grid, or of other labels.
        numbers: label -> its number in a picture of a label map; here those that are not the same.
    """

    folders: tuple[Path, ...] = ()
    truth: Path | None = None
    shape: tuple[int, ...] | None = None
    affine: npt.NDArray[np.float64] | None = None
    spacing: tuple[float, ...] = ()
    ending: str = ".nii.gz"
    own_labels: bool = True
    position: SlicePosition | None = None
    arrays: Callable[[], tuple[FloatArray, LabelArray | None]] | None = None
    units: Callable[[FloatArray], tuple[tuple[float, float], ...]] | None = None
    read: Callable[[Path], LabelArray] | None = None
    numbers: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodedCase:
    """What the files of a case hold, before any arithmetic; its record is of this.

    So a case has one identity, whatever machine reads it and however it is scaled or resampled.

    Attributes:
        prepare: returns the case as ``load`` does, without reading it again.
        image: (C, D, H, W) or (C, H, W), values and type as stored.
        labels: int16 (D, H, W) or (H, W), None without a label map.
        boxes: those that are in files of their own, in voxels of the image.
        spacing: of the voxels; only the proportions matter where no voxel size is known.
        label_class: number of the case's class, if it has one.
        within: of a slice: tells the content of its volume, and where in it the slice lies.
    """

    prepare: Callable[[], Case]
    image: npt.NDArray[Any]
    labels: LabelArray | None
    spacing: Sequence[float]
    boxes: Boxes | None = None
    label_class: int | None = None
    within: Callable[[], str] | None = None

    @cached_property
    def image_sha256(self) -> str:
        """SHA-256 of the image's values; those of any type that float32 holds are equal."""
        channels = [content_hash(channel.astype(np.float32)) for channel in self.image]
        return _sha256(*channels)

    @property
    def sha256(self) -> str:
        """SHA-256 of all that the files hold."""
        if self.within is not None:
            return _sha256(self.within())
        boxes = () if self.boxes is None else (self.boxes.coords, self.boxes.labels)
        beside = content_hash(self.labels, np.asarray(self.spacing, np.float32), *boxes)
        return _sha256(self.image_sha256, beside, str(self.label_class))

    @cached_property
    def constant(self) -> bool:
        """Whether each channel has one value."""
        return _constant(self.image)


def _constant(image: npt.NDArray[Any]) -> bool:
    return not np.ptp(image.reshape(len(image), -1), axis=1).any()


def _sha256(*texts: str) -> str:
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What gansynth wrote down of cases before: their records by id, and who made their labels."""

    records: Mapping[str, CaseRecord] = field(default_factory=dict)
    ancestors: tuple[Lineage, ...] = ()


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
    note: str = ""
    """What a user should know of how it was opened, such as a number of folds not asked for."""
    sites: Mapping[str, str] = MappingProxyType({})
    """Case -> its site, where the request says how to tell."""

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

    def labels_of(self, case_id: str) -> LabelArray | None:
        """Return a case's label map (D, H, W) alone, on the grid of its file or that of ``load``.

        The base class reads the whole case. Raises as ``load``.
        """
        return self.load(case_id).labels

    def decode(self, case_id: str) -> DecodedCase:
        """Return what a case's files hold; of the base class, what ``load`` returns.

        A source whose ``load`` scales or resamples says here what it starts from, so that its runs
        can be used on another machine, where arithmetic rounds otherwise. Raises as ``load``.
        """
        case = self.load(case_id)
        return DecodedCase(
            lambda: case, case.image, case.labels, self.schema.spacing, case.boxes, case.label_class
        )

    def header(self, case_id: str) -> CaseHeader:
        """Return a case without its arrays; the base class reads the whole case."""
        case = self.load(case_id)
        number = case.label_class if self.schema.classes else None
        return CaseHeader(case.subject, case.image.shape[1:], self.schema.spacing, number)

    def files(self, case_id: str) -> StoredCase | None:
        """Return a case's files; None, as in the base class: it has none of its own."""
        return None

    def store_of(self, case_id: str) -> CaseStore | None:
        """Return where what depends on a case alone is kept; None, as in the base class: nowhere.

        Its state is that of all files that ``decode`` reads, and of the options it reads them with.
        """
        return None

    def cut_from(self, ids: Iterable[str]) -> tuple[CaseSource, tuple[str, ...]] | None:
        """Return the source and the ids of the volumes that slices are cut out of, or None."""
        return None

    def read_like(self, other: CaseSource) -> None:
        """Take from another source, of one kind, what is else learnt of its own training cases.

        These are units and voxel sizes. The base class learns none. Call it before any case or
        property is read.
        """
        return

    def preparing(self, other: CaseSource) -> CaseSource:
        """Return another source, whose cases are prepared as the cases of this one are.

        The base class has them read alike. A framework that preprocesses its cases does it with
        those of the other source, too. UsageFault: it cannot.
        """
        other.read_like(self)
        return other

    @property
    def unit(self) -> str:
        """Unit of spacings and distances: ``mm``, or ``px`` if no voxel size is known."""
        return "mm"

    @property
    def provenance(self) -> Provenance | None:
        """What was written down of its cases before, as by ``gansynth cache``, if anything."""
        return None

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
            "source.cannot-be-split",
            f"{self.name}: cases of {self.request.kind} cannot be split into other folds; expected "
            "the cases of another source, as files or in the layout of a host",
        )


class WrappedSource(CaseSource):
    """A source derived from another one; it delegates all that a subclass does not override.

    ``same_cases``: whether a case's record is the base's; else it is of the wrapper's ``decode``.
    """

    same_cases: ClassVar[bool] = True

    def __init__(self, base: CaseSource) -> None:
        self.base, self.request = base, base.request

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def schema(self) -> Schema:
        return self.base.schema

    @property
    def space(self) -> Space:
        return self.base.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self.base.train_ids

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return self.base.held_out_ids

    def load(self, case_id: str) -> Case:
        return self.base.load(case_id)

    def decode(self, case_id: str) -> DecodedCase:
        return replace(self.base.decode(case_id), prepare=partial(self.load, case_id))

    def header(self, case_id: str) -> CaseHeader:
        return self.base.header(case_id)

    def files(self, case_id: str) -> StoredCase | None:
        return self.base.files(case_id)

    def cut_from(self, ids: Iterable[str]) -> tuple[CaseSource, tuple[str, ...]] | None:
        return self.base.cut_from(ids)

    def preparing(self, other: CaseSource) -> CaseSource:
        """Prepare another source's cases as the base source does."""
        return self.base.preparing(other)

    def boxes_around(self, labels: LabelArray) -> Boxes | None:
        return self.base.boxes_around(labels)

    @property
    def unit(self) -> str:
        return self.base.unit


class FoldSplit(TypedDict):
    """One fold: its training and its held-out cases."""

    train: list[str]
    val: list[str]


# -- what the core tells of a source ---------------------------------------------------------------

Decode = Callable[[str], DecodedCase]
Sameness = Literal["same", "alike", "other"]
"""``alike``: recorded by an earlier version, whose hash cannot be computed; the image looks the
same, and of the label map nothing is known."""


def case_record(source: CaseSource, case_id: str, decode: Decode | None = None) -> CaseRecord:
    """Return a case's lineage record; without image hashes if the image is constant.

    ``decode`` reads the case instead of the source, which keeps it for use. Blank images are all
    alike, so the content hash of one is of its name, too.
    """
    return _record(source, case_id, decode, whole=True)


def case_content(source: CaseSource, case_id: str, decode: Decode | None = None) -> str:
    """Return ``sha256`` of a case's record, cheaper than the whole record."""
    return _record(source, case_id, decode, whole=False).sha256


def case_records(
    source: CaseSource, ids: Iterable[str], decode: Decode | None = None
) -> tuple[CaseRecord, ...]:
    """Return lineage records of cases, sorted by id."""
    return tuple(case_record(source, case_id, decode) for case_id in sorted(ids))


def held_out_records(source: CaseSource) -> tuple[CaseRecord, ...]:
    """Return lineage records of held-out cases, sorted; of slices, of their volumes, too."""
    volumes = source.cut_from(source.held_out_ids)
    keep_records(source, source.held_out_ids)
    records = case_records(source, source.held_out_ids)
    return records if volumes is None else (*records, *case_records(*volumes))


def keep_records(source: CaseSource, ids: Iterable[str]) -> None:
    """Make the records of many large cases in processes, so that they are at hand when asked for.

    Nothing is done where no record is kept, or where one process is as fast.
    """
    source, decode = _recorded_source(source)
    missing = [case_id for case_id in sorted(ids) if _is_unkept(source, case_id)]
    if decode is not None or not missing:
        return
    header = source.header(missing[0])
    size = 4 * len(source.schema.channels) * math.prod(header.shape)
    count = processes_for(len(missing), len(missing) * size // STORED, COPIES * size)
    if count > 1:
        deque(in_processes(partial(case_record, source), missing, count), maxlen=0)


def _is_unkept(source: CaseSource, case_id: str) -> bool:
    """Return whether a case has no record, though one would be kept."""
    store = source.store_of(case_id)
    return _kept_record(source, case_id) is None and store is not None and store.lacks("record")


def _record(source: CaseSource, case_id: str, decode: Decode | None, *, whole: bool) -> CaseRecord:
    source, decode = _recorded_source(source, decode)
    kept = _kept_record(source, case_id)
    if kept is not None:
        return kept

    def find() -> Arrays:
        decoded = (decode or source.decode)(case_id)
        prints: Prints = ()
        if whole and not decoded.constant:
            prints = prints_of(decoded.image, decoded.spacing)
        image = "" if decoded.constant else decoded.image_sha256
        return {
            "content": np.array(decoded.sha256),
            "image": np.array(image),  # empty: it is constant
            "prints": np.array(prints, np.str_),
        }

    store = source.store_of(case_id)
    found = kept_in(store, "record" if whole else "content", find)
    content, image = str(found["content"]), str(found["image"])
    if not image:
        content = _sha256(content, source.name, case_id)
    prints = tuple(found["prints"].tolist())
    subject = source.header(case_id).subject
    return CaseRecord(case_id, subject, content, image, prints, as_stored=True)


def store_as_read(source: CaseSource, case_id: str) -> CaseStore | None:
    """Return where what depends on the arrays of ``load`` is kept, which the record tells of."""
    store = source.store_of(case_id)
    if store is None:
        return None
    how = (source.schema.to_json(), source.space.to_json(), dict(source.request.view))
    return store.read_as(json.dumps(how, sort_keys=True))


def _kept_record(source: CaseSource, case_id: str) -> CaseRecord | None:
    """Return the record that was written down of a case before, as by ``gansynth cache``."""
    provenance = source.provenance
    return None if provenance is None else provenance.records.get(case_id)


def _recorded_source(
    source: CaseSource, decode: Decode | None = None
) -> tuple[CaseSource, Decode | None]:
    """Return the source that a case's record is of, and what decodes its cases, if not itself."""
    while isinstance(source, WrappedSource):
        decode = None if source.same_cases else decode or source.decode
        source = source.base
    return source, decode


def is_recorded(record: CaseRecord, source: CaseSource, found: str) -> Sameness:
    """Return whether a source's case of a record's id is the one of the record.

    Args:
        found: its content today (``case_content``).
    """
    if record.sha256 == found:
        return "same"
    if record.as_stored:
        return "other"
    earlier = _earlier_record(source, record.id)
    if record.sha256 == earlier.sha256:
        return "same"
    return "alike" if look_alike(record.prints, earlier.prints) else "other"


def comparable_records(recorded: Lineage, source: CaseSource) -> tuple[CaseRecord, ...]:
    """Return records of a source's training cases, made as those of a lineage were, sorted."""
    make = case_record if recorded.as_stored else _earlier_record
    return tuple([make(source, case_id) for case_id in sorted(source.train_ids)])


def _earlier_record(source: CaseSource, case_id: str) -> CaseRecord:
    """Return a case's record as earlier versions made it: of the arrays of ``load``."""
    source, decode = _recorded_source(source)
    kept = _kept_record(source, case_id)
    if kept is not None:
        return kept
    case = (decode or source.decode)(case_id).prepare()
    content = content_hash(case.image, case.labels)
    if _constant(case.image):
        return CaseRecord(case_id, case.subject, _sha256(content, source.name, case_id))
    prints = prints_of(case.image, source.schema.spacing)
    return CaseRecord(case_id, case.subject, content, content_hash(case.image), prints)


def unrecorded(lineage: Lineage, source: CaseSource) -> Iterator[str]:
    """Yield the training cases of a source whose images a lineage does not hold, under any id."""
    by_id = {case.id: case for case in lineage.cases}
    hashes = {digest for case in lineage.cases for digest in (case.sha256, case.image)} - {""}
    for case_id in source.train_ids:
        found, record = _record(source, case_id, None, whole=False), by_id.get(case_id)
        held = found.sha256 in hashes or found.image in hashes
        if not held and record is not None:
            held = is_recorded(record, source, found.sha256) != "other"
        if not held:
            yield case_id


def same_data_as(source: CaseSource, known: Iterable[CaseRecord] = ()) -> Callable[[Lineage], bool]:
    """Return what tells whether a lineage is of a source's data set; see ``HeldOut``.

    ``known``: records of some of its cases, which are not read again.
    """
    records = {record.id: record for record in known}
    source_of = dict.fromkeys((*source.train_ids, *source.held_out_ids), source)
    volumes = source.cut_from(source_of)
    if volumes is not None:
        source_of |= dict.fromkeys(volumes[1], volumes[0])

    def read(case_id: str) -> CaseRecord:
        if case_id not in records:
            records[case_id] = case_record(source_of[case_id], case_id)
        return records[case_id]

    return lambda maker: same_data(maker, source_of, read)


def lineage_of(source: CaseSource, record: Callable[[str], CaseRecord] | None = None) -> Lineage:
    """Return the lineage of models trained on a source's training cases.

    ``record`` returns that of a case, as of a cache that keeps the case for use.
    """
    record = record or partial(case_record, source)
    keep_records(source, source.train_ids)
    records = tuple(
        [
            replace(record(case), site=source.sites.get(case, ""))
            for case in sorted(source.train_ids)
        ]
    )
    host = dict(source.space.host)
    return Lineage(source.name, source.request.fold, records, host, ancestors_of(source))


def ancestors_of(source: CaseSource) -> tuple[Lineage, ...]:
    """Return lineages of the generators of a source's label maps or cases, if any.

    Those of slices begin with that of their training volumes, which are read.
    """
    kept = () if source.provenance is None else source.provenance.ancestors
    if isinstance(source, WrappedSource):
        return (*ancestors_of(source.base), *kept)
    cut_from = source.cut_from(source.train_ids)
    if cut_from is not None:
        volumes, host = case_records(*cut_from), dict(cut_from[0].space.host)
        kept = (Lineage(cut_from[0].name, source.request.fold, volumes, host), *kept)
    if source.provenance is not None or source.request.synthetic is None:
        return kept
    folder = Path(source.request.synthetic).expanduser()
    try:
        return (read_lineage(folder),)
    except DataFault as fault:
        raise DataFault(
            "source.synthetic-source-unknown",
            f"--synthetic-source {folder}: neither a run nor a bank, expected the one that "
            "generated these cases",
        ) from fault
