import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.adapters.nnunet.conftest import begin, log_of
from tests.expected import raises_fault

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class Drawn:
    """A crop of one sample before its transforms, larger than a patch, and what came out."""

    synthetic: bool
    image: Any
    labels: Any
    out: Any

    def is_crop(self, *, masked: bool) -> bool:
        """Whether what came out is the middle of the crop, bit for bit.

        Args:
            masked: the image is 0 where the label is -1, as normalisation has left it.
        """
        patch = self.out["image"].shape[1:]
        starts = [(a - n) // 2 for a, n in zip(self.image.shape[1:], patch, strict=True)]
        middle = tuple(slice(a, a + n) for a, n in zip(starts, patch, strict=True))
        image, labels = self.image[:, *middle].clone(), self.labels[:, *middle]
        if masked:
            image[:, labels[0] < 0] = 0
        target = self.out["segmentation"][0]
        return bool((self.out["image"] == image).all() and (target == labels.clip(0)).all())


def draw(trainer: Any, batches: int, monkeypatch: Any) -> list[Drawn]:
    """Draw from the trainer's training loader, noting what it transforms into what."""
    train, _ = begin(trainer).get_dataloaders()
    loader, drawn = train.data_loader, list[Drawn]()
    transform, patch = loader.transforms, tuple(trainer.configuration_manager.patch_size)

    def noting(**given: Any) -> Any:
        synthetic, before = loader._data.last.synthetic, [each.clone() for each in given.values()]
        out = transform(**given)
        assert out["image"].shape[1:] == patch
        drawn.append(Drawn(synthetic, *before, out))
        return out

    monkeypatch.setattr(loader, "transforms", noting)
    for _ in range(batches):
        next(train)
    return drawn


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_synthetic_samples_come_as_drawn_and_real_ones_augmented(ready, monkeypatch, configuration):
    trainer = ready(configuration, augment_synthetic=False)
    drawn = draw(trainer, 12, monkeypatch)
    synthetic = [d for d in drawn if d.synthetic]
    real = [d for d in drawn if not d.synthetic]
    assert len(synthetic) == len(real) == 12
    assert trainer.configuration_manager.use_mask_for_norm == [True, True]
    assert all(d.is_crop(masked=True) for d in synthetic)
    assert sum(d.is_crop(masked=True) for d in real) < 6  # nnU-Net mirrors seven of eight
    assert "synthetic samples are not augmented, real ones are" in log_of(trainer)


SPACES: dict[str, dict[str, Any]] = {
    "3d": {"patch_size": (16, 20, 24), "do_dummy_2d_data_aug": False},
    "slices": {"patch_size": (16, 20, 24), "do_dummy_2d_data_aug": True},
    "2d": {"patch_size": (20, 24), "do_dummy_2d_data_aug": False},
}


@pytest.fixture
def loader(ready):
    """One that augments real cases only."""
    return begin(ready(augment_synthetic=False)).get_dataloaders()[0].data_loader


def blank() -> dict[str, Any]:
    labels = torch.zeros((1, 40, 40, 40), dtype=torch.int16)
    return {"image": torch.zeros(2, 40, 40, 40), "segmentation": labels}


def test_what_is_not_augmented_draws_no_random_number_and_a_copy_tells_the_kinds_apart(loader):
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    loader.transforms.synthetic(**blank())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())  # noqa: NPY002
    # one whose pipelines shared nothing with its data set would raise
    copy = pickle.loads(pickle.dumps(loader))
    assert copy.generate_train_batch()["data"].shape[0] == 2


def test_a_loader_that_loads_a_batch_before_it_transforms_is_noticed(loader):
    for case in loader._data.identifiers[:2]:
        loader._data.load_case(case)
    loader.transforms(**blank())
    with raises_fault("nnunet.synthetic-cases-not-separable"):
        loader.transforms(**blank())


@pytest.mark.parametrize("name", ["nnUNetTrainerGANSynth", "nnUNetTrainerDA5GANSynth"])
def test_without_the_host_augmentation_nothing_is_changed(ready, monkeypatch, name):
    trainer = ready(name=name, host_augmentation=False)
    drawn = draw(trainer, 4, monkeypatch)
    assert {d.synthetic for d in drawn} == {True, False}
    assert all(d.is_crop(masked=False) for d in drawn)
    *_, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert mirror is trainer.inference_allowed_mirroring_axes is None
    assert "nnU-Net's augmentation is off" in log_of(trainer)


def transforms(space: str, variant: str = "nnUNetTrainer") -> Any:
    from gansynth_nnunet.launch import find_variant

    rest = {"rotation_for_DA": (-0.5, 0.5), "mirror_axes": (0, 1), "deep_supervision_scales": None}
    return find_variant(variant).get_training_transforms(**SPACES[space], **rest)


@pytest.mark.parametrize("variant", ["nnUNetTrainer", "nnUNetTrainerDA5"])
@pytest.mark.parametrize("space", SPACES)
def test_elastic_deformation_moves_and_never_folds(space, variant):
    from gansynth_nnunet.trainer import deform

    pipeline = transforms(space, variant)
    (spatial,) = (step for step in pipeline.transforms if hasattr(step, "p_elastic_deform"))
    assert spatial.p_elastic_deform == 0
    assert "100%" in deform(pipeline, 1.0)
    image = torch.zeros(1, *spatial.patch_size)
    ndim, farthest = image.ndim - 1, []
    for _ in range(12):
        offsets = spatial.get_parameters(image=image)["elastic_offsets"].numpy()
        slopes = [np.gradient(offsets[..., axis]) for axis in range(ndim)]
        jacobian = np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(ndim)
        assert np.linalg.det(jacobian).min() > 0
        farthest.append(np.abs(offsets).max())
    assert max(farthest) > 0.5
    labels = torch.zeros((1, *SPACES[space]["patch_size"]), dtype=torch.int16)
    drawn = {"image": torch.randn(labels.shape), "segmentation": labels}
    assert pipeline(**drawn)["image"].shape == labels.shape
    with raises_fault("nnunet.no-spatial-transform"):
        deform(transforms(space, "nnUNetTrainerNoDA"), 0.3)


@pytest.mark.parametrize("synthetic", [False, True])
def test_a_training_is_told_which_share_is_deformed(ready, synthetic):
    trainer = ready(settings={"elastic": 0.25}, augment_synthetic=synthetic)
    loaded = begin(trainer).get_dataloaders()[0].data_loader.transforms
    pipeline = loaded if synthetic else loaded.real
    (spatial,) = (step for step in pipeline.transforms if hasattr(step, "p_elastic_deform"))
    assert spatial.p_elastic_deform == 0.25
    assert "25% of the samples are deformed elastically" in log_of(trainer)
