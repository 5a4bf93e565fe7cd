"""Volumes and pictures without label maps: what learns from them, from reading to sample sheets."""
# mypy: disallow-untyped-calls=False

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.generator import Generator, Labelling
from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.schema import Case, Sample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.h5_write import write_h5
from gansynth.data.nifti import check_nifti
from gansynth.fitting.fit import fit
from gansynth.fitting.setup import resolve
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.opening import open_source
from gansynth.sampling.sample import sample_run

SHAPE = (6, 7, 8)
SMALL = {"size": "8"}


def save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    spacing = np.diag([1.0, 1.0, 2.0, 1.0])
    path.write_bytes(gzip.compress(nib.Nifti1Image(array, spacing).to_bytes(), 1))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder ``images`` of six volumes and no other; ``cases.csv`` and BIDS have them too."""
    rows = []
    for number in range(6):
        image = np.random.default_rng(number).normal(100, 15, SHAPE).astype(np.float32)
        save(tmp_path / f"set/images/p{number}.nii.gz", image)
        save(tmp_path / f"bids/sub-{number}/anat/sub-{number}_T1w.nii.gz", image)
        rows.append(f"images/p{number}.nii.gz\n")
    (tmp_path / "set/cases.csv").write_text("T1\n" + "".join(rows))
    return tmp_path / "set"


def request(where: Any, kind: str = "nifti", **read: str) -> SourceRequest:
    return SourceRequest(kind, str(where), read=read)


def opened(where: Any, **read: str) -> Any:
    return open_source(request(where, **read))


@pytest.mark.parametrize("where", [".", "cases.csv", "../bids"])
def test_what_has_no_label_maps_has_images_only(pairs, where):
    source = opened(pairs / where)
    assert source.schema.labels == {"background": 0}
    case = source.load(source.train_ids[0])
    assert case.labels is None
    assert case.image.shape == (1, 8, 7, 6) == (1, *source.shape(case.id))
    assert source.schema.spacing == (2, 1, 1)
    case.validate(source.schema)


def test_cases_of_a_manifest_are_called_by_their_first_image(pairs):
    assert opened(pairs / "cases.csv").train_ids[0].startswith("p")


def test_unlabelled_volumes_are_resampled_too(pairs):
    case = opened(pairs, spacing="1").load("p1")
    assert (case.image.shape, case.labels) == ((1, 16, 7, 6), None)


@pytest.mark.parametrize("name", ["seg", "masks", "lables", "GroundTruth"])
def test_what_looks_like_label_maps_is_not_taken_for_a_channel(pairs, name):
    lines = (pairs / "cases.csv").read_text().splitlines()
    text = "".join(f"{line},{line}\n" for line in lines[1:])
    (pairs / "cases.csv").write_text(f"T1,{name}\n{text}")
    with pytest.raises(
        DataFault, match=f"expected label maps in one called label; rename '{name}'"
    ):
        opened(pairs / "cases.csv")
    assert opened(pairs / "cases.csv", channels="T1").schema.channels == ("T1",)
    (pairs / name).mkdir()
    with pytest.raises(DataFault, match=f"has a folder '{name}' but none called 'labels'"):
        opened(pairs)


def test_one_case_without_its_label_is_still_refused(pairs):
    for number in range(5):
        save(pairs / f"labels/p{number}.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataFault, match=r"labels/p5\.nii\.gz"):
        opened(pairs).load("p5")


def test_names_of_labels_that_are_not_there_are_refused(pairs):
    with pytest.raises(UsageFault, match=r"--read labels=background:0,tumour:1: .* no label maps"):
        opened(pairs, labels="tumour:1")


def test_ct_statistics_need_label_maps(pairs):
    with pytest.raises(DataFault, match="--read modality=none"):
        _ = opened(pairs, modality="ct").space


def test_check_says_that_there_are_no_label_maps(pairs):
    checked = check_nifti(request(pairs), lambda done, total: None)
    assert [f.level for f in checked.findings] == ["warning"]
    assert "has no label maps" in checked.findings[0].message


def test_slices_and_caches_of_them_have_no_labels(pairs, tmp_path):
    source = opened(f"nifti:{pairs}", kind="slices", resize="8x8")
    write_h5(source, tmp_path / "s.h5")
    cached = opened(tmp_path / "s.h5", kind="h5")
    case = cached.load(source.train_ids[3])
    assert case.labels is None
    np.testing.assert_array_equal(case.image, source.load(case.id).image)
    with pytest.raises(DataFault, match=r"has no labels.*--read slices=40-110"):
        _ = opened(f"nifti:{pairs}", kind="slices", foreground="with").train_ids


def test_places_are_drawn_in_them(pairs):
    space, case = Space("crop", (4, 4)), Case("a", "a", np.zeros((1, 9, 9), np.float32))
    rng = np.random.default_rng(0)
    corners = {space.place(case, rng).corner for _ in range(200)}
    assert len(corners) == 36


# -- what learns from them -------------------------------------------------------------------------


class Noise(Generator):
    """Draws noise about the training cases' mean; no networks."""

    name = "noise"
    labelling: Labelling = "none"
    mean = 0.0

    def networks(self):
        return {}

    def phases(self):
        return []

    def observe(self, cases):
        self.mean = float(np.mean([case.image.mean() for case in cases]))

    def state(self):
        return {"mean": self.mean}

    def load_state(self, state):
        self.mean = state["mean"]

    def sample(self, conditions, seeds):
        shape = (len(self.schema.channels), *self.size)
        drawn = [np.random.default_rng(seed).normal(self.mean, 1, shape) for seed in seeds]
        return [Sample(image.astype(np.float32)) for image in drawn]


