"""The ``gansynth`` commands that reproduce a paper's table on given data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from gansynth.core.generator import Generator
from gansynth.core.registry import installed
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schedule import Mix
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import texts
from gansynth.fitting.fit import grown_late
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.fitting.setup import resolve
from gansynth.hosts.contract.host import framework
from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth.runtime.options import overlay
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.papers.plan import ALL, PaperArm, PaperTablePlan, read_formulas
from gansynth_benchmark.requests import PapersRequest, data_words

LENGTHS = ("steps", "epochs")  # settings of a host's training length
MANY = 1_000_000  # a large number of steps, to compare the lengths of epochs between arms


class PaperCommands:
    """Words after ``gansynth`` for a plan on given data."""

    def __init__(self, plan: PaperTablePlan, options: PapersRequest, out: Path) -> None:
        self.plan, self.asked, self.out = plan, options, out
        self.regions = read_formulas(options.regions, plan.regions)
        if options.scale is not None and options.scale not in plan.scales:
            raise UsageFault(
                "papers.scale-unknown",
                f"--scale {options.scale}: expected one of {', '.join(plan.scales)}",
            )

    @property
    def name(self) -> str:
        """Name of the results, and start of the pictures' names."""
        return self.asked.name or f"papers_{self.plan.name.replace('-', '_')}"

    def check_settings(self, hosts: Iterable[str]) -> None:
        """Refuse settings that neither the recipe's generators nor the hosts have."""
        from gansynth.training.loop import FitOptions

        spec = self.plan.spec.spec
        generators = [spec.generator]
        for run in spec.runs:
            generators += [part.generator for part in run.parts or ()]
        keys = set(FitOptions.model_fields)
        for name in generators:
            keys |= installed().generator(name).Options.model_fields.keys()
        refuse_unknown(self.asked.fit_set, keys, of=spec.generator, named="--fit-set {}".format)
        for name in hosts:
            target = str(self.plan.hosts[name].target)
            has = framework(target).Options.model_fields
            refuse_unknown(self.asked.host_set, has, of=target, named="--host-set {}".format)

    def check_growth(self, names: Sequence[str]) -> None:
        """Refuse generators that would not have grown to their size: no arm could draw of them."""
        plan, options = self.plan, self.asked
        cls = installed().generator(plan.spec.spec.generator)
        if not names or cls.stages is Generator.stages:  # which has one stage
            return
        planned = plan_recipe(
            plan.spec,
            self._request(options.read),
            settings=texts(overlay(plan.set, options.fit_set)),
            edits=None,
            scale=options.scale,
            only=() if plan.spec.alone else [plan.generators[name] for name in names],
            others=texts(options.extra_source),
        )
        for one in planned.sets:
            late = grown_late(resolve(one.generator, one.request, one.settings, None, "cpu"))
            if late:
                raise UsageFault("papers.generator-does-not-grow", late)

    # -- the data --------------------------------------------------------------------------------

    def host_read(self, generator: str) -> dict[str, str]:
        """Return how hosts read the cases: from the recipe, its scale, and the command line."""
        recipe = self.plan.spec
        runs = {run.name: run for run in recipe.spec.runs}
        run = runs[self.plan.generators[generator]]
        scale = recipe.scaled(self.asked.scale)
        read = dict(recipe.read_of(self.asked.kind))
        for changes in (run.read, scale.read, self.asked.read):
            read.update(changes)
        return read

    def _request(self, read: Mapping[str, str]) -> SourceRequest:
        options = self.asked
        keys = {"fold": options.fold, "subjects": options.subjects, "root": options.root}
        return SourceRequest.parse(options.data, read=read, **keys)

    @cached_property
    def source(self) -> Any:
        """The cases, opened."""
        # Reads of a table of raters are of the slices that its recipe cuts.
        source = open_source(self._request({} if self.plan.raters else self.asked.read))
        labels = set(map(str, source.schema.foreground))
        for name, formula in self.regions.items():
            if formula != ALL and not set(formula.split("+")) <= labels:
                raise UsageFault(
                    "papers.region-labels-not-there",
                    f"{self.asked.data}: has the labels {', '.join(sorted(labels))}, but {name} is "
                    f"{formula}; define it with your labels: --regions {name}:1+2",
                )
        return source

    # -- generators ------------------------------------------------------------------------------

    def fit(self, names: Sequence[str]) -> list[str]:
        """Return the command that fits, resumes or reuses generators of the plan."""
        plan, options = self.plan, self.asked
        alone = plan.spec.alone
        request = FitRequest(
            generator=plan.spec.spec.generator,
            recipe=plan.recipe,
            scale=options.scale,
            only=() if alone else [plan.generators[name] for name in names],
            **data_words(self._request(options.read)),
            extra_source=options.extra_source,
            set=texts(overlay(plan.set, options.fit_set)),
            out=self.generators,
        )
        return request.command_line

    @property
    def fitted(self) -> list[str]:
        """What distinguishes generators fitted on the same cases."""
        options = self.asked
        named = dict(options.extra_source)
        named.update(overlay(self.plan.set, options.fit_set))
        settings = [f"{key}={value}" for key, value in named.items()]
        return [self.plan.recipe, str(options.scale), *settings]

    def run(self, generator: str) -> Path:
        """Return a generator's run folder."""
        if self.plan.spec.alone:
            return self.generators
        return self.generators / self.plan.generators[generator]

    @property
    def generators(self) -> Path:
        """Folder of the fitted generators."""
        return self.out / "generators"

    # -- hosts -----------------------------------------------------------------------------------

    def settings(self, name: str) -> dict[str, str]:
        """Return a host's settings, the same for all arms; ``lengths`` has the training lengths."""
        host, options = self.plan.hosts[name], self.asked
        settings = dict(host.set)
        if options.scale is not None:
            settings = overlay(settings, self.plan.scales[options.scale].hosts.get(name, {}))
        settings = overlay(settings, options.host_set)
        if options.epochs is not None:
            settings = overlay(settings, {"epochs": f"{options.epochs:g}"})
        named = [f"{key}:{formula}" for key, formula in self.regions.items() if formula != ALL]
        return dict(settings, regions=",".join(named)) if named else dict(settings)

    def lengths(self, name: str, arms: Sequence[PaperArm]) -> dict[str, dict[str, str]]:
        """Return, by arm, settings that give all arms the same number of steps.

        Without a number of steps, the longest arm has the host's own epochs.
        """
        settings, steps = self.settings(name), self.asked.steps
        mixes = [Mix.parse(arm.ratio, arm.schedule) for arm in arms]
        trials, cases = trials_of(str(self.plan.hosts[name].target)), len(self.source.train_ids)
        each = trials.settings_for_steps(self.source, steps or MANY, mixes, settings, cases)
        if steps is None:
            given = [int(length["epochs"]) for length in each if "epochs" in length]
            least = min(given, default=1)
            each = [_own_length(length, settings, least) for length in each]
        return {arm.name: length for arm, length in zip(arms, each, strict=True)}

    def augment(
        self, name: str, arm: PaperArm, seed: int, settings: Mapping[str, str]
    ) -> list[str]:
        """Return the command that trains one arm of a host."""
        host = self.plan.hosts[name]
        drawn = arm.generator is not None
        # Arms of real cases use the reads of the plan's first generator.
        generator = arm.generator or next(iter(self.plan.generators))
        given: dict[str, Any] = {}
        if drawn:
            given = {"offline": True, "bank_size": arm.bank, "generator": self.run(generator)}
            given["edit"] = arm.edits or ()
        if not host.usual_augmentation:
            given["host_augmentation"] = False
        request = AugmentRequest(
            target=str(host.target),
            **data_words(self._request(self.host_read(generator))),
            ratio=arm.ratio,
            schedule=arm.schedule,
            **given,
            set=texts(settings),
            seed=seed,
            out=self.folder(name, arm, seed),
        )
        return request.command_line

    def folder(self, name: str, arm: PaperArm, seed: int) -> Path:
        """Return the folder of one training."""
        plain = re.sub(r"[^A-Za-z0-9]+", "-", arm.name).strip("-")
        return self.out / name / f"{plain}-{seed}"


def _own_length(
    length: Mapping[str, str], settings: Mapping[str, str], least: int
) -> dict[str, str]:
    """Return an arm's length settings; arms with shorter epochs get more of them."""
    changed = {key: value for key, value in length.items() if key not in LENGTHS}
    if "epochs" in length and "epochs" in settings:
        changed["epochs"] = f"{float(settings['epochs']) * int(length['epochs']) / least:.0f}"
    return changed


def said(words: Sequence[object], out: Path) -> str:
    """Return a command as text, without this machine's folders."""
    shown = [bare(str(word).replace(f"{out}/", "")) for word in words]
    return f"gansynth {shlex.join(shown)}"


def bare(word: str) -> str:
    """Return a word whose absolute paths are shortened to their last component."""
    return re.sub(r"(?:^|(?<=[=:]))/\S*/", "", word)
