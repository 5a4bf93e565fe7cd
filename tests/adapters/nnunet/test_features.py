"""Features of nnU-Nets that were really trained, a step or two; what is no nnU-Net is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth import torchvision_cure
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.host_features import host_features
from gansynth.schema import Schema
from gansynth.testing import check_adapter
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.features import load, padded
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER

# nnU-Net, timm and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTH = "num_epochs=1,num_iterations_per_epoch=2,num_val_iterations_per_epoch=1"


@pytest.fixture(scope="module")
def folds(toy_nnunet, tmp_path_factory) -> dict[str, Path]:
    """Folders of fold 0, in 3d and in 2d, of a training each, but for its validation."""
    results = tmp_path_factory.mktemp("results")
    told = {
        "nnUNet_raw": toy_nnunet.raw.parent,
        "nnUNet_preprocessed": toy_nnunet.preprocessed.parent,
        "nnUNet_results": results,
        "nnUNet_extTrainer": EXT_TRAINER,
        "nnUNet_n_proc_DA": "0",
        "GANSYNTH_RATIO": "1:0",
        "GANSYNTH_SET": LENGTH,
    }
    torchvision_cure.apply()
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("GANSYNTH_")]:
            patch.delenv(name)
        for name, value in told.items():
            patch.setenv(name, str(value))
        for configuration in ("3d_fullres", "2d"):
            place = (toy_nnunet.dataset, configuration, 0, TRAINER, toy_nnunet.plans)
            trainer = get_trainer_from_args(*place, device=torch.device("cpu"))
            trainer.run_training()
            found[configuration] = Path(trainer.output_folder)
    return found


@pytest.fixture
def copied(folds, tmp_path) -> Callable[..., Path]:
    """A copy of a model that a test may spoil: its fold's folder."""

    def copy(configuration: str = "3d_fullres") -> Path:
        fold = folds[configuration]
        shutil.copytree(fold.parent, tmp_path / fold.parent.name)
        return Path(tmp_path / fold.parent.name / fold.name)

    return copy


@pytest.fixture(scope="module")
def cases(toy_nnunet) -> Callable[[str], tuple[list[Any], Schema]]:
    """Real cases of a configuration, uncut, and their schema."""
    from gansynth_nnunet.source import open_nnunet

    def read(configuration: str) -> tuple[list[Any], Schema]:
        source = open_nnunet(toy_nnunet.request(configuration=configuration))
        return [source.load(case) for case in source.train_ids[:3]], source.schema

    return read


