"""A paper's figures, made of our samples: ``gansynth papers NAME --figures``.

A plan describes a picture as rows (``PaperPicture``). Every row shows the same cases: sample ``i``
of each generator is drawn of the same case, whichever edits change its label map.

The pictures show real cases, so they stay beside the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gansynth.core.sample_request import SampleRequest, read_other
from gansynth.core.schema import Boxes, Case, Sample, Schema
from gansynth.metrics.detection.record import (
    DetectedBoxes,
    Detections,
    TrueBoxes,
    read_detections,
)
from gansynth.report.image_grid import write_figure
from gansynth.sampling.loaded_run import FittedRun
from gansynth.sampling.sampler import Sampler
from gansynth_benchmark.papers.commands import PaperCommands
from gansynth_benchmark.papers.plan import PaperPicture, PictureRow

PANELS = 10  # images side by side
TRIED = 8  # samples that are drawn for each that is shown, at most
DRAWN_CONFIDENCE = 0.25  # least confidence of a detection that is drawn, as in `gansynth predict`
DETECTED = ("truth", "detections")  # rows of images of the evaluation
Runs = Mapping[str | None, FittedRun]
"""By generator of the plan; by None the set of a plan of raters."""
Items = Sequence[Sample | Case]


class PictureWriter:
    """Draws the pictures of a plan from its fitted generators and trained hosts.

    Args:
        host: whose detections are drawn; None for none.
    """

    def __init__(self, commands: PaperCommands, host: str | None, seed: int) -> None:
        self.commands, self.host, self.seed = commands, host, seed

    def write(self, *, detected: bool) -> dict[str, str]:
        """Write the pictures of samples, or of detections; return file name -> what it shows."""
        written = {}
        for picture in self.commands.plan.pictures:
            if detected != (picture.rows[0].shows in DETECTED):
                continue
            if detected:
                rows, schema = self._detected(picture)
                if rows:  # as their files hold them
                    written.update(self._write(picture, "", rows, schema, oriented=False))
            else:
                for part, runs in self._sets():
                    rows, sampler = _drawn(picture, runs, self.commands, self.seed)
                    schema, oriented = sampler.sampler.schema, sampler.run.space.oriented
                    written.update(self._write(picture, part, rows, schema, oriented=oriented))
        return written

    def _write(
        self,
        picture: PaperPicture,
        part: str,
        rows: Mapping[str, Items],
        schema: Schema,
        *,
        oriented: bool,
    ) -> dict[str, str]:
        """Write rows below each other, their cases side by side."""
        file = "_".join(filter(None, (self.commands.name, picture.name, part))) + ".png"
        shows = ", ".join(filter(None, (picture.of, part)))
        items = [item for row in rows.values() for item in row]
        columns = len(schema.channels) + all(item.labels is not None for item in items)
        count = len(next(iter(rows.values())))  # the same in all rows, which start lines
        fitting = [n for n in range(2, count + 1) if count % n == 0 and n * columns <= PANELS]
        across = max([1, *fitting])
        cells = [(_caption(name, item), item) for name, row in rows.items() for item in row]
        path = self.commands.out / file
        write_figure(
            path,
            cells,
            schema,
            across=across,
            planes=picture.planes,
            beside=count,
            body=picture.body,
            title=shows,
            oriented=oriented,
        )
        return {file: shows}

    def _sets(self) -> Iterator[tuple[str, Runs]]:
        commands = self.commands
        if not commands.plan.raters:
            yield "", {name: FittedRun(commands.run(name)) for name in commands.plan.generators}
            return
        for manifest in sorted(commands.generators.glob("*/manifest.json")):
            yield manifest.parent.name, {None: FittedRun(manifest.parent)}

    # -- a detector's boxes ------------------------------------------------------------------------

    def _detected(self, picture: PaperPicture) -> tuple[dict[str, Items], Schema]:
        """Return images of the evaluation with true boxes, and with those of each trained arm."""
        source, trained = self.commands.source, dict[str, Detections]()
        for row in picture.rows:
            found = self._detections(row.arm)
            if found is not None:
                trained[row.name] = found
        if not trained:
            return {}, source.schema
        images = {image.id: image for image in next(iter(trained.values())).images}
        chosen = [name for name, image in images.items() if len(image.truth.boxes)]
        chosen = chosen[: picture.cases]
        rows: dict[str, Items] = {}
        for row in picture.rows:
            if row.shows == "truth":
                rows[row.name] = [self._image(name, images[name].truth) for name in chosen]
            elif row.name in trained:
                own = {image.id: image for image in trained[row.name].images}
                rows[row.name] = [self._image(name, own[name].found) for name in chosen]
        return rows, source.schema

    def _detections(self, name: str | None) -> Detections | None:
        """Return what an arm's detector has found, in test images if there are some."""
        arms = [arm for arm in self.commands.plan.arms if arm.name == name]
        if self.host is None or not arms:
            return None
        folder = self.commands.folder(self.host, arms[0], self.seed)
        files = [folder / Detections.file_of(split) for split in ("test", "val")]
        there = [file for file in files if file.is_file()]
        return read_detections(there[0]) if there else None

    def _image(self, name: str, boxes: TrueBoxes | DetectedBoxes) -> Case:
        """Return an image of the evaluation with boxes, in the pixels of its file."""
        pixels = self.commands.source.decode(name).image
        image = pixels[: len(self.commands.source.schema.channels)] / np.float32(pixels.max() or 1)
        kept = np.full(len(boxes.labels), True)
        if isinstance(boxes, DetectedBoxes):
            kept = boxes.scores >= DRAWN_CONFIDENCE
        coords = boxes.boxes[kept][:, [1, 0, 3, 2]].astype(np.float32)
        drawn = Boxes(coords, boxes.labels[kept].astype(np.int16))
        return Case(name, name, image, boxes=drawn)


