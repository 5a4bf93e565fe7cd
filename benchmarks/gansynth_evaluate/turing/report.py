"""Raters' answers compared with the key: the paper's table with intervals, as one document.

The table is that of Han et al. (2018), table 1: accuracy, real selected as real, real as synthetic,
synthetic as real, synthetic as synthetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth_evaluate.turing.answers import Rater, read_answers
from gansynth_evaluate.turing.image_selection import REAL, SYNTHETIC
from gansynth_evaluate.turing.inference import (
    CONFIDENCE,
    fleiss_kappa,
    pooled_proportion,
    proportion_of,
)
from gansynth_evaluate.turing.study import Study

VERSION = 3
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
    """
    from gansynth_evaluate.turing.summary import conclusions, warnings

    raters = read_answers(study, answers)
    key, several = study.key, len(raters) > 1
    truths = [image["truth"] for image in key]
    counted: dict[str, Any] = {
        "version": VERSION,
        "study": {name: study.document[name] for name in ("id", "created", "run", "about")},
        "folder": str(study.folder),
        "images": {kind: truths.count(kind) for kind in (REAL, SYNTHETIC)},
        "confidence": CONFIDENCE,
        "raters": [_rater(rater, key) for rater in raters],
        "pooled": _pooled(raters, key) if several else None,
        "agreement": _agreement(raters) if several else None,
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
                "sequence": truth.get("sequence"),
            }
        )
    return rows


def table_of(rows: Sequence[Record]) -> dict[str, Any]:
    """The paper's table of some answers, assuming independence."""
    pairs = [(row["truth"], row["answer"]) for row in rows]
    truths = [row["truth"] for row in rows]
    count = {cell: pairs.count(pair) for cell, pair in CELLS.items()}
    right = count["real_as_real"], count["synthetic_as_synthetic"]
    of = [truths.count(kind) for kind in (REAL, SYNTHETIC)]
    table: dict[str, Any] = {
        "answers": len(rows),
        "correct": sum(right),
        "accuracy": asdict(proportion_of(sum(right), len(rows))),
        "real_recognised": asdict(proportion_of(right[0], of[0])),
        "synthetic_recognised": asdict(proportion_of(right[1], of[1])),
    }
    table.update(count)
    table["said_real"] = count["real_as_real"] + count["synthetic_as_real"]
    return table


def _rater(rater: Rater, key: Sequence[Record]) -> dict[str, Any]:
    rows = records(rater, key)
    return {
        "name": rater.name,
        "years": rater.years,
        "table": table_of(rows),
        "sequences": _sequences(rows),
    }


def _sequences(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Tables of the real images of each sequence, if they have several."""
    tables = []
    for name in sorted({row["sequence"] for row in rows if row["sequence"] is not None}):
        of_name = [row for row in rows if (row["truth"], row["sequence"]) == (REAL, name)]
        tables.append({"sequence": name, "table": table_of(of_name)})
    return tables


def _pooled(raters: Sequence[Rater], key: Sequence[Record]) -> dict[str, Any]:
    """All raters together: summed tables, and an interval for answers that are not independent."""
    rows = [row for rater in raters for row in records(rater, key)]
    correct = _voted_real(raters) == np.array([image["truth"] == REAL for image in key])
    table = table_of(rows)
    table["accuracy"] = asdict(pooled_proportion(correct))
    for recognised in ("real_recognised", "synthetic_recognised"):
        table[recognised] = {"value": table[recognised]["value"]}
    return {"raters": len(raters), "table": table, "sequences": _sequences(rows)}


def _agreement(raters: Sequence[Rater]) -> dict[str, Any]:
    """Agreement of raters beyond chance."""
    votes = _voted_real(raters).sum(axis=0)
    return {
        "raters": len(raters),
        "fleiss_kappa": fleiss_kappa(np.stack([votes, len(raters) - votes], axis=1)),
    }


def _voted_real(raters: Sequence[Rater]) -> npt.NDArray[np.bool_]:
    """Whether a rater called an image real: (raters, images)."""
    votes = np.zeros((len(raters), len(raters[0].images)), np.bool_)
    for row, rater in zip(votes, raters, strict=True):
        row[list(rater.images)] = [answer.answer == REAL for answer in rater.answers]
    return votes
