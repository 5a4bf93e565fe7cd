"""The ``gansynth`` commands that a plan of a paper's table comes to on somebody's data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gansynth.benchmark.papers.plan import ALL, Arm, Host, Plan, read_formulas
from gansynth.benchmark.words import each, source_words
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.core.schedule import Schedule
from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth.runtime.options import overlay
from gansynth.sampling.opening import open_source

LENGTHS = ("steps", "epochs")
"""Settings of how long a host trains."""
MANY = 1_000_000
"""Steps of which whole epochs tell how long each arm's are."""
OUTPUT = {"yolo": ("--set", "output=")}
"""How a target is told its folder, where not by ``-o``, which is an export's there."""


@dataclass(frozen=True)
class Asked:
    """What somebody typed; settings and reads are key -> text.

    Attributes:
        scale: of the plan and its recipe; None for the paper's own.
        subjects: see ``gansynth fit --subjects``.
        root: folder of nnU-Net's folders, of ``nnunet-raw:``.
        regions: other formulas, as ``WT:1+2+3``.
        as_stored: leave real cases as they are where the plan brings them through the space.
    """

    data: str
    out: Path
    scale: str | None = None
    others: tuple[str, ...] = ()
    read: Mapping[str, str] = field(default_factory=dict)
    fold: str = "0"
    subjects: str | None = None
    root: str | None = None
    model: str | None = None
    fit: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None
    epochs: float | None = None
    regions: str = ""
    as_stored: bool = False

    @property
    def kind(self) -> str:
        """Of the data."""
        return self.data.partition(":")[0]


