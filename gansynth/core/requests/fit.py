"""``gansynth fit``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gansynth.core.requests.base import Folder, Opt, Texts, Values
from gansynth.core.requests.sections import CaseData, EditSection, MemorySection


class RecipeData(CaseData):
    """Further sources that a recipe needs."""

    heading: ClassVar[str] = "Data"
    extra_source: Annotated[
        Values, Opt(metavar="NAME=KIND:WHERE", example="tissues=nifti:adni", needs="recipe")
    ] = {}
    """Further source that a recipe needs, by its name; may be repeated."""
    extra_source_read: Annotated[
        Values, Opt(metavar="NAME.KEY=VALUE", example="tissues.channels=T1", needs="recipe")
    ] = {}
    """How to read that source, where it differs from the cases; may be repeated."""


class FitRequest(EditSection, RecipeData, MemorySection):
    """Fit a generator on the training cases of one fold.

    NAME is a registered generator (see: gansynth plugins), or the YAML file of a chain of them. No
    generator sees held-out cases. They are opened only to make sure that --init-from has not seen
    them. The run folder holds the resolved settings, lineage, checkpoints and metrics. It can be
    moved.
    """

    command: ClassVar[str] = "fit"
    leading: ClassVar[tuple[str, ...]] = (
        "data",
        "configuration",
        "fold",
        "subjects",
        "read",
        "out",
        "recipe",
        "set",
        "device",
        "max_memory",
        "init_from",
        "dry_run",
    )
    generator: Annotated[str, Opt(argument=True, metavar="NAME", names=("generators",))] = Field(
        kw_only=False
    )
    """A registered generator, or the YAML file of a chain of them."""
    out: Annotated[Folder, Opt(flags=("-o", "--out"), called="-o")]
    """Folder of the new run."""
    recipe: Annotated[str | None, Opt(metavar="NAME", names=("recipes",))] = None
    """Fit all sets of a paper's recipe: a name, or a YAML file."""
    only: Annotated[Texts, Opt(metavar="SET", needs="recipe")] = ()
    """Fit this set of the recipe only; may be repeated."""
    scale: Annotated[str | None, Opt(metavar="NAME", needs="recipe")] = None
    """Settings of the recipe for another amount of work."""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    resume: bool = True
    """Resume the run in this folder, if there is one."""
    max_memory: Annotated[str | None, Opt(metavar="SIZE")] = None
    """Halve parts of batches, then training crops, until a measured step fits (16GB)."""
    init_from: Annotated[Folder | None, Opt(metavar="RUN")] = None
    """Start from another run's weights; its training cases count as seen."""
    sites: Annotated[str | None, Opt(heading="Data")] = None
    """CSV (case,site) or regular expression with one group: the run records each case's site."""
    target_scans: Annotated[str | None, Opt(metavar="KIND:WHERE|FOLDER")] = None
    """Unlabelled scans of the site where the host will be used; they count as seen."""
    target_scans_read: Annotated[Values, Opt(example="fold=0", needs="target_scans")] = {}
    """How to read --target-scans; keys as for --label-source-read. May be repeated."""
    per_channel: Annotated[str | None, Opt(metavar="[GROUPS]", alone="each")] = None
    """One model per image channel, or per group of them: T1,T2+FLAIR."""
    per_class: Annotated[str | None, Opt(metavar="[GROUPS]", alone="each")] = None
    """One model per class of cases, or for some: cyst,metastasis+haemangioma."""
    tensorboard: bool = False
    """Also log losses and preview grids for TensorBoard, below ``logs/`` of the run."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing but folds that data lack."""
