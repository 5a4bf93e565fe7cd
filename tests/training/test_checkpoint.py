"""Checkpoints: whole or not at all, two kept, damage passed over, everything restored."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gansynth.runtime.errors import EnvironmentFault, IntegrityFault
from gansynth.training import checkpoint

TENSORS = {"net/g/weight": torch.arange(6.0).reshape(2, 3), "optim/g/g/weight/step": torch.ones(())}
EMA = {"g/weight": torch.full((2, 3), 0.5)}


def save(folder: Path, step: int, **state: object) -> Path:
    return checkpoint.save(folder, step, TENSORS, EMA, state)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_read_back(tmp_path):
    save(tmp_path, 7, images=14)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.state["step"], found.state["images"], found.passed_over) == (7, 14, [])
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in TENSORS.items())


def test_what_draws_samples_has_a_file_and_a_hash_of_its_own(tmp_path):
    path = save(tmp_path, 7)
    sha256 = json.loads((path / checkpoint.STATE).read_text())["sha256"][checkpoint.EMA]
    read = checkpoint.load_tensors(path / checkpoint.EMA, sha256)
    assert torch.equal(read["g/weight"], EMA["g/weight"])


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 9, 10):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000009", "step-00000010"]


def test_there_may_be_none(tmp_path):
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".step-00000004.tmp-1").mkdir()
    (tmp_path / ".step-00000004.tmp-1" / "tensors.safetensors").write_bytes(b"half")
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-00000005"]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = [
    (name, spoil)
    for name in (checkpoint.TENSORS, checkpoint.EMA)
    for spoil in (shorten, flip, Path.unlink)
] + [(checkpoint.STATE, partial(Path.write_text, data=text)) for text in ("", "{}", "[]", '{"a')]


@pytest.mark.parametrize(("name", "spoil"), DAMAGE)
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, name, spoil):
    save(tmp_path, 1)
    spoil(save(tmp_path, 2) / name)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.folder.name == "step-00000001"
    assert [note.partition(":")[0] for note in found.passed_over] == ["step-00000002"]


def test_all_damaged_is_an_integrity_fault_with_every_reason(tmp_path):
    for step in (1, 2):
        flip(save(tmp_path, step) / checkpoint.TENSORS)
    with pytest.raises(IntegrityFault, match=r"step-00000002.*SHA-256.*step-00000001.*SHA-256"):
        checkpoint.latest(tmp_path)


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path):
    flip(save(tmp_path, 2) / checkpoint.TENSORS)
    save(tmp_path, 2, images=5)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.state["images"], found.passed_over) == (5, [])


def test_a_file_where_the_folder_should_be_is_an_environment_fault(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        save(tmp_path / "checkpoints", 1)


# 2000 bytes hold the small tensors but not the large ones; 200 hold both, but not state.json.
FULL = """
import resource, sys
from pathlib import Path
from typing import Any
import torch
from gansynth.training import checkpoint
from gansynth.runtime.errors import EnvironmentFault

folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"a": torch.ones(3)}, {"b": torch.ones(3)}, {})
for limit, size in ((2000, 999), (200, 3)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoint.save(folder, 2, {"a": torch.ones(size)}, {"b": torch.ones(3)}, {})
    except EnvironmentFault as error:
        print(error, *sorted(path.name for path in folder.iterdir()))
"""


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    tensors, state = done.stdout.splitlines()
    assert "tensors.safetensors: cannot be written: the file is larger than" in tensors
    assert "state.json: cannot be written: the file is larger than" in state
    assert tensors.endswith("another folder step-00000001")
    assert state.endswith("another folder step-00000001")
    assert checkpoint.latest(tmp_path) is not None


# -- restoring -------------------------------------------------------------------------------------


def trained(width: int = 3) -> tuple[dict[str, Any], dict[str, torch.optim.Optimizer]]:
    nets = {"g": nn.Linear(2, width)}
    adam = torch.optim.Adam(nets["g"].parameters(), lr=0.1)
    nets["g"](torch.ones(1, 2)).sum().backward()
    adam.step()
    return nets, {"g": adam}


def test_restored_networks_and_moments_step_as_the_old_ones_would():
    nets, optimizers = trained()
    kept = {k: v.clone() for k, v in checkpoint.collect(nets, {}, optimizers).items()}
    twin: dict[str, Any] = {"g": nn.Linear(2, 3)}
    adam = torch.optim.Adam(twin["g"].parameters(), lr=0.1)
    checkpoint.restore(kept, twin, {}, {"g": adam})
    for net, optimizer in ((nets["g"], optimizers["g"]), (twin["g"], adam)):
        optimizer.zero_grad()
        net(torch.full((1, 2), 3.0)).square().sum().backward()
        optimizer.step()
    assert torch.equal(nets["g"].weight, twin["g"].weight)


def test_restored_averages_are_the_saved_ones():
    nets, optimizers = trained()
    kept = checkpoint.collect(nets, {"g/weight": torch.ones(3, 2)}, optimizers)
    averages = {"g/weight": torch.zeros(3, 2)}
    checkpoint.restore(kept, nets, averages, optimizers)
    assert averages["g/weight"].eq(1).all()


def test_another_architecture_is_refused_before_anything_is_loaded():
    kept = checkpoint.collect(trained()[0], {}, {})
    wide, _ = trained(width=4)
    before = wide["g"].state_dict()["weight"].clone()
    with pytest.raises(IntegrityFault, match=r"2 tensor\(s\).*net/g/bias"):
        checkpoint.restore(kept, wide, {}, {})
    assert torch.equal(wide["g"].state_dict()["weight"], before)


def test_lacking_averages_are_refused_by_name():
    nets, _ = trained()
    kept = checkpoint.collect(nets, {}, {})
    with pytest.raises(IntegrityFault, match="ema/g/weight"):
        checkpoint.restore(kept, nets, {"g/weight": torch.zeros(3, 2)}, {})


def test_tensors_that_are_missing_are_an_integrity_fault(tmp_path):
    with pytest.raises(IntegrityFault, match="missing"):
        checkpoint.load_tensors(tmp_path / "none.safetensors", "0" * 64)
