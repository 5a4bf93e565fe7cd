import json
from pathlib import Path

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.source import SourceRequest
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from tests.producers import fill_here

TINY = {"width": 4, "latent": 8}


def fill(run: Path, folder: Path) -> BankReader:
    drawer = Sampler(load_run(run, "cpu"), open_source(SourceRequest("toy", "2")))
    return fill_here(folder, drawer, 4)


def lenient(run: Path) -> Path:
    """The run without what it has learnt of label maps, so that an untrained one finds no flaw."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["state"]["labels"] = None
    write_manifest(run, manifest)
    return run


def test_boxes_of_flat_samples_arrive_around_the_labels_that_were_drawn(toy_fit, tmp_path):
    own = {**TINY, "with_mask": "yes"}
    toy_fit(tmp_path / "run", generator="dcgan", own=own, steps=1, batch_size=4, edits=None)
    reader = fill(lenient(tmp_path / "run"), tmp_path)
    found = [reader.read(sample) for sample in reader.ids()]
    assert len(found) == 4
    boxed = 0
    for sample in found:
        assert sample.labels is not None
        assert sample.boxes is not None
        assert sample.boxes.coords.shape[1] == 2 * sample.labels.ndim == 4
        inside = np.zeros_like(sample.labels)
        for (top, left, bottom, right), label in zip(
            sample.boxes.coords.astype(int), sample.boxes.labels, strict=True
        ):
            part = sample.labels[top:bottom, left:right] == label
            assert part.any(0).all() or part.any(1).all()
            inside[top:bottom, left:right] |= part
            boxed += 1
        assert ((sample.labels > 0) == inside.astype(bool)).all()
    assert boxed > 0


def test_images_alone_are_kept_as_such(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="dcgan", own=TINY, steps=1, batch_size=4, edits=None)
    assert read_manifest(tmp_path / "run")["label_source"] == "none"
    reader = fill(tmp_path / "run", tmp_path)
    sample = reader.read(reader.ids()[0])
    assert (sample.labels, sample.boxes) == (None, None)
    assert sample.image.ndim == 3
