"""A U-Net of MONAI as a host: ``gansynth augment --target monai``."""

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field

import gansynth
from gansynth import CropHost, CropTrials, Job, TrainingOptions, hookimpl

gansynth_api = 4
Array = np.ndarray[Any, Any]


class MonaiOptions(TrainingOptions):
    """Settings of ``--target monai``."""

    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(2, ge=1, description="samples of a step")
    patch: int | None = Field(None, ge=16, description="edge of training crops in voxels")
    width: int = Field(16, ge=4, description="features at the finest level")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's")
    noise: float = Field(0.1, ge=0, description="augmentation: deviation of Gaussian noise")


class MonaiHost(CropHost):
    """MONAI's UNet, DiceCE loss, AdamW, and sliding windows."""

    name = "monai"
    Options = MonaiOptions
    options: MonaiOptions
    packages = ("torch", "monai")
    augmentation = ("noise",)

    @property
    def patch(self) -> tuple[int, ...] | None:
        """A cube, or the crops of the source."""
        return (self.options.patch,) * self.schema.ndim if self.options.patch else None

    @property
    def length(self) -> tuple[int, int]:
        """Steps, and samples of each."""
        return self.options.steps, self.options.batch_size

    def augment(self, image: Array, labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Add noise."""
        noise = rng.normal(0, self.options.noise, image.shape)
        return (image + noise).astype(np.float32), labels

    def network(self) -> Any:
        """Build the untrained network."""
        from monai.networks.nets.unet import UNet

        channels, classes = len(self.schema.channels), len(self.schema.label_values)
        widths = [self.options.width * 2**level for level in range(4)]
        return UNet(self.schema.ndim, channels, classes, widths, (2, 2, 2), num_res_units=1)

    def train(self, job: Job) -> None:
        """Train from the newest checkpoint on."""
        import torch
        from monai.losses.dice import DiceCELoss
        from torch.utils.data import DataLoader

        torch.manual_seed(job.seed)
        net, loss_of = self.network().to(job.device), DiceCELoss(softmax=True, to_onehot_y=True)
        optimizer = torch.optim.AdamW(net.parameters(), self.options.learning_rate)
        if saved := self.checkpoint(job.folder):
            state = torch.load(saved, job.device)
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])

        def save(path: Path) -> None:
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, path)

        values, items = torch.tensor(self.schema.label_values), cast(Any, job.data)
        loader: DataLoader[Any] = DataLoader(items, job.batch_size, sampler=job.remaining)
        for step, batch in enumerate(loader, job.first + 1):
            classes = torch.searchsorted(values, batch["labels"].long())[:, None]
            loss = loss_of(net(batch["image"].to(job.device)), classes.to(job.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            job.step(loss=loss.item())
            job.checkpoint(step, save)

    def predict(self, image: Array, folder: Path) -> Array:
        """Predict a whole case by sliding windows."""
        import torch
        from monai.inferers.utils import sliding_window_inference

        net = self.network().eval()
        net.load_state_dict(torch.load(str(self.checkpoint(folder)), "cpu")["net"])
        with torch.no_grad():
            batch = torch.from_numpy(image)[None]
            scores: Any = sliding_window_inference(batch, self.space.size, 4, net, overlap=0.5)
        values: Array = np.array(self.schema.label_values, np.int16)[scores[0].argmax(0).numpy()]
        return values


class MonaiTrials(CropTrials):
    """Optional: what a benchmark asks of the host."""

    stronger: ClassVar = {"noise": "0.3"}


@hookimpl
def register_hosts(register: gansynth.Register) -> None:
    """Register ``monai``."""
    register("monai", lambda: MonaiHost)


@hookimpl
def register_trials(register: gansynth.Register) -> None:
    """Register those of ``monai``."""
    register("monai", lambda: MonaiTrials)
