"""Raters' answers compared with the key: the paper's table with intervals, as one document.

The table is that of Han et al. (2018), table 1: accuracy, real selected as real, real as synthetic,
synthetic as real, synthetic as synthetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.evaluation.turing.inference import (
    CONFIDENCE,
    LEAST_RATERS,
    cohen_kappa,
    detectable,
    fleiss_kappa,
    median,
    pooled_proportion,
    power_of,
    proportion_of,
)
from gansynth.evaluation.turing.options import REAL, SYNTHETIC
from gansynth.evaluation.turing.raters import Rater, read_raters
from gansynth.evaluation.turing.session import StudySession, read_key, read_session

VERSION = 1
Record = Mapping[str, Any]
CELLS = {
    "real_as_real": (REAL, REAL),
    "real_as_synthetic": (REAL, SYNTHETIC),
    "synthetic_as_real": (SYNTHETIC, REAL),
    "synthetic_as_synthetic": (SYNTHETIC, SYNTHETIC),
}


def results(session: StudySession | Path) -> dict[str, Any]:
    """Count the answers of a session so far.

    Args:
        session: or its folder; it may be in use.

    Returns:
        A JSON-able document; see ``docs/turing_test.md``.

    Raises:
        UsageFault: no session there.
        IntegrityFault: key or answers are damaged.
    """
    from gansynth.evaluation.turing.summary import conclusions, warnings

    folder = session.folder if isinstance(session, StudySession) else session
    document = read_session(folder)
    key = read_key(folder, document)
    raters = read_raters(folder, len(key))
    rater_results = [_rater(rater, key) for rater in raters]
    finished = [rater for rater in raters if rater.finished]
    counted: dict[str, Any] = {
        "version": VERSION,
        "session": {k: document[k] for k in ("id", "created", "run", "about")},
        "folder": str(folder),
        "images": {
            kind: sum(image["truth"] == kind for image in key) for kind in (REAL, SYNTHETIC)
        },
        "confidence": CONFIDENCE,
        "raters": rater_results,
        "pooled": _pooled(finished, key) if len(finished) > 1 else None,
        "agreement": _agreement(finished) if len(finished) > 1 else None,
        "power": _power(len(key)),
        "torn": [str(rater.path) for rater in raters if rater.torn],
    }
    counted["warnings"] = warnings(counted)
    counted["words"] = conclusions(counted)
    return counted


def write_results(session: StudySession | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Count the answers, and write numbers, table and every single answer into the folder.

    Returns:
        The document of ``results``, and the files: ``results.json``, ``table.md``, ``answers.csv``.
    """
    from gansynth.evaluation.turing.summary import csv_of, markdown
    from gansynth.runtime.files import write_bytes_atomic, write_json_atomic

    document = results(session)
    folder = Path(document["folder"])
    key = read_key(folder, read_session(folder))
    rows = [row for rater in read_raters(folder, len(key)) for row in records(rater, key)]
    write_json_atomic(folder / "results.json", document)
    write_bytes_atomic(folder / "table.md", markdown(document).encode())
    write_bytes_atomic(folder / "answers.csv", csv_of(rows).encode())
    names = {"numbers": "results.json", "table": "table.md", "answers": "answers.csv"}
    return document, {kind: str(folder / name) for kind, name in names.items()}


def table_of_rater(folder: Path, rater: Rater) -> dict[str, Any]:
    """The results that a rater sees after the last answer, if enabled."""
    return table_of(records(rater, read_key(folder, read_session(folder))))


def records(rater: Rater, key: Sequence[Record]) -> list[dict[str, Any]]:
    """Every answer of a rater with the truth, in order."""
    rows = []
    for answer in rater.answers:
        truth = key[answer["image"]]
        rows.append(
            {
                "rater": rater.name,
                "years": rater.years,
                "position": answer["position"] + 1,
                "image": answer["image"],
                "truth": truth["truth"],
                "answer": answer["answer"],
                "correct": truth["truth"] == answer["answer"],
                "class": truth.get("class"),
                "sequence": truth.get("sequence"),
                "seconds": _seconds(answer["ms"]),
                "hidden_seconds": _seconds(answer["hidden_ms"]),
                "server_seconds": _seconds(answer["server_ms"]),
                "at": answer.get("at"),
            }
        )
    return rows


