"""``gansynth evaluate``, ``turing-test`` and ``detections``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from gansynth.core.requests.base import File, Folder, Many, Opt, Request, Text, Texts
from gansynth.core.requests.sections import ClassSection, MovedData, RealSection, SampleSection

Part = Literal["realism", "faithfulness", "memorisation", "maps"]


class EvaluateRequest(ClassSection, MovedData, RealSection):
    """Evaluate samples: realism, faithfulness and memorisation.

    RUN is a folder that gansynth fit wrote, BANK a sample bank. Samples are compared with the cases
    the run was fitted on. Every figure stands beside that of other real patients. The report shows
    patients' images: leave them out (--no-pictures) before you share it.
    """

    command = "evaluate"
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
    sites: Annotated[str | None, Opt(heading="Data")] = None
    """A line for each site of the real cases: CSV (case,site) or regular expression with one group;
    by default as the run was fitted."""
    exported: Folder | None = None
    """Folder of samples to share: search it for traces of patients."""
    pictures: bool = True
    """Thumbnails in the report; those of real cases are patients' images."""
    seed: Annotated[int, Opt(heading="Samples")] = Field(default=0, ge=0)
    """Seeds labels and latents."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


class TuringRequest(SampleSection, MovedData, RealSection):
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
    n: Annotated[int, Opt(flags=("-n", "--number"), heading="Samples")] = Field(default=50, ge=1)
    """Real images, and as many samples."""
    origin: Annotated[Literal["held-out", "training", "all"] | None, Opt(flags=("--from",))] = None
    """Side of the fold of the real cases.  [default: held-out if enough, else all]"""
    classes: Annotated[Texts, Opt(flags=("--class",), metavar="NAME", heading="Samples")] = ()
    """Images of this class only; may be repeated."""
    channel: Annotated[str | None, Opt(metavar="NAME")] = None
    """Show this channel.  [default: all]"""
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
            "run",
            "answers",
            "name",
            "out",
            message="{} with ANSWERS: the study is made already, expected its answers alone; leave "
            "it out",
        )


class DetectionsRequest(Request):
    """Evaluate detectors, and compare them at equal false positives.

    PATH is a file of detections, or the folder of a training that holds one. All experiment arms
    must use the same images, and drop double boxes alike. Intervals are over patients. Each arm is
    compared with the first.
    """

    settings = ""
    arms: Annotated[Texts, Opt(argument=True, metavar="[NAME=]PATH...")] = Field(kw_only=False)
    """Files of detections, or folders of trainings, each perhaps with a name."""
    split: Literal["val", "test"] = "val"
    """Images to evaluate, where PATH is a folder."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """Write table, numbers and curves there."""
    confidence: float = Field(default=0.001, ge=0, le=1)
    """Least score of a detection."""
    iou: Text = ".5,.25"
    """Least intersection over union of a hit; separate several by commas."""
    bootstrap: int = Field(default=2000, ge=0, le=100_000)
    """Resamples of patients for the intervals; 0: no intervals."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resamples."""
    any_class: bool = False
    """Count a box of a wrong class as a hit."""
    boxes: int = Field(default=1, ge=1)
    """Boxes of a lesion in a volume that must be hit."""
    paper: bool = False
    """Also show the numbers of Han et al. (2019)."""
