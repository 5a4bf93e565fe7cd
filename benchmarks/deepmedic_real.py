"""The real DeepMedic with synthetic cases on the fly, in each of its ways to sample.

    GANSYNTH_DEEPMEDIC=CHECKOUT GANSYNTH_DEEPMEDIC_PYTHON=PYTHON python benchmarks/deepmedic_real.py

Phantoms and a written bank, 1:2, six cases and sixty segments a subepoch. For each way to sample:
exit code, final checkpoint, cases and segments of every subepoch, samples and segments that are
distinct, and whether any draw was repeated. Beside it stock DeepMedic in forked processes, which
does repeat them. Some seconds a training; no number here is about segmentation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import common

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from gansynth_deepmedic import program  # noqa: E402
from tests.adapters.deepmedic.orders import BRIGHT, Training, run, training  # noqa: E402

PROBE = REPOSITORY / "tests" / "adapters" / "deepmedic" / "probe.py"
MODES = (-1, 0, 2)
RATIO, SUBEPOCHS, CASES, SEGMENTS = "1:2", 4, 6, 60


def on_the_fly(real: program.Program, mode: int, folder: Path) -> dict[str, Any]:
    """One training with synthetic cases, by the child itself."""
    made = training(
        folder,
        ratio=RATIO,
        mode=mode,
        subepochs=SUBEPOCHS,
        count=CASES,
        segments=SEGMENTS,
        val=2,
        samples=200,
        checkout=real.checkout,
    )
    before = content(real.checkout)
    python, *launch = program.command(real, made.path)
    written = folder / "served.jsonl"
    began = time.perf_counter()
    ended = run([python, str(PROBE), str(written), *launch], program.environ_of(real), 600)
    seconds = time.perf_counter() - began
    jobs, served = made.told("job"), [json.loads(x) for x in written.read_text().splitlines()]
    served.sort(key=lambda job: (job["subepoch"], job["place"]))
    samples = [job["sample"] for job in jobs if job["sample"]]
    hashes = [one for job in served for one in job["hash"]]
    return {
        "exit_code": ended.returncode,
        "final_checkpoint": len(final_checkpoints(made)) == 1,
        "seconds": round(seconds, 1),
        "subepochs": [of_subepoch(jobs, served, k) for k in range(SUBEPOCHS)],
        "subepochs_trained": made.told("trained"),
        "samples_drawn": len(samples),
        "distinct_samples": len(set(samples)),
        "distinct_segments": len(set(hashes)),
        "cases_with_the_segments_of_another": len(served) - len({tuple(j["hash"]) for j in served}),
        "random_states": states(written),
        "real_cases_as_deepmedic_reads_them": all(job["as_stock"] for job in served),
        "segments_sha256": sha256(json.dumps(hashes).encode()).hexdigest(),
        "dice_of_validation_told": bool(made.told("end") and made.told("end")[0].get("dice")),
        "checkout_unchanged": content(real.checkout) == before,
    }


def of_subepoch(
    jobs: list[dict[str, Any]], served: list[dict[str, Any]], subepoch: int
) -> dict[str, int]:
    """Cases that were told of, and segments by what is at their centre."""
    kinds = Counter(job["kind"] for job in jobs if job["subepoch"] == subepoch)
    centres = [v for job in served if job["subepoch"] == subepoch for v in job["centre"]]
    synthetic = sum(value >= BRIGHT for value in centres)
    return {
        **{f"{kind}_cases": kinds[kind] for kind in ("real", "synthetic", "fallback")},
        "real_segments": len(centres) - synthetic,
        "synthetic_segments": synthetic,
    }


def stock(real: program.Program, mode: int, folder: Path) -> dict[str, Any]:
    """One training of DeepMedic's own, on the real cases alone."""
    made = training(
        folder,
        mode=mode,
        subepochs=SUBEPOCHS,
        count=4,
        listed=0,
        segments=40,
        checkout=real.checkout,
    )
    written = folder / "stock.jsonl"
    words = [str(real.python), str(PROBE), str(written), "--stock", str(real.checkout)]
    words += ["-model", str(made.toy.model), "-train", str(made.toy.train), "-dev", "cpu"]
    ended = run(words, program.environ_of(real), 600)
    return {
        "exit_code": ended.returncode,
        "final_checkpoint": len(final_checkpoints(made)) == 1,
        "random_states": states(written),
    }


def states(written: Path) -> dict[str, int]:
    """States of the generator from which a class of a case drew its centres."""
    lines = Path(f"{written}.draws").read_text().splitlines()
    counts = Counter(json.loads(line)["state"] for line in lines)
    return {"draws": counts.total(), "distinct": len(counts), "most_often": max(counts.values())}


def final_checkpoints(made: Training) -> list[Path]:
    return list((made.toy.folder / "output" / "saved_models" / "toy").glob("*.final.*.index"))


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


def commit(folder: Path) -> str:
    """The checkout's commit; "unknown" without git."""
    words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--name", help="of the result (deepmedic_real_numpyN)")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    real = program.find_program(None, None)
    with tempfile.TemporaryDirectory() as scratch:
        modes = {str(mode): on_the_fly(real, mode, Path(scratch) / f"{mode}") for mode in MODES}
        contrast = stock(real, 2, Path(scratch) / "stock")
    document = {
        "deepmedic": {"commit": commit(real.checkout), **real.versions},
        "asked": {"ratio": RATIO, "cases": CASES, "segments": SEGMENTS, "subepochs": SUBEPOCHS},
        "num_processes_sampling": modes,
        "all_train_on_the_same_segments": len({m["segments_sha256"] for m in modes.values()}) == 1,
        "stock_num_processes_sampling_2": contrast,
    }
    name = asked.name or f"deepmedic_real_numpy{real.versions['numpy'].partition('.')[0]}"
    print(json.dumps(document, indent=1))
    print(common.write(name, document))
    if any(mode["exit_code"] or not mode["final_checkpoint"] for mode in modes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
