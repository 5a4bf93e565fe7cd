"""What a trained nnU-Net makes of images: the features that enter its last segmentation layer.

The network is built of ``plans.json`` as nnU-Net builds it to predict, from files that may be
anybody's: a checkpoint is read without running what it says, and plans may name networks of
nnU-Net's own library only.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gansynth.adapter import Mask
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.integrity import read_json
from gansynth.last_layer import Entering, Mean, check_fit, mask_of, slices_of
from gansynth.precision import pick_device
from gansynth.schema import FloatArray, Schema
from gansynth_nnunet import variants
from gansynth_nnunet.launch import SUFFIX
from gansynth_nnunet.stock import read_checkpoint

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""Those that are looked for, in this order."""
MODEL = ("plans.json", "dataset.json")
"""What nnU-Net leaves beside the folds of a model."""
NETWORKS = "dynamic_network_architectures."
PARTS = ("torch.nn.", NETWORKS)
"""Where networks, and the parts that plans name, come from."""
STOCK = "nnUNetTrainer"
SLICES = 16
"""Slices that a network of two axes sees at once."""


@dataclass(frozen=True)
class Trained:
    """A network of a fold, on its device.

    Attributes:
        network: gives logits at full resolution only.
        layer: its last one, which makes them.
        patch: voxels, (D, H, W) or (H, W), that it was trained on.
        strides: voxels per axis that its coarsest level makes one of.
        spacing: mm per axis.
        channels: of the images.
        title: whose network this is.
    """

    network: nn.Module
    layer: nn.Module
    patch: tuple[int, ...]
    strides: tuple[int, ...]
    spacing: tuple[float, ...]
    channels: int
    title: str


def recognises(folder: Path) -> bool:
    """Whether a folder is a fold's, or a model's with folds in it, of nnU-Net's results."""
    return _is_fold(folder) or bool(_folds(folder))


def features(
    folder: Path,
    images: Sequence[FloatArray],
    schema: Schema,
    where: Sequence[Mask | None] | None,
    device: str,
) -> tuple[FloatArray, str]:
    """See ``Adapter.features``."""
    if not _is_fold(folder):
        raise UsageFault(
            f"{folder}: holds several trainings, expected the folder of one: "
            f"{', '.join(_folds(folder))}"
        )
    trained = load(folder)
    check_fit(
        *(folder, images, schema),
        channels=trained.channels,
        ndim=len(trained.patch),
        spacing=trained.spacing,
    )
    on = pick_device(device)
    trained.network.to(on)
    rows = [
        _look(trained, image, mask_of(image, where, number), on)
        for number, image in enumerate(images)
    ]
    return np.stack(rows), trained.title


@torch.inference_mode()
def _look(trained: Trained, image: FloatArray, chosen: Mask, device: torch.device) -> FloatArray:
    """Features (K,) of one image."""
    if len(trained.patch) == 2:
        batch, masks = slices_of(image, chosen)
    else:
        batch, masks = image[None], chosen[None]
    mean = Mean()
    with Entering(trained.layer) as entering:
        for first in range(0, len(batch), SLICES):
            part = torch.from_numpy(np.ascontiguousarray(batch[first : first + SLICES]))
            seen, inside = padded(part.float(), trained.patch, trained.strides)
            trained.network(seen.to(device))
            found = entering.last[0][(slice(None), slice(None), *inside)]
            mean.add(found, masks[first : first + SLICES])
    return mean.value()


