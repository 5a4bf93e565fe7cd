"""A trained segmenter: prediction of whole cases on their own grid, saving and loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansynth.core.generator import Generator, move
from gansynth.core.resample import crop_pad
from gansynth.core.schema import (
    OUTSIDE,
    Case,
    FloatArray,
    LabelArray,
    Sample,
    Schema,
    validate_arrays,
)
from gansynth.core.space import Space
from gansynth.metrics.segmentation.operating_point import levels_of
from gansynth.metrics.segmentation.regions import Regions
from gansynth.runtime.devices import pick_device, place_for
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import path_inside, read_json, sha256_file, write_json_atomic
from gansynth.runtime.version import __version__
from gansynth.sampling.open_run import build_fitting, check_room, load_weights
from gansynth.training.checkpoint import load_tensors
from gansynth_segmenter.networks import build, probabilities
from gansynth_segmenter.options import SegmenterOptions

FILE = "segmenter.json"
KEYS = ("options", "schema", "space", "regions", "weights", "steps")  # keys that the file must hold
BELL = 0.25  # standard deviation of a window's Gaussian weights, as a share of its edge


@dataclass(frozen=True)
class Segmenter:
    """A network, and the schema, space and options of its training."""

    generator: Generator  # the network, on its device
    schema: Schema  # of the source's cases
    space: Space  # space of the network; see ``mixed.training_space``
    regions: Regions  # regions for Dice
    options: SegmenterOptions  # of the training

    def predict(self, image: FloatArray) -> LabelArray:
        """Return the likeliest label of every voxel: int16 (D, H, W), background outside the body.

        A network of whole cases at another resolution gives labels by the nearest voxel, and
        background beyond its frame.

        Args:
            image: float32 (C, D, H, W), in the units and the spacing of the source's cases.
        """
        return self._maps(image, self._labels)[0]

    def predict_levels(self, image: FloatArray) -> tuple[LabelArray, LabelArray]:
        """Return what ``predict`` does, and levels of the foreground: see ``levels_of``."""
        foreground = [k for k, value in enumerate(self.values) if value > 0]
        labels, levels = self._maps(
            image, self._labels, lambda scores: levels_of(scores, foreground)
        )
        return labels, levels

    def _maps(
        self, image: FloatArray, *made: Callable[[FloatArray], LabelArray]
    ) -> list[LabelArray]:
        """Return what functions make of an image's probabilities, on the image's grid."""
        validate_arrays("image", image, None, self.schema)
        case = Case("image", "image", np.asarray(image, np.float32))
        if self.space.grid != "resample":
            scores = self.by_windows(case, lambda part: probabilities(self.generator, part))
            return [make(scores) for make in made]
        placed = self.tensor(self.space.to_generator(case).image)[None]
        scores = probabilities(self.generator, placed)[0].cpu().numpy()
        return [self._brought_back(make(scores), case.image.shape[1:]) for make in made]

    def _brought_back(self, labels: LabelArray, shape: tuple[int, ...]) -> LabelArray:
        space = self.space
        nothing = np.zeros((1, *space.size), np.float32)
        back = replace(space, window=None).to_host(Sample(nothing, labels), shape).labels
        assert back is not None, "labels were given"
        if not space.frame:
            return back
        return crop_pad(back, [-c for c in space.frame_corner(shape)], shape, 0)

    def by_windows(self, case: Case, look: Callable[[Tensor], Tensor]) -> FloatArray:
        """Average the network's outputs over windows of the training's size.

        So normalisation over a window is the same as in training.

        Args:
            case: in the source's units and spacing.
            look: a function from windows (B, C, ...) to (B, K, ...), such as probabilities.

        Returns:
            float32 (K, ...), of the case's shape.
        """
        bare = replace(self.space, grid="native", size=(), frame=(), nearest=False)
        image = bare.to_generator(case).image
        size, shape = self.space.size, image.shape[1:]
        # Smaller cases lie in the middle of a window, as they do in training.
        corner = [min(0, (n - s) // 2) for n, s in zip(shape, size, strict=True)]
        whole = [max(n, s) for n, s in zip(shape, size, strict=True)]
        fill = bare.to_generator(replace(case, image=np.zeros_like(image[:, :1, :1]))).image
        image = np.stack(
            [crop_pad(c, corner, whole, float(f.flat[0])) for c, f in zip(image, fill, strict=True)]
        )
        total, weights, bell = torch.empty(0), np.zeros(whole, np.float32), _bell(size)
        for windows in _some(_windows(whole, size, self.options.overlap), self.options.batch_size):
            batch = np.stack([image[(slice(None), *window)] for window in windows])
            outputs = look(self.tensor(batch)).float()
            if not total.numel():
                sums = (outputs.shape[1], *whole)
                place = place_for(4 * prod(sums), outputs.device)
                total, shares = torch.zeros(sums, device=place), torch.from_numpy(bell).to(place)
            for window, output in zip(windows, outputs.to(place), strict=True):
                total[(slice(None), *window)] += output * shares
                weights[window] += bell
        inner = tuple(slice(-c, n - c) for c, n in zip(corner, shape, strict=True))
        return np.asarray((total.cpu().numpy() / weights)[(slice(None), *inner)], np.float32)

    @property
    def values(self) -> tuple[int, ...]:
        """The label values in the order of the network's channels."""
        return self.generator.schema.label_values

    def _labels(self, scores: FloatArray) -> LabelArray:
        labels = np.array(self.values, np.int16)[scores.argmax(0)]
        return np.where(labels == OUTSIDE, 0, labels).astype(np.int16)

    def tensor(self, image: FloatArray) -> Tensor:
        """Return an array as a tensor on the network's device."""
        return torch.from_numpy(np.ascontiguousarray(image)).to(self.generator.device)


