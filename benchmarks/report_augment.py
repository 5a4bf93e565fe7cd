"""Write down what a ``gansynth augment --target nnunet`` left in nnU-Net's results folder.

The realised ratio comes from the record of draws, Dice from nnU-Net's own validation on the fold's
real held-out cases. One training is one draw of many: no claim about gain can rest on it.

    python benchmarks/report_augment.py FOLD_FOLDER --name NAME
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import print_table, write


def main() -> None:
    """Read ``gansynth.json`` and ``validation/summary.json`` of one fold's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    args = parser.parse_args()
    record = json.loads((args.folder / "gansynth.json").read_text(encoding="utf-8"))
    summary = json.loads((args.folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    session = record["sessions"][-1]
    drawn = session["drawn"]
    total = drawn["real"] + drawn["synthetic"]
    document: dict[str, Any] = {
        "model": args.folder.parent.name,
        "dataset": args.folder.parent.parent.name,
        "complete": record["complete"],
        "ratio": session["ratio"],
        "settings": session["settings"],
        "drawn": drawn,
        "realised_synthetic_share": drawn["synthetic"] / max(1, total),
        "held_out_cases": len(summary["metric_per_case"]),
        "dice": summary["foreground_mean"]["Dice"],
        "dice_per_label": {k: v["Dice"] for k, v in summary["mean"].items()},
        "note": "one training, one seed: says nothing about gain",
    }
    write(args.name, document)
    shown = ("ratio", "realised_synthetic_share", "held_out_cases", "dice")
    print_table([(key, document[key]) for key in shown])


if __name__ == "__main__":
    main()
