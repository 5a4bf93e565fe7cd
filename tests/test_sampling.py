"""Drawing samples of a run: the same one whatever the batch, NIfTI, provenance, its own source."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from gansynth.conditions.asked import build_edits
from gansynth.errors import IntegrityFault, UsageFault
from gansynth.reporting import NullReporter
from gansynth.run import load_run
from gansynth.sampled import sample_run, write_nifti
from gansynth.sampling import SampleDrawer, check_source
from gansynth.schema import Sample
from gansynth.space import Space
from gansynth.testing import ToySource

SPACING = (3.0, 1.5, 0.75)


@pytest.fixture(scope="module")
def runs(toy_fit, tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    toy_fit(base / "flat", steps=2)
    tiny = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "output": "tanh", "context": 2}
    toy_fit(base / "deep", data="3", steps=1, own=tiny, edits=("shift", "flip"))
    return {"flat": base / "flat", "deep": base / "deep"}


@pytest.fixture
def deep(runs) -> Any:
    return load_run(runs["deep"], "cpu")


@pytest.fixture
def drawer(deep) -> Any:
    return SampleDrawer(deep, ToySource(3), seed=4)


def load(path: Path) -> Any:
    return nib.load(path)


def sample(run: Path, n: int, **options: Any) -> Any:
    return sample_run(run, n, device="cpu", reporter=NullReporter(), **options)


# -- drawing ---------------------------------------------------------------------------------------


def test_a_sample_is_the_same_whatever_the_batch(drawer, deep):
    together = drawer.draw(0, 4)
    again: Any = SampleDrawer(deep, ToySource(3), seed=4)
    for index in (3, 0, 2):
        alone = again.draw(index, 1)[0]
        assert np.array_equal(alone.image, together[index].image)
        assert np.array_equal(alone.labels, together[index].labels)
        assert alone.provenance == together[index].provenance


def test_samples_differ_by_index_and_by_seed(drawer, deep):
    one, two = drawer.draw(0, 2)
    other = SampleDrawer(deep, ToySource(3), seed=5).draw(0, 1)[0]
    assert not np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, other.image)


def test_drawing_leaves_the_random_state_alone(drawer):
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    drawer.draw(0, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002


def test_provenance_names_run_case_edits_and_seeds(drawer, deep):
    told = json.loads(json.dumps(drawer.draw(1, 1)[0].provenance))
    assert told["run"] == deep.run_id
    assert told["case"] in ToySource(3).train_ids
    assert [step["edit"] for step in told["edits"]] == ["shift", "flip"]
    assert (told["index"], told["seed"], told["generator"]) == (1, 4, "cgan3d")
    assert told["latent_seed"] >= 0


def test_provenance_replays_to_the_same_labels(drawer):
    for drawn in drawer.draw_raw(0, 3):
        told = json.loads(json.dumps(drawn.provenance))
        assert np.array_equal(drawer.sampler.replay(told), drawn.labels)


def test_samples_go_back_to_the_sources_units(drawer, deep):
    """A window maps to [-1, 1]; the host's samples lie in the window, the outside at its fill."""
    raw, host = drawer.draw_raw(0, 1)[0], drawer.draw(0, 1)[0]
    assert np.abs(raw.image).max() <= 1
    for channel, (low, high) in enumerate(deep.space.window):
        assert low - 1e-5 <= host.image[channel].min()
        assert host.image[channel].max() <= high + 1e-5
    assert host.image[:, host.labels == -1] == pytest.approx(0, abs=1e-6)


def test_context_reaches_the_generator(drawer, deep, monkeypatch):
    seen: list[Any] = []
    draw = type(deep.generator).sample

    def spy(self, conditions, seeds):
        seen.extend(c.context for c in conditions)
        return draw(self, conditions, seeds)

    monkeypatch.setattr(type(deep.generator), "sample", spy)
    drawer.draw(0, 1)
    assert set(np.unique(seen[0])) == {0, 1, 2}


def test_no_edits_are_possible(deep):
    drawn = SampleDrawer(deep, ToySource(3), edits=()).draw(0, 1)[0]
    case: Any = ToySource(3).load(drawn.provenance["case"])
    assert (drawn.labels == case.labels).all()


def test_an_unknown_edit_is_refused():
    with pytest.raises(UsageFault, match="Did you mean 'flip'"):
        build_edits(["flipp"])


# -- its own source --------------------------------------------------------------------------------


class Resplit(ToySource):
    """One of the held-out cases has become a training case."""

    @property
    def train_ids(self):
        return tuple(self._cases)[:13]


class Respaced(ToySource):
    """Preprocessed anew, to another spacing."""

    @property
    def space(self):
        return replace(super().space, host={"spacing": [2.0, 2.0, 2.0]})


class Recoloured(ToySource):
    """The same cases by name, preprocessed in another way."""

    def load(self, case_id):
        case = super().load(case_id)
        return replace(case, image=case.image * np.float32(1.5))


