"""``gansynth augment``, ``import``, ``prepare``, ``splits`` and ``doctor``."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gansynth.core.requests.base import (
    Folder,
    Opt,
    Request,
    Root,
    Text,
    Texts,
    Values,
    as_tuple,
)
from gansynth.core.requests.sections import MemorySection, ReadSection, SampleSection
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import FlagText, flag_of
from gansynth.runtime.parts import where_to_get

if TYPE_CHECKING:
    from gansynth.core.bank_options import BankSize, RefreshPolicy
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.schedule import Mix
    from gansynth.core.source import SourceRequest

Content = Literal["mixed", "synthetic"]
"""Content of an export: real and synthetic training cases, or synthetic cases only."""


class HostData(Request):
    """The cases of a host; by default those of the generator's fit."""

    heading: ClassVar[str] = "Data"
    data: Annotated[str | None, Opt(metavar="KIND:WHERE")] = Field(default=None, kw_only=False)
    """Cases, e.g. nnunet:004. Options not given (--data, -c, --plans, --fold, --subjects, --read,
    --root) are those of the generator's fit."""


class RatioSection(Request):
    """How many samples are mixed in, and when."""

    heading: ClassVar[str] = "Ratio and schedule"
    ratio: Annotated[str, Opt(metavar="R:S")] = ""
    """Real to synthetic samples, e.g. 1:1."""
    schedule: Annotated[str, Opt(metavar="WHEN", shown=False)] = "constant"
    """How the ratio changes: constant, anneal:50%-100%, or finetune:10%@80% (only synthetic for 80
    % of the training, then only 10 % of the real cases)."""
    augment_synthetic: Annotated[bool, Opt(word=True)] = True
    """Apply the framework's augmentation to synthetic samples too."""
    round_ratio: Annotated[bool, Opt(needs="export")] = False
    """With --export: round a ratio that cannot be exact to the nearest possible one."""
    compare: bool = False
    """Train with samples, then without, equally many steps; print both results."""


class BankSection(Request):
    """The bank that samples are drawn from."""

    heading: ClassVar[str] = "Sample bank"
    generator: Annotated[Folder | None, Opt(metavar="RUN")] = None
    """Run of gansynth fit."""
    bank: Folder | None = None
    """Use this existing sample bank; make none."""
    offline: Annotated[bool, Opt(needs="!bank")] = False
    """Fill the sample bank once, instead of on the fly."""
    bank_size: Annotated[Text, Opt(metavar="SIZE", needs="!bank")] = "64"
    """Samples in the bank; 3x: three for each training case; 2GB: bytes."""
    refresh: Annotated[Text | None, Opt(metavar="HOW", needs="!bank, !offline")] = None
    """How fast samples are replaced: 2% (default), the most by which this slows the training, which
    is measured; 4x, after so many uses on average; 10min, the whole bank in that time."""
    bank_dir: Annotated[Folder | None, Opt(needs="!bank")] = None
    """Folder for the bank, instead of shared memory."""
    producers: Annotated[Text, Opt(metavar="N", needs="!bank")] = "auto"
    """Processes that draw samples side by side, on the CPU; each opens the generator. auto: half of
    the cores that the target's loading leaves, at least 1; 1 on a GPU."""
    restarts: Annotated[int, Opt(needs="!bank")] = Field(default=5, ge=0)
    """Restarts in a row of a producer that died."""
    strict: bool = False
    """Stop at the first missing synthetic sample."""
    allow_empty_bank: bool = False
    """Start even without a synthetic sample."""
    sample_timeout: Annotated[float, Opt(metavar="SECONDS")] = Field(default=300, ge=0)
    """Longest wait for a sample where the schedule allows no real case; training then stops."""


