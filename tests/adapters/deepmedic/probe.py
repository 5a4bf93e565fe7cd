"""``python probe.py FILE LAUNCH.py ORDER.json GANSYNTH``: a launch that writes down what it serves.

For each case of a subepoch one JSON line: the segments that were cut (hash and centre of the first
channel), and whether a real case is, to the bit, what DeepMedic's own function reads.
FILE.draws gets the state of numpy's generator before centres are drawn for a class of a case.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np


def write(file: str, document: dict[str, Any]) -> None:
    with Path(file).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(document) + "\n")


def listen_to_draws(sampling: Any, file: str) -> None:
    """Write down what is drawn by DeepMedic's module; once."""
    choose = sampling.sample_idxs_of_segments
    if choose.__name__ == "listening":
        return

    def listening(log: Any, job_id: str, *more: Any) -> Any:
        _, keys, position, *_ = np.random.get_state(legacy=True)  # noqa: NPY002
        state = hashlib.sha256(np.asarray(keys).tobytes()).hexdigest()[:16]
        if job_id.startswith("[TRA"):
            write(f"{file}.draws", {"state": f"{state}:{position}"})
        return choose(log, job_id, *more)

    sampling.sample_idxs_of_segments = listening


def served(file: str, launch: str, order: str, package: str) -> int:
    """Run ``launch`` with its functions listened to."""
    found = runpy.run_path(launch)
    here = Path(launch).resolve().parent
    found["package"]("gansynth", Path(package))
    found["package"]("gansynth_deepmedic", here.parent, run=False)
    from gansynth_deepmedic.host import running, serving

    sample, opened = serving.Serving.sample, serving.Serving.open
    same: list[bool] = []

    def listening_sample(self: Any, original: Any, told: Any, *more: Any) -> Any:
        same.clear()
        listen_to_draws(sys.modules["deepmedic.dataManagement.sampling"], file)
        result = sample(self, original, told, *more)
        if told["train_val_or_test"] == "train":
            segments, labels = result[0][0], result[1]
            place = self._places[told["job_idx"]]
            write(file, {
                "subepoch": place.subepoch, "place": place.number, "synthetic": place.synthetic,
                "as_stock": all(same),
                "hash": [hashlib.sha256(one.tobytes() + gt.tobytes()).hexdigest()[:16]
                         for one, gt in zip(segments, labels, strict=True)],
                "centre": [float(one[(0, *(n // 2 for n in one.shape[1:]))]) for one in segments],
                "labels": [sorted(map(int, np.unique(gt))) for gt in labels],
                "middle": [int(gt[tuple(n // 2 for n in gt.shape)]) for gt in labels],
            })  # fmt: skip
        return result

    def listening_open(self: Any, original: Any, weights: Any) -> Any:
        result = opened(self, original, weights)
        case = getattr(self._job, "case", None)
        if case is not None and not case[1].sample:
            for ours, theirs in zip(result, original(), strict=True):
                same.append(ours is theirs is None or np.array_equal(ours, theirs))
                same.append(ours is None or ours.dtype.kind == theirs.dtype.kind)
        return result

    vars(serving)["Serving"].sample = listening_sample
    vars(serving)["Serving"].open = listening_open
    return running.run(Path(order))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(served(*sys.argv[1:]))
