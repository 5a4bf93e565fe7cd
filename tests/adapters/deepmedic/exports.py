"""Data sets of DeepMedic, banks of their crops, and exports of both."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.adapter import Injection
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from tests.deepmedic_sets import Toy, toy_deepmedic

MAPS = "weightedMapsForSamplingEachCategoryTrain"
NORMALISED: Mapping[str, Any] = {"norm_zscore_prms": {"apply_to_all_channels": True}}


def opened(data: Toy, **read: str) -> DeepMedicSource:
    """Of which samples of 16 voxels along each axis are cut."""
    return open_deepmedic(
        SourceRequest("deepmedic", str(data.train), read={"size": "16,16,16", **read})
    )


def make_bank(folder: Path, source: DeepMedicSource, samples: int = 12, **changes: Any) -> Path:
    """A frozen bank of real crops, each with another number of hundreds added to its image.

    ``changes`` are of the bank's own description; but ``whole`` for volumes that are not cut, and
    ``first``, a key to sort samples by.
    """
    rng, whole = np.random.default_rng(1), changes.pop("whole", False)
    first = changes.pop("first", lambda sample: 0)
    made: list[tuple[Sample, dict[str, Any]]] = []
    for number in range(samples):
        case = source.load(source.train_ids[number % len(source.train_ids)])
        place = Placement() if whole else source.space.place(case, rng)
        cut = case if whole else source.space.to_generator(case, place)
        shape = list(case.image.shape[1:])
        told = {"case": case.id, "placement": place.to_json(), "shape": shape, "index": number}
        image = (cut.image + 100 * (number + 1)).astype(np.float32)
        made.append((Sample(image, cut.labels, None, told), {}))
    made.sort(key=lambda one: first(one[0]))
    seen = Lineage(source.name, "0", source.records(source.train_ids), source.host)
    spec = BankSpec(source.schema, seen, "toy", "0" * 64, True, samples, dtype="float32")
    spec = replace(spec, samples=SampleRequest(seed=7), **changes)
    with BankWriter.create(folder, spec) as writer:
        while made:
            writer.publish(made[: writer.next_size or 1])
            del made[: writer.spec.segment_samples]
        if spec.frozen:
            writer.finish()
    return folder


class Sets:
    """Toy data sets with their banks, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, tuple[Toy, Path]] = {}

    def get(self, name: str) -> tuple[Toy, Path]:
        """``roi``, ``bare`` (without regions of interest) or ``normalised``."""
        if name not in self._made:
            values = {**NORMALISED} if name == "normalised" else None
            home = self.folder / name
            data = toy_deepmedic(home / "set", train=3, val=1, roi=name != "bare", values=values)
            self._made[name] = data, make_bank(home / "bank", opened(data))
        return self._made[name]


def export(of: tuple[Toy, Path], out: Path, ratio: str = "1:2", **asked: Any) -> dict[str, Any]:
    """Export a data set with samples of a bank."""
    data, bank = of
    given = {k: asked.pop(k) for k in ("content", "size", "dry_run") if k in asked}
    adapter = DeepMedicAdapter(opened(data, **asked.pop("read", {})))
    injection = Injection(None, Ratio.parse(ratio), **{"bank": bank, **asked})
    return dict(adapter.export(injection, str(out), reporter=NullReporter(), **given))


def manifest_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return document


def stored(file: Path | str) -> npt.NDArray[Any]:
    image: Any = nib.load(file)
    return np.asarray(image.dataobj)


def listed(folder: Path, name: str) -> list[str]:
    return (folder / f"list_{name}.cfg").read_text().splitlines()
