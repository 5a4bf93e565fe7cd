"""``gansynth sample``, ``evaluate``, ``check`` and ``turing-test``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gansynth.core.requests.base import File, Folder, Opt, Root, Texts, Values
from gansynth.core.requests.sections import ClassSection, MemorySection, MovedData


class DrawSection(ClassSection):
    """What is drawn, and with which seed."""

    n: Annotated[int, Opt(heading="Samples")] = Field(default=16, ge=1, kw_only=False)
    """Number of samples."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""


class SheetSection(DrawSection):
    """A preview grid."""

    n: Annotated[int, Opt(heading="Samples")] = Field(default=8, ge=1, kw_only=False)
    """Number of samples."""
    out: Folder | None = None
    """PNG file; RUN/samples/sheet.png if not given."""


class SampleRunRequest(ClassSection, MovedData, MemorySection):
    """Generate labelled samples from a run.

    RUN is a folder that gansynth fit wrote. The same seed gives the same samples. They are written
    as a data set that nifti:FOLDER reads (PNG files: pictures:FOLDER), or in another --format,
    whose options --set changes. A run may generate label maps of images, e.g. a part of a chain,
    RUN/parts/NAME. It then writes images and label maps of --label-source SOURCE, or of its
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
            "run",
            "replay",
            "out",
            "device",
            "root",
            message="--replay with {}: the record has all options; leave it out",
        )


class CheckRequest(ClassSection):
    """Report what is wrong with a data set, file by file, or with samples.

    The kind of a folder or file is found, if only one can open it. Every file is read completely.
    Commands refuse a data set with errors, not one with warnings. Exit code 3 if there are errors.

    Samples are compared with training cases in units, in number, size and sign of contrast of
    lesions. Nothing is refused: the lines say what differs.
    """

    command = "check"
    settings = ""
    needs = {
        **dict.fromkeys(("seed", "device", "verify_lineage", *ClassSection.words()), "generator"),
        "label_source_read": "generator, label_source",
        "unlabelled_read": "generator, unlabelled",
        "backgrounds": "generator, unlabelled",
        "lesion_free": "generator, unlabelled",
        "self_train": "generator, unlabelled",
        "write_subjects": "data",
        "sites": "data, !against",
        "against": "data",
        "against_read": "against",
    }
    data: Annotated[str | None, Opt(argument=True, metavar="KIND:WHERE|FOLDER")] = Field(
        default=None, kw_only=False
    )
    """KIND:WHERE, or a folder or file whose kind is found. A generator needs none; if given, it is
    also where the data set of its fit lies now."""
    generator: Annotated[Folder | None, Opt(metavar="RUN", heading="Sample bank")] = None
    """Compare a handful of its samples with its training cases: will they harm?"""
    verify_lineage: Annotated[bool, Opt(heading="Sample bank")] = False
    """Instead, read the training cases of the generator's data set and fold again, and compare them
    with those that the run records; exit code 6 if any differs."""
    bank: Annotated[Folder | None, Opt(heading="Sample bank")] = None
    """Compare samples of this bank with the data set's cases."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    subjects: Annotated[str | None, Opt(heading="Data")] = None
    """CSV (case,subject) or regular expression with one group."""
    write_subjects: Annotated[File | None, Opt(metavar="CSV", heading="Data")] = None
    """Write the subject of each case, one for cases that look nearly identical, for --subjects."""
    read: Annotated[Values, Opt(example="spacing=1", heading="Data")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    sites: Annotated[str | None, Opt(heading="Sites")] = None
    """Compare the sites of the cases: CSV (case,site) or regular expression with one group."""
    against: Annotated[str | None, Opt(metavar="KIND:WHERE|FOLDER", heading="Sites")] = None
    """Compare the cases with those of another site, with or without labels."""
    against_read: Annotated[Values, Opt(example="fold=0", heading="Sites")] = {}
    """How to read --against; keys as for --label-source-read. May be repeated."""
    root: Annotated[Root | None, Opt(heading="Data")] = None
    """Folder with the framework's own folders, instead of its environment variables."""
