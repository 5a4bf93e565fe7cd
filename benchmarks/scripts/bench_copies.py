"""Do samples that copy real images stand apart from samples that do not, on three data sets.

Samples of ``copypaste`` hold a real image but for its lesions, those of ``elastic`` a deformed one;
``cgan3d``, briefly trained, draws whole images. Of each: the share of
its own real image that a sample repeats, and its similarity to any place of any training case, as
measured before samples are shared.

    python benchmarks/scripts/bench_copies.py [--samples 8] [--steps 60] [--cases 150]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, gansynth, write

from gansynth.sampling.deidentify import CopySearch, repeated_share
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_moved
from gansynth.sampling.sampler import Sampler

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
SETS = {
    "hippocampus": ("msd:{}/msd_task04_hippocampus", r"subjects.csv"),
    "LGG slices": ("pictures:{}/lgg_flair256", r"(.*)_\d+"),
    "BUSI": ("pictures:{}/busi256", r"(G\d+)_.*"),
}
MAKERS = ("copypaste", "elastic", "cgan3d")


def measured(
    data: str, subjects: str, home: Path, samples: int, steps: int, cases: int
) -> dict[str, Any]:
    """Shares and similarities of samples of each generator, fitted here."""
    shares: dict[str, list[float]] = {}
    search, own = CopySearch(), set[str]()
    small = ("steps", steps), ("width", 8), ("d_width", 8), ("batch_size", 2)
    for maker in MAKERS:
        settings = [f"{key}={value}" for key, value in small] if maker == "cgan3d" else []
        options = [word for setting in settings for word in ("--set", setting)]
        where = ("--data", data, "--subjects", subjects, "-o", str(home / maker))
        gansynth("fit", maker, *where, "--device", "cpu", *options, quiet=True)
        run = load_run(home / maker, "cpu")
        source = open_moved(run, None, None)
        drawer = Sampler(run, source)
        for index in range(samples):
            sample = drawer.draw_raw(index, 1)[0]
            real = drawer.matching_real_case(sample)
            own.add(real.id)
            share = repeated_share(sample.image, [real.image])
            shares.setdefault(maker, []).append(round(share, 4))
            search.add(run.space.to_host(sample, sample.provenance["shape"]).image)
    began = time.perf_counter()
    others = [case_id for case_id in source.train_ids if case_id not in own]
    step = max(1, len(others) // max(1, cases - len(own)))
    searched = sorted(own.union(others[::step]))
    for case in map(source.load, searched):
        search.look_in(case.image)
    seconds = time.perf_counter() - began
    similar = np.round(search.similarities(), 4).reshape(len(MAKERS), samples).tolist()
    return {
        "training_cases": len(source.train_ids),
        "searched_cases": len(searched),
        "seconds_of_search_per_sample": round(seconds / len(MAKERS) / samples, 2),
        "repeated_share": shares,
        "similarity": dict(zip(MAKERS, similar, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--cases", type=int, default=150, help="training cases, with the samples' own"
    )
    parser.add_argument("--only", choices=SETS, help="the other sets' results are kept")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print("skipped, ../shared/data is not there")
        return
    file = RESULTS / "copies.json"
    kept = arguments.only and file.is_file()
    results: dict[str, Any] = json.loads(file.read_text())["sets"] if kept else {}
    amounts = arguments.samples, arguments.steps, arguments.cases
    for name in [arguments.only] if arguments.only else SETS:
        where, subjects = SETS[name]
        data = where.format(DATA)
        table = Path(data.partition(":")[2]) / subjects
        subjects = str(table) if table.is_file() else subjects
        with tempfile.TemporaryDirectory() as home:
            found = measured(data, subjects, Path(home), *amounts)
        results[name] = found
        for maker in MAKERS:
            share, similar = found["repeated_share"][maker], found["similarity"][maker]
            print(
                f"{name:12} {maker:10} repeats {min(share):.2f} to {max(share):.2f}, "
                f"similarity {min(similar):.3f} to {max(similar):.3f}"
            )
        write("copies", {"sets": results})


if __name__ == "__main__":
    main()
