"""A slice selector: tells slices with foreground from those without where nobody has labelled them.

Han et al. 2018 (sec. 5) wish for it: "better data generation demands developing a classifier to
only select brain MRI slices with/without tumors". ``gansynth selector fit`` makes one of labelled
volumes (see ``gansynth.selector_fit``); ``--read selector=FOLDER`` has it choose among the slices
of others. Its folder holds ``weights.safetensors`` and ``manifest.json``, and no image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from gansynth.checkpoint import load_tensors
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.integrity import read_json
from gansynth.lineage import Lineage
from gansynth.options import OptionModel
from gansynth.schema import Case, FloatArray, Schema
from gansynth.sources.base import CaseSource
from gansynth.sources.planes import resize
from gansynth.sources.slice_options import AXIS

VERSION = 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
PERCENTILES = (1.0, 99.0)
"""Of a slice's pixels, that become 0 and 1: so scanners' units do not matter."""
AT_ONCE = 64
"""Slices that are scored together."""
WAY_OUT = "make one: gansynth selector fit --data slices:KIND:WHERE -o FOLDER"

Pixels = npt.NDArray[np.uint8]


class SelectorOptions(OptionModel):
    """Options of a selector and of its fit."""

    steps: int = Field(600, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=2, description="slices in a batch, half of them with foreground")
    lr: float = Field(1e-3, gt=0, description="learning rate of AdamW at its height")
    width: int = Field(16, ge=1, description="channels beside the image; doubled twice")
    size: int = Field(64, ge=16, le=256, description="rows and columns that slices are brought to")
    seed: int = Field(0, ge=0, description="seeds weights, batches and their changes")


class SliceNet(nn.Module):
    """A slice (B, C, size, size) in [0, 1] to a logit (B,); each is judged by itself."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide = (channels, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(wide):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(1, after),
                nn.SiLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * wide[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,) of slices (B, C, size, size)."""
        seen = self.features(2 * x - 1)
        pooled = torch.cat((seen.mean((2, 3)), seen.amax((2, 3))), dim=1)
        logits: Tensor = self.head(pooled)
        return logits[:, 0]


def build_net(channels: int, width: int, seed: int = 0) -> SliceNet:
    """A network with fresh weights; the host's own random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SliceNet(channels, width)


@dataclass(frozen=True)
class Selector:
    """A fitted selector.

    Attributes:
        folder: where it lies.
        manifest: the whole of ``manifest.json``.
        sha256: of ``manifest.json``, which itself holds the weights' hash.
        net: with the weights loaded, on the CPU.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    net: SliceNet

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels it looks at."""
        return tuple(self.manifest["channels"])

    @property
    def plane(self) -> str:
        """The plane its slices lie in."""
        return str(self.manifest["plane"])

    @property
    def threshold(self) -> float:
        """Least score of a slice with foreground."""
        return float(self.manifest["threshold"])

    @property
    def lineage(self) -> Lineage:
        """Every volume it has seen: those it learnt from, and those that chose its threshold."""
        return Lineage.from_json(self.manifest["lineage"])

    def scores(self, image: FloatArray, schema: Schema) -> npt.NDArray[np.float64]:
        """Of each slice of a volume, how surely it has foreground, from 0 to 1.

        Args:
            image: (C, D, H, W), in any units.
            schema: names its channels.
        """
        numbers = [schema.channels.index(name) for name in self.channels]
        size = int(self.manifest["options"]["size"])
        return score(self.net, pixels(image[numbers], AXIS[self.plane], size))

    def select(self, image: FloatArray, schema: Schema) -> npt.NDArray[np.int64]:
        """Of each slice of a volume, 1 with foreground or 0 without."""
        return (self.scores(image, schema) >= self.threshold).astype(np.int64)

    def check_fits(self, inner: CaseSource, plane: str) -> None:
        """Refuse volumes it cannot tell the slices of, or need not.

        Raises:
            UsageFault: they have labels, lack a channel, or are cut in another plane.
        """
        asked = f"--read selector={self.folder}"
        if inner.schema.foreground:
            raise UsageFault(
                f"{asked}: {inner.name} has label maps, which say themselves what its slices show; "
                "expected volumes without; leave selector out"
            )
        if plane != self.plane:
            raise UsageFault(
                f"{asked}: was fitted on {self.plane} slices, these are {plane}; expected the same "
                "plane"
            )
        lacking = [name for name in self.channels if name not in inner.schema.channels]
        if lacking:
            raise UsageFault(
                f"{asked}: looks at channel {lacking[0]!r}, {inner.name} has "
                f"{', '.join(inner.schema.channels)}; expected all of {', '.join(self.channels)}; "
                "name them so: --read inner.channels=, or fit a selector on these channels"
            )


def open_selector(folder: Path) -> Selector:
    """Open what ``gansynth selector fit`` has left behind.

    Raises:
        UsageFault: there is none.
        IntegrityFault: it is damaged, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataFault(f"{folder}: no {MANIFEST} here, expected a selector's folder; {WAY_OUT}")
    doc = read_json(path, way_out="restore it from a copy, or fit the selector again")
    if doc.get("kind") != "selector" or doc.get("version") != VERSION:
        raise IntegrityFault(
            f"{path}: kind is {doc.get('kind')!r}, version {doc.get('version')!r}, expected a "
            f"selector of version {VERSION}; {WAY_OUT}"
        )
    weights = load_tensors(folder / WEIGHTS, str(doc["weights_sha256"]))
    try:
        net = build_net(len(doc["channels"]), int(doc["options"]["width"]))
        net.load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise IntegrityFault(f"{folder}: weights that do not fit: {words}; {WAY_OUT}") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Selector(folder, doc, digest, net.eval())


def pixels(image: FloatArray, axis: int, size: int) -> Pixels:
    """Slices of a volume as a selector looks at them.

    Args:
        image: (C, D, H, W), in any units.
        axis: of (D, H, W), that is cut across.
        size: rows and columns.

    Returns:
        uint8 (slices, C, size, size): each channel of each slice resampled to the size, its own
        1st and 99th percentile at 0 and 255. A constant one becomes zeros.
    """
    planes = np.moveaxis(image, axis + 1, 0)
    made = np.zeros((*planes.shape[:2], size, size), np.uint8)
    for number, plane in enumerate(planes):
        small = resize(Case("", "", np.ascontiguousarray(plane, np.float32)), (size, size)).image
        low, high = np.percentile(small, PERCENTILES, axis=(1, 2))[..., None, None]
        span = np.where(high > low, high - low, np.inf)
        made[number] = np.rint(255 * ((small - low) / span).clip(0, 1))
    return made


def score(net: SliceNet, slices: Pixels) -> npt.NDArray[np.float64]:
    """Scores (N,) in [0, 1] of slices (N, C, size, size), on the CPU, to six digits."""
    found: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(slices), AT_ONCE):
            part = torch.from_numpy(slices[start : start + AT_ONCE]).float() / 255
            found.append(net(part).double().sigmoid())
    joined = torch.cat(found).numpy() if found else np.zeros(0)
    return np.asarray(joined.round(6), np.float64)
