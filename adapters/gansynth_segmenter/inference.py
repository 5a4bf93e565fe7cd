"""A trained segmenter: prediction of whole cases on their own grid, saving and loading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansynth import (
    OUTSIDE,
    DataFault,
    FloatArray,
    Generator,
    IntegrityFault,
    LabelArray,
    LabelMaps,
    Prediction,
    Regions,
    Schema,
    Space,
    UsageFault,
    __version__,
    measure_predictions,
    move,
    pick_device,
    predict_by_windows,
    read_json,
    write_json_atomic,
)
from gansynth.runtime.files import sha256_file
from gansynth.runtime.version import check_format
from gansynth.sampling.open_run import load_named_in
from gansynth_segmenter.networks import build, probabilities
from gansynth_segmenter.options import SegmenterOptions

FILE = "segmenter.json"
WINDOW = 32  # least voxels that a network with a margin predicts at once along an axis
KEYS = ("options", "schema", "space", "regions", "weights", "steps")  # keys that the file must hold


@dataclass(frozen=True)
class Segmenter:
    """A network, and the schema, space and options of its training."""

    generator: Generator  # the network, on its device
    schema: Schema  # of the source's cases
    space: Space  # space of the network; see ``training_space``
    regions: Regions  # regions for Dice
    options: SegmenterOptions  # of the training

    def predict(self, image: FloatArray) -> LabelArray:
        """Return the likeliest label of every voxel: int16 (D, H, W), background outside the body.

        A network of whole cases at another resolution gives labels by the nearest voxel, and
        background beyond its frame.

        Args:
            image: float32 (C, D, H, W), in the units and the spacing of the source's cases.
        """

        def look(placed: FloatArray) -> list[LabelArray]:
            return [self.likeliest(self.scores(placed))]

        return self.space.on_own_grid(self.schema, image, look)[0]

    def scores(self, image: FloatArray) -> FloatArray:
        """Return label probabilities (K, ...) of a whole image in the network's units."""

        def look(part: Tensor) -> Tensor:
            return probabilities(self.generator, part.to(self.generator.device))

        if self.space.grid == "resample":
            placed = torch.from_numpy(np.ascontiguousarray(image))[None]
            return look(placed)[0].cpu().numpy()
        size, margin = self.space.size, getattr(self.generator, "margin", 0)
        if margin:  # without padding, a larger window gives the same and costs less
            size = tuple(max(edge, 2 * margin + WINDOW) for edge in size)
        return predict_by_windows(
            look,
            image,
            size,
            overlap=self.options.own("overlap"),
            batch_size=int(self.options.own("batch_size")),
            fill=self.space.padding_values(len(image)),
            margin=margin,
        )

    def levels(self, scores: FloatArray) -> LabelArray:
        """Return levels of the foreground: see ``Prediction.levels_of``."""
        return Prediction.levels_of(scores, [k for k, value in enumerate(self.values) if value > 0])

    def likeliest(self, scores: FloatArray) -> LabelArray:
        """Return the likeliest labels (...) of probabilities (K, ...)."""
        labels = np.array(self.values, np.int16)[scores.argmax(0)]
        return np.where(labels == OUTSIDE, 0, labels).astype(np.int16)

    @property
    def values(self) -> tuple[int, ...]:
        """The label values in the order of the network's channels."""
        return self.generator.schema.label_values


# -- as a folder -----------------------------------------------------------------------------------


def remember(
    segmenter: Segmenter, folder: Path, checkpoint: Path, step: int, cases: Sequence[str]
) -> None:
    """Record the newest weights, and what ``load_segmenter`` needs beside them."""
    weights = checkpoint / "ema.safetensors"
    document = {
        "gansynth": __version__,
        "options": segmenter.options.model_dump(mode="json", exclude={"output"}),
        "schema": segmenter.schema.to_json(),
        "space": segmenter.space.to_json(),
        "regions": [[name, list(labels)] for name, labels in segmenter.regions],
        "trained_on": list(cases),
        "weights": {
            "path": weights.relative_to(folder).as_posix(),
            "sha256": sha256_file(weights),
        },
        "steps": step,
    }
    write_json_atomic(folder / FILE, document)


def load_segmenter(folder: Path | str, device: str = "auto") -> Segmenter:
    """Load a segmenter that ``gansynth augment --target segmenter`` has trained.

    Args:
        folder: ``-o`` of that command.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Returns:
        A segmenter with ``predict(image (C, D, H, W)) -> labels int16 (D, H, W)``. Images are in
        the units and the spacing of the source it was trained on.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise UsageFault(
            "segmenter.file-missing",
            f"{path}: missing, expected a segmenter; train one with gansynth augment --target "
            "segmenter -o DIR",
        )
    document = read_json(path, hint="train it again")
    check_format(path, None, None, document.get("gansynth"), "train it again")
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise IntegrityFault(
            "segmenter.file-lacks-keys",
            f"{path}: lacks {', '.join(missing)}; expected them, train it again",
        )
    options = SegmenterOptions(**document["options"])
    schema, space = Schema.from_json(document["schema"]), Space.from_json(document["space"])
    untrained = partial(build, options, space.generator_schema(schema), space.size)
    generator = load_named_in(path, document["weights"], space, schema, untrained)
    move(generator, pick_device(device))
    generator.precision = "fp32" if options.precision == "fp32" else "auto"
    regions = tuple((str(name), tuple(labels)) for name, labels in document["regions"])
    return Segmenter(generator, schema, space, regions, options)


def judge(
    folder: Path | str, pairs: Iterable[tuple[FloatArray, LabelArray]], device: str = "auto"
) -> dict[str, Any]:
    """Measure how well a segmenter predicts the label maps of real or synthetic images.

    Sun et al. 2020 (MM-GAN, fig. 7) compare both. A segmenter trained on real images of one
    modality predicts real and synthetic images of the same label maps.

    Args:
        folder, device: see ``load_segmenter``.
        pairs: image float32 (C, D, H, W) and labels int16 (D, H, W). Units and spacing are those of
            the source the segmenter was trained on.

    Returns:
        A JSON document: ``dice`` (name -> mean, None where no pair has the label), ``per_case`` (a
        list of name -> Dice), ``regions`` and ``rule``.
    """
    return evaluate_pairs(load_segmenter(folder, device), pairs)


def evaluate_pairs(
    segmenter: Segmenter, pairs: Iterable[tuple[FloatArray, LabelArray]]
) -> dict[str, Any]:
    """Measure a segmenter that is loaded; see ``judge``."""
    predictions: dict[str, Prediction] = {}
    for number, (image, labels) in enumerate(pairs):
        if labels.shape != image.shape[1:]:
            raise DataFault(
                "segmenter.pair-shapes-differ",
                f"pair {number}: labels have shape {labels.shape}, image {image.shape[1:]}, "
                "expected equal",
            )
        maps = LabelMaps(segmenter.predict(image), labels, segmenter.schema.spacing)
        predictions[str(number)] = Prediction(str(number), None, lambda maps=maps: maps)  # type: ignore[misc]
    document = measure_predictions(
        predictions, segmenter.regions, ignore=segmenter.schema.ignore
    ).document()
    return {
        "dice": document["dice"],
        "hd95": document["hd95"],
        "regions": document["regions"],
        "per_case": list(document["per_case"].values()),
        "rule": document["rule"],
    }
