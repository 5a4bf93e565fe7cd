"""Phantoms: the anatomy, the tumour, the images, and the data set on disk."""

import hashlib
import itertools
import json
import subprocess
import sys
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.testing.phantoms import (
    CHANNELS,
    LABELS,
    PhantomOptions,
    load_atlas,
    make_phantom,
    write_nnunet_raw,
)
from gansynth.testing.phantoms._anatomy import random_warp, resample
from gansynth.testing.phantoms._phantom import CONTRASTS, JITTER
from gansynth.testing.phantoms._tumour import choose_seat, push_aside

pytest.importorskip("nilearn", reason="nilearn, which ships the MNI152 maps, is not installed")

COARSE = PhantomOptions(spacing_mm=4.0)
# Same place, no scanner: what is left are the tissues' contrasts.
STILL = PhantomOptions(
    spacing_mm=4.0,
    deformation_mm=0.0,
    affine_scale=0.0,
    affine_shear=0.0,
    affine_shift_mm=0.0,
    noise=0.0,
    bias=0.0,
    texture=0.0,
)
MILLILITRES = 4.0**3 / 1000


def digest(phantom) -> str:
    return hashlib.sha256(phantom.image.tobytes() + phantom.labels.tobytes()).hexdigest()


def hashes(folder) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(index, 0, COARSE) for index in range(8)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    calls: list[tuple[int, int]] = []
    base = write_nnunet_raw(
        tmp_path_factory.mktemp("raw"), 2, 5, COARSE, progress=lambda *now: calls.append(now)
    )
    return base, calls


def test_shapes_and_types_are_as_documented(phantoms):
    phantom, shape = phantoms[0], load_atlas(4.0).tissue.shape[1:]
    assert (phantom.image.shape, phantom.image.dtype) == ((4, *shape), np.float32)
    assert (phantom.labels.shape, phantom.labels.dtype) == (shape, np.int16)
    assert phantom.spacing == (4.0, 4.0, 4.0)


def test_another_process_makes_the_same_phantom(phantoms):
    code = (
        "import hashlib; from gansynth.testing.phantoms import *; "
        "p = make_phantom(3, 0, PhantomOptions(spacing_mm=4.0)); "
        "print(hashlib.sha256(p.image.tobytes() + p.labels.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == digest(phantoms[3])


def test_index_and_seed_both_matter(phantoms):
    other_seed = make_phantom(0, 1, COARSE)
    assert len({digest(p) for p in (*phantoms, other_seed)}) == len(phantoms) + 1


def test_every_label_has_a_reasonable_volume(phantoms):
    ranges = {"oedema": (5, 250), "core": (0.5, 80), "enhancing": (1, 80)}  # ml
    for index, phantom in enumerate(phantoms):
        for name, (low, high) in ranges.items():
            volume = np.count_nonzero(phantom.labels == LABELS[name]) * MILLILITRES
            assert low < volume < high, f"phantom {index}, {name}: {volume:.1f} ml"


def test_the_brain_has_a_human_volume(phantoms):
    volumes = [np.count_nonzero(p.image[0]) * MILLILITRES for p in phantoms]
    assert min(volumes) > 1300
    assert max(volumes) < 2400


def test_the_tumour_lies_inside_the_brain(phantoms):
    assert all((p.image[:, p.labels > 0] > 0).all() for p in phantoms)


def test_the_tumour_is_in_one_piece(phantoms):
    assert [ndimage.label(p.labels > 0)[1] for p in phantoms] == [1] * len(phantoms)


def test_the_rim_encloses_the_core(phantoms):
    for phantom in phantoms:
        core = phantom.labels == LABELS["core"]
        shell = ndimage.binary_dilation(core) & ~core
        assert (phantom.labels[shell] == LABELS["enhancing"]).all()


def test_all_channels_share_one_brain_mask(phantoms):
    assert all(((p.image > 0) == (p.image[0] > 0)).all() for p in phantoms)


def test_the_brain_keeps_clear_of_the_border(phantoms):
    for phantom in phantoms:
        inner = phantom.image[:, 1:-1, 1:-1, 1:-1]
        assert np.count_nonzero(inner) == np.count_nonzero(phantom.image)


def test_intensities_are_whole_scanner_units(phantoms):
    image = phantoms[0].image
    assert (image == np.round(image)).all()
    assert 300 < image.max() < 5000


@pytest.mark.parametrize("deformation_mm", [3.0, 15.0])
def test_no_warp_folds_the_tissue(deformation_mm):
    options = PhantomOptions(
        spacing_mm=4.0, deformation_mm=deformation_mm, mass_effect=(0.5, 0.6), radius_mm=(20, 25)
    )
    atlas = load_atlas(4.0)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        warp = random_warp(rng, atlas, options)
        seat = choose_seat(rng, atlas, warp, resample(atlas.tissue, warp), options)
        warp = push_aside(rng, seat, warp, options)
        # Beyond the grid the pulled-back warp is undefined; two voxels stay clear of it.
        gradient = np.stack([np.stack(np.gradient(component)) for component in warp])
        jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)))
        assert jacobian[2:-2, 2:-2, 2:-2].min() > 0


