"""Writes what ``gansynth augment`` knows of sets: their description, and what samples did to them.

Of each set all results of the samples that are drawn by default are read, of the committed files.
The description is made of the data, where they are at hand; else that of the last time stays.

    python gain_evidence.py [--data ../shared/data]    # gansynth/hosts/deciding/evidence.json
    python gain_evidence.py --leave-one-out            # would the advice be right?

Left out are all sets of the same people. ``results/advice.json`` has what is printed. The limits of
what is alike were set by someone who knew these sets, so it is asked with others, too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.hosts.deciding import advice
from gansynth.hosts.deciding.advice import (
    Description,
    MeasuredSet,
    Result,
    advice_for,
    describe_source,
)
from gansynth.metrics.segmentation.measures import DICE_AT_ALARMS
from gansynth.sampling.run_source import open_source

GAINS = Path(__file__).parents[1] / "gains"
RESULTS = Path(__file__).with_name("results") / "advice.json"
TABLE = Path(advice.__file__).with_name("evidence.json")
FORMAT = 1
REACHES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""How far apart sets count as alike, in the limits; 1 is what the product takes. All limits are
scaled at once, and each by itself."""
ALL = "all limits"
WORDS = {"dice": "Dice", "dice@alarms": "Dice at equal alarms", "froc": "FROC"}
AT_EQUAL_ALARMS = (DICE_AT_ALARMS, "froc")
"""Measures that compare arms at as many false alarms."""


@dataclass(frozen=True)
class Known:
    """A set of ``gains``.

    Attributes:
        people: sets of the same people have the same.
        data: as typed, with the folder of data in place of ``DATA``.
        read: how the plan reads them.
        results: file of ``gains``, and the arm with the samples that are drawn by default.
    """

    name: str
    people: str
    data: str
    results: tuple[tuple[str, str], ...]
    read: dict[str, str] = field(default_factory=dict)
    subjects: str | None = None


SETS = (
    Known(
        "gliomas in FLAIR slices",
        "lgg",
        "pictures:DATA/lgg_flair256",
        (
            ("fair_lgg/development.json", "own"),
            ("lgg_unlabelled/development.json", "own"),
            ("lgg_match/development.json", "match"),
        ),
        {"resize": "64x64"},
        "(TCGA_[A-Z]+_[A-Z0-9]+)_",
    ),
    Known(
        "breast lesions in ultrasound",
        "busi",
        "pictures:DATA/busi256",
        (("busi_own/development.json", "own"), ("busi_match/sealed.json", "match")),
        {"resize": "64x64"},
        "(G[0-9]+)_",
    ),
    Known(
        "ulcers in photographs of feet",
        "feet",
        "pictures:DATA/fuseg128",
        (("feet_own/sealed.json", "own"),),
        {"resize": "64x64"},
        "(G[0-9]+)_",
    ),
    Known(
        "oedema around a bleeding in CT slices",
        "phe",
        "pictures:DATA/phe_ct256",
        (("phe_own/development.json", "own"), ("phe_match/sealed.json", "match")),
        {"resize": "128x128"},
        "(P[0-9]+)_",
    ),
    Known(
        "hippocampi in MR slices",
        "hippocampus",
        "slices:msd:DATA/msd_task04_hippocampus",
        (("hippocampus_own/development.json", "own"),),
        {"resize": "64x64", "slices": "30%-70%"},
    ),
    Known(
        "hippocampi in MR volumes",
        "hippocampus",
        "msd:DATA/msd_task04_hippocampus",
        (("hippocampus/results.json", "unedited"),),
    ),
    Known(
        "brain tumours in boxes, MR slices",
        "figshare",
        "yolo:FIGSHARE",
        (("figshare/results.json", "cpggan"),),
        subjects=r"(\d{3})\d$",
    ),
    Known(
        "simulated gliomas in volumes",
        "phantoms",
        "nifti:PHANTOMS",
        (("phantoms/results.json", "copy-paste"), ("phantoms_longer/results.json", "copy-paste")),
    ),
)


def results_of(known: Known) -> tuple[Result, ...]:
    """Read the results of a set, one for each number of subjects."""
    found: list[Result] = []
    for file, arm in known.results:
        found += study_results(GAINS / file, arm)
    return tuple(found)


