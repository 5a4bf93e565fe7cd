"""A data set of people in memory, plans on it, and designs, studies and results made of both."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseHeader, CaseSource, FoldSplit, SourceRequest
from gansynth.core.space import Space
from gansynth.metrics.segmentation.evaluation import THRESHOLDS
from gansynth.runtime.files import write_json_atomic
from gansynth_benchmark.jobs.store import ResultStore
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.study import BenchmarkStudy, ComputationSpec, request_of
from gansynth_benchmark.subject_split import SEALED
from gansynth_segmenter.trials import SegmenterTrials
from tests.offered import offered

WHERE = "/data/of/mine"
PLAN: Mapping[str, Any] = {
    "name": "made-up",
    "data": f"people:{WHERE}/14",
    "host": {"target": "segmenter", "steps": 40, "set": {"network": "unet"}},
    "arms": [
        "default",
        {"name": "pasted", "from": "copy-paste", "offline": True, "bank_size": "3x"},
        "double",
    ],
    "sizes": [2, 4],
    "draws": 2,
    "seeds": 2,
    "split": {"development": 2, "sealed": 3},
    "measures": ["dice", "hd95"],
    "primary": "dice/mean",
}


class People(CaseSource):
    """``people:FOLDER/14``: fourteen people, one to three cases each; fold 1 holds half out.

    Args:
        request: names how many there are.
        changed: a case with another image than it usually has.
    """

    schema = Schema(("T1",), {"background": 0, "one": 1, "two": 2}, (1.0, 1.0, 1.0))
    space = Space("crop", (2, 2, 2))

    def __init__(self, request: SourceRequest, changed: str = "") -> None:
        self.request, self.changed = request, changed
        count = int(request.where.rpartition("/")[2])
        self._person = {
            f"p{p:02d}_{c}": f"p{p:02d}" for p in range(count) for c in range(p % 3 + 1)
        }

    @property
    def name(self) -> str:
        return f"people:{Path(self.request.where).name}"

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._person) - set(self.held_out_ids)))

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        people = sorted(set(self._person.values()))
        kept = people[::2] if self.request.fold == "1" else people[:1]
        return tuple(sorted(case for case, person in self._person.items() if person in kept))

    def header(self, case_id: str) -> CaseHeader:
        return CaseHeader(self._person[case_id], (2, 2, 2), self.schema.spacing)

    def load(self, case_id: str) -> Case:
        image = np.zeros((1, 2, 2, 2), np.float32)
        image[0, 0, 0] = list(self._person).index(case_id), case_id == self.changed
        return Case(case_id, self._person[case_id], image, np.ones((2, 2, 2), np.int16))

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        return self.request


@contextmanager
def people() -> Iterator[None]:
    # Nobody here is really segmented, so that nothing has to be measurable.
    unmeasured = patch.object(SegmenterTrials, "check_predictions", lambda *_: None)
    with offered("people", sources={"people": People}), unmeasured:
        yield


def plan_of(**changes: Any) -> BenchmarkPlan:
    """``PLAN`` with other values; mappings are put over its own."""
    merged = {
        key: {**PLAN[key], **value} if isinstance(PLAN.get(key), dict) else value
        for key, value in changes.items()
    }
    return BenchmarkPlan(**{**PLAN, **merged})


def design_of(
    plan: BenchmarkPlan | None = None, look: str = SEALED, changed: str = ""
) -> BenchmarkStudy:
    plan = plan or plan_of()
    with patch.object(SegmenterTrials, "check_predictions", lambda *_: None):
        return BenchmarkStudy(plan, look, Path(), source=People(request_of(plan), changed))


def scores_of(spec: ComputationSpec) -> dict[str, dict[str, float | None]]:
    """Made-up scores of a training: the same for the same spec, better with more cases."""
    doc = spec.document
    rng = np.random.default_rng(int(spec.key[:8], 16))
    level = 0.6 + 0.03 * np.log2(len(doc["train"])) + 0.05 * (doc["generator"] is not None)
    dice = {case: round(level + rng.normal(0, 0.02), 6) for case, *_ in doc["judged"]}
    hd95 = {case: round(20 * (1 - value), 6) for case, value in dice.items()}
    return {"dice/mean": dice, "hd95/mean": hd95}


def at_thresholds(spec: ComputationSpec) -> dict[str, dict[str, list[float]]]:
    """Made-up measures at each threshold: with samples a host raises one alarm more."""
    steps, more = len(THRESHOLDS), spec.document["generator"] is not None
    cases = [case for case, *_ in spec.document["judged"]]
    alarms = [float(steps - n + more) for n in range(steps)]
    dice = {case: [round(n / steps, 6) for n in range(steps)] for case in cases}
    found = {"dice@alarms/foreground": dice}
    return found | {"false_alarms@alarms/foreground": dict.fromkeys(cases, alarms)}


def finish(store: ResultStore, key: str, document: Mapping[str, Any]) -> None:
    folder = store.folder / key
    folder.mkdir(parents=True, exist_ok=True)
    result = {"key": key, "device": "cpu", "document": dict(document)}
    write_json_atomic(folder / "result.json", result)


def finish_all(study: BenchmarkStudy, chosen: str = "default") -> None:
    """Put results of all jobs into a study's store, also of those that come of a choice."""
    before: set[str] = set()
    while set(specs := study.specs()) != before:
        before = set(specs)
        for number, spec in enumerate(specs.values()):
            if study.store.at_hand(spec.key):
                continue
            document: dict[str, Any] = {"seconds": 10.0 + number}
            if spec.kind == "tune":
                document |= {"chosen": chosen, "why": "made up", "rungs": [], "by": "dice/mean"}
                document |= {"folds": 2}
            elif spec.kind == "train":
                share = 0.5 if spec.needs else 0.0
                told = {"realised_synthetic_share": share, "drawn_real": 8, "fell_back": 0}
                document |= {"scores": scores_of(spec), "told": told}
                document["at_thresholds"] = at_thresholds(spec)
            finish(study.store, spec.key, document)
