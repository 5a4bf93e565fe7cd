"""Held-out images in disguise, old records, and files that gansynth has drawn itself."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate, zoom

from gansynth.core.fingerprint import alike, prints_of, sharing
from gansynth.core.lineage import CaseRecord, Lineage, claim, guard, matches
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource, SourceRequest, case_records, lineage_of
from gansynth.core.synthetic import is_marked
from gansynth.core.writer import Item
from gansynth.data.case_writer import NiftiWriter
from gansynth.data.h5 import write_h5
from gansynth.report.png import png_bytes
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import read_nifti
from gansynth.sampling.run_source import open_source
from gansynth.sampling.writing import write as write_items
from tests.conftest import DATA

SHAPE = (28, 32, 24)
"""(x, y, z), of a crop without air, as those of hippocampi are."""
PEOPLE = tuple(f"p{number}" for number in range(6))
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
Volumes = dict[str, np.ndarray]


def person(number: int, channels: int = 2) -> tuple[Volumes, np.ndarray]:
    """T1, FLAIR (X, Y, Z) from 0 to 1000, and labels; bodies have in common what is coarse."""
    body = gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 6)
    volumes = {}
    for name in ("T1", "FLAIR")[:channels]:
        rng = np.random.default_rng([number, len(name)])
        image = body / body.std() + sum(
            gaussian_filter(rng.normal(0, 1, SHAPE), s) * s**1.5 * 2 for s in (1, 2, 3)
        )
        volumes[name] = np.rint(1000 * (image - image.min()) / np.ptp(image)).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:16, 10:18, 8:14] = 1
    return volumes, labels


def save(path: Path, array: np.ndarray, affine: Any = AFFINE, slope: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 3)
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def write(folder: Path, case: str, volumes: Volumes, labels: np.ndarray, **how: Any) -> None:
    ending = how.pop("ending", ".nii.gz")
    for number, volume in enumerate(volumes.values()):
        save(folder / f"images/{case}_{number:04d}{ending}", volume, **how)
    save(folder / f"labels/{case}{ending}", labels, how.get("affine", AFFINE))


def opened(folder: Path, *, fold: str = "all", kind: str = "nifti", **asked: Any) -> CaseSource:
    return open_source(SourceRequest(kind, str(folder), fold=fold, **asked))


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> CaseSource:
    folder = tmp_path_factory.mktemp("host") / "hospital"
    for number, name in enumerate(PEOPLE):
        write(folder, name, *person(number))
    return opened(folder, fold="0")


@pytest.fixture(scope="module")
def toy_run(toy_fit, tmp_path_factory) -> Path:
    run: Path = tmp_path_factory.mktemp("toy") / "run"
    toy_fit(run, steps=0)
    return run


@pytest.fixture
def held_out(host) -> int:
    return PEOPLE.index(host.held_out_ids[0])


def each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Volumes, np.ndarray], Any]:
    """The same change to images and labels, whatever it does to their values."""
    return lambda volumes, labels: ({k: change(v) for k, v in volumes.items()}, labels)


def shaped(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Volumes, np.ndarray], Any]:
    return lambda volumes, labels: ({k: change(v) for k, v in volumes.items()}, change(labels))


def one_label(volumes: Volumes, labels: np.ndarray) -> tuple[Volumes, np.ndarray]:
    changed = labels.copy()
    changed[0, 0, 0] = 1
    return volumes, changed


def resized(factor: float) -> Callable[[Volumes, np.ndarray], Any]:
    def change(volumes: Volumes, labels: np.ndarray) -> tuple[Volumes, np.ndarray]:
        made = {k: zoom(v, factor, order=1) for k, v in volumes.items()}
        return made, zoom(labels, factor, order=0)

    return change


def noisy(share: float) -> Callable[[np.ndarray], np.ndarray]:
    noise = np.random.default_rng(5).normal(0, 1000 * share, SHAPE)
    return lambda image: (image + noise).astype(np.float32)


def crop(voxels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array[(slice(voxels, -voxels),) * 3]


BIAS = (1 + 0.2 * np.linspace(-1, 1, SHAPE[0])[:, None, None]).astype(np.float32)
DISGUISES: dict[str, tuple[Callable[[Volumes, np.ndarray], Any], dict[str, Any], str | None]] = {
    "renamed": (each(lambda x: x), {}, "content"),
    "not compressed": (each(lambda x: x), {"ending": ".nii"}, "content"),
    "one label voxel": (one_label, {}, "image"),
    "other labels": (lambda v, y: (v, y[::-1].copy()), {}, "image"),
    "int16": (each(lambda x: x.astype(np.int16)), {}, "content"),
    "int16, all of it": (
        each(lambda x: np.rint(x * 65 - 32500).astype(np.int16)), {}, "print",
    ),
    "a slope in the header": (
        each(lambda x: x.astype(np.int16)), {"slope": 0.37}, "print",
    ),
    "8 bits": (each(lambda x: np.rint(x / 4).astype(np.uint8)), {}, "print"),
    "x 0.37 + 12": (each(lambda x: x * np.float32(0.37) + 12), {}, "print"),
    "one slice off each side": (shaped(crop(1)), {}, "print"),
    "three slices off each side": (shaped(crop(3)), {}, "print"),
    "half of one axis": (shaped(lambda x: x[:, :16].copy()), {}, "print"),
    "moved by 3 voxels around the edge": (shaped(lambda x: np.roll(x, 3, 0)), {}, "print"),
    "turned by 10 degrees": (
        each(lambda x: rotate(x, 10, reshape=False, order=1, mode="nearest")), {}, "print",
    ),
    "half of each axis": (shaped(crop(7)), {}, None),
    "padded by 5": (shaped(lambda x: np.pad(x, 5)), {}, "print"),
    "flipped": (shaped(lambda x: x[::-1].copy()), {}, "print"),
    "another orientation": (
        shaped(lambda x: x[::-1].copy()),
        {"affine": np.array([[-1, 0, 0, 27], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])},
        "content",
    ),
    "axes in another order": (shaped(lambda x: x.transpose(1, 0, 2).copy()), {}, "print"),
    "resampled to 95 %": (resized(0.95), {}, "print"),
    "resampled to 104 %": (resized(1.04), {}, "print"),
    "noise of 1 %": (each(noisy(0.01)), {}, "print"),
    "bias field of 20 %": (each(lambda x: x * BIAS), {}, "print"),
    "cut at percentiles": (
        each(lambda x: np.clip(x, *np.percentile(x, (1, 99))).astype(np.float32)), {}, "print",
    ),
    "one channel of two": (lambda v, y: ({"FLAIR": v["FLAIR"]}, y), {}, "print"),
    "inverted": (each(lambda x: 1000 - x), {}, "print"),
}  # fmt: skip
"""Name -> what is done to the volumes, how they are written, by what they are recognised.