class Both(Noise):
    """As it would be with masks."""

    name = "both"
    labelling: Labelling = "drawn"


@pytest.fixture
def noise():
    """Offers the generators ``noise`` and ``both``."""

    @hookimpl
    def register_generators(register):
        register("noise", lambda: Noise)
        register("both", lambda: Both)

    installed().add(SimpleNamespace(register_generators=register_generators), "noise")
    assert "noise" not in installed().broken, installed().broken
    yield
    installed().remove("noise")


@pytest.mark.parametrize("kind", ["slices:nifti", "pictures"])
def test_a_generator_of_images_is_fitted_on_them_and_drawn_from(pairs, tmp_path, noise, kind):
    from PIL import Image

    where = pairs
    if kind == "pictures":
        where = tmp_path / "pictures"
        where.mkdir()
        for number in range(6):
            drawn = np.random.default_rng(number).integers(0, 255, (8, 8)).astype(np.uint8)
            Image.fromarray(drawn).save(where / f"{number}.png")
    settings = {"steps": "1", "diversity": "no"}
    data = SourceRequest.parse(f"{kind}:{where}", read={"resize": "8x8"})
    run = tmp_path / "run"
    quiet = NullReporter()
    fit("noise", data, run, settings=settings, edits=None, device="cpu", reporter=quiet)
    report = sample_run(run, 2, sheet=True, device="cpu", reporter=quiet)
    folder = Path(report["folder"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"images", "dataset.json", "provenance.json", "sheet.png"}
    provenance = json.loads((folder / "provenance.json").read_text())["samples"]
    assert provenance["sample-0001"]["dataset"] == f"{kind}:{where.name}"


@pytest.mark.parametrize(
    ("generator", "says"),
    [
        ("cgan3d", "its cases have no label maps, expected some, which cgan3d draws images for"),
        ("both", "expected some for both to draw with the images; .* leave --with-mask out"),
    ],
)
def test_a_generator_that_learns_from_labels_refuses_them_at_once(
    pairs, noise, monkeypatch, generator, says
):
    from gansynth.data.nifti_source import VolumeSource

    monkeypatch.setattr(VolumeSource, "load", None)
    with pytest.raises(UsageFault, match=says):
        resolve(generator, request(pairs, **SMALL), {}, None, "cpu")
