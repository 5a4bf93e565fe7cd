"""Does ``check --sites`` tell what differs, and nothing where nothing does?

Blank: a set's people are dealt into two halves at random, many times. The share of deals in which
any measure is told is at most .05 where the correction holds. Planted: one half's cases are changed
by a known rule; the share of deals in which a difference of the expected kind is told, and in which
anything of another part is told that a blank deal does not tell. Real: sites as they are, with the
sentence that is printed.

    python benchmarks/measure/site_gaps.py [--deals 200]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, print_table, write
from scipy.ndimage import gaussian_filter, grey_dilation

import gansynth
from gansynth.core.schema import Case
from gansynth.core.source import SourceRequest
from gansynth.metrics.site_gap import PARTS, Difference, SiteMeasures, chosen_cases, compared
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
PATIENT = r"(TCGA_[A-Z]+_[A-Z0-9]+)_"
FLAIR = {"images": "flair", "masks": "labels"}
SETS: dict[str, SourceRequest] = {
    "gliomas, FLAIR": SourceRequest(
        "pictures", str(DATA / "lgg_sequences96"), fold="all", subjects=PATIENT, read=FLAIR
    ),
    "vessels, DRIVE and CHASE": SourceRequest(
        "pictures", str(DATA / "retina"), fold="all", subjects=r"_([CD]\d+)"
    ),
    "ultrasound": SourceRequest(
        "pictures",
        str(DATA / "busi256"),
        fold="all",
        subjects=r"(G[0-9]+)_",
        read={"resize": "96x96"},
    ),
    "hippocampi": SourceRequest("nifti", str(DATA / "msd_task04_hippocampus"), fold="all"),
}
DEALS_CHANGED = 20  # of each change


def gamma(case: Case, rng: np.random.Generator) -> Case:
    """Brighter middle values."""
    low, high = case.image.min(), case.image.max()
    return replace(case, image=low + (high - low) * ((case.image - low) / (high - low)) ** 0.6)


def noise(case: Case, rng: np.random.Generator) -> Case:
    """Noise of a tenth of the deviation of all values."""
    extra = rng.normal(0, 0.1 * case.image.std(), case.image.shape)
    return replace(case, image=case.image + (case.image != case.image.min()) * extra)


def blur(case: Case, rng: np.random.Generator) -> Case:
    """A Gaussian of one voxel."""
    return replace(case, image=np.stack([gaussian_filter(channel, 1) for channel in case.image]))


def wider(case: Case, rng: np.random.Generator) -> Case:
    """Outlines two voxels wider."""
    assert case.labels is not None
    return replace(case, labels=grey_dilation(case.labels, (5,) * case.labels.ndim))


@dataclass(frozen=True)
class Change:
    """A known change, and the kind of difference that it makes."""

    name: str
    make: Callable[[Case, np.random.Generator], Case]
    kind: str


CHANGES = (
    Change("gamma .6", gamma, "grey values"),
    Change("noise, .1 deviations", noise, "noise and detail"),
    Change("blur, 1 voxel", blur, "noise and detail"),
    Change("outlines 2 voxels wider", wider, "size"),
)


def measured(request: SourceRequest, change: Change | None = None) -> SiteMeasures:
    """Measure a set's cases, as they are or changed."""
    source = open_source(request)
    labels = {name: value for name, value in source.schema.labels.items() if value > 0}
    measures, rng = SiteMeasures(source.schema, labels), np.random.default_rng(0)
    subject_of = {case: source.header(case).subject for case in source.train_ids}
    for name in chosen_cases(subject_of):
        case = source.load(name)
        measures.add(case if change is None else change.make(case, rng), subject_of[name])
    return measures


def part_of(measures: SiteMeasures, subjects: Sequence[str]) -> SiteMeasures:
    """Return the measures of some subjects."""
    part = SiteMeasures(measures.schema, measures.labelled)
    part.rows = {subject: measures.rows[subject] for subject in subjects}
    part.outlines = {subject: measures.outlines[subject] for subject in subjects}
    return part


