"""The FROC figure of the docs, from simulated detections: no detector, no image, no patient.

    python benchmarks/draw_froc.py WORK

Writes the detections of two made-up arms to ``WORK``, measures them there as ``gansynth
detections`` does, and draws ``docs/images/froc.png``. B is A with higher scores for everything, be
it true or false. At one confidence it finds more, as in the paper's table; at equal false positives
it does not, which is what the figure shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gansynth.detection.arms import read_arms
from gansynth.detection.drawing import draw_froc
from gansynth.detection.measuring import measure_arms
from gansynth.detection.record import FILE, Detections, Found, Seen, Truth, write_detections
from gansynth.detection.tables import markdown

FIGURE = Path(__file__).parents[1] / "docs/images/froc.png"
PATIENTS, SLICES, SIDE = 36, 26, 256
FALSE = 14.0
"""Mean false boxes of a slice, most of them of low score."""
ARMS = {"A": -1.0, "B": 0.5}
"""What is added to the log-odds of an arm's scores."""


def lesions(rng: np.random.Generator) -> list[list[tuple[np.ndarray, float]]]:
    """Of one patient, for each slice: boxes, and how plain to see their lesion is."""
    slices: list[list[tuple[np.ndarray, float]]] = [[] for _ in range(SLICES)]
    for _ in range(1 + rng.poisson(3)):
        centre, radius = rng.uniform(60, SIDE - 60, 2), rng.lognormal(2.2, 0.5)
        middle, plain = rng.integers(0, SLICES), rng.normal(0.6 * np.log(radius / 8), 1)
        for z in range(SLICES):
            half = radius**2 - (4 * (z - middle)) ** 2
            if half > 4:
                side = np.sqrt(half)
                slices[z].append((np.concatenate([centre - side, centre + side]), plain))
    return slices


def found_by(bias: float, here: list[tuple[np.ndarray, float]], rng: np.random.Generator) -> Found:
    """What an arm finds in one slice."""
    boxes, odds = [], []
    for box, plain in here:
        shift = rng.normal(0, 0.13, 4) * (box[2] - box[0])
        boxes.append(box + shift)
        odds.append(bias + 2.0 * plain - 2.5 + rng.normal(0, 1.5))
    for _ in range(rng.poisson(FALSE)):
        low = rng.uniform(20, SIDE - 50, 2)
        boxes.append(np.concatenate([low, low + rng.uniform(8, 30, 2)]))
        odds.append(bias - 6.5 + rng.normal(0, 2))
    scores = 1 / (1 + np.exp(-np.array(odds)))
    kept = scores >= 1e-4
    kind = np.zeros(int(kept.sum()), np.int64)
    return Found(np.array(boxes).reshape(-1, 4)[kept], scores[kept], kind)


def simulate(bias: float, seed: int) -> Detections:
    """Detections of an arm; all arms have the same truth."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    images = []
    for patient in range(PATIENTS):
        for z, here in enumerate(lesions(truth)):
            boxes = np.array([box for box, _ in here]).reshape(-1, 4)
            true = Truth(boxes, np.zeros(len(boxes), np.int64))
            found = found_by(bias, here, rng)
            name, who = f"p{patient:02}_{z:02}", f"p{patient:02}"
            images.append(Seen(name, who, (SIDE, SIDE), true, found, who, z))
    about = {"note": "simulated, no detector"}
    return Detections("simulated", ("lesion",), tuple(images), 0.5, "test", 1e-4, about=about)


def main(work: Path) -> None:
    """Simulate, measure, draw."""
    for seed, (name, bias) in enumerate(ARMS.items(), 1):
        write_detections(work / name / FILE, simulate(bias, seed))
    document = measure_arms(read_arms([str(work / name) for name in ARMS]))
    (work / "table.md").write_text(markdown(document), "utf-8")
    draw_froc(document, FIGURE, title="Simulated detections: 36 made-up patients, 936 slices")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
