import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gansynth.runtime import torchvision_compat
from tests.adapters.nnunet.conftest import begin, log_of
from tests.expected import raises_fault

pytestmark = pytest.mark.filterwarnings("ignore")
torchvision_compat.apply()


@dataclass
class Drawn:
    """One sample as it was loaded, where it was cropped, and what came out."""

    synthetic: bool
    image: Any
    labels: Any
    box: Any
    patch: tuple[int, ...]
    out: Any
    target: Any

    def is_crop(self, *, masked: bool) -> bool:
        """Whether what came out is a crop of what was loaded, bit for bit.

        Args:
            masked: the image is 0 where the label is -1, as normalisation has left it.
        """
        image, labels = self._crop(self.image, 0).astype(np.float32), self._crop(self.labels, -1)
        if masked:
            image[:, labels[0] < 0] = 0
        return np.array_equal(self.out, image) and np.array_equal(self.target, labels.clip(0))

    def _crop(self, array: Any, fill: int) -> Any:
        """The middle patch of the crop, straight from the array."""
        array = np.asarray(array[:])
        low = np.array([b[0] for b in self.box])
        size = np.array([b[1] for b in self.box]) - low
        patch = np.array((1, *self.patch))[-3:]
        start = low + size // 2 - patch // 2
        padded = np.pad(array, [(0, 0), *[(40, 40)] * 3], constant_values=fill)
        cut = padded[:, *(slice(a + 40, a + 40 + n) for a, n in zip(start, patch, strict=True))]
        return cut[:, 0] if len(self.patch) == 2 else cut


def draw(trainer: Any, batches: int, monkeypatch: Any) -> list[Drawn]:
    """Draw from the trainer's training loader, noting what it loads and where it crops."""
    train, _ = begin(trainer).get_dataloaders()
    loader = train.data_loader
    loaded: list[Any] = []
    boxes: list[Any] = []
    load, box = loader._data.load_case, loader.get_bbox

    def load_and_note(case: str) -> Any:
        found = load(case)
        image, labels = (np.array(a[:]) for a in found[:2])
        loaded.append((loader._data.last.synthetic, image, labels))
        return found

    def box_and_note(*given: Any, **named: Any) -> Any:
        low, high = box(*given, **named)
        boxes.append(list(zip(low, high, strict=True)))
        return low, high

    monkeypatch.setattr(loader._data, "load_case", load_and_note)
    monkeypatch.setattr(loader, "get_bbox", box_and_note)
    patch = tuple(trainer.configuration_manager.patch_size)
    out: list[Drawn] = []
    for _ in range(batches):
        batch = next(train)
        for j in range(len(batch["data"])):
            kind, image, labels = loaded[len(out)]
            place = boxes[len(out)], patch
            data = batch["data"][j].numpy(), batch["target"][0][j].numpy()
            out.append(Drawn(kind, image, labels, *place, *data))
    return out


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
    import torch

    labels = torch.zeros((1, 40, 40, 40), dtype=torch.int16)
    return {"image": torch.zeros(2, 40, 40, 40), "segmentation": labels}


def test_what_is_not_augmented_draws_no_random_number_and_a_copy_tells_the_kinds_apart(loader):
    import torch

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
    import torch

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
