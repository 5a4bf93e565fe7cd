"""Sections that the requests of several commands share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gansynth.core.requests.base import Opt, Request, Root, Text, Texts, Values
from gansynth.runtime.sizes import bytes_of


class ReadSection(Request):
    """How a data set is read; what is not given is the source's own."""

    heading: ClassVar[str] = "Data"
    configuration: Annotated[str | None, Opt(flags=("-c", "--configuration"), called="-c")] = None
    """Configuration of the target framework, e.g. 3d_fullres."""
    plans: str | None = None
    """Name of the framework's plans; its default if not given."""
    fold: Annotated[Text | None, Opt(flags=("-f", "--fold"))] = None
    """Fold number, or all.  [default: 0]"""
    subjects: str | None = None
    """CSV (case,subject), regular expression with one group, or each: every case is a subject."""
    read: Annotated[Values, Opt(example="spacing=1")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    synthetic_source: Annotated[Root | None, Opt(metavar="RUN")] = None
    """Run or sample bank of synthetic cases; the training cases of it count as seen."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""


class MemorySection(Request):
    """How much memory cases may take."""

    heading: ClassVar[str] = "Data"
    cache_memory: Annotated[str | None, Opt(metavar="SIZE")] = None
    """Most memory for cases of a process (8GB); others are read in parts, or mapped. Default: a
    quarter of what is free."""

    def check(self) -> None:
        super().check()
        if self.cache_memory is not None:
            bytes_of(self.cache_memory, "--cache-memory")


class Cases(Request):
    """The cases of a command."""

    heading: ClassVar[str] = "Data"
    data: Annotated[str, Opt(metavar="KIND:WHERE")]
    """Cases, e.g. nnunet:004; the kind of a folder or file is found."""


class CaseData(ReadSection, Cases):
    """The cases of a command, and how they are read."""


class MovedData(Request):
    """The place of a run's data set, if it was moved."""

    heading: ClassVar[str] = "Data"
    data: Annotated[str | None, Opt(metavar="KIND:WHERE")] = None
    """New place of the data set that RUN was fitted on, if it was moved or renamed."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""


class EditSection(Request):
    """Edits of label maps."""

    heading: ClassVar[str] = "Samples"
    edit: Annotated[Texts, Opt(names=("edits",), metavar="NAME[:KEY=VALUE,...]")] = ()
    """Edit of the label maps of samples, or of lesions inserted into real images, in order; may be
    repeated. [default: the generator's own]"""


class SampleSection(EditSection):
    """What samples are conditioned on and filtered by."""

    heading: ClassVar[str] = "Samples"
    boxes: Annotated[str | None, Opt(metavar="WHICH")] = None
    """Boxes of the samples: training, jitter[:KEY=VALUE,...] (jittered training boxes, the default)
    or file:PATH."""
    label_source: Annotated[str | None, Opt(metavar="KIND:WHERE")] = None
    """Take label maps, for generators that draw whole images of them, from the cases of this source
    instead of the run's own training cases. A part that draws label maps takes its images."""
    label_source_read: Annotated[Values, Opt(example="fold=0", needs="label_source")] = {}
    """How to read --label-source: keys of its kind, fold (default: all its cases),
    configuration, plans, subjects. Default: like the run's own cases. May be repeated."""
    unlabelled: Annotated[Texts, Opt(metavar="KIND:WHERE")] = ()
    """Scans of other people, without labels. Of those that show no lesion, lesions are drawn into
    them, too: by --lesion-free, by their label maps, if there are any, or, in augment, by a first
    training, which marks them. May be repeated."""
    lesion_free: Annotated[bool, Opt(needs="unlabelled")] = False
    """You vouch that the unlabelled scans are free of lesions."""
    unlabelled_read: Annotated[Values, Opt(example="fold=0", needs="unlabelled")] = {}
    """How to read --unlabelled; keys as for --label-source-read, KEY= for not as the training cases
    are read. May be repeated."""
    backgrounds: Annotated[Text | None, Opt(metavar="own|unlabelled|SHARE", needs="unlabelled")] = (
        None
    )
    """Share of samples in unlabelled scans: own (none), unlabelled (all), or 0 to 1. Default: 0.5,
    half of them."""
    self_train: Annotated[float | None, Opt(metavar="SHARE", needs="unlabelled")] = Field(
        default=None, ge=0, le=1
    )
    """Share of samples that are unlabelled scans as they are, with the labels of their maps, which
    a first training predicts: see gansynth predict --sure. [default: none; 0.5 if augment marks
    them]"""
    prevalence: Annotated[Text, Opt(metavar="real|SHARE")] = "real"
    """Share of samples with a lesion: real, that of the training cases, or 0 to 1."""
    lesions: Annotated[str | None, Opt(metavar="swap|add|in-place,KEY=VALUE,...")] = None
    """How lesions are inserted into real images, for generators that do so. swap (default): the
    image's own lesions are taken out first; add: beside them; in-place: where its largest is."""
    filter: Annotated[Texts, Opt(names=("filters",), metavar="NAME[:KEY=VALUE,...]")] = ()
    """default: reject samples that fail the generator's own checks. none: accept all. Or a further
    filter, see gansynth plugins. May be repeated."""


class ClassSection(SampleSection):
    """Samples of some classes."""

    heading: ClassVar[str] = "Samples"
    classes: Annotated[Texts, Opt(flags=("--class",), metavar="NAME")] = ()
    """Samples of this class only; may be repeated."""


class RealSection(Request):
    """Other real cases to compare with."""

    heading: ClassVar[str] = "Data"
    real: Annotated[str | None, Opt(metavar="KIND:WHERE")] = None
    """Compare with these cases, not those of the run's fit; banks need it."""
    real_read: Annotated[Values, Opt(example="fold=0", needs="real")] = {}
    """How to read --real; keys as for --label-source-read. May be repeated."""
