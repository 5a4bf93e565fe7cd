"""Do drawn lesions look like real ones of other patients? Generators without steps, several sets.

Of each set, ``--people`` patients to fit to, drawn by a seed, all others to compare with. The
figures are those of ``gansynth evaluate --metric appearance``: edge, contrast, halo and grain of
lesions, beside the range of other patients' medians. ``--as`` names the state of the code; other
states in the result stay.

    python benchmarks/scripts/bench_lesion_looks.py SET=FOLDER=REGEX ... --as NAME
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from bench_lesion_length import LOOKS, looks_of, splits_of
from common import gansynth, known_states, print_table, write

NAME = "lesion_looks"
GENERATORS = ("parametric", "copypaste")


def main() -> None:
    """Fit each generator to each set, and evaluate it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", help="name, folder of pictures, subjects")
    parser.add_argument("--as", dest="state", required=True)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--generators", nargs="+", default=GENERATORS)
    args = parser.parse_args()
    states = known_states(NAME)
    state = states.setdefault(args.state, {})
    table = []
    with tempfile.TemporaryDirectory() as home:
        for asked in args.sets:
            name, folder, subjects = asked.split("=", 2)
            splits = Path(home) / f"{name}.json"
            splits.write_text(json.dumps(splits_of(f"pictures:{folder}", subjects, args.people)))
            data = ("--data", f"pictures:{folder}", "--subjects", subjects)
            state[name] = {"people": args.people}
            for generator in args.generators:
                run = Path(home) / f"{name}-{generator}"
                where = ("--read", f"splits={splits}", "-o", str(run))
                gansynth("fit", generator, *data, *where, quiet=True)
                row = looks_of(run)
                del row["copies"]  # nothing is trained
                state[name][generator] = row
                figures = row["figures"].values()
                shown = [f"{figure['value']:.2f} ({figure['real']:.2f})" for figure in figures]
                table.append([name, generator, *shown, row["within_the_range_of_other_people"]])
    write(NAME, {"states": states})
    print_table([["set", "generator", *LOOKS, "within"], *table])


if __name__ == "__main__":
    main()
