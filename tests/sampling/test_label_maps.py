import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import gansynth
from gansynth.core.run_folder import write_manifest
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import LabelMapSampler, open_source
from gansynth.sampling.sampler import Sampler
from tests.data import sets
from tests.producers import fill_here


@pytest.mark.parametrize("mask", ["yes", "no"])
def test_flat_samples_arrive_with_boxes_around_the_labels_that_were_drawn_if_any(
    mask, toy_fit, tmp_path
):
    run = tmp_path / "run"
    own = {"width": 4, "latent": 8, "batch_size": 4, "with_mask": mask}
    toy_fit(run, generator="dcgan", own=own, steps=0, edits=None)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["state"]["labels"] = None  # so that an untrained one finds no flaw
    write_manifest(run, manifest)
    drawer = Sampler(load_run(run, "cpu"), open_source(SourceRequest("toy", "2")))
    reader = fill_here(tmp_path, drawer, 4)
    found: list[Any] = [reader.read(sample) for sample in reader.ids()]
    if mask == "no":
        assert {(s.labels, s.boxes, s.image.ndim) for s in found} == {(None, None, 3)}
        return
    assert sum(len(sample.boxes.coords) for sample in found) > 0
    for sample in found:
        assert sample.boxes.coords.shape[1] == 2 * sample.labels.ndim == 4
        inside = np.zeros(sample.labels.shape, bool)
        for (top, left, bottom, right), label in zip(
            sample.boxes.coords.astype(int), sample.boxes.labels, strict=True
        ):
            part = sample.labels[top:bottom, left:right] == label
            assert part.any(0).all() or part.any(1).all()
            inside[top:bottom, left:right] |= part
        assert ((sample.labels > 0) == inside).all()


SMALL = {"width": "4", "levels": "2", "d_width": "4", "d_levels": "1", "steps": "0"}
volume: Any = nib.load
TURNED = np.diag([-1.0, 1.0, -2.0, 1.0])
Truth = Callable[[Path, str], Any]


def turned(home: Path) -> SourceRequest:
    """Files that are stored right to left and head first, read in finer voxels."""
    asked = sets.pairs(home)
    for path in home.glob("*/*.nii.gz"):
        sets.save(path, np.asarray(volume(path).dataobj), TURNED)
    return replace(asked, read={**asked.read, "spacing": "0.5"})


def cached(home: Path) -> SourceRequest:
    from gansynth.data.h5 import write_h5

    write_h5(open_source(turned(home)), home / "cache.h5", chunk=4)
    return sets.request(home / "cache.h5", "h5")


def resized(make: Callable[[Path], SourceRequest], size: str) -> Callable[[Path], SourceRequest]:
    def request(home: Path) -> SourceRequest:
        asked = make(home)
        return replace(asked, read={**asked.read, "resize": size})

    return request


def of_volume(folder: str) -> Truth:
    return lambda home, name: volume(home / folder / f"{name}.nii.gz")


def of_picture(home: Path, name: str) -> Any:
    pixels = np.asarray(Image.open(home / "masks" / f"{name}.png"))
    return nib.Nifti1Image(pixels.T[..., None], np.eye(4))


def of_slice(home: Path, name: str) -> Any:
    case, _, number = name.partition("-sag")
    labels = np.asarray(volume(home / "labels" / f"{case}.nii.gz").dataobj)
    return nib.Nifti1Image(labels[int(number)][..., None], np.diag([1.0, 2.0, 1.0, 1.0]))


READERS: dict[str, tuple[Callable[[Path], SourceRequest], Truth]] = {
    "nifti": (turned, of_volume("labels")),
    "msd": (sets.msd, of_volume("labelsTr")),
    "h5": (cached, of_volume("labels")),
    "pictures": (resized(sets.pictures, "27x24"), of_picture),
    "slices": (resized(sets.slices, "16x21"), of_slice),
    "nnunet-raw": (lambda home: SourceRequest("nnunet-raw", "501", root=str(home)), of_volume("")),
}


@pytest.mark.parametrize("reader", READERS)
def test_drawn_label_maps_lie_on_the_grid_of_the_files(reader, tmp_path, toy_nnunet, monkeypatch):
    ask, truth = READERS[reader]
    home = toy_nnunet.root if reader == "nnunet-raw" else tmp_path / "data"
    request = ask(home)
    quiet = NullReporter()
    run = tmp_path / "run"
    fit("cgan3d-labels", request, run, settings=SMALL, edits=None, device="cpu", reporter=quiet)
    monkeypatch.setattr(LabelMapSampler, "draw", lambda self, case, schema: case.labels)
    report = gansynth.sample(run, out=tmp_path / "maps", quiet=True)
    labels = list(Path(report["folder"], "labels").iterdir())
    assert len(labels) == report["samples"] > 0
    files = toy_nnunet.raw / "labelsTr" if reader == "nnunet-raw" else home
    for path in labels:
        drawn, true = volume(path), truth(files, path.name.removesuffix(".nii.gz"))
        assert np.array_equal(drawn.get_fdata(), true.get_fdata())
        assert np.allclose(drawn.affine, true.affine)
        image = volume(path.parents[1] / "images" / path.name.replace(".nii", "_0000.nii"))
        assert (image.shape, image.affine.tolist()) == (drawn.shape, drawn.affine.tolist())


@pytest.mark.parametrize(("steps", "warned"), [("1", True), ("60", False)])
def test_a_fit_that_finds_nothing_says_so_and_one_that_does_says_how_well(
    run_cli, tmp_path, whole_fits, steps, warned
):
    rng = np.random.default_rng(0)
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        y, x = rng.integers(8, 24, 2)
        mask[y : y + 3, x : x + 3] = 1
        pixels = rng.normal(60, 5, mask.shape) + 90 * mask
        sets.save_picture(tmp_path / "data/images" / f"p{number:02}.png", pixels.astype(np.uint8))
        sets.save_picture(tmp_path / "data/masks" / f"p{number:02}.png", mask)
    run = tmp_path / "run"
    own = {"lr_generator": "4e-3", "steps": steps}
    words = [word for k, v in {**SMALL, **own}.items() for word in ("--set", f"{k}={v}")]
    source = ("--data", f"pictures:{tmp_path / 'data'}", "--read", "folds=3")
    ended = run_cli("fit", "cgan3d-labels", *source, *words, "-o", run)
    found = json.loads((run / "report.json").read_text())["label_maps"]
    assert found["cases"] == 8
    assert (found["dice"]["foreground"] < 0.1) is warned
    assert (
        f"Dice on 8 training case(s): foreground {found['dice']['foreground']:.2f}" in ended.stdout
    )
    texts = (ended.stderr, (run / "card.md").read_text())
    assert ["give labels of few voxels more weight" in text for text in texts] == [warned] * 2
    assert "generator/dice" in (run / "metrics.csv").read_text()
