"""Generators of raw scans: nnU-Net's own preprocessor brings their samples into its space."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, run_producer
from gansynth.bank.reader import BankReader
from gansynth.core.identity import Door, HeldOut, refuse_seen
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, case_record, case_records, lineage_of
from gansynth.core.space import Placement, Space
from gansynth.hosts import augment as api
from gansynth.sampling import evaluation_data
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.cases import hashes_of
from gansynth_nnunet.converter import SpaceConverter, check_seen, rehearse
from gansynth_nnunet.source import NnunetSource
from tests.adapters.nnunet.conftest import log_of, sidecar
from tests.conftest import FIT
from tests.expected import raises_fault

AFFINE = np.array([[0, 0, -0.9, 30], [1.3, 0, 0, -10], [0, -2.5, 0, 5], [0, 0, 0, 1.0]])
"""The file's x runs to the front, y to the feet, z to the left; each has its own spacing."""
FORWARD = [1, 2, 0]


@pytest.fixture(scope="module")
def skewed(toy_nnunet, tmp_path_factory):
    """The toy data set with turned axes, anisotropic spacing and a transposition, preprocessed."""
    root = tmp_path_factory.mktemp("skewed") / "root"
    toy = replace(toy_nnunet, root=shutil.copytree(toy_nnunet.root, root))
    for file in toy.raw.glob("*Tr/*.nii.gz"):
        array = np.asanyarray(nib.Nifti1Image.from_filename(file).dataobj)
        if file.parent.name == "imagesTr":
            array = array * tissue(file.name.removesuffix(".nii.gz")[:-5], array.shape)
        nib.save(nib.Nifti1Image(array[:, 2:, :-3], AFFINE), file)
    path = toy.preprocessed / f"{toy.plans}.json"
    plans = json.loads(path.read_text())
    plans |= {"transpose_forward": FORWARD, "transpose_backward": [2, 0, 1]}
    plans["configurations"]["3d_fullres"] |= {"spacing": [2.0, 1.0, 1.0], "patch_size": [8, 8, 8]}
    path.write_text(json.dumps(plans))
    preprocess(toy)
    return toy