def test_mass_effect_moves_tissue_away_from_the_tumour():
    atlas, rng = load_atlas(4.0), np.random.default_rng(0)
    still = random_warp(rng, atlas, STILL)
    seat = choose_seat(rng, atlas, still, atlas.tissue, STILL)
    pushed = push_aside(rng, seat, still, STILL)
    beside = (seat.centre[0], seat.centre[1], seat.centre[2] + 3)
    # Tissue found 3 voxels beside the centre lay nearer to it before.
    assert 0.5 < pushed[2][beside] - still[2][seat.centre] < 2.8


def test_the_atlas_is_symmetric_and_the_phantom_is_not(phantoms):
    tissue = load_atlas(4.0).tissue

    def likeness(volume) -> float:
        return max(
            float(np.corrcoef(volume.ravel(), np.roll(volume[..., ::-1], n, -1).ravel())[0, 1])
            for n in range(-3, 4)
        )

    for phantom in phantoms:
        csf = (phantom.image[2] > np.percentile(phantom.image[2], 97)).astype(np.float32)
        assert likeness(csf) < 0.8
    assert likeness(tissue[0]) > 0.97


def test_the_affine_puts_the_midline_at_zero():
    atlas = load_atlas(4.0)
    weights = atlas.tissue.sum(axis=(0, 1, 2))
    columns = atlas.affine[0, 3] + atlas.affine[0, 0] * np.arange(len(weights))
    assert abs(np.average(columns, weights=weights)) < 1.0


@pytest.mark.parametrize(
    ("channel", "order"),
    [
        ("T1", ("CSF", "GM", "WM")),
        ("T1c", ("CSF", "GM", "WM")),
        ("T2", ("WM", "GM", "CSF")),
        ("FLAIR", ("CSF", "WM", "GM")),
    ],
)
def test_tissues_are_ordered_as_in_reality(channel, order):
    phantom, tissue = make_phantom(0, 0, STILL), load_atlas(4.0).tissue
    far = ndimage.binary_dilation(phantom.labels > 0, iterations=6)
    image = phantom.image[CHANNELS.index(channel)]
    pure = {name: (tissue[k] > 0.85) & ~far for k, name in enumerate(("CSF", "GM", "WM"))}
    means = [float(image[pure[name]].mean()) for name in order]
    assert means[0] < 0.9 * means[1]
    assert means[1] < 0.9 * means[2]


@pytest.mark.parametrize("channel", CHANNELS)
def test_jitter_cannot_swap_the_healthy_tissues(channel):
    levels = sorted(CONTRASTS[channel][:3])
    for darker, brighter in itertools.pairwise(levels):
        assert darker * (1 + JITTER) < brighter * (1 - JITTER)


def test_the_tumour_looks_like_one_in_each_channel(phantoms):
    for phantom in phantoms:
        healthy = (phantom.labels == 0) & (phantom.image[0] > 0)
        t1, t1c, t2, flair = (
            {name: float(c[phantom.labels == k].mean()) for name, k in LABELS.items() if k}
            | {"healthy": float(c[healthy].mean()), "bright": float(np.percentile(c[healthy], 90))}
            for c in phantom.image
        )
        assert t1c["enhancing"] > 1.2 * t1c["healthy"]
        assert t1c["enhancing"] > 1.5 * t1c["core"]
        assert flair["oedema"] > flair["bright"]
        assert t2["oedema"] > t2["healthy"]
        assert t1["core"] < t1["oedema"] < t1["healthy"]


def test_a_channel_does_not_depend_on_the_others_asked_for(phantoms):
    options = PhantomOptions(spacing_mm=4.0, channels=("FLAIR", "T1"))
    some = make_phantom(0, 0, options)
    assert np.array_equal(some.image, phantoms[0].image[[3, 0]])