class AugmentRequest(
    SampleSection, BankSection, RatioSection, ReadSection, HostData, MemorySection
):
    """Train a target framework with samples mixed in at a ratio.

    The target is the framework you train, e.g. nnU-Net. Data set, configuration, plans and fold
    are those of the generator's fit, unless others are given.

    The framework stays as installed, and validates on real cases only. A generator that has seen a
    held-out case, or shares a subject with one, is refused (exit 6). A real case replaces a missing
    sample, and is counted; more than 1 % of them is exit 5, after training. Where the schedule
    allows no real case, training waits for the sample (--sample-timeout), then stops with exit 5.
    Options of the framework are flags, or follow --set as KEY=VALUE. Options after -- go to the
    framework's own command line.

    Data alone are enough: gansynth augment nnunet:004 decides the rest, and says why. It prepares
    the data, fits the generator that suits them, and trains. Where samples have not helped data
    like these, it trains on real cases alone. Of a folder without KIND, the kind is found.
    """

    command: ClassVar[str] = "augment"
    decided: ClassVar[tuple[str, ...]] = ("target", "ratio")
    leading: ClassVar[tuple[str, ...]] = (
        "data",
        "configuration",
        "fold",
        "ratio",
        "compare",
        "generator",
        "bank_size",
        "target",
        "out",
        "device",
        "set",
        "dry_run",
    )
    # eager: --target NAME --help shows the options of NAME
    target: Annotated[str, Opt(names=("hosts",), eager=True, heading="Target framework")] = ""
    """Framework to train, see gansynth plugins; its options: gansynth options NAME."""
    host_augmentation: Annotated[bool, Opt(heading="Target framework", shown=False)] = True
    """Keep the framework's own augmentation (default), or train without."""
    real_in_generator_space: Annotated[bool, Opt(heading="Target framework")] = False
    """Resample the real training cases to the generator's space too, if the target can."""
    export: Annotated[str | None, Opt(metavar="NAME", heading="Target framework")] = None
    """Train nothing: write a data set for the stock framework, of that name or, for frameworks
    without names of data sets, in a new folder."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), metavar="DIR", called="-o")] = None
    """Folder of the training's results."""
    first: Annotated[
        Folder | None, Opt(metavar="RESULT", needs="unlabelled", heading="Samples")
    ] = None
    """Results of a training that marks the unlabelled scans. [default: one on real cases alone is
    trained first]"""
    content: Annotated[Content | None, Opt(heading="Target framework", needs="export")] = None
    """With --export: real and synthetic cases for training (default), or only synthetic ones, to
    share."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels, latents and slots."""
    device: Annotated[str, Opt(needs="!bank")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing but folds that data lack."""
    options: Annotated[Texts, Opt(argument=True, metavar="[KIND:WHERE] [-- HOST OPTIONS]")] = ()
    """Options of the framework's own command line, after --."""
    needs: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(SampleSection.words(), "!bank"),
        "label_source_read": "label_source",
        **dict.fromkeys(
            ("unlabelled_read", "lesion_free", "backgrounds", "self_train"), "unlabelled"
        ),
        "compare": "!export",
    }

    def called(self, name: str) -> str:
        if name == "options":
            return "host options after --"
        if name == "set":  # the first flag of a setting, if there is one
            for key, text in self.set.items():
                if isinstance(text, FlagText):
                    return flag_of(key)
            return "--set"
        return super().called(name)

    def __init__(self, /, *args: Any, **given: Any) -> None:
        words: Sequence[Any] = ()
        with suppress(ValueError):  # which is refused with its name
            words = as_tuple(given.get("options"))
        first = words[0] if words and isinstance(words[0], str) else ""
        if names_data(first) or (not given.get("data") and os.path.isdir(first)):
            if given.get("data"):
                raise UsageFault(
                    "hosts.data-named-twice",
                    f"{words[0]}: --data {given['data']} names other data; leave one",
                )
            given |= {"data": words[0], "options": words[1:]}
        super().__init__(*args, **given)

    @classmethod
    def typed_as(cls, values: Mapping[str, Any]) -> list[str]:
        """Return the words after ``gansynth``; the data first, without a flag."""
        data = values.get("data")
        if data is None or not (names_data(data) or os.path.isdir(data)):
            return super().typed_as(values)
        words = super().typed_as({k: v for k, v in values.items() if k != "data"})
        words.insert(1, data)
        return words

    def check(self) -> None:
        """Refuse what cannot be parsed, and samples of no generator or bank."""
        super().check()
        if not self.undecided:
            for name, example in zip(self.decided, ("a framework", "R:S, as 1:1"), strict=True):
                if not getattr(self, name) and not self.opt(name).hidden:
                    flag = self.flag(name)
                    raise UsageFault(
                        "hosts.required-option-missing",
                        f"{flag}: missing, expected {example}; or name the data alone, and the "
                        "rest is decided: gansynth augment KIND:WHERE",
                    )
            if self.data is None:  # else their target may refuse them first
                self.mix.refuse_without(self.generator, self.bank)
        _ = self.ratio and self.mix, self.size, self.pacing, self.asked_producers

    @property
    def undecided(self) -> bool:
        """Whether data are named, and target or ratio are left out to be decided."""
        if self.data is None or self.export is not None:
            return False
        return not self.target or not self.ratio

    @property
    def reading(self) -> dict[str, Any]:
        """How the data are read, as far as it is said: fields of a ``SourceRequest``."""
        called = {"synthetic_source": "synthetic"}
        values = {called.get(name, name): getattr(self, name) for name in ReadSection.words()}
        return {name: value for name, value in values.items() if value}

    @cached_property
    def asked(self) -> SourceRequest | None:
        """The data as they are named, and read; None where they are those of the generator."""
        from gansynth.core.source import SourceRequest

        return None if self.data is None else SourceRequest.parse(self.data, **self.reading)

    @cached_property
    def mix(self) -> Mix:
        from gansynth.core.schedule import Mix

        return Mix.parse(self.ratio, self.schedule)

    @property
    def mix_name(self) -> str:
        """Generator or bank, ratio and schedule as the name of a folder: g0_1-1_constant."""
        origin = self.bank or self.generator
        name = Path(origin).absolute().name if origin and self.mix.synthetic else "real"
        words = f"{name}_{self.mix.ratio}_{self.mix.schedule}".replace("%", "")
        return re.sub(r"[^\w.-]+", "-", words)

    @cached_property
    def size(self) -> BankSize:
        from gansynth.core.bank_options import BankSize

        return BankSize.parse(str(self.bank_size))

    @cached_property
    def pacing(self) -> RefreshPolicy:
        """Renewal rate of a live bank."""
        from gansynth.core.bank_options import RefreshPolicy

        return RefreshPolicy.parse(None if self.refresh is None else str(self.refresh))

    @cached_property
    def asked_producers(self) -> int | None:
        """Processes that draw samples; None for as many as suit the machine."""
        from gansynth.core.bank_options import parse_producers

        return parse_producers(str(self.producers))

    @cached_property
    def run(self) -> RunFolder | None:
        """The generator's run; None without one."""
        from gansynth.core.run_folder import RunFolder

        return None if self.generator is None else RunFolder(Path(self.generator))

    @cached_property
    def samples(self) -> SampleRequest:
        """The samples, and the filters they pass; their seed also chooses slots."""
        from gansynth.core.sample_request import SampleRequest

        return SampleRequest.of(self, self.seed)

    def to_json(self) -> dict[str, Any]:
        """Return the given fields with absolute paths, also of boxes and conditions."""
        document, samples = super().to_json(), self.samples
        if samples.boxes is not None:
            document["boxes"] = samples.boxes
        if samples.label_source is not None:
            document["label_source"] = "{kind}:{where}".format(**samples.label_source)
        if samples.unlabelled:
            document["unlabelled"] = ["{kind}:{where}".format(**s) for s in samples.unlabelled]
        return document


