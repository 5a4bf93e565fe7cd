"""``gansynth sample``, ``evaluate``, ``check`` and ``turing-test``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from gansynth.core.requests.base import File, Folder, Many, Opt, Root, Texts, Values
from gansynth.core.requests.sections import ClassWords, MovedData, RealWords, SampleWords

Part = Literal["realism", "faithfulness", "memorisation", "maps"]


class DrawWords(ClassWords):
    """What is drawn, and with which seed."""

    n: Annotated[int, Opt(heading="Samples")] = Field(default=16, ge=1, kw_only=False)
    """Number of samples."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""


class SheetWords(DrawWords):
    """A preview grid."""

    n: Annotated[int, Opt(heading="Samples")] = Field(default=8, ge=1, kw_only=False)
    """Number of samples."""
    out: Folder | None = None
    """PNG file; RUN/samples/sheet.png if not given."""


class SampleRunRequest(ClassWords, MovedData):
    """Generate labelled samples from a run.

    RUN is a folder that gansynth fit wrote. The same seed gives the same samples. They are written
    as a data set that nifti:FOLDER reads (PNG files: pictures:FOLDER), or in another --format,
    whose options --set changes. A run may generate label maps of images, e.g. a part of a chain,
    RUN/parts/NAME. It then writes images and label maps of --condition-source SOURCE, or of its
    own training cases.
    """

    run: Annotated[Folder, Opt(argument=True, metavar="RUN")] = Field(kw_only=False)
    """The run, or its folder."""
    n: Annotated[int | None, Opt(flags=("-n", "--number"), heading="Samples")] = Field(
        default=None, ge=1
    )
    """Number of samples.  [default: 16; every case, for a run that generates label maps of
    images]"""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """Folder for the samples. [default: in RUN]"""
    metric: Annotated[Texts, Opt(names=("metrics",), metavar="NAME")] = ()
    """Compare the samples with real cases; may be repeated. See: gansynth plugins"""
    replay: Annotated[str | None, Opt(metavar="RECORD")] = None
    """Reproduce a recorded sample bit for bit: FILE:LINE of a sample log (draws-*.csv), or
    FILE:NAME of a JSON file with provenance (provenance.json, an export's record)."""
    sheet: bool = False
    """Write a preview grid (PNG) of images and labels."""
    interpolate: Annotated[int | None, Opt(metavar="STEPS")] = Field(default=None, ge=2)
    """Write a grid with so many steps from one latent to another, for generators that generate from
    noise."""
    rows: Annotated[int | None, Opt(needs="interpolate")] = Field(default=None, ge=1)
    """Pairs of latents of --interpolate.  [default: 4]"""
    nearest: bool = False
    """Write a grid of samples beside their nearest training cases; it stays in RUN."""
    format: Annotated[str, Opt(names=("writers",), metavar="NAME")] = "nifti"
    """Format of the files. png: slices, with a table that names no patient. See: gansynth
    plugins"""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    keep_flawed: bool = False
    """Also write rejected samples, which png leaves out."""
    deidentify: bool = False
    """Files for sharing, as PNG files are: the cases behind the samples are recorded in RUN only.
    Refused where samples hold parts of real images."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def check_alone(self) -> None:
        """Refuse fields that a record of ``replay`` has already."""
        self.refuse_beside(
            *("run", "replay", "out", "device", "root"),
            message="--replay with {}: the record has all options; leave it out",
        )


class EvaluateRequest(ClassWords, MovedData, RealWords):
    """Evaluate samples: realism, faithfulness and memorisation.

    RUN is a folder that gansynth fit wrote, BANK a sample bank. Samples are compared with the cases
    the run was fitted on. Every figure stands beside that of other real patients. The report shows
    patients' images: leave them out (--no-pictures) before you share it.
    """

    settings = ""
    run: Annotated[Folder, Opt(argument=True, metavar="RUN|BANK")] = Field(kw_only=False)
    """A run, its folder, or a sample bank's."""
    n: Annotated[int, Opt(flags=("-n", "--number"), heading="Samples")] = Field(default=64, ge=4)
    """Number of samples, and of real crops."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """Folder of the report. [default: evaluation in RUN]"""
    only: Annotated[Part | Sequence[Part], Many] = ()
    """Run this part only; may be repeated."""
    metric: Annotated[
        Texts, Opt(names=("metrics",), metavar="NAME", needs="only=realism or !only")
    ] = ()
    """Measure realism by this metric only; may be repeated. See: gansynth plugins"""
    preset: Literal["quick", "standard", "thorough"] = "standard"
    """How long networks are trained, and how often subjects are split into halves."""
    exported: Folder | None = None
    """Folder of samples to share: search it for traces of patients."""
    pictures: bool = True
    """Thumbnails in the report; those of real cases are patients' images."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


