"""Rows 31, 32 and 43: full shared memory, folders that cannot be, clocks and other variables."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gansynth.runtime.errors import EnvironmentFault
from tests.training.zoo.members import differing, newest

MOUNT = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
FILL = """
import numpy as np
from gansynth.bank.placement import place_bank
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample, Schema

folder, said = place_bank("run", 1000)
assert str(folder).startswith("/dev/shm"), folder
spec = BankSpec(Schema(("T1",), {"background": 0}, (1.0,) * 3), Lineage("toy", "0", ()), "run",
                "f" * 64, False, 100)
rng = np.random.default_rng(0)
with BankWriter.create(folder, spec) as writer:
    for _ in range(40):
        image = rng.normal(size=(1, 32, 32, 32)).astype(np.float32)
        writer.publish(Sample(image, np.zeros((32, 32, 32), np.int16)), {})
print(BankReader(folder).count(), writer.squeezed)
other, said = place_bank("run", 1 << 30)
print(other.parent, said)
"""


@pytest.mark.fault(31)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tmpfs")
def test_full_shared_memory_makes_a_live_bank_smaller_and_the_next_go_elsewhere(tmp_path):
    words = ("unshare", "-rm", "sh", "-c", MOUNT, "sh", sys.executable, "-c", FILL)
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, timeout=200)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    held, squeezed = first.split()
    assert 1 <= int(held) < 40
    assert squeezed == "True"
    assert second.startswith(f"{tmp_path} shared memory (/dev/shm) has 0.0 GB free")


@pytest.mark.fault(32)
@pytest.mark.parametrize("folder", ["/proc/run", "/dev/null/run"])
@pytest.mark.parametrize(
    "words",
    [
        ("fit", "means", "--data", "toy:3", "-o"),
        ("sample", "{toy}", "-n", "1", "-o"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_cannot_be_written_ends_a_command_before_it_begins(
    toys, world, refuse, words, folder
):
    words = tuple(word.format(toy=world / "toy") for word in words)
    refuse(*words, folder, code=4, says=(folder,))


@pytest.mark.fault(32)
def test_a_run_folder_that_vanishes_is_no_success(toy_fit, tmp_path, monkeypatch):
    from gansynth.training import checkpoint

    save = checkpoint.save

    def vanished(folder: Path, *rest: object, **more: object) -> object:
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in the way")
        return save(folder, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", vanished)
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        toy_fit(tmp_path / "run")


SETTINGS = {"steps": 3, "width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "precision": "fp32"}
ODD = {
    **{"LC_ALL": "de_DE.UTF-8", "LANG": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"},
    **{"TERM": "dumb", "COLUMNS": "3", "PYTHONUTF8": "0"},
}


@pytest.mark.slow
@pytest.mark.fault(43)
def test_another_locale_zone_home_and_hash_seed_give_the_same_numbers(tmp_path):
    seen = []
    for name, changes in (("usual", {}), ("odd", ODD | {"HOME": str(tmp_path / "no_home")})):
        run = tmp_path / name
        words = [sys.executable, "-m", "gansynth_cli", "fit", "cgan3d", "--data", "example:2d"]
        words += ["-o", str(run), "--device", "cpu", "--json", "-q"]
        words += [f"--set={key}={value}" for key, value in SETTINGS.items()]
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environ |= {"PYTHONPATH": os.pathsep.join(sys.path), **changes}
        done = subprocess.run(words, capture_output=True, env=environ, timeout=280)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout.decode("utf-8"))
        seen.append(newest(run))
        manifest = json.loads((run / "manifest.json").read_bytes().decode("utf-8"))
        assert manifest["steps"] == 3
    assert differing(*seen) == []


@pytest.mark.fault(43)
def test_a_clock_that_steps_to_and_fro_changes_no_number(toy_fit, tmp_path, monkeypatch):
    toy_fit(tmp_path / "usual")
    now, steps = time.time, iter(range(10**9))
    monkeypatch.setattr("time.time", lambda: now() + (-1) ** next(steps) * 1e6)
    toy_fit(tmp_path / "odd")
    assert differing(newest(tmp_path / "usual"), newest(tmp_path / "odd")) == []


@pytest.mark.fault(43)
def test_a_clock_that_was_set_back_leaves_a_live_bank_in_use(toy_bank, tmp_path):
    from gansynth.core.ratio import Ratio
    from gansynth.hosts.mixer import Mixer, MixerConfig

    bank = toy_bank(frozen=False)
    later = time.time() + 3600
    for path in bank.iterdir():
        os.utime(path, (later, later))
    mixer: Mixer[int] = Mixer(MixerConfig(bank, Ratio(0, 1), log=tmp_path / "draws", patience=1.0))
    assert all(slot.sample is not None for slot in mixer.batch(range(4)))