def by_hand(fold: Path, image: Any) -> Any:
    """Logits (labels, ...) of an image (C, ...) that nnU-Net's own predictor's network makes."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(fold.parent), use_folds=(0,), checkpoint_name="checkpoint_final.pth"
    )
    with torch.inference_mode():
        return predictor.network.eval()(torch.from_numpy(image)[None])[0].numpy()


def head_of(fold: Path) -> tuple[Any, Any]:
    """Weight (labels, K) and bias of the last layer, from the file."""
    layer: Any = load(fold).layer
    weight = layer.weight.detach().numpy()
    return weight.reshape(weight.shape[:2]), layer.bias.detach().numpy()


# -- the features ----------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_times_the_last_layers_weights_they_are_nnunets_own_logits(folds, cases, masked):
    (case, *_), schema = cases("3d_fullres")
    patch = load(folds["3d_fullres"]).patch
    cut, more = tuple(slice(0, n) for n in patch), ((0, 9),) * 3
    # Of a whole patch nothing is padded.
    image = np.pad(case.image, ((0, 0), *more), mode="reflect")[(slice(None), *cut)]
    labels = np.pad(case.labels, more, mode="reflect")[cut]
    logits = by_hand(folds["3d_fullres"], image)
    chosen = labels > 0 if masked else np.ones(patch, bool)
    found, _ = host_features(
        folds["3d_fullres"], [image], schema, labels=[labels] if masked else None, device="cpu"
    )
    weight, bias = head_of(folds["3d_fullres"])
    np.testing.assert_allclose(weight @ found[0] + bias, logits[:, chosen].mean(1), atol=1e-4)


def test_slices_of_a_volume_are_averaged_by_a_network_of_slices(folds, cases):
    (case, *_), schema = cases("2d")
    fold = folds["2d"]
    trained = load(fold)
    import torch

    planes = torch.from_numpy(case.image.swapaxes(0, 1).copy())
    seen, inside = padded(planes, trained.patch, trained.strides)
    logits = np.stack([by_hand(fold, plane.numpy()) for plane in seen])
    found, title = host_features(fold, [case.image], schema, device="cpu")
    weight, bias = head_of(fold)
    wanted = logits[(slice(None), slice(None), *inside)].mean((0, 2, 3))
    np.testing.assert_allclose(weight @ found[0] + bias, wanted, atol=1e-4)
    assert title == "nnU-Net Dataset501_Toy 2d fold_0 (final, 1 epochs)"


def test_one_slice_is_a_volume_of_one_slice(folds, cases):
    (case, *_), schema = cases("2d")
    flat = Schema(schema.channels, schema.labels, schema.spacing[1:], "HW", has_outside=True)
    one, _ = host_features(folds["2d"], [case.image[:, 9]], flat, device="cpu")
    same, _ = host_features(folds["2d"], [case.image[:, 9:10]], schema, device="cpu")
    np.testing.assert_allclose(one, same, atol=1e-6)


def test_an_image_of_any_size_is_padded_and_its_padding_left_out(folds, cases):
    found, schema = cases("3d_fullres")
    images = [found[0].image, found[1].image[:, 1:12, 2:15, 3:10], found[2].image]
    rows, _ = host_features(folds["3d_fullres"], images, schema, device="cpu")
    alone, _ = host_features(folds["3d_fullres"], images[1:2], schema, device="cpu")
    assert rows.shape == (3, load(folds["3d_fullres"]).layer.in_channels)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[1], alone[0])
    assert np.abs(rows[0] - rows[2]).max() > 1e-4


def test_images_are_padded_as_nnunet_pads_them_and_until_strides_divide_them():
    import torch
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    batch = torch.rand(1, 2, 5, 21)
    whole, inside = padded(batch, (16, 16), (4, 8))
    theirs = pad_nd_image(batch, (16, 16), shape_must_be_divisible_by=(4, 8))
    assert whole.shape == (1, 2, 16, 24)
    assert torch.equal(whole, theirs)
    assert torch.equal(whole[(slice(None), slice(None), *inside)], batch)


def test_the_best_checkpoint_serves_where_there_is_no_final_one(copied, cases):
    found, schema = cases("3d_fullres")
    fold = copied()
    best = fold / "checkpoint_best.pth"
    (fold / "checkpoint_final.pth").rename(best)
    _, title = host_features(fold, [found[0].image], schema, device="cpu")
    assert "(best, 1 epochs)" in title


def test_nothing_of_the_folder_or_of_torchs_random_numbers_changes(copied, cases):
    import torch

    found, schema = cases("3d_fullres")
    fold = copied()
    before = {path.name: path.stat().st_mtime_ns for path in fold.parent.rglob("*")}
    state = torch.get_rng_state()
    host_features(fold, [found[0].image], schema, device="cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert before == {path.name: path.stat().st_mtime_ns for path in fold.parent.rglob("*")}


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_adapter_keeps_the_contract(folds, toy_nnunet, tmp_path, configuration):
    from gansynth_nnunet.source import open_nnunet

    source = open_nnunet(toy_nnunet.request(configuration=configuration))
    report = check_adapter(NnunetAdapter(source), workspace=tmp_path, trained=folds[configuration])
    assert report.passed, report.failed
    looks = [check.verdict for check in report.checks if check.name.startswith("features: ")]
    assert looks == ["passed"] * 7


# -- what is refused -------------------------------------------------------------------------------


def spoil(fold: Path, **changes: Any) -> None:
    """Change a checkpoint."""
    import torch

    path = fold / "checkpoint_final.pth"
    document = torch.load(path, map_location="cpu", weights_only=False)
    torch.save({**document, **changes}, path)


def replan(fold: Path, key: str, value: Any) -> None:
    """Change the architecture in plans, of every configuration that has one."""
    path = fold.parent / "plans.json"
    document = json.loads(path.read_text())
    for configuration in document["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"][key] = value
    path.write_text(json.dumps(document))


@pytest.fixture
def refused(cases) -> Callable[..., str]:
    """What is said of a fold that is refused: ``refused(fold, DataFault)``."""

    def look(fold: Path, fault: type[Exception], channels: int = 2) -> str:
        found, schema = cases("3d_fullres")
        narrow = Schema(schema.channels[:channels], schema.labels, schema.spacing, has_outside=True)
        with pytest.raises(fault) as caught:
            host_features(fold, [found[0].image[:channels]], narrow, device="cpu")
        said = str(caught.value)
        assert "\n" not in said
        return said

    return look


def test_a_checkpoint_that_would_run_something_is_refused_and_does_not(copied, refused, tmp_path):
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    fold = copied()
    spoil(fold, logging=Evil())
    assert "cannot be read as a checkpoint" in refused(fold, IntegrityFault)
    assert not (tmp_path / "ran").exists()


def test_plans_that_name_something_else_than_a_network_are_refused(copied, refused, tmp_path):
    module = tmp_path / "sys_path" / "evil_network.py"
    module.parent.mkdir()
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    fold = copied()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(module.parent)
        replan(fold, "network_class_name", "evil_network.Net")
        assert "names 'evil_network.Net', expected" in refused(fold, UsageFault)
    assert not (tmp_path / "ran").exists()


def test_plans_of_another_network_are_refused(copied, refused):
    fold = copied()
    path = fold.parent / "plans.json"
    document = json.loads(path.read_text())
    kwargs = document["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [2 * n for n in kwargs["features_per_stage"]]
    path.write_text(json.dumps(document))
    assert "not the weights of the network in plans.json" in refused(fold, IntegrityFault)


def test_damaged_plans_are_refused(copied, refused):
    fold = copied()
    replan(fold, "arch_kwargs", {})
    assert "plans.json: no network can be built of it" in refused(fold, DataFault)


def test_an_unknown_trainer_is_named(copied, refused):
    fold = copied()
    spoil(fold, trainer_name="nnUNetTrainerOfNobody")
    assert "trainer nnUNetTrainerOfNobody: nnU-Net has none" in refused(fold, UsageFault)


def test_a_checkpoint_that_says_too_little_is_refused(copied, refused):
    fold = copied()
    spoil(fold, init_args={})
    assert "does not say what was trained" in refused(fold, IntegrityFault)


def test_other_channels_are_refused_and_both_numbers_named(folds, refused):
    said = refused(folds["3d_fullres"], DataFault, channels=1)
    assert "was trained on 2 channel(s), the images have 1 (T1), expected as many" in said


def test_slices_are_nothing_for_a_network_of_volumes(folds, cases):
    (case, *_), schema = cases("2d")
    with pytest.raises(UsageFault, match="its network sees volumes, the images are slices"):
        host_features(folds["3d_fullres"], [case.image[:, 3:4]], schema, device="cpu")


def test_voxels_of_another_size_are_refused(folds, cases):
    (case, *_), schema = cases("3d_fullres")
    other = Schema(schema.channels, schema.labels, (2.0, 1.0, 1.0), has_outside=True)
    with pytest.raises(DataFault, match="voxels of 1 x 1 x 1 mm, the images have 2 x 1 x 1 mm"):
        host_features(folds["3d_fullres"], [case.image], other, device="cpu")


def test_of_a_model_with_folds_one_is_to_be_named(folds, refused):
    said = refused(folds["3d_fullres"].parent, UsageFault)
    assert "expected the folder of one: fold_0" in said


def test_it_knows_its_folders_by_what_is_in_them(folds, copied, tmp_path):
    assert NnunetAdapter.recognises(folds["2d"])
    assert not NnunetAdapter.recognises(tmp_path)
    fold = copied("2d")
    (fold.parent / "plans.json").unlink()
    assert not NnunetAdapter.recognises(fold)