class CheckRequest(ClassWords):
    """Report what is wrong with a data set, file by file, or with samples.

    The kind of a folder or file is found, if only one can open it. Every file is read completely.
    Commands refuse a data set with errors, not one with warnings. Exit code 3 if there are errors.

    Samples are compared with training cases in units, in number, size and sign of contrast of
    lesions. Nothing is refused: the lines say what differs.
    """

    settings = ""
    needs = {
        **dict.fromkeys(("seed", "device", *ClassWords.words()), "generator"),
        "condition_source_read": "generator, condition_source",
    }
    data: Annotated[str | None, Opt(argument=True, metavar="KIND:WHERE|FOLDER")] = Field(
        default=None, kw_only=False
    )
    """KIND:WHERE, or a folder or file whose kind is found. A generator needs none; if given, it is
    also where the data set of its fit lies now."""
    generator: Annotated[Folder | None, Opt(metavar="RUN", heading="Sample bank")] = None
    """Compare a handful of its samples with its training cases: will they harm?"""
    bank: Annotated[Folder | None, Opt(heading="Sample bank")] = None
    """Compare samples of this bank with the data set's cases."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    subjects: Annotated[str | None, Opt(heading="Data")] = None
    """CSV (case,subject) or regular expression with one group."""
    read: Annotated[Values, Opt(example="spacing=1", heading="Data")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    root: Annotated[Root | None, Opt(heading="Data")] = None
    """Folder with the framework's own folders, instead of its environment variables."""


class TuringRequest(SampleWords, MovedData, RealWords):
    """Let raters tell real images from samples, each on a page.

    RUN is a folder that gansynth fit wrote. Without ANSWERS, a page for each rater is written into
    RUN/turing/study/pages: give each rater one, and collect the file that it saves. With ANSWERS,
    those files, the table of all raters is printed (gansynth help turing_test).
    """

    settings = ""
    run: Annotated[Folder, Opt(argument=True, metavar="RUN")] = Field(kw_only=False)
    """The run, or its folder."""
    answers: Annotated[File | Sequence[File], Many, Opt(argument=True, metavar="[ANSWERS]...")] = (
        Field(default=(), kw_only=False)
    )
    """Files that the raters' pages saved."""
    raters: int = Field(default=1, ge=1)
    """Pages, one for each rater; those that are there stay."""
    real: Annotated[str | None, Opt(metavar="KIND:WHERE")] = None
    """Real images of this source instead of the run's own."""
    n: Annotated[int, Opt(flags=("-n", "--n", "--number"), heading="Samples")] = Field(
        default=50, ge=1
    )
    """Real images, and as many samples; with --per-class, of each class."""
    origin: Annotated[Literal["held-out", "training", "all"] | None, Opt(flags=("--from",))] = None
    """Side of the fold of the real cases.  [default: held-out if enough, else all]"""
    per_case: int = Field(default=1, ge=1)
    """Most images cut from one real case, for runs trained on crops or slices."""
    classes: Annotated[Texts, Opt(flags=("--class",), metavar="NAME", heading="Samples")] = ()
    """Images of this class only; may be repeated."""
    per_class: bool = False
    """Equally many images of each class, and a table by class."""
    channel: Annotated[str | None, Opt(metavar="NAME")] = None
    """Show this channel.  [default: all]"""
    contrast: Literal["real", "own"] = "real"
    """Black and white level: percentiles of the real images, or of each image."""
    seed: Annotated[int | None, Opt(heading="Samples")] = Field(default=None, ge=0)
    """Seed of the samples.  [default: secret]"""
    instructions: File | None = None
    """Text file that raters read before they begin."""
    name: str = "study"
    """Its name, in RUN/turing."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """Folder of the study instead."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def check_alone(self) -> None:
        """Refuse fields of a study that is made already."""
        self.refuse_beside(
            *("run", "answers", "name", "out"),
            message="{} with ANSWERS: the study is made already, expected its answers alone; leave "
            "it out",
        )