class PredictRequest(Request):
    """Predict new images by a training of gansynth augment.

    The device is that of this machine, wherever it was trained. IMAGES is a folder of NIFTI files
    or pictures, a file, a CSV, BIDS, MSD, or KIND:WHERE; label maps in it are not read. Each case
    gets a label map on the grid of its own file, named as the case is; a detector's images get
    boxes.
    """

    command: ClassVar[str] = "predict"
    result: Annotated[Folder, Opt(argument=True, metavar="RESULT")] = Field(kw_only=False)
    """Folder of the results of gansynth augment, or one above it."""
    images: Annotated[str, Opt(argument=True, metavar="IMAGES")] = Field(kw_only=False)
    """The images."""
    out: Annotated[Folder, Opt(flags=("-o", "--out"), metavar="DIR", called="-o")]
    """Folder for what is predicted."""
    read: Annotated[Values, Opt(example="channels=t1,flair")] = {}
    """How to read the images; gansynth options KIND lists the keys. May be repeated."""
    sure: Annotated[float | None, Opt(metavar="SHARE")] = Field(default=None, ge=0.5, lt=1)
    """Write the ignore label where the foreground's probability is between 1 - SHARE and SHARE,
    for augment --self-train. [default: the likeliest label everywhere]"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    settings: ClassVar[str] = ""


def names_data(text: str) -> bool:
    """Return whether a word is KIND:WHERE of a registered kind of source."""
    from gansynth.core.registry import installed

    kind, colon, where = text.partition(":")
    known = kind in installed().names("sources") or where_to_get(kind) != ""  # told when opened
    return bool(colon and where) and known


class ImportRequest(Request):
    """Copy a data set into the layout of a target framework, with folds.

    To nnunet:ID: volumes (nifti, msd, nnunet-raw), pictures or slices. They are checked first, and
    the first error stops the import. NIfTI files of one channel are copied byte for byte. Folds
    and subjects are those of the source; the default is five folds.

    slices:KIND:WHERE to yolo:FOLDER: each slice becomes a grey PNG file, all with one window. Its
    label file has the boxes of --read boxes=, none for a background. The training volumes of --fold
    are train, the others val. The depth is --set bits=16. With --set backgrounds=SHARE, that share
    of the training slices without a box is kept.

    Either target appears when it is complete. The same import again changes nothing, another one
    to the same place is refused.
    """

    command: ClassVar[str] = "import"
    source: Annotated[str, Opt(argument=True, metavar="KIND:WHERE|FOLDER")] = Field(kw_only=False)
    """The data set to copy."""
    target: Annotated[str, Opt(argument=True, metavar="HOST:WHERE")] = Field(kw_only=False)
    """The framework, and its new data set."""
    subjects: str | None = None
    """CSV (case,subject) or regular expression with one group."""
    folds: int | None = Field(default=None, ge=2)
    """Folds to write, for frameworks with several."""
    seed: int = Field(default=0, ge=0)
    """Seeds which cases are kept and, if it is given, the folds, which are else the source's."""
    fold: Annotated[Text | None, Opt(flags=("-f", "--fold"))] = None
    """Fold of the source, for frameworks with one. [default: 0]"""
    read: Annotated[Values, Opt(example="spacing=1")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""

    @property
    def reading(self) -> dict[str, Any]:
        """How the source is read, as far as it was given."""
        words = {"subjects": self.subjects, "fold": self.fold, "read": self.read}
        words["root"] = self.root
        return {key: value for key, value in words.items() if value}

    @property
    def where(self) -> str:
        """The host's data set, or a folder: the text behind the host's name and the colon."""
        return self._to.where

    @property
    def host(self) -> str:
        """The host's name."""
        return self._to.kind

    @property
    def _to(self) -> SourceRequest:
        from gansynth.core.source import SourceRequest
        from gansynth.runtime.errors import describe_error

        with describe_error("--data", "import"):
            return SourceRequest.parse(self.target)

    @property
    def request(self) -> SourceRequest:
        """The source, if its kind is registered; UsageFault if the text has no kind."""
        from gansynth.core.source import SourceRequest

        return SourceRequest.parse(self.source, **self.reading)

    @classmethod
    def words_for(cls, source: SourceRequest, target: str) -> list[str]:
        """Return the words after ``gansynth`` that make a host's data set of others.

        The host's own raw data set, of the kind ``HOST-raw``, is prepared where it is.
        """
        from gansynth.core.registry import installed

        host, known = target.partition(":")[0], installed()
        if source.kind == f"{host}-raw":
            return replace(source, kind=host).words(PrepareRequest)
        there = source.kind in known.names("sources")
        opener = known.load("sources", source.kind) if there else None
        idle = getattr(getattr(opener, "read_options", None), "of_arrays", ())
        read = {key: text for key, text in source.read.items() if key not in idle}
        return replace(source, read=read, fold="0").words(cls, target=target)

    @classmethod
    def command_for(cls, source: SourceRequest, target: str) -> str:
        """Return the command of ``words_for``, to be typed."""
        return shlex.join(["gansynth", *cls.words_for(source, target)])


class PrepareRequest(Request):
    """Plan and preprocess a data set with its target framework.

    The data set is checked first. Finished steps are not repeated.

    With nnunet, --set small=yes adds plans for a small network (CPUs, trials) on the same
    preprocessed cases. nnU-Net's plans stay unchanged. Further settings: gansynth options nnunet.
    """

    command: ClassVar[str] = "prepare"
    data: Annotated[str, Opt(argument=True, metavar="HOST:WHERE")] = Field(kw_only=False)
    """The data set."""
    configuration: Annotated[Texts, Opt(flags=("-c", "--configuration"), called="-c")] = ()
    """Configuration to preprocess; may be repeated. [default: the target's, e.g. 3d_fullres]"""
    plans: str | None = None
    """Name of the framework's plans; its default if not given."""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    processes: int = Field(default=2, ge=1)
    """Number of workers."""
    force: bool = False
    """Repeat finished steps."""
    subjects: str | None = None
    """CSV (case,subject) or regular expression with one group."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""

    @property
    def configurations(self) -> Sequence[str]:
        """Configurations to preprocess; none for the host's usual ones."""
        return tuple(self.configuration)

    @property
    def request(self) -> SourceRequest:
        """The data set."""
        from gansynth.core.source import SourceRequest

        words = {"plans": self.plans, "subjects": self.subjects, "root": self.root}
        return SourceRequest.parse(self.data, **words)


class SplitsRequest(Request):
    """Write folds so that no subject is in both training and validation.

    The subjects of all cases are stored beside the folds. Every later command uses them.
    """

    command: ClassVar[str] = "splits"
    settings: ClassVar[str] = ""
    needs: ClassVar[Mapping[str, str]] = {"folds": "!sites", "seed": "!sites"}
    data: Annotated[str, Opt(argument=True, metavar="HOST:WHERE")] = Field(kw_only=False)
    """The data set."""
    subjects: str | None = None
    """CSV (case,subject), regular expression with one group, or each: every case is a subject."""
    sites: str | None = None
    """CSV (case,site) or regular expression with one group: each fold holds out one site."""
    folds: int = Field(default=5, ge=2)
    """Number of folds; by default not more than there are subjects."""
    seed: int = Field(default=0, ge=0)
    """Seeds the split of subjects into folds."""
    force: bool = False
    """Replace a different split; the old one is kept."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""

    @property
    def request(self) -> SourceRequest:
        """The data set."""
        from gansynth.core.source import SourceRequest

        return SourceRequest.parse(self.data, subjects=self.subjects, root=self.root)


class DoctorRequest(Request):
    """Report what this machine has, and what is missing.

    Every registered target framework is checked, too. Each line that is not ok says how to fix it.
    Exit code 4 if something essential is missing.
    """

    quick: bool = False
    """Leave out checks that take seconds."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""
    set: Annotated[Values, Opt(hidden=True)] = {}
    """Options of the frameworks' checks."""
