import resource
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import sha256_file
from gansynth.training import checkpoint
from tests.expected import raises_fault

TENSORS = {"net/g/weight": torch.arange(6.0).reshape(2, 3), "optim/g/g/weight/step": torch.ones(())}
EMA = {"g/weight": torch.full((2, 3), 0.5)}


def save(folder: Path, step: int, **state: object) -> Path:
    return checkpoint.save(folder, step, TENSORS, EMA, state)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def latest(folder: Path) -> checkpoint.Checkpoint:
    found = checkpoint.latest(folder)
    assert found is not None
    return found


@pytest.mark.fault(28)
def test_the_last_two_are_kept_and_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".step-00000004.tmp-1").mkdir()
    (tmp_path / ".step-00000004.tmp-1" / "tensors.safetensors").write_bytes(b"half")
    for step in (1, 2, 9, 10):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000009", "step-00000010"]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = [
    *((name, way) for name in ("TENSORS", "EMA") for way in (shorten, flip, Path.unlink)),
    *(("STATE", partial(Path.write_text, data=text)) for text in ("", "{}", "[]", '{"a')),
    ("STATE", lambda path: path.write_text(path.read_text().replace('"step": 2', '"step": 3'))),
]


@pytest.mark.fault(3, 25)
@pytest.mark.parametrize(("name", "spoil"), DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_replaced(tmp_path, name, spoil):
    save(tmp_path, 1)
    spoil(save(tmp_path, 2) / getattr(checkpoint, name))
    found = latest(tmp_path)
    assert found.folder.name == "step-00000001"
    assert [note.partition(":")[0] for note in found.passed_over] == ["step-00000002"]
    save(tmp_path, 2, images=5)
    found = latest(tmp_path)
    assert (found.state["images"], found.passed_over) == (5, [])


@pytest.mark.fault(27)
def test_only_damaged_checkpoints_are_an_integrity_fault_with_every_reason(tmp_path):
    flip(save(tmp_path, 1) / checkpoint.TENSORS)
    (save(tmp_path, 2) / checkpoint.TENSORS).unlink()
    with raises_fault("training.all-checkpoints-damaged"):
        checkpoint.latest(tmp_path)


@pytest.mark.fault(32)
def test_a_file_where_the_folder_should_be_is_an_environment_fault(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with raises_fault("files.cannot-be-written"):
        save(tmp_path / "checkpoints", 1)


@pytest.mark.fault(31)
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    # 2000 bytes hold the small tensors but not the large ones; 200 hold both, but not state.json.
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    save(tmp_path, 1)
    for limit, size, name in ((2000, 999, checkpoint.TENSORS), (200, 3, checkpoint.STATE)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
        try:
            with pytest.raises(EnvironmentFault) as fault:
                checkpoint.save(tmp_path, 2, {"a": torch.ones(size)}, {"b": torch.ones(3)}, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert f"{name}: cannot be written: the file is larger than" in str(fault.value)
        assert names(tmp_path) == ["step-00000001"]
    assert latest(tmp_path)


def trained(width: int = 3) -> tuple[dict[str, Any], dict[str, torch.optim.Optimizer]]:
    nets = {"g": nn.Linear(2, width)}
    adam = torch.optim.Adam(nets["g"].parameters(), lr=0.1)
    nets["g"](torch.ones(1, 2)).sum().backward()
    adam.step()
    return nets, {"g": adam}


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("width", "averages", "names"),
    [(4, {}, "net/g/bias"), (3, {"g/weight": torch.zeros(3, 2)}, "ema/g/weight")],
    ids=["another architecture", "no averages"],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(width, averages, names):
    kept = checkpoint.collect(trained()[0], {}, {})
    nets, _ = trained(width)
    before = nets["g"].weight.detach().clone()
    with raises_fault("training.checkpoint-does-not-fit", names=names):
        checkpoint.restore(kept, nets, averages, {})
    assert torch.equal(nets["g"].weight, before)


def test_what_is_no_safetensors_file_is_an_integrity_fault(tmp_path):
    (path := tmp_path / checkpoint.EMA).write_bytes(b"\xff" * 40)
    with raises_fault("training.tensor-file-not-safetensors"):
        checkpoint.load_tensors(path, sha256_file(path))
