"""Rows 31, 32 and 43: full shared memory, folders that cannot be, clocks and other variables."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from gansynth.core.ratio import Ratio
from gansynth.hosts.mixing.mixer import Mixer, MixerConfig
from gansynth.sampling.manifest import check_lockable, locked
from tests.disks import of_mode
from tests.expected import raises_fault
from tests.flat_sets import pictures, slices
from tests.training.zoo.members import differing, newest

MOUNT = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
FILL = """
import os
import numpy as np
from gansynth.bank.placement import place_bank
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample, Schema

open("/dev/shm/taken", "wb").write(bytes(700_000))
folder, said = place_bank("run", 1000)
assert str(folder).startswith("/dev/shm"), folder
spec = BankSpec(Schema(("T1",), {"background": 0}, (1.0,) * 3), Lineage("toy", "0", ()), "run",
                "f" * 64, False, 4)
image = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
sample = Sample(image, np.zeros((32, 32, 32), np.int16))
with BankWriter.create(folder, spec) as writer:
    for _ in range(40):
        writer.publish(sample, {})
    print(BankReader(folder).count(), writer.squeezed)
    other, said = place_bank("run", 1 << 30)
    print(other.parent, said)
    os.unlink("/dev/shm/taken")
    for _ in range(4):
        writer.publish(sample, {})
    print(BankReader(folder).count(), writer.squeezed, writer.state)
"""


@pytest.mark.fault(31)
def test_full_shared_memory_makes_a_live_bank_smaller_until_there_is_room(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a tmpfs")
    words = ("unshare", "-rm", "sh", "-c", MOUNT, "sh", sys.executable, "-c", FILL)
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, timeout=200)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert done.returncode == 0, done.stderr
    squeezed, next_goes_elsewhere, with_room = done.stdout.splitlines()
    assert squeezed == "2 True"
    full = f"{tmp_path} shared memory (/dev/shm) has "
    assert next_goes_elsewhere.startswith(full)
    assert with_room == "4 False filling"


@pytest.mark.fault(32)
@pytest.mark.parametrize("refuse", [check_lockable, lambda folder: locked(folder).__enter__()])
def test_a_file_system_without_locks_is_named_as_such(tmp_path, monkeypatch, refuse):
    (tmp_path / ".lock").touch()
    monkeypatch.setattr("fcntl.flock", without_locks)
    with raises_fault("sampling.run-folder-not-lockable", names="mount it with -o local_lock=all"):
        refuse(tmp_path)


def without_locks(file: object, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


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
def test_nothing_is_drawn_for_an_evaluation_that_could_not_be_written(toys, world, run_cli):
    result = run_cli("evaluate", world / "toy", "-n", "4", "-o", "/dev/null/report")
    assert (result.exit_code, "samples" in result.stderr) == (4, False)


CLOSED = """
check nifti:{0}/data
check pictures:{0}/data
check yolo:{0}/data.yaml
check msd:{0}/Task01
check nnunet:004 --root {0}
check nnunet-raw:004 --root {0}
check deepmedic:{0}/trainConfig.cfg
check h5:{0}/x.h5
check slices:nifti:{0}/data
check {0}/data
check nifti:{1} --subjects {0}/subjects.csv
check nifti:{1} --generator {0}/run
check nifti:{1} --read splits={0}/splits.json
import nifti:{0}/data nnunet:005 --root {1}
splits nnunet:004 --root {0}
prepare nnunet:004 --root {0}
cache toy:3 -o {0}/x.h5
fit means --data nifti:{0}/data -o {1}/run
fit means --data toy:3 -o {0}/run
fit means --data toy:3 -o {1}/run --init-from {0}/run
sample {0}/run
augment nnunet:004 --root {0}
augment --target nnunet --generator {0}/run --ratio 1:1
predict {0}/result {1} -o {1}/out
evaluate {0}/run
turing-test {0}/run
detections {0}/run
benchmark {0}/plan.yaml
tune {0}/plan.yaml
papers {0}/plan.yaml --data toy:3
demo -o {0}/demo
demo -o {0}/demo --phantoms yolo
plugins new mine -o {0}/mine
"""


@pytest.mark.fault(32)
@pytest.mark.parametrize("command", CLOSED.strip().splitlines())
def test_a_closed_folder_is_named_by_every_command(toys, tmp_path, refuse, command):
    closed, open_folder = tmp_path / "closed", tmp_path / "open"
    closed.mkdir()
    slices(open_folder)
    with of_mode(closed, 0):
        refuse(*command.format(closed, open_folder).split(), code=4, says=(f"{closed}: ", "enter"))


@pytest.mark.fault(32)
@pytest.mark.parametrize("mode", [0, 0o111, 0o444])
@pytest.mark.parametrize(
    ("made", "part"), [(slices, "images"), (slices, "labels"), (pictures, "images")]
)
def test_no_part_of_a_data_set_is_left_out_that_may_not_be_read(tmp_path, refuse, made, part, mode):
    asked, folder = made(tmp_path / "data"), tmp_path / "data" / part
    data = ":".join([asked.read.get("of", asked.kind), asked.where])
    with of_mode(folder, mode):
        refuse("check", data, code=4, says=(f"{folder}: ", "enter"))


@pytest.mark.fault(32)
@pytest.mark.parametrize("command", ["evaluate", "turing-test"])
def test_a_read_only_run_is_told_before_samples_are_drawn(toys, world, tmp_path, run_cli, command):
    run = shutil.copytree(world / "toy", tmp_path / "run")
    with of_mode(run, 0o555):
        result = run_cli(command, run)
    assert (result.exit_code, "Make room" in result.stderr) == (4, False), result.stderr
    assert f"{run} is no folder that can be written to" in result.stderr.splitlines()[-1]


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


@pytest.fixture
def mixer(toy_bank, tmp_path, monkeypatch) -> Mixer[int]:
    """Draws from a live bank alone, which it looks at before each batch and never waits for."""
    monkeypatch.setattr("gansynth.hosts.mixing.mixer._LOOK_SECONDS", 0.0)
    plan = {"log": tmp_path / "draws", "sample_timeout": 0.0}
    return Mixer(MixerConfig(toy_bank(frozen=False), Ratio(0, 1), **plan))


@pytest.mark.fault(43)
@pytest.mark.parametrize("set_to", ["back", "forward"])
def test_a_clock_that_is_set_leaves_a_live_bank_in_use(mixer, monkeypatch, set_to):
    now = time.time()
    if set_to == "back":
        for path in mixer.plan.bank.iterdir():
            os.utime(path, (now + 3600, now + 3600))
    else:  # while it trains
        mixer.batch(range(4))
        os.utime(mixer.plan.bank / "heartbeat.json")
        mixer.batch(range(4))
        monkeypatch.setattr("time.time", lambda: now + 3600)
    assert all(slot.sample is not None for slot in mixer.batch(range(4)))
