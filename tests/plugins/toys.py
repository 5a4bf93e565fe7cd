"""Slices in memory with a lesion or two, classes and boxes, and tiny generators for them; fits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansynth.core.generator import Batch, Generator, TrainingStep
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Boxes, Case, Schema
from gansynth.core.source import SourceRequest
from gansynth.data.batches import batch_of
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.testing import ToySource
from gansynth.training.loop import FitOptions, train

SIZE = (16, 16)
FILL = (-2.5, 0.125)
SCHEMA = Schema(
    ("T1", "T2"),
    {"background": 0, "organ": 1, "lesion": 4},
    (1.0, 1.0),
    "HW",
    has_outside=True,
    outside_fill=FILL,
    classes=("a", "b"),
    box_classes=("lesion", "cyst"),
)
CGAN = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2}
TINY: Mapping[str, Mapping[str, Any]] = {
    "dcgan": {"width": 4, "latent": 8},
    **dict.fromkeys(("cgan3d", "cgan3d-labels", "cgan3d-lesion"), CGAN),
    "cpggan": {
        **{"width": 2, "max_width": 4, "latent": 4},
        **{"stage_images": 8, "fade_images": 8, "minibatch": 2},
    },
}


def boxes(*rows: Sequence[float], labels: Sequence[int] = ()) -> Boxes:
    coords = np.array(rows, np.float32).reshape(-1, 4)
    return Boxes(coords, np.array(labels or [0] * len(rows), np.int16))


def case(seed: int = 0, **changes: Any) -> Case:
    """A disc of an organ with a bright lesion or two, boxes around them; outside at the left."""
    rng = np.random.default_rng(seed)
    at = np.indices(SIZE)
    labels = np.where(((at - 7.5) ** 2).sum(0) < 52, np.int16(1), np.int16(0))
    labels[:, :1] = OUTSIDE
    rows = []
    for number in range(1 + seed % 2):
        y, x = rng.integers(3, 6, 2) + 4 * number
        labels[y : y + 4, x : x + 4] = 4
        rows.append((y, x, y + 4, x + 4))
    image = rng.normal(size=(2, *SIZE)) + labels
    image[:, labels == OUTSIDE] = np.array(FILL)[:, None]
    found = boxes(*rows, labels=[0, 1][: len(rows)])
    made = Case(f"c{seed}", f"c{seed}", image.astype(np.float32), labels, found, seed % 2)
    return replace(made, **changes)


def cases(n: int = 4) -> list[Case]:
    return [case(i) for i in range(n)]


def maps(size: Sequence[int], seed: int = 0) -> Any:
    """Labels without any order, of any size."""
    values = np.array([OUTSIDE, *sorted(SCHEMA.labels.values())], np.int16)
    return np.random.default_rng(seed).choice(values, size)


def build(
    kind: str, size: tuple[int, ...] = SIZE, spec: Schema | None = None, **options: Any
) -> Any:
    """A registered generator, of the same weights every time; it has seen nothing."""
    cls = installed().generator(kind)
    axes: dict[str, Any] = {"spacing": (1.0,) * len(size), "axes": "DHW"[-len(size) :]}
    spec = spec or (SCHEMA if len(size) == 2 else replace(SCHEMA, **axes, box_classes=()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(spec, size, cls.Options.model_validate({**TINY.get(kind, {}), **options}))


def seen(kind: str, *of: Case, **options: Any) -> Any:
    """One that has observed these cases, or four; grown up, if it grows."""
    made = build(kind, **options)
    made.learnt = made.observe(of or cases())
    if kind == "cpggan":
        made.painter.grown.fill_(len(made.stages()) - 1)
    return made


def step(generator: Generator, of: Sequence[Case], first: int = 0, total: int = 0) -> TrainingStep:
    batch = batch_of(of, generator.context)
    rng = torch.Generator().manual_seed(5)
    stage = generator.stages()[-1]
    return TrainingStep(batch, stage, 0, 0, rng, 5, first=first, total=total or len(of))


def learn(generator: Any, steps: int = 2, **options: Any) -> Any:
    """Let it observe six cases and train on them; the report."""
    known, folder, device = cases(6), options.pop("folder", None), options.pop("device", None)
    generator.learnt = generator.observe(known)

    def batches(index: int, stage: Any, which: range) -> Batch:
        return batch_of([known[(index + i) % 6] for i in which], generator.context)

    loop = {"steps": steps, "batch_size": 2, "precision": "fp32", "log_every": steps, **options}
    chosen = FitOptions.model_validate(loop)
    return train(generator, batches, chosen, folder=folder, device=device)


def trained(generator: Any, steps: int = 2, **options: Any) -> Any:
    learn(generator, steps, **options)
    return generator


def weights(generator: Any, *players: str) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([p.detach().flatten().clone() for p in net.parameters()])
        for name, net in generator.nets.items()
        if not players or name in players
    }


class Toys(ToySource):
    """Toy cases by their request: in 3D (``3``), in 2D (``2``) or with boxes (``boxes``)."""

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(3 if request.where == "3" else 2, boxes=request.where == "boxes")
        self.request = request


def fit_toys(
    kind: str, request: SourceRequest, out: Path, edits: Any = None, **settings: Any
) -> dict[str, Any]:
    texts = {key: str(value) for key, value in settings.items()}
    how: dict[str, Any] = {"edits": edits, "device": "cpu", "reporter": NullReporter()}
    return fit(kind, request, out, settings=texts, **how)
