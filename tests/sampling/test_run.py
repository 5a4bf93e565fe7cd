import contextlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.schema import Condition
from gansynth.sampling.manifest import locked
from gansynth.sampling.open_run import load_run
from tests.expected import raises_fault

FIRST, LAST = ("checkpoints/step-00000002", "checkpoints/step-00000004")


@pytest.fixture(scope="module")
def shared(toy_fit, whole_fits, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("shared") / "run"
    toy_fit(out, steps=4, sample_every=2)
    return out


@pytest.fixture
def run(shared: Path, tmp_path: Path) -> Path:
    """A run of its own for each test, moved from where it was made."""
    return Path(shutil.copytree(shared, tmp_path / "moved"))


def told(run: Path) -> Any:
    return json.loads((run / "manifest.json").read_text())


def change(run: Path, **entries: object) -> None:
    write_manifest(run, {**told(run), **entries})


def draw(folder: Path) -> np.ndarray:
    condition = Condition(labels=np.zeros((32, 32), np.int16))
    return load_run(folder, "cpu").generator.sample([condition], [5])[0].image


def test_a_moved_run_draws_the_same_by_averaged_weights_and_leaves_the_random_state(shared, run):
    before = torch.get_rng_state()
    assert np.array_equal(draw(run), draw(shared))
    assert torch.equal(torch.get_rng_state(), before)
    net = load_run(shared, "cpu").generator.nets["generator"].state_dict()
    saved = load_file(shared / LAST / "ema.safetensors")
    assert all(torch.equal(net[k.partition("/")[2]], v) for k, v in saved.items())
    assert len(saved) == len(net)


def of_options(**options: object) -> Any:
    return lambda run: change(run, options={**read_manifest(run)["options"], **options})


def lead_out(run: Path) -> None:
    weights = read_manifest(run)["weights"]
    change(run, weights={**weights, "path": f"../other/{weights['path']}"})


def tamper(run: Path) -> None:
    path = run / LAST / "ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def text(words: str) -> Any:
    return lambda run: (run / "manifest.json").write_text(words)


def edited(*changes: Any) -> Any:
    """The manifest was edited by hand."""

    def edit(run: Path) -> None:
        manifest = told(run)
        for one in changes:
            one(manifest)
        (run / "manifest.json").write_text(json.dumps(manifest))

    return edit


def no_digest(manifest: Any) -> None:
    """As manifests of earlier versions were."""
    del manifest["digest"]


REFUSED: dict[str, tuple[Any, ...]] = {
    "tampered": (tamper, "files.checksum-differs", "ema.safetensors"),
    "lost": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "files.checksum-differs",
        "ema.safetensors",
    ),
    "too wide": (of_options(width=1024, max_width=4096), "sampling.weights-do-not-fit"),
    "too large": (
        lambda run: change(run, space={**told(run)["space"], "size": [1 << 20, 1 << 20]}),
        "machine.needs-more-memory-than-free",
        "1048576 x 1048576 voxels",
    ),
    "unknown": (of_options(grain=1), "sampling.manifest-options-of-other-version", "grain is 1"),
    "wide": (of_options(width="wide"), "sampling.manifest-options-of-other-version", "'wide'"),
    "outside": (lead_out, "files.path-leads-out-of-folder"),
    "settings": (
        lambda run: change(run, config={"fit": 0.5}),
        "run-folder.fit-options-damaged",
        "0.5",
    ),
    "begun": (lambda run: change(run, weights=None), "sampling.run-without-checkpoint"),
    "none": (lambda run: (run / "manifest.json").unlink(), "run-folder.no-manifest"),
    "empty": (text(""), "files.own-document-unreadable", "manifest.json"),
    "little": (text('{"version": 1}'), "version.format-differs"),
    "steps": (edited(lambda m: m.update(steps=9)), "files.digest-differs"),
    "case": (edited(lambda m: m["lineage"]["cases"].pop()), "files.digest-differs"),
    "type": (
        edited(no_digest, lambda m: m.update(steps="9")),
        "run-folder.manifest-damaged",
        "'steps'",
    ),
    "space": (
        edited(no_digest, lambda m: m.pop("space")),
        "run-folder.manifest-damaged",
        "'space'",
    ),
}


@contextlib.contextmanager
def memory_of_at_most(more: int) -> Iterator[None]:
    """Let this process take so many bytes more, and none beyond."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.fault(27)
@pytest.mark.parametrize("how", REFUSED)
def test_a_run_that_is_not_what_it_claims_is_refused_in_one_line(run, how):
    damage, expected, *names = REFUSED[how]
    damage(run)
    with (
        memory_of_at_most(512 << 20),
        raises_fault(expected, names="".join(names)) as caught,
    ):
        load_run(run, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.fault(44)
def test_a_device_that_is_not_there_is_an_environment_fault(shared):
    with raises_fault("devices.cuda-device-missing"):
        load_run(shared, "cuda:99")


@pytest.mark.fault(36)
def test_a_held_folder_names_its_holder_and_a_killed_one_holds_nothing(held):
    folder, holder = held
    with (
        raises_fault("sampling.run-folder-locked", names=f"pid {holder.pid}"),
        locked(folder),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(folder):
        assert f"pid {holder.pid} " not in (folder / ".holder").read_text()
    assert not (folder / ".holder").exists()
