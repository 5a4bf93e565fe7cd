"""What ``gansynth check`` says of data sets as people bring them, and whether they are read right.

Each maker of a folder, ``NAME.py OUT``, makes one or more sets. ``gansynth check`` is typed; where
it ends with an error that offers options or a command, these are typed next, twice at most; where
it says in words what to do, that is done. Then all cases are read back by their source, and
voxels, boxes, names of labels and voxel sizes are compared with the arrays of ``base.py``.

    python benchmarks/measure/bench_wild.py [--makers ../shared/wild] [--only s05]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from click.testing import CliRunner
from common import RESULTS, print_table, write
from wild_truth import Input, compared, inputs

from gansynth.core.source import SourceRequest
from gansynth.data.kinds import find_kind
from gansynth.sampling.run_source import open_source
from gansynth_cli.main import cli

MAKERS = Path(__file__).parents[2] / "../shared/wild"
OFFER = re.compile(r"(?:--(?:read|subjects) (?:'[^']*'|[^\s';,)]*(?:'[^']*')?[^\s';)]*) ?)+")
UNFILLED = re.compile(r"(=|NAME:NUMBER,\.\.\.|FILE)$")
TURNS = 2


@dataclass
class Shown:
    """What came of an input: a verdict, what it rests on, and all that was typed."""

    verdict: str
    why: str
    typed: list[str]


def offered(text: str, meant: str) -> tuple[str, list[str]]:
    """Return the data and the options that the errors of an output offer, if they do."""
    lines = [line for line in text.splitlines() if line.startswith("error")]
    offers = [offer.strip(" ,:") for line in lines for offer in OFFER.findall(line)]
    offers = [offer for offer in offers if meant in offer and not UNFILLED.search(offer)]
    whole = re.search(r"gansynth check ('[^']*'|\S+) --read", text)
    return whole[1] if whole else "", shlex.split(offers[0]) if offers else []


def read_back(words: list[str], one: Input) -> str:
    """Return what is wrong with the cases that are read as typed; empty if nothing is."""
    where, *options = words
    pairs = list(zip(options[::2], options[1::2], strict=True))
    read = dict(text.split("=", 1) for flag, text in pairs if flag == "--read")
    where = where if re.match(r"[a-z0-9-]+:", where) else find_kind(where)
    subjects = dict(pairs).get("--subjects")
    source = open_source(SourceRequest.parse(where, fold="0", read=read, subjects=subjects))
    assert one.truth is not None
    return compared(source, [one.truth(number) for number in range(one.cases)], one.near)


def shown(folder: Path, one: Input) -> Shown:
    """Type what a user types on an input."""
    words, typed, turns, by_hand = [f"{one.kind}{folder}{one.where}"], [], 0, False
    while True:
        done = CliRunner().invoke(cli, ["check", *words])
        lines = done.output.splitlines()
        typed.append(f"{shlex.join(words)}: exit {done.exit_code}".replace(str(folder), "SET"))
        warned = "; ".join([line for line in lines if line.startswith("warning  ")])
        last = next((line for line in lines if line.startswith("error")), "")
        where, more = offered(done.output, one.meant)
        wrong = ""
        if done.exit_code not in (0, 2, 3, 6):
            return Shown("bug", done.output[-300:], typed)
        if done.exit_code == 0:
            if one.truth is None:
                return Shown("checked only", warned, typed)
            try:
                wrong = read_back(words, one)
            except Exception as error:  # though check has passed
                return Shown("SILENT", repr(error), typed)
            if not wrong:
                asked = "read, by hand as told" if by_hand else "read, as offered"
                return Shown(asked if by_hand or turns else "read", warned, typed)
        elif more and turns < TURNS:
            turns, words = turns + 1, [where or words[0], *more]
            continue
        if one.hand is None or by_hand or not (warned or last):
            if wrong:
                return Shown("told, but no way out" if warned else "SILENT", wrong, typed)
            return Shown("refused" if one.truth is None else "refused, no way out", last, typed)
        by_hand, words = True, words[:1]
        one.hand(folder)
        typed.append("by hand, as told")


def main() -> None:
    """Make each input, type what a user types, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--makers", type=Path, default=MAKERS)
    parser.add_argument("--only", default="", help="inputs whose names begin so; others are kept")
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.makers))
    kept = RESULTS / "wild.json"
    rows = json.loads(kept.read_text("utf-8"))["rows"] if asked.only else []
    rows = [row for row in rows if not row["input"].startswith(asked.only)]
    with tempfile.TemporaryDirectory(prefix="gansynth-wild-") as home:
        os.environ["GANSYNTH_CACHE"] = f"{home}/cache"
        for name, one in inputs().items():
            if not name.startswith(asked.only):
                continue
            made = Path(home, name.split("/")[0])
            if not made.exists():
                subprocess.run([sys.executable, asked.makers / f"{made.name}.py", made], check=True)
            found = shown(Path(home, name), one)
            found = replace(found, why=found.why.replace(f"{home}/", "")[:300] or one.note)
            rows.append({"input": name, **vars(found)})
            print(f"{name:30} {found.verdict:22} {found.why[:120]}", flush=True)
    counts = Counter([row["verdict"] for row in rows])
    print_table([("verdict", "inputs"), *counts.most_common()])
    rows.sort(key=lambda row: row["input"])
    write("wild", {"inputs": len(rows), "verdicts": dict(counts), "rows": rows})


if __name__ == "__main__":
    main()
