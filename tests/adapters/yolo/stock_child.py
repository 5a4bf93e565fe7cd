"""Trains a stock detector on a data set, without gansynth, and prints what it trained on as JSON.

python stock_child.py libreyolo|ultralytics data.yaml OUTPUT

Where torch is a CPU build, ``PYTHONPATH`` brings torchvision's missing operators
(``gansynth.runtime.torchvision_compat``).
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

USUAL = {"epochs": 1, "batch": 8, "imgsz": 64, "device": "cpu", "workers": 0, "amp": False}


def libreyolo(**told: Any) -> list[str]:
    """Train for an epoch; the image files of the training set."""
    import libreyolo
    from libreyolo.training import trainer

    seen: list[str] = []

    class Watched(trainer.YOLODataset):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            seen.extend(str(file) for file in self.img_files)

    trainer.YOLODataset = Watched
    libreyolo.LibreYOLOX(None, size="n", device="cpu").train(pretrained=False, **told)
    return seen


def ultralytics(**told: Any) -> list[str]:
    """Train for an epoch; the image files of the training set."""
    os.environ |= {"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": told["project"]}
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml", verbose=False)
    model.train(plots=False, verbose=False, **told)
    return list(model.trainer.train_loader.dataset.im_files)


if __name__ == "__main__":
    name, data, output = sys.argv[1:]
    train = {"libreyolo": libreyolo, "ultralytics": ultralytics}[name]
    files = train(data=data, project=output, name="run", **USUAL)
    folders = Counter(Path(file).parent.name for file in files)
    told = {"folders": folders, "distinct": len(set(files)), "gansynth": "gansynth" in sys.modules}
    print("\n" + json.dumps(told))