def study_results(path: Path, arm: str) -> list[Result]:
    """Read what an arm changed in one study.

    Raises:
        SystemExit: another version's file, or one without the arm.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("format") != FORMAT or "comparisons" not in document:
        raise SystemExit(
            f"{path}: format {document.get('format')}, expected results of format {FORMAT} with "
            "comparisons; write them anew: python benchmarks/measure/gain_page.py"
        )
    if arm not in document["arms"]:
        raise SystemExit(
            f"{path}: has no arm {arm!r}, expected one of {', '.join(document['arms'])}"
        )
    measures = {row["measure"] for row in document["comparisons"]}
    equal = [name for name in AT_EQUAL_ALARMS if name in measures]
    measure = equal[0] if equal else document["primary"]
    name = measure.partition("/")[0]

    def change(of: str, name: str, number: int) -> dict[str, Any] | None:
        for row in document["comparisons"]:
            if (row["arm"], row["measure"], row["n"]) == (of, name, number):
                return dict(row)
        return None

    report = "report" if path.stem == "results" else path.stem
    found = []
    for number in document["sizes"]:
        row = change(arm, measure, number)
        if row is None or row["interval"]["low"] is None:
            continue
        found.append(
            Result(
                report=f"benchmarks/gains/{path.parent.name}/{report}.md",
                samples=document["arms"][arm]["title"],
                host=document["host"]["title"],
                subjects=number,
                measure=WORDS.get(name, name),
                difference=points(row),
                low=points(row["interval"], "low"),
                high=points(row["interval"], "high"),
                equal_alarms=bool(equal),
                alarms=points(change(arm, "false_alarms/foreground", number)),
                ceiling=points(change("double", measure, number)),
            )
        )
    return found


def points(row: dict[str, Any] | None, key: str = "difference") -> Any:
    """A share in points; None where it was not measured."""
    value = None if row is None else row[key]
    return None if value is None else round(100 * value, 1)


def described(known: Known, data: Path | None, last: dict[str, Description]) -> Description:
    """Describe a set that is at hand; else return what is known of it.

    Raises:
        SystemExit: the set is neither at hand nor was it described before.
    """
    with TemporaryDirectory() as folder:
        where = _placed(known, data, Path(folder))
        if where is not None:
            asked = SourceRequest.parse(where, read=known.read, subjects=known.subjects)
            return describe_source(open_source(asked))
    if known.name in last:
        return last[known.name]
    raise SystemExit(
        f"{TABLE}: has no description of {known.name}, and {known.data} is not at hand; name the "
        "folder of data: --data FOLDER"
    )


def _placed(known: Known, data: Path | None, folder: Path) -> str | None:
    """Return where a set is, written to a folder if it is made; None if it is not at hand."""
    if "PHANTOMS" in known.data:
        from gain_data import SPACING_MM, SUBJECTS

        from gansynth.testing.phantoms import PhantomOptions, write_phantoms

        options = PhantomOptions(spacing_mm=SPACING_MM, channels=("FLAIR", "T1c"))
        write_phantoms("brats", folder, SUBJECTS, 0, options)
        return known.data.replace("PHANTOMS", str(folder))
    if "FIGSHARE" in known.data:
        from yolo_data import figshare

        found = figshare(folder)
        return None if found is None else known.data.replace("FIGSHARE", str(found.file))
    if data is None or not (data / known.data.rpartition("/")[2]).is_dir():
        return None
    return known.data.replace("DATA", str(data))


def table(data: Path | None, last: list[MeasuredSet]) -> dict[str, Any]:
    """Return the document of all sets, with figures of the results as they are now."""
    descriptions = {one.name: one.description for one in last}
    sets = []
    for known in SETS:
        results = results_of(known)
        about = described(known, data, descriptions)
        one = MeasuredSet(known.name, known.people, about, results)
        about = replace(about, subjects=one.shown.subjects)  # as trained on, not as in the files
        sets.append(replace(one, description=about).to_json())
    return {"format": FORMAT, "command": "gain_evidence.py", "sets": sets}


def leave_one_out(sets: list[MeasuredSet], reach: float, name: str = ALL) -> dict[str, Any]:
    """Ask for advice on each set from those of other people, and compare it with what it did.

    ``name``: of the limit that is scaled by the reach.
    """
    limits = [
        limit.scaled(reach) if name in (ALL, limit.name) else limit for limit in advice.LIMITS
    ]
    rows = []
    for one in sets:
        others = [each for each in sets if each.people != one.people]
        found = advice_for(one.description, others, limits)
        wanted = "1:1" if one.outcome == "helped" else "1:0"
        rows.append(
            {
                "set": one.name,
                "samples": one.outcome,
                "measured": str(one.shown),
                "advice": found.ratio,
                "right": found.ratio == wanted,
                "because": str(found),
            }
        )
    given = [(row["samples"], row["advice"]) for row in rows]
    return {
        "limit": name,
        "reach": reach,
        "right": sum(row["right"] for row in rows),
        "help_found": given.count(("helped", "1:1")),
        "harm_recommended": given.count(("harmed", "1:1")),
        "nothing_recommended": given.count(("unclear", "1:1")),
        "sets": rows,
    }


def sensitivity(sets: list[MeasuredSet]) -> list[dict[str, Any]]:
    """Count what leave-one-out advises where one limit alone is scaled, for each limit."""
    found = [leave_one_out(sets, reach, limit.name) for limit in advice.LIMITS for reach in REACHES]
    return [{key: value for key, value in one.items() if key != "sets"} for one in found]


def main() -> None:
    """Write the table, or how often advice from the other sets would have been right."""
    from common import print_table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the data sets, described anew")
    parser.add_argument("--leave-one-out", action="store_true")
    args = parser.parse_args()
    if args.leave_one_out:
        by_reach = [leave_one_out(advice.evidence(), reach) for reach in REACHES]
        usual = by_reach[REACHES.index(1.0)]
        shown = ("set", "samples", "measured", "advice", "right")
        print_table([shown] + [tuple([row[key] for key in shown]) for row in usual["sets"]])
        counts = tuple([key for key in usual if key != "sets"])
        print_table([counts] + [tuple([found[key] for key in counts]) for found in by_reach])
        by_limit = sensitivity(advice.evidence())
        print_table([tuple(by_limit[0]), *[tuple(found.values()) for found in by_limit]])
        document = {
            "command": "gain_evidence.py --leave-one-out",
            "by_reach": by_reach,
            "by_limit": by_limit,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return
    last = advice.evidence() if TABLE.is_file() else []
    document = table(args.data and args.data.absolute(), last)
    TABLE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
