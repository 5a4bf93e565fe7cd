"""Held-out images in disguise, old records, and files that gansynth has drawn itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate, zoom

from gansynth.core.fingerprint import Prints, alike, look_alikes, prints_of, sharing
from gansynth.core.identity import Door, HeldOut, matches, refuse_seen
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Schema
from gansynth.core.source import (
    CaseSource,
    SourceRequest,
    case_records,
    lineage_of,
)
from gansynth.core.synthetic import is_marked
from gansynth.core.writer import Item
from gansynth.data.case_writer import NiftiWriter
from gansynth.data.h5 import write_h5
from gansynth.data.held_out import held_out_of
from gansynth.report.png import png_bytes
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.writing import write as write_items
from tests.expected import raises_fault

SHAPE = (28, 32, 24)
"""(x, y, z), of a crop without air, as those of hippocampi are."""
PEOPLE = tuple(f"p{number}" for number in range(6))
Array = np.ndarray
Volumes = dict[str, Array]


def person(number: int) -> tuple[Volumes, Array]:
    """T1, FLAIR (X, Y, Z) from 0 to 1000, and labels; bodies have in common what is coarse."""
    body = gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 6)
    volumes = {}
    for name in ("T1", "FLAIR"):
        rng = np.random.default_rng([number, len(name)])
        image = body / body.std() + sum(
            gaussian_filter(rng.normal(0, 1, SHAPE), s) * s**1.5 * 2 for s in (1, 2, 3)
        )
        volumes[name] = np.rint(1000 * (image - image.min()) / np.ptp(image)).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:16, 10:18, 8:14] = 1
    return volumes, labels


def write(
    folder: Path, case: str, volumes: Volumes, labels: Array, affine: Any = None, slope: float = 1
) -> None:
    named = {f"images/{case}_{n:04d}": volume for n, volume in enumerate(volumes.values())}
    for name, array in {**named, f"labels/{case}": labels}.items():
        image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
        if array is not labels:
            image.header.set_slope_inter(slope, 0 if slope == 1 else 3)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.nii").write_bytes(image.to_bytes())


def opened(folder: Path, *, fold: str = "all", kind: str = "nifti", **asked: Any) -> CaseSource:
    return open_source(SourceRequest(kind, str(folder), fold=fold, **asked))


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> CaseSource:
    folder = tmp_path_factory.mktemp("host") / "hospital"
    for number, name in enumerate(PEOPLE):
        write(folder, name, *person(number))
    return opened(folder, fold="0")


Change = Callable[[Array], Array]


def each(image: Change, labels: Change = lambda labels: labels) -> Callable[..., Any]:
    """A change of all images, whatever it does to their values, and of the labels."""
    return lambda volumes, y: ({k: image(v) for k, v in volumes.items()}, labels(y))


def shaped(change: Change) -> Callable[..., Any]:
    return each(change, change)


def first_voxel(labels: Array) -> Array:
    return np.where(np.arange(labels.size).reshape(labels.shape) == 0, 1, labels).astype(np.uint8)


NOISE = np.random.default_rng(5).normal(0, 10, SHAPE).astype(np.float32)
BIAS = (1 + 0.2 * np.linspace(-1, 1, SHAPE[0])[:, None, None]).astype(np.float32)
MIRROR = np.array([[-1, 0, 0, 27], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
DISGUISES: dict[str, tuple[Callable[..., Any], dict[str, Any], str | None]] = {
    "renamed": (each(lambda x: x), {}, "content"),
    "one label voxel": (each(lambda x: x, first_voxel), {}, "image"),
    "other units": (each(lambda x: np.rint(x * 65 - 32500).astype(np.int16)), {}, "print"),
    "a slope in the header": (each(lambda x: x.astype(np.int16)), {"slope": 0.37}, "print"),
    "three slices off each side": (shaped(lambda x: x[(slice(3, -3),) * 3]), {}, "print"),
    "half of one axis": (shaped(lambda x: x[:, :16].copy()), {}, "print"),
    "moved around the edge": (shaped(lambda x: np.roll(x, 3, 0)), {}, "print"),
    "turned by 10 degrees": (
        each(lambda x: rotate(x, 10, reshape=False, order=1, mode="nearest")), {}, "print",
    ),
    "the inner 80 %, in another order": (
        shaped(lambda x: x[3:-3, 3:-3, 2:-2].transpose(2, 1, 0)[::-1].copy()), {}, "print",
    ),
    "resampled to 125 %, half": (
        shaped(lambda x: zoom(x, 1.25, order=0)[:, :20].copy()), {}, "print",
    ),
    "a narrow window": (
        each(lambda x: np.clip(x, *np.percentile(x, (20, 80))).astype(np.float32)), {}, "print",
    ),
    "equalised": (
        each(lambda x: x.ravel().argsort().argsort().reshape(x.shape).astype(np.float32)),
        {}, "print",
    ),
    "8 grey levels": (each(lambda x: np.floor(x / 125.1).astype(np.float32)), {}, "print"),
    "half of each axis": (shaped(lambda x: x[(slice(7, -7),) * 3]), {}, "print"),
    "a third of each axis": (shaped(lambda x: x[(slice(9, -9),) * 3]), {}, None),
    "padded by 5": (shaped(lambda x: np.pad(x, 5)), {}, "print"),
    "another orientation": (shaped(lambda x: x[::-1].copy()), {"affine": MIRROR}, "content"),
    "axes in another order": (shaped(lambda x: x.transpose(1, 0, 2).copy()), {}, "print"),
    "resampled to 95 %": (
        each(lambda x: zoom(x, 0.95, order=1), lambda y: zoom(y, 0.95, order=0)), {}, "print",
    ),
    "noise of 1 %": (each(lambda x: x + NOISE), {}, "print"),
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
def test_a_disguised_held_out_image_is_recognised_or_said_not_to_be(name, host, tmp_path):
    change, how, by = DISGUISES[name]
    held_out = host.held_out_ids[0]
    for case, one_of in (("a_1", PEOPLE.index(held_out)), ("a_2", 100)):
        write(tmp_path, case, *change(*person(one_of)), **how)
    lineage = lineage_of(opened(tmp_path, read={"spacing": "native"}))
    found = matches(lineage, HeldOut(case_records(host, host.held_out_ids)))
    wanted = {} if by is None else {held_out: (by, "a_1")}
    assert {case: (match.kind, match.case_id) for case, match in found.items()} == wanted


@pytest.mark.parametrize(
    ("seen", "held_out", "cached"),
    [("slices:", "", False), ("", "slices:", False), ("slices:", "", True)],
)
def test_slices_are_guarded_by_the_volumes_that_they_are_cut_out_of(
    seen, held_out, cached, tmp_path
):
    def source(kind: str, fold: str, folder: str = "hospital") -> CaseSource:
        read = {"folds": "3", **({"slices": "10"} if kind else {})}
        request = SourceRequest.parse(f"{kind}nifti:{tmp_path / folder}", fold=fold, read=read)
        return open_source(request)

    for number in range(3):
        volumes, labels = person(number)
        write(tmp_path / "hospital", f"p{number}", {"T1": volumes["T1"]}, labels)
    case = source("", "0").held_out_ids[0]
    volumes, labels = person(int(case[1:]))
    write(tmp_path / "renamed", "a_1", {"T1": volumes["T1"] * 65 - 32500}, labels)
    guarded = source(held_out, "0")
    other_fold, renamed = source(seen, "1"), source(seen, "all", "renamed")
    if cached:
        write_h5(renamed, tmp_path / "slices.h5")
        renamed = open_source(SourceRequest("h5", str(tmp_path / "slices.h5"), fold="all"))
    for one, how in ((other_fold, "the case itself"), (renamed, "near-identical image of a_1")):
        with raises_fault("lineage.held-out-case-seen", names=f"{case} ({how})"):
            refuse_seen(lineage_of(one), held_out_of(guarded), Door())
    refuse_seen(lineage_of(source(seen, "0")), held_out_of(guarded), Door())


def test_other_people_are_not_recognised(host):
    records = case_records(host, host.train_ids + host.held_out_ids)
    for record in records:
        others = Lineage("other", "0", tuple(one for one in records if one != record))
        assert matches(others, HeldOut((record,))) == {}


def slice_of(number: int) -> Array:
    """A head (H, W) in empty space, from 0 to 1: one skull, and tissue of one person."""
    rng = np.random.default_rng(number)
    grid = np.hypot(*np.meshgrid(np.linspace(-1.1, 1.1, 112), np.linspace(-1.2, 1.2, 120)))
    noise = rng.normal(0, 1, (3, *grid.shape))
    tissue = np.sum([gaussian_filter(noise[k], s) * s for k, s in enumerate((1.5, 3, 6))], axis=0)
    head = np.where(grid < 0.8, 0.4 + 0.08 * tissue / tissue.std(), 0.9 * (grid < 0.9))
    return np.clip(head, 0, 1).astype(np.float32)


SLICES: dict[str, Change] = {
    "a narrow window": lambda x: np.clip(x, 0.3, 0.5),
    "gamma": lambda x: x**1.8,
    "equalised": lambda x: np.searchsorted(np.sort(x.ravel()), x) / x.size,
    "8 grey levels": lambda x: np.floor(x * 7.99),
    "the inner 80 %": lambda x: x[12:-12, 11:-11],
    "turned by 10 degrees": lambda x: rotate(x, 10, reshape=False, order=1),
    "resampled to 80 %": lambda x: zoom(x, 0.8, order=1),
    "resampled to 125 %": lambda x: zoom(x, 1.25, order=1),
    "one half, flipped": lambda x: x[:, 56::-1],
    "beside another person's": lambda x: np.hstack([slice_of(20), x]),
    "a quarter of four people's, of half the size": lambda x: zoom(
        np.block([[slice_of(20), slice_of(21)], [x, slice_of(22)]]), 0.5, order=1
    ),
}


@pytest.mark.parametrize("name", SLICES)
def test_a_disguised_slice_is_refused_unless_it_shows_another_person(name):
    known = [
        CaseRecord(f"p{n}", f"p{n}", f"{n}", prints=prints_of(slice_of(n)[None], (1, 1)))
        for n in range(8)
    ]
    image = np.asarray(SLICES[name](slice_of(3)), np.float32)
    new = CaseRecord("new", "new", "new", prints=prints_of(image[None], (1, 1)))
    others = [one for one in known if one.id != "p3"]
    for seen, held_out in ((known, [new]), ([new], [known[3]])):
        with raises_fault("lineage.held-out-case-seen"):
            refuse_seen(Lineage("heads", "0", tuple(seen)), HeldOut(tuple(held_out)), Door())
    for seen, held_out in ((others, [new]), ([new], others)):
        refuse_seen(Lineage("heads", "0", tuple(seen)), HeldOut(tuple(held_out)), Door())


def without_skull(number: int) -> Array:
    """A brain (X, Y, Z) in an empty space; what is inside differs, the outline does not."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 56, 40)), indexing="ij"))
    tissue = gaussian_filter(np.random.default_rng(number).normal(0, 1, grid.shape[1:]), 1.5)
    inside = (grid**2).sum(0) < 0.7
    return np.where(inside, 500 + 30 * tissue / tissue.std(), 0).astype(np.float32)


