"""A U-Net of MONAI as a host: ``gansynth augment --target monai``."""

from typing import ClassVar

from pydantic import Field

from gansynth import CropHost, CropTrials, TrainingOptions, hookimpl

gansynth_api = 4


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
    packages = ("torch", "monai")
    augmentation = ("noise",)

    @property
    def patch(self):
        """A cube, or the crops of the source."""
        return self.options.patch and (self.options.patch,) * self.schema.ndim

    @property
    def length(self):
        """Steps, and samples of each."""
        return self.options.steps, self.options.batch_size

    def augment(self, image, labels, rng):
        """Add noise."""
        return image + rng.normal(0, self.options.noise, image.shape).astype("f4"), labels

    def network(self):
        """Build the untrained network."""
        from monai.networks.nets import UNet

        channels, classes = len(self.schema.channels), len(self.schema.label_values)
        widths = [self.options.width * 2**level for level in range(4)]
        return UNet(self.schema.ndim, channels, classes, widths, (2, 2, 2), num_res_units=1)

    def train(self, job):
        """Train from the newest checkpoint on."""
        import torch
        from monai.losses import DiceCELoss
        from torch.utils.data import DataLoader

        torch.manual_seed(job.seed)
        net, loss_of = self.network().to(job.device), DiceCELoss(softmax=True, to_onehot_y=True)
        optimizer = torch.optim.AdamW(net.parameters(), self.options.learning_rate)
        if saved := self.checkpoint(job.folder):
            state = torch.load(saved, job.device)
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])

        def save(path):
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, path)

        values = torch.tensor(self.schema.label_values)
        loader = DataLoader(job.data, job.batch_size, sampler=job.places)
        for step, batch in enumerate(loader, job.first + 1):
            classes = torch.searchsorted(values, batch["labels"].long())[:, None]
            loss = loss_of(net(batch["image"].to(job.device)), classes.to(job.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            job.step(loss=loss.item())
            job.checkpoint(step, save)

    def predict(self, image, folder):
        """Predict a whole case by sliding windows."""
        import numpy as np
        import torch
        from monai.inferers import sliding_window_inference

        net = self.network().eval()
        net.load_state_dict(torch.load(self.checkpoint(folder), "cpu")["net"])
        with torch.no_grad():
            batch = torch.from_numpy(image)[None]
            scores = sliding_window_inference(batch, self.space.size, 4, net, overlap=0.5)
        return np.array(self.schema.label_values, "i2")[scores[0].argmax(0).numpy()]


class MonaiTrials(CropTrials):
    """Optional: what a benchmark asks of the host."""

    stronger: ClassVar = {"noise": "0.3"}


@hookimpl
def register_hosts(register):
    """Register ``monai``."""
    register("monai", lambda: MonaiHost)


@hookimpl
def register_trials(register):
    """Register those of ``monai``."""
    register("monai", lambda: MonaiTrials)