def test_noise_leaves_the_labels_alone(phantoms):
    noisy = make_phantom(0, 0, PhantomOptions(spacing_mm=4.0, noise=0.2))
    assert np.array_equal(noisy.labels, phantoms[0].labels)
    assert not np.array_equal(noisy.image, phantoms[0].image)


def test_the_bias_field_is_a_smooth_factor():
    plain = make_phantom(0, 0, STILL)
    shaded = make_phantom(0, 0, PhantomOptions(**{**vars(STILL), "bias": 0.2}))
    brain = ndimage.binary_erosion(plain.image[0] > 20)
    factor = np.where(brain, shaded.image[0] / np.maximum(plain.image[0], 1), 1.0)
    steps = np.abs(np.diff(np.log(factor), axis=1))[brain[:, 1:] & brain[:, :-1]]
    assert np.log(factor[brain]).std() > 0.05
    assert np.median(steps) < 0.03


def test_wrong_options_are_refused():
    wrong: list[dict[str, Any]] = [
        {"channels": ("T1", "PD")},
        {"channels": ()},
        {"channels": ("T1", "T1")},
        {"spacing_mm": 0.5},
        {"radius_mm": (20.0, 10.0)},
        {"mass_effect": (0.2, 1.0)},
        {"noise": -0.1},
        {"affine_shear": 0.5},
    ]
    for options in wrong:
        with pytest.raises(UsageFault, match=next(iter(options))):
            PhantomOptions(**options)


def test_an_atlas_of_another_spacing_is_refused():
    with pytest.raises(UsageFault, match="spacing"):
        make_phantom(0, 0, PhantomOptions(), load_atlas(4.0))


def test_without_nilearn_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(EnvironmentFault, match=r"gansynth\[demo\]"):
        load_atlas(7.5)


def test_the_data_set_has_nnunets_layout(written):
    base, _ = written
    expected = {"dataset.json"}
    for case in ("phantom_000", "phantom_001"):
        expected |= {f"labelsTr/{case}.nii.gz"}
        expected |= {f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(4)}
    assert base.name == "Dataset999_Phantom"
    assert set(hashes(base)) == expected


def test_dataset_json_tells_nnunet_what_it_needs(written):
    content = json.loads((written[0] / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"}
    assert content["labels"] == {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}
    assert (content["numTraining"], content["file_ending"]) == (2, ".nii.gz")


def test_dataset_json_says_phantoms_and_carries_the_notice(written):
    description = json.loads((written[0] / "dataset.json").read_text())["description"]
    assert "NOT PATIENTS" in description
    assert "Copyright (C) 1993-2009 Louis Collins" in description


def test_files_hold_the_phantom_as_x_y_z(written):
    phantom = make_phantom(1, 5, COARSE)
    image: Any = nib.load(written[0] / "imagesTr" / "phantom_001_0002.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert image.header.get_zooms() == (4.0, 4.0, 4.0)
    assert np.array_equal(image.affine, phantom.affine)
    assert np.array_equal(np.asarray(image.dataobj).T, phantom.image[2])


def test_label_files_hold_the_labels(written):
    image: Any = nib.load(written[0] / "labelsTr" / "phantom_001.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj).T, make_phantom(1, 5, COARSE).labels)


def test_progress_is_reported_after_each_case(written):
    assert written[1] == [(1, 2), (2, 2)]


def test_writing_twice_gives_the_same_bytes(written, tmp_path):
    assert hashes(write_nnunet_raw(tmp_path, 2, 5, COARSE)) == hashes(written[0])


def test_no_file_carries_the_time_of_writing(written):
    stamps = {path.read_bytes()[4:8] for path in written[0].rglob("*.nii.gz")}  # gzip's MTIME
    assert stamps == {bytes(4)}


def test_cases_of_another_run_are_not_mixed_in(tmp_path):
    stranger = tmp_path / "Dataset999_Phantom" / "imagesTr" / "phantom_007_0000.nii.gz"
    stranger.parent.mkdir(parents=True)
    stranger.touch()
    with pytest.raises(UsageFault, match="phantom_007"):
        write_nnunet_raw(tmp_path, 2, 5, COARSE)


def test_an_interrupted_run_leaves_no_dataset_json(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    write_nnunet_raw(tmp_path, 1, 5, COARSE)
    with pytest.raises(KeyboardInterrupt):
        write_nnunet_raw(tmp_path, 1, 5, COARSE, progress=stop)
    assert not (tmp_path / "Dataset999_Phantom" / "dataset.json").exists()
