"""What benchmarks of nnU-Net share: preprocessed phantoms, a generator, its trainers."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PLANS = "gansynthSmallPlans"


def prepare_data(
    root: Path,
    patch: int,
    features: Sequence[int] | None = None,
    spacing: float = 2.5,
    cases: int = 10,
) -> Any:
    """Phantoms, preprocessed by nnU-Net, with small plans; the source of fold 0.

    What is in ``root`` already is kept.
    """
    from gansynth.core.source import SourceRequest
    from gansynth.hosts.data_sets.data_commands import prepare
    from gansynth.sampling.run_source import open_source
    from gansynth.testing.phantoms import PhantomOptions, write_phantoms

    folder = root / "nnUNet_raw" / "Dataset999_Phantom"
    if not folder.exists():
        write_phantoms("nnunet", folder, cases, options=PhantomOptions(spacing_mm=spacing))
    small = {"small": "yes", "plans_name": PLANS, "patch": f"{patch}x{patch}x{patch}"}
    if features:
        small["features"] = ",".join(map(str, features))
    prepare("nnunet:999", configuration="3d_fullres", root=root, set=small, quiet=True)
    request = SourceRequest(
        "nnunet", "999", configuration="3d_fullres", plans=PLANS, root=str(root)
    )
    source = open_source(request)
    os.environ.update(source.root.variables())
    os.environ.setdefault("nnUNet_compile", "f")
    return source


SMALL = {"steps": "2", "width": "8", "d_width": "8"}
FITS: Mapping[str, Mapping[str, str]] = {
    "cgan3d": SMALL,
    "cgan3d-lesion": SMALL,
    "copypaste": {},
    "parametric": {},
}
"""Settings of generators: two steps of a network have real shapes, channels and cost, no beauty."""


def fit_generator(source: Any, folder: Path, generator: str = "cgan3d") -> Path:
    """One of ``FITS``, fitted."""
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    settings = dict(FITS[generator])
    fit(generator, source.request, folder, settings=settings, edits=None, reporter=NullReporter())
    return folder


class Host:
    """nnU-Net's own trainer, ready to step; with a plan its training data set is wrapped."""

    def __init__(self, source: Any, plan: Any = None, device: str = "cpu") -> None:
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net introduces itself at length
            self.trainer = get_trainer_from_args(
                source.dataset, "3d_fullres", 0, "nnUNetTrainer", PLANS, device=torch.device(device)
            )
            if plan is not None:
                self._mix(source, plan)
            self.trainer.initialize()
            self._loaders = self.trainer.get_dataloaders()
        self.trainer.dataloader_train = self._loaders[0]
        self.trainer.network.train()
        self.waits: list[float] = []
        """Seconds each step has waited for its batch, or made it where there are no workers."""

    def _mix(self, source: Any, plan: Any) -> None:
        from gansynth_nnunet.mixed import MixedNnunetDataset, location_keys

        plain = self.trainer.get_tr_and_val_datasets

        def mixed() -> tuple[Any, Any]:
            train, validation = plain()
            batch, channels = self.trainer.batch_size, len(source.schema.channels)
            keys = location_keys(self.trainer.label_manager)
            return MixedNnunetDataset(train, plan, batch, channels, keys), validation

        self.trainer.get_tr_and_val_datasets = mixed

    def step(self) -> tuple[float, float]:
        """One batch and one training step; ``time.monotonic()`` when each was done."""
        began = time.monotonic()
        batch = next(self.trainer.dataloader_train)
        met = time.monotonic()
        self.trainer.train_step(batch)
        self.waits.append(met - began)
        return met, time.monotonic()

    def close(self) -> None:
        """End nnU-Net's worker processes."""
        for loader in self._loaders:
            finish = getattr(loader, "_finish", None)
            if finish is not None:
                finish()
