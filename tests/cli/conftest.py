"""A toy source, a generator without networks and a recording host, registered for one test each."""
# mypy: disallow-untyped-calls=False

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from gansynth.core.adapter import Adapter, HostOptions, Outcome
from gansynth.core.bank_options import BankPlan
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.hookspecs import hookimpl
from gansynth.core.lineage import CaseRecord
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.hosts.checks import check_mixing
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource


class MeansOptions(GeneratorOptions):
    grain: float = 0.2


class Means(Generator):
    """Each label's mean intensity, and grain."""

    name = "means"
    Options: ClassVar[type[GeneratorOptions]] = MeansOptions
    default_edits = ("flip",)
    means: Any = None

    def networks(self):
        return {}

    def phases(self):
        return []

    def observe(self, cases):
        cases = list(cases)
        labels = np.concatenate([c.labels.ravel() for c in cases])
        values = np.concatenate([c.image.reshape(2, -1) for c in cases], axis=1)
        self.means = [values[:, labels == v].mean(axis=1).tolist() for v in (0, 1, 2)]

    def state(self):
        return {"means": self.means}

    def load_state(self, state):
        self.means = state["means"]

    def sample(self, conditions, seeds):
        samples = []
        for condition, seed in zip(conditions, seeds, strict=True):
            image = np.array(self.means).T[:, np.maximum(condition.labels, 0)]
            grain = np.random.default_rng(seed).normal(size=image.shape)
            image += self.options.model_dump()["grain"] * grain
            image[:, condition.labels == OUTSIDE] = 0
            samples.append(
                Sample(
                    image.astype(np.float32),
                    condition.labels.copy(),
                    provenance=condition.provenance,
                )
            )
        return samples


class Constant(Means):
    """Draws nothing at all."""

    name = "constant"

    def sample(self, conditions, seeds):
        return [replace(s, image=s.image * 0) for s in super().sample(conditions, seeds)]


class Folded(ToySource):
    """Fold 1 holds out what fold 0 trains on."""

    def __init__(self, request):
        super().__init__(int(request.where))
        self.request = request

    @property
    def train_ids(self):
        return super().train_ids if self.fold == "0" else super().held_out_ids

    @property
    def held_out_ids(self):
        return super().held_out_ids if self.fold == "0" else super().train_ids

    def records(self, ids):
        return tuple(CaseRecord(i, i, f"hash of {i}") for i in sorted(ids))


class ToyOptions(HostOptions):
    num_epochs: int | None = Field(None, description="epochs")


class Host(Adapter):
    """Records what it was started with."""

    name = "toyhost"
    Options = ToyOptions
    started: ClassVar[list[Any]] = []
    fell_back: ClassVar[int] = 0
    warnings: ClassVar[tuple[str, ...]] = ()

    @property
    def sample_size(self):
        return (8, 8, 8)

    def finalise(self, sample):
        return {}

    def validate(self):
        if self.source.request.configuration == "impossible":
            raise UsageFault("--configuration impossible: not in the plans")

    def bank_plan(self, injection):
        return BankPlan(64, 16, 1000)

    def check(self, injection, settings, options):
        check_mixing(self, injection)

    def inject(self, dataset, plan, *, batch_size):
        raise NotImplementedError

    def start(self, injection, settings, options):
        self.started.append((injection, dict(settings), tuple(options)))
        return Outcome(
            Path("results"),
            100 + self.fell_back,
            100 - self.fell_back,
            self.fell_back,
            {"dice": 0.5, "dice_per_label": {"1": 0.4, "2": 0.6}},
            {"the bank is empty": self.fell_back},
            warnings=self.warnings,
        )


@hookimpl
def _generators(register):
    register("means", lambda: Means)
    register("constant", lambda: Constant)


@hookimpl
def _sources(register):
    register("toy", lambda: Folded)


@hookimpl
def _adapters(register):
    register("toyhost", lambda: Host)


@pytest.fixture
def toys() -> Iterator[type[Host]]:
    """Registers generators ``means`` and ``constant``, source ``toy:3``, host ``toyhost``."""
    plugin = SimpleNamespace(
        register_generators=_generators, register_sources=_sources, register_adapters=_adapters
    )
    Host.started.clear()
    installed().add(plugin, "toys")
    try:
        assert "toys" not in installed().broken, installed().broken
        yield Host
    finally:
        installed().remove("toys")


@pytest.fixture
def run_json(run_cli) -> Callable[..., Any]:
    """Runs a command with ``--json``, which must succeed, and reads its one document."""

    def invoke(*arguments: object) -> Any:
        result = run_cli(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return invoke