def _caption(name: str, item: Sample | Case) -> str:
    """Return a row's name, and whether the arms never saw such a sample."""
    rejected = isinstance(item, Sample) and item.provenance.get("reject_reason")
    return f"{name}, rejected" if rejected else name


# -- samples and the cases beside them ------------------------------------------------------------


def _drawn(
    picture: PaperPicture, runs: Runs, commands: PaperCommands, seed: int
) -> tuple[dict[str, Items], Sampler]:
    """Return the items of each row, and the sampler of the first row of samples."""
    opened = [
        (row, _sampler(row, runs[row.generator], commands, seed))
        for row in picture.rows
        if row.shows == "samples"
    ]
    _, sampler = opened[0]
    which = _of_other_cases(sampler, picture.cases)
    samples = {row.name: [each.draw_raw(index, 1)[0] for index in which] for row, each in opened}
    of_first = next(iter(samples.values()))
    rows: dict[str, Items] = {}
    for row in picture.rows:
        items: Items = samples.get(row.name, ())
        if row.shows != "samples":
            drawn = [_of_donor(each) for each in of_first] if row.shows == "donors" else of_first
            items = [sampler.matching_real_case(sample) for sample in drawn]
        rows[row.name] = [_cropped(item, row.crop) for item in items] if row.crop else items
    return rows, sampler


def _of_other_cases(sampler: Sampler, count: int) -> list[int]:
    """Return the first samples that are each of another real case; of too few cases, again.

    Of detectors' data, those whose case has a box come first.
    """
    found, without = dict[str, int](), dict[str, int]()
    for index in range(TRIED * count):
        case = sampler.matching_real_case(sampler.draw_raw(index, 1)[0])
        boxed = case.boxes is None or len(case.boxes.coords) > 0
        (found if boxed else without).setdefault(case.id, index)
        if len(found) == count:
            break
    first = [*found.values(), *without.values()]
    return [*first, *[n for n in range(count) if n not in first]][:count]


def _cropped(item: Sample | Case, edge: int) -> Sample | Case:
    """Return the pixels around the largest box of an image, without boxes; else the middle ones."""
    high, wide = item.image.shape[1:]
    middle = np.array([high, wide]) / 2
    if item.boxes is not None and len(item.boxes.coords):
        low, top = item.boxes.coords[:, :2], item.boxes.coords[:, 2:]
        middle = ((low + top) / 2)[np.prod(top - low, axis=1).argmax()]
    first = np.clip(middle - edge / 2, 0, np.maximum(0, np.array([high, wide]) - edge)).astype(int)
    window = slice(first[0], first[0] + edge), slice(first[1], first[1] + edge)
    return replace(item, image=item.image[:, *window], labels=None, boxes=None)


def _sampler(row: PictureRow, run: FittedRun, commands: PaperCommands, seed: int) -> Sampler:
    source = None
    if row.label_source is not None:
        extra = commands.asked.extra_source[row.label_source]
        source = read_other(extra, row.label_source_read)
    request = SampleRequest(seed=seed, edits=row.edits, label_source=source)
    return Sampler(run.opened, run.source, request)


def _of_donor(sample: Sample) -> Sample:
    """Return a sample as if it was drawn of the case that lent its tumour."""
    provenance = dict(sample.provenance)
    for step in provenance["edits"]:
        provenance["case"] = step["params"].get("donor") or provenance["case"]
    return replace(sample, provenance=provenance)
