"""Keep what this version writes, for the tests of all later ones: ``python -m tests.released``.

It is typed once for each release, before its tag. A run, a bank, a plan and a benchmark's results
are made of drawn shapes, no patients, and small enough for the repository.
"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

import gansynth
from tests.flat_sets import pictures

HERE = Path(__file__).parent
DATA = "example:2d"
RUN: dict[str, Any] = {"steps": 4, "width": 4, "d_width": 4, "levels": 1, "d_levels": 1}
SMALL = {"network": "unet", "width": 4, "levels": 2, "patch": 16, "device": "cpu"}
SHORTER = {
    "host": {"target": "segmenter", "steps": 3, "set": SMALL},
    "arms": ["default", {"from": "copy-paste", "offline": True, "bank_size": "1x"}],
    **{"sizes": [2], "draws": 1, "seeds": 1},
}
"""Of a plan: so long as results are made of it in a minute."""
UNREAD = ("*.png", "*.html", "*.md", "*.csv", "report.json", "step-00000000", ".*", "per_case*")
"""Files of a run, a bank and results that no command reads again."""


def keep(work: Path, kept: Path) -> None:
    """Make all in a folder, and copy into another what is read again."""
    work.mkdir()
    with contextlib.chdir(work):  # no path of this machine is kept
        run = gansynth.fit("cgan3d", data=DATA, out="run", device="cpu", **RUN)
        gansynth.fill_bank(run, "bank", samples=1)
        plan, shapes = Path("plan.yaml"), pictures(Path("shapes"))
        gansynth.benchmark(plan, new=f"pictures:{shapes.where}", subjects=shapes.subjects)
        text = yaml.safe_dump(yaml.safe_load(plan.read_text()) | SHORTER, sort_keys=False)
        plan.write_text(text)
        gansynth.benchmark(plan, out="results", executor="here", pictures=False)
    kept.mkdir()
    for name in ("run", "bank"):
        shutil.copytree(work / name, kept / name, ignore=shutil.ignore_patterns(*UNREAD))
    for file in ("plan.yaml", "results/results.json"):
        shutil.copy(work / file, kept)


if __name__ == "__main__":
    folder = HERE / gansynth.__version__
    if folder.exists():
        sys.exit(f"{folder}: is kept already; it is made anew only before the version's tag")
    work = folder.with_name("work")
    shutil.rmtree(work, ignore_errors=True)
    try:
        keep(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1000:.0f} kB")
