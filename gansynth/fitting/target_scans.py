"""``fit --target-scans``: unlabelled scans of the site where the host will be used.

A generator learns what they look like, beside its labelled training cases. They count as seen: no
host may be evaluated on the people whom they show.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.conditions.condition_source import differing_images, open_other
from gansynth.core.case_pool import TrainingCases
from gansynth.core.generator import Generator
from gansynth.core.identity import Door, refuse_seen
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Case
from gansynth.core.source import CaseSource, lineage_of
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.held_out import held_out_of
from gansynth.data.views import unwrap
from gansynth.runtime.errors import UsageFault, describe_error

log = logging.getLogger("gansynth")
SCANS = 64  # that a generator observes, at most
OWN = 0x7363616E  # separates the random numbers of scans from those of training cases
DOOR = Door(
    "--target-scans",
    "Leave these cases out, or name others: --target-scans",
    "--target-scans-read subjects='{}'".format,
)


@dataclass(frozen=True)
class TargetScans:
    """Scans of another site.

    Attributes:
        asked: what opens them, a ``SourceRequest`` as JSON.
        source: the scans, in the units and with the channels of the training cases.
    """

    asked: Mapping[str, Any]
    source: CaseSource

    @classmethod
    def open(
        cls, asked: Mapping[str, Any], generator: Generator, source: CaseSource
    ) -> TargetScans:
        """Open the scans. UsageFault: the generator learns of none, or their channels differ."""
        text = f"--target-scans {asked['kind']}:{asked['where']}"
        if not generator.capabilities.scans:
            raise UsageFault(
                "fitting.target-scans-without-effect",
                f"{text}: has no effect, as {generator.name} learns nothing of them; leave it out, "
                "or fit elastic with --set maps=scans",
            )
        with describe_error("--label-source", "--target-scans"):
            scans = open_other(asked, source, like=True)
        differ = differing_images(scans, source)
        if differ:
            raise UsageFault(
                "fitting.target-scans-differ",
                f"{text}: {differ}; name scans of the same channels",
            )
        return cls(asked, scans)

    def seen(self, source: CaseSource) -> Lineage:
        """Return their lineage. IntegrityFault: they show people whom ``source`` holds out."""
        lineage = lineage_of(self.source)
        for text in refuse_seen(lineage, held_out_of(unwrap(source)), DOOR).warnings:
            log.warning("--target-scans: %s", text)
        return lineage

    def batches(self, space: Space, seed: int) -> CaseBatches:
        """Return batches of scans; other random numbers than those of training cases."""
        (own,) = np.random.SeedSequence((seed, OWN)).generate_state(1)
        return CaseBatches(TrainingCases(CaseCache(self.source)), space, seed=int(own))

    def crops(self, space: Space, seed: int) -> Iterator[Case]:
        """Yield a crop of each scan, of ``SCANS`` evenly spread ones if there are more."""
        batches = self.batches(space, seed)
        ids, rng = self.source.train_ids, np.random.default_rng(seed)
        for place in np.linspace(0, len(ids) - 1, min(len(ids), SCANS)).round().astype(int):
            yield batches.cut(ids[place], rng)


def check_given(scans: TargetScans | None, generator: Generator) -> None:
    """Refuse a generator that needs scans and got none (UsageFault)."""
    if generator.capabilities.scans and scans is None:
        raise UsageFault(
            "fitting.target-scans-missing",
            f"{generator.name} is set to learn what scans of another site look like, and got none; "
            "name them: --target-scans KIND:WHERE",
        )
