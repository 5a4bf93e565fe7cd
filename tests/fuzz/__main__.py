"""Fuzz every format, or those named, and write the table.

python -m tests.fuzz [--mutants 2000] [--write] [FORMAT ...]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.formats import FORMATS, ROOT
from tests.fuzz.runner import SEED, Tally, fuzz

RESULT = ROOT / "benchmarks" / "results" / "fuzz.json"
PAGE = ROOT / "benchmarks" / "results" / "faults.md"
BEGIN, END = "<!-- fuzz table -->\n", "<!-- /fuzz table -->"
COLUMNS = ("mutants", "accepted", "typed", "untyped", "crashes", "hangs", "memory", "outside")


def table(formats: dict[str, dict[str, int]]) -> str:
    """Return a line for each format, and the sum."""
    heads = ("format", "mutants", "read", "typed error", "other exception", "crash",
             "> 10 s", "> 1 GB", "written outside")  # fmt: skip
    total = {key: sum(found[key] for found in formats.values()) for key in COLUMNS}
    rows = [heads, ("---", *["--:"] * len(COLUMNS))]
    rows += [(name, *(f"{found[k]:,}" for k in COLUMNS)) for name, found in formats.items()]
    rows.append(("all", *(f"{total[k]:,}" for k in COLUMNS)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def save(name: str, tally: Tally) -> None:
    """Put a format's outcomes into the result and the docs, beside those of earlier runs."""
    from benchmarks.scripts.common import write

    found = json.loads(RESULT.read_text("utf-8"))["formats"] if RESULT.is_file() else {}
    found = {**found, name: tally.to_json()}
    formats = {name: found[name] for name in FORMATS if name in found}
    write("fuzz", {"command": "python -m tests.fuzz --write", "seed": SEED, "formats": formats})
    PAGE.write_text(filled(PAGE.read_text("utf-8"), formats), "utf-8")


def filled(text: str, formats: dict[str, dict[str, int]]) -> str:
    """Return the page with the table."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}{table(formats)}{rest[rest.index(END) :]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT")
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the JSON and the docs' table")
    parser.add_argument("--made", type=Path, help="folder that keeps the valid samples")
    asked = parser.parse_args()
    tallies: dict[str, Tally] = {}
    memory = Path("/dev/shm")
    home = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gansynth-fuzz-", dir=home) as work:
        made = asked.made or Path(work) / "made"
        for name in asked.formats or FORMATS:
            began = time.monotonic()
            tally = tallies[name] = fuzz(name, asked.mutants, made, Path(work), asked.first)
            told = ", ".join(f"{getattr(tally, key)} {key}" for key in COLUMNS)
            print(f"{name}: {told}; {tally.peak_mib} MiB, {time.monotonic() - began:.0f} s")
            for example in tally.examples.values():
                print(f"    {example}")
            sys.stdout.flush()
            if asked.write:
                save(name, tally)
    return 1 if any(tally.bad for tally in tallies.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