class Commands:
    """Words after ``gansynth``, of a plan on somebody's data.

    Raises:
        UsageFault: there is no such scale, or regions that are not like that.
    """

    def __init__(self, plan: Plan, asked: Asked) -> None:
        self.plan, self.asked = plan, asked
        self.regions = read_formulas(asked.regions, plan.regions)
        if asked.scale is not None and asked.scale not in plan.scales:
            raise UsageFault(f"--scale {asked.scale}: expected one of {', '.join(plan.scales)}")

    def check_settings(self, hosts: Iterable[str]) -> None:
        """Refuse settings that no generator of the recipe, or no such host, has.

        Raises:
            UsageFault: naming ``--fit-set`` or ``--host-set``, and the key.
        """
        from gansynth.training.loop import FitOptions

        spec = self.plan.spec.spec
        parts = (part.generator for run in spec.runs for part in run.parts or ())
        known = set(FitOptions.model_fields)
        for name in (spec.generator, *parts):
            known |= installed().generator(name).Options.model_fields.keys()
        refuse_unknown(self.asked.fit, known, of=spec.generator, named="--fit-set {}".format)
        for target in (str(self.plan.hosts[name].target) for name in hosts):
            has = installed().adapter(target).Options.model_fields
            refuse_unknown(self.asked.host, has, of=target, named="--host-set {}".format)

    # -- the data --------------------------------------------------------------------------------

    @cached_property
    def model(self) -> str | None:
        """DeepMedic's modelConfig.cfg: the one named, or the one beside trainConfig.cfg."""
        if self.asked.model is not None or self.asked.kind != "deepmedic":
            return self.asked.model
        beside = Path(self.asked.data.partition(":")[2]).with_name("modelConfig.cfg")
        return str(beside) if beside.is_file() else None

    @property
    def read(self) -> dict[str, str]:
        """What somebody wants read otherwise than the recipe says."""
        named = {"model": self.model} if self.model and self.asked.kind == "deepmedic" else {}
        return {**named, **self.asked.read}

    def host_read(self, generator: str) -> dict[str, str]:
        """How hosts read the cases: as the recipe and its scale say, and as was typed."""
        recipe = self.plan.spec
        run = next(r for r in recipe.spec.runs if r.name == self.plan.generators[generator])
        scale = recipe.scaled(self.asked.scale)
        return {**recipe.read_of(self.asked.kind), **run.read, **scale.read, **self.read}

    def _request(self, read: Mapping[str, str]) -> SourceRequest:
        asked = self.asked
        keys = {"fold": asked.fold, "subjects": asked.subjects, "root": asked.root}
        return SourceRequest.parse(asked.data, read=read, **keys)

    @cached_property
    def source(self) -> Any:
        """The cases, opened.

        Raises:
            GansynthError: they cannot be.
            UsageFault: a region's labels are not among theirs.
        """
        source = open_source(self._request(self.read))
        known = set(map(str, source.schema.foreground))
        for name, formula in self.regions.items():
            if formula != ALL and not set(formula.split("+")) <= known:
                raise UsageFault(
                    f"{self.asked.data}: has the labels {', '.join(sorted(known))}, and {name} is "
                    f"{formula}; say what it is of yours: --regions {name}:1+2"
                )
        return source

    # -- generators ------------------------------------------------------------------------------

    def fit(self, names: Sequence[str]) -> list[str]:
        """Fit those of the plan's generators, or go on with them, or find them done."""
        plan, asked = self.plan, self.asked
        words = ["fit", plan.spec.spec.generator, "--recipe", plan.recipe]
        if asked.scale is not None:
            words += ["--scale", asked.scale]
        if not plan.spec.alone:
            words += [word for name in names for word in ("--only", plan.generators[name])]
        words += source_words(self._request(self.read))
        words += [word for other in asked.others for word in ("--with", other)]
        words += each("--set", overlay(plan.set, asked.fit))
        return [*words, "-o", str(self._generators)]

    @property
    def fitted(self) -> list[str]:
        """By what generators differ that are fitted of the same cases."""
        asked = self.asked
        settings = each("--set", overlay(self.plan.set, asked.fit))
        return [self.plan.recipe, str(asked.scale), *asked.others, *settings]

    def run(self, generator: str) -> Path:
        """Its run folder."""
        if self.plan.spec.alone:
            return self._generators
        return self._generators / self.plan.generators[generator]

    @property
    def _generators(self) -> Path:
        return self.asked.out / "generators"

    # -- hosts -----------------------------------------------------------------------------------

    def settings(self, name: str) -> dict[str, str]:
        """A host's settings, the same for every arm; how long each trains stands in ``lengths``."""
        host, asked = self.plan.hosts[name], self.asked
        found = dict(host.set)
        if asked.scale is not None:
            found = overlay(found, self.plan.scales[asked.scale].hosts.get(name, {}))
        found = overlay(found, asked.host)
        if host.target == "deepmedic" and self.model:
            found = {"model": self.model, **found}
        if asked.epochs is not None:
            found = overlay(found, {"epochs": f"{asked.epochs:g}"})
        named = [f"{key}:{formula}" for key, formula in self.regions.items() if formula != ALL]
        return {**found, **({"regions": ",".join(named)} if named else {})}

    def lengths(self, name: str, arms: Sequence[Arm]) -> dict[str, dict[str, str]]:
        """By arm, what gives all that are compared as many steps.

        Without a number of steps the longest arm has the host's own epochs.
        """
        settings, steps = self.settings(name), self.asked.steps
        mixes = [(Ratio.parse(arm.ratio), Schedule.parse(arm.schedule)) for arm in arms]
        adapter = installed().adapter(str(self.plan.hosts[name].target))(self.source)
        each = adapter.lasting(steps or MANY, mixes, settings, len(self.source.train_ids))
        if steps is None:
            least = min((int(one["epochs"]) for one in each if "epochs" in one), default=1)
            each = [_own_length(one, settings, least) for one in each]
        return {arm.name: one for arm, one in zip(arms, each, strict=True)}

    def squeezes(self, name: str) -> bool:
        """Whether a host's real training cases are brought through the generator's space."""
        return self.plan.hosts[name].real_in_generator_space and not self.asked.as_stored

    def augment(self, name: str, arm: Arm, seed: int, settings: Mapping[str, str]) -> list[str]:
        """Train one arm of a host, with settings of ``settings``."""
        host = self.plan.hosts[name]
        drawn = arm.generator is not None
        # Real cases alone are read as generators are: one reads like the other.
        generator = arm.generator or next(iter(self.plan.generators))
        words = ["augment", "--target", str(host.target)]
        words += ["--engine", "torch"] if host.target == "deepmedic" else []
        words += source_words(self._request(self.host_read(generator)))
        squeezed = self.squeezes(name)
        if drawn or squeezed:
            words += ["--generator", str(self.run(generator))]
        words += ["--ratio", arm.ratio]
        if arm.schedule != "constant":
            words += ["--schedule", arm.schedule]
        if drawn:
            words += ["--frozen", "--bank-size", arm.bank]
            words += [word for edit in arm.edits or () for word in ("--edit", edit)]
        words += _flags(host, squeezed)
        words += [*each("--set", settings), "--seed", str(seed)]
        option, key = OUTPUT.get(str(host.target), ("-o", ""))
        return [*words, option, f"{key}{self.folder(name, arm, seed)}"]

    def folder(self, name: str, arm: Arm, seed: int) -> Path:
        """Of one training."""
        plain = re.sub(r"[^A-Za-z0-9]+", "-", arm.name).strip("-")
        return self.asked.out / name / f"{plain}-{seed}"


def _own_length(one: Mapping[str, str], settings: Mapping[str, str], least: int) -> dict[str, str]:
    """What an arm is told beside the host's own settings; more epochs where they are shorter."""
    found = {key: value for key, value in one.items() if key not in LENGTHS}
    if "epochs" in one and "epochs" in settings:
        found["epochs"] = f"{float(settings['epochs']) * int(one['epochs']) / least:.0f}"
    return found


def said(words: Sequence[object], out: Path) -> str:
    """A command as it may be written down: without this machine's folders."""
    return f"gansynth {shlex.join(bare(str(word).replace(f'{out}/', '')) for word in words)}"


def bare(word: str) -> str:
    """A word with paths by their last name: where they lie on this machine is nobody's business."""
    return re.sub(r"(?:^|(?<=[=:]))/\S*/", "", word)


def _flags(host: Host, squeezed: bool) -> list[str]:
    words = [] if host.usual_augmentation else ["--no-usual-augmentation"]
    return [*words, *(["--real-in-generator-space"] if squeezed else [])]
