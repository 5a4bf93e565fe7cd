"""What runs in processes of its own: NCCL, and nnU-Net with samples drawn on the fly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NCCL = """
import torch
from gansynth.runtime import distributed
from gansynth.runtime.distributed import ProcessGroup, process_group

device = torch.device("cuda", 0)
distributed.expected_size = lambda: 2  # so that a world of one is joined as well
with process_group(device) as processes:
    assert (processes.rank, processes.size) == (0, 1)
    two = ProcessGroup(0, 2)  # sums are those of one process, means are half of them
    net = torch.nn.Conv3d(2, 4, 3).to(device).to(memory_format=torch.channels_last_3d)
    two.broadcast(net.state_dict().values())
    net(torch.ones(1, 2, 4, 4, 4, device=device)).sum().backward()
    before = net.weight.grad.clone()
    two.average_gradients(net.parameters())
    assert torch.allclose(net.weight.grad, before / 2)
    assert float(two.mean(torch.tensor([3.0], device=device))) == 1.5
    assert two.any(15) == 15
    assert two.tell({"a": [1, None]}) == {"a": [1, None]}
    two.wait()
print("done")
"""


def start(*command: object, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "nnUNet_n_proc_DA": "1"}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1")


@pytest.mark.usefixtures("real_cuda")
def test_a_team_talks_over_its_devices_own_network(tmp_path):
    (tmp_path / "nccl.py").write_text(NCCL)
    done = start(*TORCHRUN, tmp_path / "nccl.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


@pytest.mark.usefixtures("real_cuda")
def test_torchrun_with_one_process_is_a_training_like_any_other(tmp_path):
    fit = ("fit", "zoo_wgan_gp", "--data", "zoo:16", "-o", tmp_path / "run", "--json")
    loop = ("--set=steps=4", "--set=batch_size=2", "--set=precision=fp32")
    done = start(*TORCHRUN, "-m", "tests.training.zoo.command", *fit, *loop, "--device", "auto")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4


@pytest.mark.slow
def test_nnunet_trains_with_samples_that_are_drawn_on_the_fly(device, toy_copy, tmp_path):
    pytest.importorskip("nnunetv2")
    tiny = [f"--set={s}" for s in ("steps=4", "width=4", "d_width=4", "levels=2")]
    fit = ("fit", "cgan3d", *toy_copy.options, "-o", tmp_path / "run", "--device", device.type)
    done = start("-m", "gansynth_cli", *fit, *tiny)
    assert done.returncode == 0, done.stderr
    quick = ("num_epochs=1", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1")
    done = start(
        *("-m", "gansynth_cli", "augment", "--target", "nnunet", *toy_copy.options),
        *("--generator", tmp_path / "run", "--ratio", "1:1", "--bank-size", "8", "--json"),
        *(f"--set={s}" for s in quick),
        *("--", "-device", device.type),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["realised_synthetic_share"] == 0.5
