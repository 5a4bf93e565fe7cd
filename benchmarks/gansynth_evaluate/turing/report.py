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
import numpy.typing as npt

from gansynth_evaluate.turing.answers import Rater, read_answers
from gansynth_evaluate.turing.image_selection import REAL, SYNTHETIC
from gansynth_evaluate.turing.inference import (
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
from gansynth_evaluate.turing.study import Study

VERSION = 2
Record = Mapping[str, Any]
CELLS = {
    "real_as_real": (REAL, REAL),
    "real_as_synthetic": (REAL, SYNTHETIC),
    "synthetic_as_real": (SYNTHETIC, REAL),
    "synthetic_as_synthetic": (SYNTHETIC, SYNTHETIC),
}


def results(study: Study, answers: Sequence[Path]) -> dict[str, Any]:
    """Compare raters' answers with the truth.

    Args:
        answers: the file that each rater saved.

    Returns:
        A JSON-able document; see ``docs/turing_test.md``.

    Raises:
        DataFault: a file is none of this study, incomplete, or of a rater who has another.
        IntegrityFault: a file was not made by a page of this study.
    """
    from gansynth_evaluate.turing.summary import conclusions, warnings

    raters = read_answers(study, answers)
    key, several = study.key, len(raters) > 1
    counted: dict[str, Any] = {
        "version": VERSION,
        "study": {name: study.document[name] for name in ("id", "created", "run", "about")},
        "folder": str(study.folder),
        "images": {
            kind: sum(image["truth"] == kind for image in key) for kind in (REAL, SYNTHETIC)
        },
        "confidence": CONFIDENCE,
        "raters": [_rater(rater, key) for rater in raters],
        "pooled": _pooled(raters, key) if several else None,
        "agreement": _agreement(raters) if several else None,
        "power": _power(len(key)),
    }
    counted["warnings"] = warnings(counted)
    counted["words"] = conclusions(counted)
    return counted


def write_results(study: Study, answers: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the ``results``, as numbers and table, and every single answer into the folder.

    Returns:
        The document of ``results``, and the files: ``results.json``, ``table.md``, ``answers.csv``.
    """
    from gansynth.runtime.files import write_bytes_atomic, write_json_atomic
    from gansynth_evaluate.turing.summary import csv_of, markdown

    document = results(study, answers)
    raters = read_answers(study, answers)
    rows = [row for rater in raters for row in records(rater, study.key)]
    names = {"numbers": "results.json", "table": "table.md", "answers": "answers.csv"}
    files = {kind: study.folder / name for kind, name in names.items()}
    write_json_atomic(files["numbers"], document)
    write_bytes_atomic(files["table"], markdown(document).encode())
    write_bytes_atomic(files["answers"], csv_of(rows).encode())
    return document, {kind: str(path) for kind, path in files.items()}


def records(rater: Rater, key: Sequence[Record]) -> list[dict[str, Any]]:
    """Every answer of a rater with the truth, in order."""
    rows = []
    for position, (answer, image) in enumerate(zip(rater.answers, rater.images, strict=True), 1):
        truth = key[image]
        rows.append(
            {
                "rater": rater.name,
                "years": rater.years,
                "position": position,
                "image": image,
                "truth": truth["truth"],
                "answer": answer.answer,
                "correct": truth["truth"] == answer.answer,
                "class": truth.get("class"),
                "sequence": truth.get("sequence"),
                "seconds": answer.ms / 1000,
                "hidden_seconds": answer.hidden_ms / 1000,
                "at": answer.at,
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
    truly_real = np.array([image["truth"] == REAL for image in key])
    correct = _voted_real(raters) == truly_real
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
    voted_real = _voted_real(raters)
    votes = voted_real.sum(axis=0)
    return {
        "raters": len(raters),
        "fleiss_kappa": fleiss_kappa(np.stack([votes, len(raters) - votes], axis=1)),
        "pairs": [
            {"raters": [a.name, b.name], "cohen_kappa": cohen_kappa(voted_real[i], voted_real[j])}
            for (i, a), (j, b) in combinations(enumerate(raters), 2)
        ],
    }


def _voted_real(raters: Sequence[Rater]) -> npt.NDArray[np.bool_]:
    """Whether a rater called an image real: (raters, images)."""
    votes = np.zeros((len(raters), len(raters[0].images)), np.bool_)
    for row, rater in zip(votes, raters, strict=True):
        row[list(rater.images)] = [answer.answer == REAL for answer in rater.answers]
    return votes


def _power(images: int) -> dict[str, Any]:
    """Power of one rater's answers."""
    accuracies = (0.6, 0.65, 0.7, 0.8)
    return {
        "answers": images,
        "of": [{"accuracy": truth, "power": power_of(images, truth)} for truth in accuracies],
        "detectable": detectable(images),
    }