class Renamed(ToySource):
    """The same arrays, whose channels mean something else."""

    @property
    def schema(self):
        return replace(super().schema, channels=("second", "first"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Resplit(3), "not in that fit, first toy_12"),
        (Respaced(3), "spacing"),
        (ToySource(2), r"\(DHW\).* \(HW\)"),
        (Renamed(3), "fitted on the channels first, second .* has second, first"),
    ],
)
def test_a_source_that_is_not_its_own_is_refused(deep, source, message):
    with pytest.raises(IntegrityFault, match=message):
        SampleDrawer(deep, source)


def test_a_case_with_another_content_is_refused_when_it_is_drawn_from(deep):
    drawer = SampleDrawer(deep, Recoloured(3))
    with pytest.raises(IntegrityFault, match=r"case 'toy_.*' of toy:3 is not the one"):
        drawer.draw(0, 1)


def test_a_case_is_looked_at_once(deep, monkeypatch):
    looked: list[str] = []
    record = ToySource.record

    def spy(self: Any, case_id: str, load: Any = None) -> Any:
        looked.append(case_id)
        return record(self, case_id, load)

    monkeypatch.setattr(ToySource, "record", spy)
    drawer = SampleDrawer(deep, ToySource(3))
    told = [sample.provenance["case"] for _ in range(2) for sample in drawer.draw(0, 8)]
    assert sorted(looked) == sorted(set(told))


def test_resampled_samples_go_back_to_their_cases_shape(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "space", property(lambda self: Space("resample", (16, 20))))
    toy_fit(tmp_path / "run", steps=0)
    report = sample(tmp_path / "run", 1, sheet=True)
    images = load(Path(report["folder"]) / "sample-0000_0000.nii.gz")
    assert (images.shape, Path(report["sheet"]).exists()) == ((32, 32), True)


def test_its_own_source_is_welcome(deep):
    check_source(deep, ToySource(3))


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("written")
    return out, sample(runs["deep"], 2, out=out, sheet=True, seed=4)


def test_every_sample_is_images_labels_and_provenance(written):
    names = {path.name for path in written[0].iterdir()}
    files = ("0000.nii.gz", "0001.nii.gz", "seg.nii.gz")
    wanted = {f"sample-{i:04d}_{name}" for i in range(2) for name in files}
    assert names == wanted | {"sample-0000.json", "sample-0001.json", "sheet.png"}


def test_written_images_and_labels_are_the_drawn_ones(written, drawer):
    drawn = drawer.draw(1, 1)[0]
    for channel in range(2):
        read = load(written[0] / f"sample-0001_{channel:04d}.nii.gz")
        assert np.array_equal(read.get_fdata(dtype=np.float32), drawn.image[channel])
    labels = np.asarray(load(written[0] / "sample-0001_seg.nii.gz").dataobj)
    assert labels.dtype == np.int16
    assert np.array_equal(labels, drawn.labels)


def test_written_provenance_replays_to_the_written_labels(written, drawer):
    told = json.loads((written[0] / "sample-0001.json").read_text())
    labels = np.asarray(load(written[0] / "sample-0001_seg.nii.gz").dataobj)
    assert np.array_equal(drawer.sampler.replay(told), labels)


def test_the_report_names_folder_sheet_and_pace(written):
    out, report = written
    assert (report["folder"], report["samples"]) == (str(out), 2)
    assert (out / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert report["sheet"] == str(out / "sheet.png")
    assert report["seconds_per_sample"] > 0


def test_samples_lie_in_the_run_folder_unless_told_otherwise(runs, tmp_path):
    shutil.copytree(runs["flat"], tmp_path / "run")
    report = sample(tmp_path / "run", 1, seed=3)
    assert report["folder"] == str(tmp_path / "run" / "samples" / "seed-3")
    assert "sheet" not in report


def test_flat_samples_are_written_too(runs, tmp_path):
    sample(runs["flat"], 1, out=tmp_path, sheet=True)
    assert load(tmp_path / "sample-0000_0000.nii.gz").shape == (32, 32)


def test_spacing_is_in_the_header(tmp_path):
    image = np.zeros((2, 4, 5, 6), np.float32)
    files = write_nifti(Sample(image, np.zeros((4, 5, 6), np.int16)), tmp_path / "a", SPACING)
    assert [f.name for f in files] == ["a_0000.nii.gz", "a_0001.nii.gz", "a_seg.nii.gz", "a.json"]
    assert [load(f).header.get_zooms() for f in files[:3]] == [SPACING] * 3


def test_flat_spacing_is_in_the_header(tmp_path):
    files = write_nifti(Sample(np.zeros((1, 4, 5), np.float32)), tmp_path / "a", SPACING[:2])
    assert load(files[0]).header.get_zooms() == SPACING[:2]


def test_no_labels_means_no_label_file(tmp_path):
    files = write_nifti(Sample(np.zeros((1, 4, 5, 6), np.float32)), tmp_path / "a", SPACING)
    assert [f.name for f in files] == ["a_0000.nii.gz", "a.json"]
