"""A training process that trains nothing: it opens every case of its order, and tells what it does.

``python stub_child.py ORDER.json``; what ``STUB`` names goes wrong: ``fails`` in the second epoch,
``ends early``, ``says rubbish``, ``spreads``.
"""

import os
import sys
import time
from pathlib import Path

from gansynth_deepmedic.layout import volume
from gansynth_deepmedic.training_order import PROGRESS, ProgressWriter, TrainingOrder


def main() -> int:
    """Go through the order; returns the exit code."""
    order, wrong = TrainingOrder.read(Path(sys.argv[1])), os.environ.get("STUB", "")
    progress, subepochs = ProgressWriter(order.output / PROGRESS), order.made()
    epochs = int(order.train_config.read_text().split("numberOfEpochs = ")[1].split()[0])
    for epoch in range(order.done, epochs):
        if wrong == "fails" and epoch == 1:
            sys.stderr.write("error: the loss is NaN\n")
            return 5
        for number in range(epoch * order.subepochs, (epoch + 1) * order.subepochs):
            for place in subepochs.order(number):
                loaded = subepochs.load(place, volume)
                kind = "synthetic" if loaded.sample else "fallback" if place.synthetic else "real"
                job = {"subepoch": number, "place": place.number, "kind": kind, "segments": 10}
                job |= {"case": loaded.case, "sample": loaded.sample}
                job |= {"spread": True} if wrong == "spreads" and loaded.sample else {}
                progress.tell(job=job)
                if wrong == "says rubbish":
                    progress.tell(job=job)
                    os.write(progress._fd, b"\x00 no json\n[1, 2]\n")
            progress.tell(step=[time.monotonic() - 0.01, time.monotonic()])
            progress.tell(trained=number)
        checkpoint = order.output / "saved_models" / "toy" / f"toy.{epoch}.model.ckpt.index"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.touch()
        progress.tell(epoch=epoch + 1, metrics={"loss": 1.5})
        progress.tell(epoch=epoch + 1, metrics={"dice": {"1": 0.25}})
    if wrong != "ends early":
        progress.tell(end={"dice": {"1": 0.5}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