def _windows(
    shape: Sequence[int], size: Sequence[int], overlap: float
) -> Iterator[tuple[slice, ...]]:
    """Yield windows that cover a volume evenly and overlap by at least a share of their edges."""
    starts = []
    for n, s in zip(shape, size, strict=True):
        count = ceil((n - s) / max(1, s * (1 - overlap))) + 1
        starts.append([round(i * (n - s) / max(1, count - 1)) for i in range(count)])
    for corner in product(*starts):
        yield tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))


def _some(windows: Iterator[tuple[slice, ...]], count: int) -> Iterator[list[tuple[slice, ...]]]:
    batch: list[tuple[slice, ...]] = []
    for window in windows:
        batch.append(window)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def _bell(size: Sequence[int]) -> FloatArray:
    """Return the Gaussian weights of a window's voxels, all above 0."""
    bell = np.ones(tuple(size), np.float32)
    for axis, n in enumerate(size):
        at = (np.arange(n) - (n - 1) / 2) / (BELL * n)
        shape = [1] * len(size)
        shape[axis] = n
        bell *= np.exp(-0.5 * at**2).reshape(shape).astype(np.float32)
    return np.maximum(bell, 1e-4).astype(np.float32)


# -- as a folder -----------------------------------------------------------------------------------


def describe(segmenter: Segmenter) -> dict[str, Any]:
    """Return what ``load`` needs beside the weights, as a JSON document."""
    return {
        "gansynth": __version__,
        "options": segmenter.options.model_dump(mode="json", exclude={"output"}),
        "schema": segmenter.schema.to_json(),
        "space": segmenter.space.to_json(),
        "regions": [[name, list(labels)] for name, labels in segmenter.regions],
    }


def remember(folder: Path, document: Mapping[str, Any], checkpoint: Path, step: int) -> None:
    """Record the newest weights (EnvironmentFault: the disk refuses)."""
    weights = checkpoint / "ema.safetensors"
    entry = {"path": weights.relative_to(folder).as_posix(), "sha256": sha256_file(weights)}
    write_json_atomic(folder / FILE, {**document, "weights": entry, "steps": step})


def load(folder: Path, device: str = "auto") -> Segmenter:
    """See ``gansynth_segmenter.load_segmenter``."""
    path = folder / FILE
    if not path.is_file():
        raise UsageFault(
            f"{path}: missing, expected a segmenter; train one with gansynth augment --target "
            "segmenter -o DIR"
        )
    document = read_json(path, hint="train it again")
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise IntegrityFault(f"{path}: lacks {', '.join(missing)}; expected them, train it again")
    options = SegmenterOptions(**document["options"])
    schema, space = Schema.from_json(document["schema"]), Space.from_json(document["space"])
    check_room(space, schema, f"{path}: key 'space'")
    weights = document["weights"]
    file = path_inside(folder, weights["path"], key=f"{path}: key 'weights'")
    tensors = load_tensors(file, weights["sha256"])
    generator_schema = space.generator_schema(schema)
    generator = build_fitting(lambda: build(options, generator_schema, space.size), file)
    load_weights(generator, tensors)
    move(generator, pick_device(device))
    generator.precision = "fp32" if options.precision == "fp32" else "auto"
    regions = tuple((str(name), tuple(labels)) for name, labels in document["regions"])
    return Segmenter(generator, schema, space, regions, options)