def tissue(case: str, shape: tuple[int, ...]) -> np.ndarray:
    """What makes one scan unlike another, where organs lie alike: factors around 1."""
    coarse = np.random.default_rng(list(case.encode())).uniform(0.6, 1.4, (8, 8, 8))
    blocks = tuple(np.indices(shape) * 8 // np.reshape(shape, (3, 1, 1, 1)))
    factors: np.ndarray = coarse[blocks]
    return factors.astype("f4")


def preprocess(toy, configuration="3d_fullres", cases="*") -> None:
    """Have nnU-Net preprocess the raw files, as its own command does; without the old hashes."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(toy.preprocessed / f"{toy.plans}.json"))
    config = plans.get_configuration(configuration)
    doc = json.loads((toy.raw / "dataset.json").read_text())
    folder = toy.preprocessed / config.data_identifier
    hashes_of(folder).unlink(missing_ok=True)
    for file in (toy.raw / "labelsTr").glob(f"{cases}.nii.gz"):
        case = file.name.removesuffix(".nii.gz")
        for old in folder.glob(f"{case}*"):
            old.unlink()
        config.preprocessor_class(verbose=False).run_case_save(
            str(folder / case),
            [str(toy.raw / f"imagesTr/{case}_{c:04d}.nii.gz") for c in range(2)],
            str(file),
            *(plans, config, doc),
        )


def opened(toy, kind: str, **read):
    """The same scans through a source of a kind."""
    where = {"nnunet-raw": "501", "nifti": str(toy.raw), "slices": "nnunet-raw:501"}
    if kind == "nifti":
        read = {"channels": "T1,FLAIR", "labels": "organ:1,lesion:2", **read}
    fold = "all" if kind == "nifti" else "0"
    return open_source(SourceRequest(kind, where[kind], fold=fold, root=str(toy.root), read=read))


def as_sample(case, space, placement=None) -> Sample:
    """A real case as if a generator had drawn it."""
    case = space.to_generator(case, placement)
    told = {"case": case.id, "seed": 0, "index": 0}
    if placement is not None:
        told["placement"] = placement.to_json()
    return Sample(case.image, case.labels, provenance=told)


CROP = Space("crop", (18, 16, 16), pad_label=0)


def brought(toy, kind="nnunet-raw", number=0, corner=None, **read) -> tuple[Any, Any, Any]:
    """A training case, a crop or its frame, on a sample's way; and what nnU-Net has made of it."""
    host, source = NnunetSource(toy.request()), opened(toy, kind, **read)
    case, space, placement = source.load(source.train_ids[number]), Space(), None
    if corner is not None:
        space, placement = CROP, Placement(corner)
    elif source.space.frame:
        space = source.space
        placement = space.place(case, np.random.default_rng(0))
    sample = space.to_host(as_sample(case, space, placement), case.image.shape[1:])
    return *SpaceConverter(source, space, host).whole(sample), host.load(case.id)


def places(whole, part) -> set[tuple[int, ...]]:
    """Where a part is found in an array, to the bit."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)
    same = (windows == part).all(axis=(-3, -2, -1))
    return {tuple(map(int, at)) for at in np.argwhere(same)}


def part(wanted, labels) -> np.ndarray:
    """The image of a case at the one place where it has these labels."""
    (at,) = places(wanted.labels, labels)
    box = tuple(slice(first, first + n) for first, n in zip(at, labels.shape, strict=True))
    found: np.ndarray = wanted.image[(slice(None), *box)]
    return found


@pytest.mark.parametrize(
    ("kind", "read", "number"),
    [("nnunet-raw", {}, 0), ("nifti", {}, 1), ("nnunet-raw", {"channels": "FLAIR,T1"}, 1)],
)
def test_a_real_case_becomes_what_nnunet_made_of_it_to_the_bit(skewed, kind, read, number):
    image, labels, wanted = brought(skewed, kind, number, modality="none", **read)
    assert np.array_equal(image, wanted.image)
    assert np.array_equal(labels, wanted.labels)


@pytest.mark.parametrize("corner", [(2, 3, 1), (-4, 8, 3)])
def test_a_real_crop_becomes_that_part_of_nnunets_own_case(skewed, corner):
    image, labels, wanted = brought(skewed, number=1, corner=corner, modality="none")
    assert image.shape[1:] != wanted.labels.shape
    assert places(wanted.labels, labels) & places(wanted.image[1], image[1])
    if corner == (2, 3, 1):  # of z-scores, too: it meets its surroundings in the scanner's units
        image, labels, wanted = brought(skewed, number=1, corner=corner, modality="mr")
        np.testing.assert_allclose(image, part(wanted, labels), atol=2e-5)


def test_no_voxel_of_the_real_case_is_in_a_sample(skewed):
    host, source = NnunetSource(skewed.request()), opened(skewed, "nnunet-raw", modality="none")
    space, case = Space("crop", (14, 14, 13), pad_label=0), source.load(source.train_ids[1])
    convert, rng = SpaceConverter(source, space, host), np.random.default_rng(0)
    for first in range(4, 9):
        sample = as_sample(case, space, Placement((first, first, 4)))
        drawn = rng.normal(500, 1, (2, *space.size)).astype(np.float32)
        _, labels = convert.whole(replace(sample, image=drawn, labels=np.full(space.size, 2)))
        assert (labels == 2).all()


@pytest.mark.parametrize(
    "reader", ["NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"]
)
def test_each_reader_has_its_own_axes(skewed, tmp_path, reader):
    toy = replace(skewed, root=shutil.copytree(skewed.root, tmp_path / "root"))
    path = toy.preprocessed / f"{toy.plans}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_reader_writer": reader}))
    preprocess(toy, cases=NnunetSource(toy.request()).train_ids[0])
    image, labels, wanted = brought(toy, modality="none")
    assert np.array_equal(labels, wanted.labels)
    assert np.array_equal(image, wanted.image)


def test_a_large_sample_is_cut_to_what_a_patch_reaches_and_a_small_one_refused(skewed):
    host, source = NnunetSource(skewed.request()), opened(skewed, "nnunet-raw")
    convert = SpaceConverter(source, Space(), host)
    case = source.load(source.train_ids[0])
    sample = as_sample(case, Space())
    whole = convert.whole(sample)[0].shape[1:]
    first, again = convert(sample), convert(sample)
    assert first.image.shape[1:] == tuple(map(min, whole, host.space.size)) != whole
    assert np.array_equal(first.image, again.image)
    assert first.provenance["converted_by"] == "nnU-Net's preprocessor"
    first.validate(host.schema)
    space = Space("crop", (16, 5, 16), pad_label=0)  # nnU-Net pads no real case here
    with raises_fault("nnunet.sample-smaller-than-patch"):
        SpaceConverter(source, space, host)(as_sample(case, space, Placement((4, 8, 4))))


DIFFER = "nnunet.generator-channels-or-labels-differ"


@pytest.mark.parametrize(
    ("kind", "read", "reader", "expected"),
    [
        ("nifti", {"channels": "T1,T2"}, None, DIFFER),
        ("nifti", {"labels": "organ:2,lesion:1"}, None, DIFFER),
        ("slices", {}, None, "nnunet.generator-makes-slices"),
        ("nnunet-raw", {}, "Tiff3DIO", "nnunet.axis-order-unknown"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_words_that_cure_it(
    skewed, kind, read, reader, expected
):
    host = NnunetSource(skewed.request())
    if reader is not None:
        host.plans.doc["image_reader_writer"] = reader  # type: ignore[index]
    with raises_fault(expected):
        SpaceConverter(opened(skewed, kind, **read), Space(), host)


def run_of(lineage: Lineage) -> Any:
    return SimpleNamespace(folder="run", lineage=lineage)


def test_all_a_generator_has_seen_must_be_training_cases_by_id(skewed, caplog):
    host, source = NnunetSource(skewed.request()), opened(skewed, "nnunet-raw")
    held = case_records(host, host.held_out_ids)
    lineage = replace(lineage_of(source), dataset="nifti:elsewhere")

    def check(**changes: Any) -> None:
        first, *rest = lineage.cases
        seen = replace(lineage, cases=(replace(first, **changes), *rest))
        refuse_seen(seen, HeldOut(held, same=lambda maker: True), Door())
        check_seen(run_of(seen), source, host, held)

    check()
    seen, sha256 = "lineage.held-out-case-seen", case_record(source, held[0].id).sha256
    for changes, expected, names in (
        ({"id": held[0].id}, seen, "the case itself"),
        ({"id": "stranger"}, "nnunet.generator-saw-other-cases", "'stranger'"),
        ({"subject": held[0].subject}, seen, "same subject as"),
        ({"sha256": sha256}, seen, "same content as"),
    ):
        with raises_fault(expected, names=names):
            check(**changes)
    held = (replace(held[0], id="elsewhere", subject="nobody"),)
    check_seen(run_of(lineage_of(source)), source, host, held)
    assert "1 of 1 held-out cases are not in nnunet-raw:Dataset501_Toy" in caplog.text


def test_a_real_case_that_comes_out_otherwise_is_refused(skewed, monkeypatch):
    host, source = NnunetSource(skewed.request()), opened(skewed, "nnunet-raw")
    one, other = source.train_ids[:2]
    assert rehearse(skewed.root, source, Space(), host, one) > 0
    load = host.load
    monkeypatch.setattr(host, "load", lambda case: load(other))
    with raises_fault("nnunet.converted-case-differs"):
        rehearse(skewed.root, source, Space(), host, one)
    monkeypatch.setattr(host, "load", lambda case: replace(load(one), image=-load(one).image))
    with raises_fault("nnunet.converted-case-differs"):
        rehearse(skewed.root, source, Space(), host, one)


def test_a_papers_generator_fills_a_bank_in_its_fold_only(
    skewed, tmp_path, succeed, refuse, monkeypatch
):
    """Of whole cases, coarser along one axis, values in [-1, 1]."""
    monkeypatch.setattr(evaluation_data, "DRAWN", evaluation_data.FEWEST)
    monkeypatch.setattr(api, "time_of", lambda *_: {})  # which trains in a process
    monkeypatch.setattr("os.nice", lambda steps: 0)  # this process has more tests to run
    host = NnunetSource(skewed.request())  # makes the split, which nnunet-raw: keeps to
    run = tmp_path / "run"
    how = ("--read=spacing=4,1.3,1", "--read=size=16,24,24", "--set=output=tanh", "--set=steps=1")
    data = ("--data", "nnunet-raw:501", "--root", skewed.root)
    succeed("fit", "cgan3d", *data, *how, *FIT, "-o", run, "-q")
    given = ("augment", "--target", "nnunet", *skewed.options, "--generator", run)
    given = (*given, "--ratio", "1:1", "--dry-run")
    result = succeed(*given, "--device", "cpu")
    says = "none found: compared by ids, identical and near-identical images; not by subjects"
    assert says in result.stdout
    refuse(*given, "--fold", "1", code=6, says=["leakage", "the case itself"])
    place = (str(run), skewed.request().to_json(), "nnunet", str(tmp_path / "bank"))
    run_producer(ProducerConfig(*place, True, 4, device="cpu"), lambda: False)
    reader = BankReader(tmp_path / "bank")
    assert reader.spec.schema == host.schema
    for name in reader.ids():
        sample = reader.read(name)
        assert sample.provenance["converted_by"] == "nnU-Net's preprocessor"
        Sample(sample.image, sample.labels).validate(host.schema)
        assert sample.labels is not None
        assert abs(sample.image[:, sample.labels >= 0].mean()) < 1  # z-scores again


@pytest.mark.parametrize("whole", ["16,16,16", "8,8,8"])
def test_a_frame_takes_its_place_in_the_scan_it_came_from(skewed, whole):
    """The middle of a scan, resampled or not, comes back to where it was; the rest is not drawn."""
    image, labels, wanted = brought(skewed, modality="none", frame="16,16,16", whole=whole)
    windows = np.lib.stride_tricks.sliding_window_view(wanted.labels, labels.shape)
    agree = (windows == labels).mean(axis=(-3, -2, -1)).max()
    if whole == "16,16,16":
        np.testing.assert_allclose(image, part(wanted, labels), atol=1e-4)
    else:
        assert 0.6 < agree < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's and torch's, of each other's deprecations
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_nnunet_trains_on_a_generator_of_raw_scans(
    ready, skewed, run_cli, tmp_path, monkeypatch, configuration
):
    preprocess(skewed, configuration)
    NnunetSource(skewed.request())
    data = ("--data", "nnunet-raw:501", "--root", skewed.root, "-o", tmp_path / "run")
    assert run_cli("fit", "cgan3d", *data, *FIT, "--set=steps=1", "-q").exit_code == 0
    monkeypatch.setenv("nnUNet_preprocessed", str(skewed.preprocessed.parent))
    told = {"generator": tmp_path / "run", "device": "cpu", "edit": ["flip"]}
    trainer = ready(configuration, offline=True, bank_size="4", **told)
    trainer.run_training()
    (session,) = sidecar(trainer)["sessions"]
    assert session["generator"]["conversion"]["by"] == "nnU-Net's preprocessor"
    assert session["drawn"]["synthetic"] > 0 == session["drawn"]["fell_back"]
    assert "samples are converted by nnU-Net's preprocessor" in log_of(trainer)