def test_brains_of_one_outline_are_told_apart_and_their_copies_are_not():
    prints = [prints_of(without_skull(number)[None], (1, 1, 1)) for number in range(8)]
    for number, one in enumerate(prints):
        others = [*prints[:number], *prints[number + 1 :]]
        assert alike(others, [one]) == sharing(others, [one]) == {}
        noisy = without_skull(number) + np.random.default_rng(9).normal(0, 5, (48, 56, 40))
        copy = prints_of(noisy[::-1].astype(np.float32)[None], (1, 1, 1))
        assert alike(prints, [copy]) == {0: number}


def test_an_image_that_shows_nothing_has_no_print():
    assert prints_of(np.zeros((1, 20, 20, 20), np.float32), (1, 1, 1)) == ()
    assert alike([("",)], [()]) == sharing([("",)], [()]) == {}


@pytest.mark.parametrize(
    ("same", "subject", "refused"),
    [
        (True, "second", False),  # neighbouring slices, for all that is known
        (True, "someone else", True),
        (False, "second", True),
        (None, "second", True),
    ],
)
def test_only_pictures_of_one_data_set_without_named_subjects_may_look_alike(
    same, subject, refused
):
    volume = person(0)[0]["T1"].repeat(2, axis=0).repeat(2, axis=1)
    one = volume[..., 8]
    next_slice = one + np.random.default_rng(3).normal(0, 0.03 * np.ptp(one), one.shape)
    prints, others = (prints_of(x[None].astype(np.float32), (1, 1)) for x in (one, next_slice))
    seen = Lineage("", "0", (CaseRecord("first", "first", "a", "a", prints),))

    def held_out(prints: Prints) -> HeldOut:
        told = None if same is None else lambda lineage: same
        return HeldOut((CaseRecord("second", subject, "b", "b", prints),), told)

    found = matches(seen, held_out(others))
    assert {case: match.kind for case, match in found.items()} == (
        {"second": "print"} if refused else {}
    )
    copy = prints_of(1.1 * one[None] + 3, (1, 1))
    assert matches(seen, held_out(copy))