def padded(
    batch: Tensor, patch: Sequence[int], strides: Sequence[int]
) -> tuple[Tensor, tuple[slice, ...]]:
    """Images with zeros around them, as nnU-Net pads what it predicts, and where they lie in that.

    Args:
        batch: (B, C, ...).
        patch: least voxels per axis.
        strides: what voxels must be a multiple of, as a patch's are.

    Returns:
        (B, C, ...) of a size that the network takes, and the images' place along each axis.
    """
    shape = batch.shape[2:]
    wanted = [max(p, -(-n // s) * s) for n, p, s in zip(shape, patch, strides, strict=True)]
    before = [(w - n) // 2 for n, w in zip(shape, wanted, strict=True)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    whole = batch.new_zeros((*batch.shape[:2], *wanted))
    whole[(slice(None), slice(None), *inside)] = batch
    return whole, inside


# -- from a folder ---------------------------------------------------------------------------------


def load(folder: Path) -> Trained:
    """The network of a fold, with the weights of its final checkpoint, else of its best one.

    Raises:
        UsageFault: a cascade's second stage, or a network that is no U-Net of nnU-Net's library.
        DataFault: plans that no network can be built of.
        IntegrityFault: a checkpoint that is damaged, runs something, or is of another network.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    file = next(folder / name for name in CHECKPOINTS if (folder / name).is_file())
    plans_file, dataset_file = (folder.parent / name for name in MODEL)
    plans, dataset = (read_json(path, way_out=_RESTORE) for path in (plans_file, dataset_file))
    checkpoint = read_checkpoint(file)
    name, trainer, epochs = _said(file, checkpoint)
    with _as_faults(plans_file):
        manager = PlansManager(plans)
        config = manager.get_configuration(name)
        _refuse_cascade(folder, name, config)
        _refuse_foreign(plans_file, config)
        network = _build(_trainer(trainer), manager, config, dataset)
        layer, strides = _parts(folder, network)
        kind = file.stem.removeprefix("checkpoint_")
        trained = Trained(
            network.eval(),
            layer,
            tuple(int(n) for n in config.patch_size),
            strides,
            tuple(float(mm) for mm in config.spacing),
            len(dataset.get("channel_names", dataset.get("modality"))),
            f"nnU-Net {manager.dataset_name} {name} {folder.name} ({kind}, {epochs} epochs)",
        )
    _fill(network, file, checkpoint)
    return trained


_RESTORE = "restore what nnU-Net has left beside its folds"


def _said(file: Path, checkpoint: Mapping[str, Any]) -> tuple[str, str, int]:
    """Configuration, trainer and epochs that a checkpoint names."""
    try:
        name = str(checkpoint["init_args"]["configuration"])
        return name, str(checkpoint["trainer_name"]), int(checkpoint["current_epoch"])
    except (LookupError, TypeError, ValueError) as error:
        raise IntegrityFault(
            f"{file}: does not say what was trained ({type(error).__name__}: {error}), expected a "
            "checkpoint of nnU-Net's; restore it"
        ) from error


@contextlib.contextmanager
def _as_faults(plans: Path) -> Iterator[None]:
    """Whatever nnU-Net makes of plans that are none is one line, and what it prints is not ours."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except _ODD as error:
        words = " ".join(str(error).split())
        raise DataFault(
            f"{plans}: no network can be built of it ({type(error).__name__}: {words:.160}), "
            f"expected the plans that the training was done by; {_RESTORE}"
        ) from error


_ODD = (
    *(LookupError, TypeError, ValueError, AttributeError, RuntimeError, ImportError),
    AssertionError,
)


def _refuse_cascade(folder: Path, name: str, config: ConfigurationManager) -> None:
    if config.previous_stage_name is not None:
        raise UsageFault(
            f"{folder}: {name} also sees what the stage before has found, which no image has, "
            f"expected another configuration's training; name one of {config.previous_stage_name}"
        )


def _refuse_foreign(plans: Path, config: ConfigurationManager) -> None:
    """Refuse plans that would have anything else than parts of networks imported and called."""
    kwargs = config.network_arch_init_kwargs
    named = [kwargs[key] for key in config.network_arch_init_kwargs_req_import]
    asked = [
        (config.network_arch_class_name, (NETWORKS,)),
        *((part, PARTS) for part in named if part is not None),
    ]
    for found, expected in asked:
        if not str(found).startswith(expected):
            raise UsageFault(
                f"{plans}: architecture: names {found!r}, expected one of {expected[0]}*: nothing "
                "else is imported for a file's sake; name a training of nnU-Net's own networks"
            )


def _trainer(name: str) -> type[Any]:
    """nnU-Net's class of this name, or the user's own in ``nnUNet_extTrainer``."""
    if name.removesuffix(SUFFIX) != STOCK:
        return variants.find(name.removesuffix(SUFFIX))
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    return nnUNetTrainer  # type: ignore[no-any-return]


def _build(
    trainer: type[Any],
    plans: PlansManager,
    config: ConfigurationManager,
    dataset: Mapping[str, Any],
) -> nn.Module:
    """The network as nnU-Net's predictor builds it."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    with torch.random.fork_rng(devices=[]):
        network: nn.Module = trainer.build_network_architecture(
            plans,
            config,
            determine_num_input_channels(plans, config, dataset),
            plans.get_label_manager(dataset).num_segmentation_heads,
            enable_deep_supervision=False,
        )
    return network


def _parts(folder: Path, network: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    """The last segmentation layer of a U-Net, and the product of its strides."""
    decoder = getattr(network, "decoder", None)
    layers = getattr(decoder, "seg_layers", None)
    strides = getattr(getattr(decoder, "encoder", None), "strides", None)
    if not isinstance(layers, nn.ModuleList) or not layers or strides is None:
        raise UsageFault(
            f"{folder}: its network is a {type(network).__name__}, which has no segmentation layer "
            "that is known here, expected a U-Net; name another training"
        )
    return layers[-1], tuple(int(n) for n in np.prod(np.array(strides), axis=0))


def _fill(network: nn.Module, file: Path, checkpoint: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into a network."""
    try:
        weights = {
            # Of a network that was trained wrapped, or compiled.
            key.removeprefix("module.").removeprefix("_orig_mod."): value
            for key, value in checkpoint["network_weights"].items()
        }
        network.load_state_dict(weights)
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise IntegrityFault(
            f"{file}: not the weights of the network in {MODEL[0]} ({words:.160}), expected those "
            "that were trained by it; restore both from one training"
        ) from error


def _is_fold(folder: Path) -> bool:
    there = any((folder / name).is_file() for name in CHECKPOINTS)
    return there and all((folder.parent / name).is_file() for name in MODEL)


def _folds(folder: Path) -> list[str]:
    """Names of the trained folds of a model."""
    return sorted(path.name for path in folder.glob("fold_*") if _is_fold(path))