def deals(plain: SiteMeasures, changed: SiteMeasures, count: int) -> list[list[Difference]]:
    """Return what is told of halves, the second of which is changed, deal by deal."""
    subjects, told = sorted(plain.rows), []
    for seed in range(count):
        dealt = np.random.default_rng(seed).permutation(subjects).tolist()
        half = len(dealt) // 2
        found = compared(part_of(plain, dealt[:half]), part_of(changed, dealt[half:]))
        told.append([one for one in found if one.shown])
    return told


def of_set(name: str, count: int) -> dict[str, Any]:
    """Return the blank and the planted arms of a set."""
    plain = measured(SETS[name])
    blank = deals(plain, plain, count)
    row: dict[str, Any] = {"subjects": len(plain.rows), "deals": count}
    row["something is told of nothing"] = float(np.mean([bool(told) for told in blank]))
    for change in CHANGES:
        told = deals(plain, measured(SETS[name], change), DEALS_CHANGED)
        found = [any(one.kind == change.kind for one in each) for each in told]
        own = next(part for part, kinds in PARTS.items() if change.kind in kinds)
        others = [any(one.part != own for one in each) for each in told]
        row[change.name] = {
            "expected": change.kind,
            "told": float(np.mean(found)),
            "told of another part": float(np.mean(others)),
        }
    return row


LGG = str(DATA / "lgg_sequences96")
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "DRIVE against CHASE": (
        f"pictures:{DATA / 'retina'}",
        {"subjects": r"_([CD]\d+)", "sites": "^(drive|chase)_"},
    ),
    "gliomas, FLAIR: institution DU against others": (
        f"pictures:{LGG}",
        {"subjects": r"(TCGA_[A-Z]+_[A-Z0-9]+)_", "read": FLAIR, "sites": None},
    ),
    "gliomas, T1c against FLAIR": (
        f"pictures:{LGG}",
        {
            "subjects": PATIENT,
            "read": {"images": "t1c", "masks": "labels"},
            "against": f"pictures:{LGG}",
            "against_read": FLAIR | {"subjects": PATIENT},
        },
    ),
    "gliomas, T1 against T1c": (
        f"pictures:{LGG}",
        {
            "subjects": PATIENT,
            "read": {"images": "t1", "masks": "labels"},
            "against": f"pictures:{LGG}",
            "against_read": {"images": "t1c", "masks": "labels", "subjects": PATIENT},
        },
    ),
}


def institutions(folder: Path) -> Path:
    """Write the site of each slice, DU or another, as ``--sites`` reads it."""
    names = sorted(path.stem for path in Path(LGG, "flair").glob("*.png"))
    rows = [f"{name},{'DU' if '_DU_' in name else 'others'}" for name in names]
    path = folder / "sites.csv"
    path.write_text("\n".join(["case,site", *rows]), encoding="utf-8")
    return path


def real(name: str, folder: Path) -> dict[str, Any]:
    """Return what the command tells of two sites."""
    data, words = REAL[name]
    if "sites" in words and words["sites"] is None:
        words = words | {"sites": str(institutions(folder))}
    [gap] = gansynth.check(data, **words, quiet=True).site_gaps
    shown = [one for one in gap["differences"] if one["shown"]]
    kinds = sorted({one["kind"] for one in shown})
    return {"here": gap["here"], "there": gap["there"], "verdict": gap["verdict"], "kinds": kinds}


def main() -> None:
    """Measure all sets and pairs, write JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deals", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = {name: real(name, Path(folder)) for name in REAL}
    sets = {name: of_set(name, args.deals) for name in SETS}
    document = {"benchmark": "site_gaps", "sets": sets, "real": pairs, "machine": machine()}
    write("site_gaps", document)
    rows = [{"set": name, **{k: str(v) for k, v in row.items()}} for name, row in sets.items()]
    print_table(rows)
    print_table(
        [
            {"pair": name, "kinds": ", ".join(row["kinds"]), "told": row["verdict"]}
            for name, row in pairs.items()
        ]
    )


if __name__ == "__main__":
    main()