None says truthfully that they are not.
"""


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_held_out_image_is_recognised_or_said_not_to_be(name, host, held_out, tmp_path):
    change, how, by = DISGUISES[name]
    for case, one_of in (("a_1", held_out), ("a_2", 100), ("a_3", 101)):
        write(tmp_path, case, *change(*person(one_of)), **how)
    lineage = lineage_of(opened(tmp_path, read={"spacing": "native"}))
    found = matches(lineage, case_records(host, host.held_out_ids), host.name)
    wanted = {} if by is None else {PEOPLE[held_out]: (by, "a_1")}
    assert {case: (match.kind, match.case_id) for case, match in found.items()} == wanted


def test_other_people_are_not_recognised(host):
    whole = opened(Path(host.request.where))
    records = case_records(whole, whole.train_ids)
    for record in records:
        others = Lineage("other", "0", tuple(one for one in records if one != record))
        assert matches(others, [record], "some") == {}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", ["msd_task04_hippocampus/imagesTr/*.nii.gz", "lgg_flair3d128/images/*.nii.gz"]
)
def test_no_two_people_of_a_real_data_set_look_alike(pattern):
    files = sorted(DATA.glob(pattern))
    volumes = [read_nifti(file) for file in files]
    prints = [prints_of(v.array[None], np.abs(np.diag(v.affine))[:3].tolist()) for v in volumes]
    assert len(prints) >= 77
    for number, one in enumerate(prints):
        assert len(one) == 2
        assert all(one)
        others = prints[number + 1 :]
        assert alike(others, [one]) == sharing(others, [one]) == {}


def test_an_image_that_shows_nothing_has_no_print():
    assert prints_of(np.zeros((1, 20, 20, 20), np.float32), (1, 1, 1)) == ()
    assert alike([("",)], [()]) == sharing([("",)], [()]) == {}


def test_neighbouring_slices_of_one_data_set_are_told_apart_by_subjects():
    volume = person(0)[0]["T1"].repeat(2, axis=0).repeat(2, axis=1)
    one, other = (
        CaseRecord(name, name, name, name, prints_of(volume[None, ..., z], (1, 1)))
        for z, name in ((8, "first"), (8, "second"))
    )
    seen = Lineage("pictures:lgg", "0", (one,))
    assert matches(seen, [other], "pictures:lgg") == {}
    assert matches(seen, [other], "pictures:copy")["second"].kind == "print"


def test_the_claim_says_what_could_be_compared(host):
    lineage = lineage_of(host)
    old = replace(lineage, cases=tuple(case.plain for case in lineage.cases))
    assert "identical and near-identical images" in claim(lineage)
    assert "images could not be compared" in claim(old)
    assert "images could not be compared" in claim(replace(lineage, ancestors=(old,)))


@pytest.fixture
def samples(tmp_path) -> Path:
    """Three samples as ``gansynth sample`` writes them."""
    schema = Schema(("T1",), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0))
    items, out = [], Path(tmp_path / "samples")
    for number in range(3):
        volumes, labels = person(200 + number, 1)
        image = np.stack([v.transpose() for v in volumes.values()])
        items.append(Item(f"s{number}", image, labels.transpose().astype(np.int16)))
    write_items(lambda f: NiftiWriter(f, schema), items, schema, out, made={})
    return out


def test_drawn_volumes_are_no_real_cases(samples):
    with pytest.raises(IntegrityFault, match=r"s0_0000.nii.gz: made.*--synthetic-source"):
        lineage_of(opened(samples))


def test_drawn_pictures_are_marked_and_real_ones_are_not(tmp_path):
    for synthetic in (True, False):
        (tmp_path / "one.png").write_bytes(
            png_bytes(np.eye(8, dtype=np.uint8), synthetic=synthetic)
        )
        assert is_marked(tmp_path / "one.png") is synthetic


def test_who_learns_of_drawn_cases_has_seen_what_their_generator_has(samples, toy_run, tmp_path):
    from gansynth.sampling.open_run import load_run

    source = opened(samples, synthetic=str(toy_run))
    theirs = load_run(toy_run, "cpu").lineage
    assert lineage_of(source).ancestors == (theirs,)
    with pytest.raises(IntegrityFault, match=r"ancestor .* \(the case itself\)"):
        guard(lineage_of(source), theirs.cases[:1], dataset=theirs.dataset)
    write_h5(source, tmp_path / "copy.h5")
    assert lineage_of(opened(tmp_path / "copy.h5", kind="h5")).ancestors == (theirs,)


def test_who_is_said_to_have_drawn_cases_must_be_there(samples, tmp_path):
    with pytest.raises(DataFault, match=r"--synthetic-source .* neither a run nor a bank"):
        lineage_of(opened(samples, synthetic=str(tmp_path)))
