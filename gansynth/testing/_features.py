"""What an adapter must do that says what its trained host makes of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth.adapter import Adapter, Mask
from gansynth.errors import DataFault, UsageFault
from gansynth.schema import FloatArray, Sample
from gansynth.testing.report import Broken, CheckReport, Skip

IMAGES = 3
CLOSE = 1e-3
"""Share by which features may differ that ought to be equal: devices add up in any order."""


class Looks:
    """One host that was trained on an adapter's cases; one method for each thing that must hold.

    Args:
        adapter: opened on the data that the host was trained on.
        folder: that the training has left.
        empty: a folder with nothing in it.
    """

    def __init__(self, adapter: Adapter, folder: Path, empty: Path) -> None:
        self.adapter, self.folder, self.empty = adapter, folder, empty
        self.images: list[FloatArray] = []
        self.rows: FloatArray

    def run(self, report: CheckReport) -> None:
        """Make every check; what a failure makes pointless is left out."""
        report.run("features: folder", self.knows_its_folder)
        if not report.run("features: shape", self.shape):
            return
        report.run("features: images matter", self.images_matter)
        report.run("features: others do not", self.others_do_not)
        report.run("features: where", self.where)
        report.run("features: channels", self.channels)
        report.run("features: inputs untouched", self.inputs_untouched)

    def knows_its_folder(self) -> None:
        if not self.adapter.recognises(self.folder):
            raise Broken(f"{self.folder} is not recognised, which a training has left")
        self.empty.mkdir(parents=True, exist_ok=True)
        for other in (self.empty, self.empty / "nowhere"):
            if self.adapter.recognises(other):
                raise Broken(f"{other} is recognised, in which nothing was trained")

    def shape(self) -> None:
        self.images = self._drawn()
        self.rows, title = self._features(self.images)
        if self.rows.ndim != 2 or len(self.rows) != IMAGES or self.rows.dtype != np.float32:
            raise Broken(
                f"features are {self.rows.dtype} of shape {self.rows.shape}, expected float32 "
                f"({IMAGES}, K)"
            )
        if not np.isfinite(self.rows).all():
            raise Broken("features are not finite")
        if not title.strip() or "\n" in title:
            raise Broken(f"the title is {title!r}, expected a few words")

    def images_matter(self) -> None:
        if any(_same(self.rows[0], row) for row in self.rows[1:]):
            raise Broken("different images have the same features")

    def others_do_not(self) -> None:
        again, _ = self._features(self.images[::-1])
        alone, _ = self._features(self.images[:1])
        if not _same(again[::-1], self.rows) or not _same(alone[0], self.rows[0]):
            raise Broken("features of an image depend on the others, or are not in their order")

    def where(self) -> None:
        everywhere = [np.ones(image.shape[1:], np.bool_) for image in self.images]
        half = [_left_half(image.shape[1:]) for image in self.images]
        try:
            whole, _ = self._features(self.images, everywhere)
            part, _ = self._features(self.images, half)
        except UsageFault as refusal:
            raise Skip(f"refused: {refusal}") from refusal
        if not _same(whole, self.rows):
            raise Broken("the mean over all voxels is another than that over the whole image")
        if _same(part, self.rows):
            raise Broken("the mean over one half is that over the whole image")

    def channels(self) -> None:
        more = [np.concatenate([image, image[:1]]) for image in self.images]
        own = self.adapter.schema
        schema = replace(own, channels=(*own.channels, "another"), outside_fill=None)
        try:
            self.adapter.features(self.folder, more, schema, device="cpu")
        except DataFault:
            return
        raise Broken(f"{len(schema.channels)} channels are looked at, expected a DataFault")

    def inputs_untouched(self) -> None:
        if any((a != b).any() for a, b in zip(self.images, self._drawn(), strict=True)):
            raise Broken("images are written to")

    # -- tools -----------------------------------------------------------------------------------

    def _drawn(self) -> list[FloatArray]:
        """Crops of training cases, as samples would come back to the host."""
        source, space = self.adapter.source, self.adapter.source.space
        found = []
        for number in range(IMAGES):
            case = source.load(source.train_ids[number % len(source.train_ids)])
            inside = space.to_generator(case, space.place(case, np.random.default_rng(number)))
            back = space.to_host(Sample(inside.image), case.image.shape[1:])
            found.append(np.array(back.image, np.float32))
        return found

    def _features(
        self, images: Sequence[FloatArray], where: Sequence[Mask | None] | None = None
    ) -> tuple[FloatArray, str]:
        return self.adapter.features(
            self.folder, images, self.adapter.schema, where=where, device="cpu"
        )


def _left_half(shape: Sequence[int]) -> Mask:
    return np.broadcast_to(np.arange(shape[-1]) < shape[-1] // 2, tuple(shape)).copy()


def _same(one: FloatArray, other: FloatArray) -> bool:
    return bool(np.abs(one - other).max() <= CLOSE * max(np.abs(one).max(), 1e-12))