def test_the_claim_says_what_could_be_compared(host):
    def claim(lineage: Lineage) -> str:
        return str(refuse_seen(lineage, held_out_of(host), Door()))

    lineage = lineage_of(host)
    old = replace(lineage, cases=tuple(case.plain for case in lineage.cases))
    assert "identical and near-identical images" in claim(lineage)
    assert "images could not be compared" in claim(replace(lineage, ancestors=(old,)))
    earlier = replace(lineage, cases=(replace(lineage.cases[0], prints=("3:AAAA",)),))
    assert "not by landmarks" in claim(replace(lineage, ancestors=(earlier,)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Three samples as ``gansynth sample`` writes them."""
    schema = Schema(("T1",), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0))
    items, out = [], tmp_path_factory.mktemp("drawn") / "samples"
    for number in range(3):
        volumes, labels = person(200 + number)
        image = volumes["T1"].transpose()[None]
        items.append(Item(f"s{number}", image, labels.transpose().astype(np.int16)))
    write_items(lambda f: NiftiWriter(f, schema), items, schema, out, made={})
    return Path(out)


def test_drawn_volumes_and_pictures_are_marked_as_no_real_cases(samples, tmp_path):
    with raises_fault("synthetic.case-made-by-gansynth"):
        lineage_of(opened(samples))
    for synthetic in (True, False):
        picture = png_bytes(np.eye(8, dtype=np.uint8), synthetic=synthetic)
        (tmp_path / "one.png").write_bytes(picture)
        assert is_marked(tmp_path / "one.png") is synthetic


def test_who_learns_of_drawn_cases_has_seen_what_their_generator_has(samples, toy_fit, tmp_path):
    toy_fit(tmp_path / "run", steps=0)
    source = opened(samples, synthetic=str(tmp_path / "run"))
    theirs = load_run(tmp_path / "run", "cpu").lineage
    assert lineage_of(source).ancestors == (theirs,)
    with raises_fault("lineage.held-out-case-seen"):
        refuse_seen(lineage_of(source), HeldOut(theirs.cases[:1]), Door())
    write_h5(source, tmp_path / "copy.h5")
    assert lineage_of(opened(tmp_path / "copy.h5", kind="h5")).ancestors == (theirs,)


def test_who_is_said_to_have_drawn_cases_must_be_there(samples, tmp_path):
    with raises_fault("source.synthetic-source-unknown"):
        lineage_of(opened(samples, synthetic=str(tmp_path)))


def test_volumes_that_show_one_object_at_different_places_are_not_alike():
    prints = []
    for number in range(100):
        rng = np.random.default_rng(number)
        image = rng.normal(100, 20, (16, 16, 16)).astype(np.float32)
        image[tuple(slice(start, start + 6) for start in rng.integers(2, 8, 3))] += 80
        prints.append(prints_of(image[None], (1, 1, 1)))
    assert look_alikes(prints, 3) == set()
    assert look_alikes([*prints, prints[5]], 3) == {(5, 100)}
