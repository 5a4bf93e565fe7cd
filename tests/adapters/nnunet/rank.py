"""One of two processes that train nnU-Net together: python -m tests.adapters.nnunet.rank."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from gansynth.runtime import torchvision_compat
from gansynth_nnunet.launch import TRAINER


def on_cpu(dataset: str, plans: str) -> Any:
    """A trainer as nnUNetv2_train builds it for each rank, made to work without CUDA.

    nnU-Net takes it for granted in data-parallel training: it sets the device, and names it to
    DistributedDataParallel, which refuses that for modules on a CPU.
    """
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    distributed, device = torch.nn.parallel.DistributedDataParallel, torch.device("cpu")
    module.DDP = lambda network, device_ids: distributed(network)
    trainer = get_trainer_from_args(dataset, "3d_fullres", 0, TRAINER, plans, device=device)
    trainer.device, trainer.grad_scaler = device, None
    trainer.configuration_manager.configuration["batch_size"] = 3
    return trainer


def main(rank: int, folder: Path, *names: str) -> None:
    torchvision_compat.apply()
    import torch.distributed

    address = f"file://{folder / 'meet'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    trainer = on_cpu(*names)
    trainer.run_training()
    plan, leads = trainer.gansynth_plan, trainer.gansynth_job is not None
    where = (str(plan.bank), str(plan.log), trainer.output_folder)
    told = {"where": where, "leads": leads, "batch": trainer.batch_size, "pid": os.getpid()}
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