def table_of(rows: Sequence[Record]) -> dict[str, Any]:
    """The paper's table of some answers, assuming independence."""
    count = {
        cell: sum((row["truth"], row["answer"]) == pair for row in rows)
        for cell, pair in CELLS.items()
    }
    right = count["real_as_real"], count["synthetic_as_synthetic"]
    of = [sum(row["truth"] == kind for row in rows) for kind in (REAL, SYNTHETIC)]
    times = {
        kind: median([row["seconds"] for row in rows if row["truth"] == kind])
        for kind in (REAL, SYNTHETIC)
    }
    return {
        "answers": len(rows),
        "correct": sum(right),
        "accuracy": asdict(proportion_of(sum(right), len(rows))),
        "real_recognised": asdict(proportion_of(right[0], of[0])),
        "synthetic_recognised": asdict(proportion_of(right[1], of[1])),
        **count,
        "said_real": count["real_as_real"] + count["synthetic_as_real"],
        "median_seconds": {**times, "all": median([row["seconds"] for row in rows])},
    }


def _rater(rater: Rater, key: Sequence[Record]) -> dict[str, Any]:
    rows = records(rater, key)
    return {
        "name": rater.name,
        "years": rater.years,
        "answered": rater.done,
        "of": len(key),
        "finished": rater.finished,
        "table": table_of(rows),
        "classes": _parts(rows, "class"),
        "sequences": _parts([row for row in rows if row["truth"] == REAL], "sequence"),
    }


def _parts(rows: Sequence[Record], by: str) -> list[dict[str, Any]]:
    """Tables of the answers of each class or sequence, if there are any."""
    names = sorted({row[by] for row in rows if row[by] is not None})
    return [{by: name, "table": table_of([r for r in rows if r[by] == name])} for name in names]


def _pooled(raters: Sequence[Rater], key: Sequence[Record]) -> dict[str, Any]:
    """All raters together: summed tables, intervals for dependent answers."""
    rows = [row for rater in raters for row in records(rater, key)]
    correct = np.zeros((len(raters), len(key)), np.bool_)
    for number, rater in enumerate(raters):
        for answer in rater.answers:
            correct[number, answer["image"]] = key[answer["image"]]["truth"] == answer["answer"]
    return {
        "raters": len(raters),
        "table": _clustered(table_of(rows), correct),
        "classes": [
            {**part, "table": _clustered(part["table"], correct[:, _of_class(key, part["class"])])}
            for part in _parts(rows, "class")
        ],
        "sequences": _parts([row for row in rows if row["truth"] == REAL], "sequence"),
    }


def _of_class(key: Sequence[Record], name: str) -> list[int]:
    return [number for number, image in enumerate(key) if image.get("class") == name]


def _clustered(table: dict[str, Any], correct: Any) -> dict[str, Any]:
    """A table of several raters with intervals for these raters, and for others."""
    others = len(correct) >= LEAST_RATERS
    return {
        **table,
        "accuracy": asdict(pooled_proportion(correct)),
        "accuracy_of_others": asdict(pooled_proportion(correct, others=True)) if others else None,
        "real_recognised": {"value": table["real_recognised"]["value"]},
        "synthetic_recognised": {"value": table["synthetic_recognised"]["value"]},
    }


def _agreement(raters: Sequence[Rater]) -> dict[str, Any]:
    """Agreement of raters beyond chance."""
    voted_real = np.zeros((len(raters), len(raters[0].order)), np.bool_)
    for number, rater in enumerate(raters):
        for answer in rater.answers:
            voted_real[number, answer["image"]] = answer["answer"] == REAL
    votes = voted_real.sum(axis=0)
    return {
        "raters": len(raters),
        "fleiss_kappa": fleiss_kappa(np.stack([votes, len(raters) - votes], axis=1)),
        "pairs": [
            {"raters": [a.name, b.name], "cohen_kappa": cohen_kappa(voted_real[i], voted_real[j])}
            for (i, a), (j, b) in combinations(enumerate(raters), 2)
        ],
    }


def _power(images: int) -> dict[str, Any]:
    """Power of one rater's answers."""
    accuracies = (0.6, 0.65, 0.7, 0.8)
    return {
        "answers": images,
        "of": [{"accuracy": truth, "power": power_of(images, truth)} for truth in accuracies],
        "detectable": detectable(images),
    }


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000
