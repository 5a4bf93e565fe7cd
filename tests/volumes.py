"""Toy volumes in memory with a bright ball in some slices, labelled or not."""
# mypy: disallow-untyped-calls=False

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space

SHAPE = (12, 16, 16)


class Balls(CaseSource):
    """``balls:NAME``: ten volumes of people of their own; ``balls:bare-NAME`` has no labels.

    Volumes of one name have the same images, those of different names other scanners' units too.
    The second channel is a picture of something else.
    """

    def __init__(self, request: SourceRequest):
        self.request = request
        self._bare = request.where.startswith("bare-")
        self._seed = sum(request.where.removeprefix("bare-").encode())

    @property
    def name(self):
        return f"balls:{self.request.where}"

    @property
    def schema(self):
        labels = {"background": 0} if self._bare else {"background": 0, "ball": 1}
        return Schema(("other", "T1"), labels, (1.0, 1.0, 1.0))

    @property
    def space(self):
        return Space("crop", SHAPE, host={"of": self.name}, pad_label=0)

    @property
    def _ids(self):
        return tuple(f"{self.request.where.removeprefix('bare-')}{i}" for i in range(10))

    @property
    def train_ids(self):
        return self._ids if self.fold == "all" else self._ids[:7]

    @property
    def held_out_ids(self):
        return () if self.fold == "all" else self._ids[7:]

    def shape(self, case_id):
        return SHAPE

    def load(self, case_id):
        rng = np.random.default_rng((self._seed, self._ids.index(case_id)))
        centre = np.array(SHAPE) / 2 + rng.uniform(-2, 2, 3)
        far = (((np.moveaxis(np.indices(SHAPE), 0, -1) - centre) / (3, 3, 3)) ** 2).sum(-1)
        image = rng.normal(0, 1, (2, *SHAPE))
        image[1, far <= 1] += 5
        labels = None if self._bare else (far <= 1).astype(np.int16)
        units = 1 if self._seed % 2 else 1000
        return Case(case_id, case_id, (units * image + units).astype(np.float32), labels)


@contextmanager
def balls() -> Iterator[None]:
    """Offers ``balls:``."""

    @hookimpl
    def register_sources(register):
        register("balls", lambda: Balls)

    installed().add(SimpleNamespace(register_sources=register_sources), "balls")
    try:
        assert "balls" not in installed().broken, installed().broken
        yield
    finally:
        installed().remove("balls")
