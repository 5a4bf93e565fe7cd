"""Fuzz every format, or those named, and write the table.

python -m tests.fuzz [--mutants 2000] [--write] [FORMAT ...]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.faults.test_table import RESULTS, write_page
from tests.fuzz.formats import FORMATS
from tests.fuzz.runner import SEED, Tally, fuzz


def save(name: str, tally: Tally) -> None:
    """Put a format's outcomes into the result and its page, beside those of earlier runs."""
    from benchmarks.measure.common import write

    found = json.loads((RESULTS / "fuzz.json").read_text("utf-8"))["formats"]
    found[name] = tally.to_json()
    formats = {name: found[name] for name in FORMATS if name in found}
    write("fuzz", {"command": "python -m tests.fuzz --write", "seed": SEED, "formats": formats})
    write_page()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT")
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="write the JSON and the docs' table")
    asked = parser.parse_args()
    bad = 0
    home = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=home if home.is_dir() else None) as work:
        for name in asked.formats or FORMATS:
            began = time.monotonic()
            tally = fuzz(name, asked.mutants, Path(work) / "made", Path(work))
            bad += tally.bad
            told = ", ".join(f"{count} {kind}" for kind, count in tally.counts.items())
            seconds = time.monotonic() - began
            print(f"{name}: {told}; {tally.peak_mib} MiB, {seconds:.0f} s", flush=True)
            for example in tally.examples.values():
                print(f"    {example}", flush=True)
            if asked.write:
                save(name, tally)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
