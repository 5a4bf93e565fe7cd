"""doctor: each thing that may be wrong with a machine gets its line and its cure."""

import json
import os
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gansynth.bank import placement
from gansynth.core.adapter import DoctorRequest
from gansynth.core.hookspecs import hookimpl
from gansynth.hosts import doctor
from gansynth.runtime import machine, torchvision_compat
from gansynth.runtime.machine import Line
from gansynth_deepmedic.program import doctor_lines
from gansynth_nnunet import doctor as nnunet
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER
from gansynth_yolo import doctor as yolo
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.cli.conftest import registered

QUICK = DoctorRequest(None, quick=True, settings={})
GIB = 2**30


def says(line: Line, state: str, *words: str) -> None:
    assert line.state == state
    assert [w for w in words if w not in line.text] == [], line.text
    assert bool(line.cure) == (state != "ok")


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Doctor without the imports that take seconds; what hosts are asked."""
    told: list[DoctorRequest] = []
    monkeypatch.setattr(doctor, "HOSTS", ())
    monkeypatch.setattr(doctor, "host_lines", lambda asked: iter(told.append(asked) or ()))
    return told


def test_it_is_content_with_this_machine_and_options_reach_the_hosts(asked, run_json):
    of_deepmedic = ("--deepmedic", "/dm", "--deepmedic-python", "python3")
    document = run_json("doctor", "--quick", "--root", "/data", *of_deepmedic)
    assert document["ok"] is True
    found = {line["what"] for line in document["lines"]}
    assert {"gansynth", "python", "torch", "auto", "threads", "/dev/shm", "plugins"} <= found
    assert {"memory", "temporary files", "scratch banks", "open files", "monai"} <= found
    assert {tuple(line) for line in document["lines"]} == {("state", "what", "found", "cure")}
    settings = {"deepmedic": "/dm", "python": "python3"}
    assert asked == [DoctorRequest("/data", quick=True, settings=settings)]


def test_something_essential_missing_is_exit_4_after_all_lines(asked, run_cli, monkeypatch):
    monkeypatch.setattr(doctor, "ESSENTIAL", ("numpy", "no-such-package"))
    result = run_cli("doctor", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {"state": "bad", "what": "no-such-package"}.items() <= document["lines"][3].items()
    assert result.stderr == "error: doctor: no-such-package not in order; see the lines above\n"


def test_the_table_holds_the_cure(asked, run_cli, monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"no-such-extra": ("flying", "gansynth[wings]")})
    shown = run_cli("doctor").stdout
    assert "not installed; only for flying; pip install 'gansynth[wings]'" in shown


def test_a_host_that_cannot_be_looked_at_or_does_not_load_is_a_line(monkeypatch):
    def torn(*arguments: Any, **named: Any) -> None:
        raise ImportError("no module named tensorlib")

    @hookimpl
    def register_adapters(register):
        register("torn", torn)

    monkeypatch.setattr(nnunet, "lines", torn)
    with registered(SimpleNamespace(register_adapters=register_adapters)):
        lines = {line.what: line for line in doctor.host_lines(QUICK)}
    says(lines["torn"], "note", "does not load", "tensorlib", "pip install")
    says(lines["nnunet"], "note", "no module named tensorlib", "pip install")
    assert {"deepmedic", "libreyolo"} <= set(lines)


# -- packages --------------------------------------------------------------------------------------


def test_a_host_that_is_missing_is_a_note_only():
    line = doctor.package_line("no-such-host", {}, essential=False)
    assert (line.state, line.found) == ("note", "not installed")
    assert line.cure == "pip install no-such-host"


def test_a_package_that_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "torn_package.py").write_text("raise OSError('libtorn.so is missing')")
    meta = tmp_path / "torn_package-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    line = doctor.package_line("torn-package", {}, essential=True)
    says(line, "bad", "OSError: libtorn.so is missing", "--force-reinstall")


def test_a_package_too_old_names_what_is_needed(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda package: "2.5")
    line = doctor.package_line("torch", doctor._wanted(), essential=True)
    says(line, "bad", "2.5, gansynth needs >=2.6", "pip install 'torch>=2.6'")


def test_broken_plugins_are_noted():
    @hookimpl
    def hook(register):
        raise RuntimeError("no licence")

    with registered(SimpleNamespace(register_edits=hook), "unlucky"):
        lines = {line.what: line for line in doctor.plugin_lines()}
    line = lines["plugin unlucky"]
    says(line, "note", "left out: RuntimeError: no licence", "gansynth plugins")


# -- devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("built_for", "driver", "hidden", "state", "words"),
    [
        (None, False, None, "ok", ["no CUDA device"]),
        (None, True, None, "note", ["built for the CPU, but there is an NVIDIA driver"]),
        ("12.8", False, None, "note", ["there is no NVIDIA driver", "--gpus all"]),
        ("12.8", True, None, "note", ["this driver does not serve (too old)", "update the NVIDIA"]),
        ("12.8", True, "", "note", ["hides every CUDA device", "unset CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_why_there_is_no_cuda(monkeypatch, built_for, driver, hidden, state, words):
    monkeypatch.setattr(doctor, "DRIVER", Path("/" if driver else "/nowhere"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    says(doctor._no_cuda(built_for, ["too old"]), state, *words)


def cuda(free: float, arches: tuple[str, ...] = ("sm_80", "sm_90a")) -> Any:
    """A torch with one device."""
    module = SimpleNamespace(
        get_device_name=lambda index: "Imaginary 3000",
        get_device_capability=lambda index: (9, 0),
        mem_get_info=lambda index: (free * GIB, 80 * GIB),
        get_arch_list=lambda: list(arches),
    )
    return SimpleNamespace(cuda=module)


@pytest.mark.parametrize(
    ("torch", "state", "words"),
    [
        (cuda(79), "ok", "Imaginary 3000, 79.0 GiB free of 80.0"),
        (cuda(3), "note", "nvidia-smi lists them"),
        (cuda(79, ("sm_50", "sm_60")), "note", "no code for its architecture (sm_9x)"),
        (SimpleNamespace(), "note", "cannot be used"),
    ],
    ids=["fine", "full", "old", "none"],
)
def test_a_cuda_device(torch, state, words):
    says(doctor._cuda(torch, 0), state, words)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "training on cpu; the producer on cpu too"),
        (1, "the producer on cuda:0 (shared with training)"),
        (2, "training on cuda:0, the producer on cuda:1"),
    ],
)
def test_what_auto_takes(monkeypatch, count, words):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert words in doctor._auto(count)


# -- the machine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "state"), [("1", "ok"), (None, "note")])
def test_unset_threads_on_several_cores(monkeypatch, threads, state):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    says(machine.threads(), state)


@pytest.mark.parametrize(("limit", "state"), [("max", "ok"), (str(2 * GIB), "note")])
def test_a_containers_limits_count(tmp_path, monkeypatch, limit, state):
    for name, text in (("cpu.max", "100000 100000\n"), ("memory.max", limit)):
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.current").write_text(str(GIB))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    found = SimpleNamespace(total=64 * GIB, available=50 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)
    assert machine.cores() == 1
    words = ["1.0 GiB free of 2.0 (a container's limit)"] if state == "note" else []
    says(machine.memory(), state, *words)


@pytest.mark.parametrize(("mebibytes", "state"), [(64, "note"), (8192, "ok")])
def test_a_small_shared_memory(monkeypatch, mebibytes, state):
    usage = SimpleNamespace(total=mebibytes << 20, free=mebibytes << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    line = machine.shared_memory()
    fits = (mebibytes << 20) // (2 * 96**3 * 10)
    says(line, state, f"room for a bank of {fits} samples of 4 x 96x96x96")
    assert ("--shm-size" in line.cure) == (state == "note")


def test_no_shared_memory_and_a_full_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    says(machine.shared_memory(), "note", "not there", "temporary folder")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    says(machine.temporary(), "note", "0.0 GiB free", "TMPDIR")


def test_banks_of_the_dead_come_with_the_command_that_removes_them(monkeypatch):
    left = [(Path("/dev/shm/a b"), GIB // 2, 1, False), (Path("/tmp/c"), GIB // 2, 2, False)]
    used = [(Path("/dev/shm/d"), GIB, 3, True)]
    monkeypatch.setattr(placement, "scratch_banks", lambda: left + used)
    dead, alive = doctor.scratch_banks()
    says(dead, "note", "2 left by processes that have ended, 1.00 GiB")
    assert dead.cure == "rm -r '/dev/shm/a b' /tmp/c"
    says(alive, "ok", "1 in use, 1.00 GiB")


@pytest.mark.parametrize(("soft", "state"), [(256, "note"), (65536, "ok"), (-1, "ok")])
def test_low_limits(monkeypatch, soft, state):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))
    files, processes = machine.limits()
    says(files, state)
    says(processes, state)
    assert files.cure == ("ulimit -n 4096" if state == "note" else "")


# -- nnU-Net ---------------------------------------------------------------------------------------

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No variable of nnU-Net's is set, and the working folder is empty."""
    others = ("nnUNet_extTrainer", "nnUNet_n_proc_DA", "GANSYNTH_NNUNET_ROOT", "PYTHONPATH")
    for name in (*FOLDERS, *others):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_folder_says_who_names_it_or_what_to_type(bare, monkeypatch):
    for line, name in zip(nnunet.folder_lines(None), FOLDERS, strict=True):
        says(line, "note", "not set", f"export {name}={bare / 'nnunet' / name}")
    monkeypatch.setenv("nnUNet_raw", str(bare / "gone"))
    monkeypatch.setenv("GANSYNTH_NNUNET_ROOT", str(bare))
    (bare / "nnUNet_results").mkdir()
    raw, preprocessed, results = nnunet.folder_lines(None)
    says(raw, "note", "gone is not there ($nnUNet_raw)", "mkdir -p")
    says(preprocessed, "note", "is not there ($GANSYNTH_NNUNET_ROOT)")
    says(results, "ok", "nnUNet_results ($GANSYNTH_NNUNET_ROOT)", "GiB free")
    assert all("--root" in line.found for line in nnunet.folder_lines(str(bare)))


def test_a_folder_that_cannot_be_written_and_a_full_one(bare, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    says(nnunet._room("nnUNet_raw", bare, "--root"), "note", "is not writable", "chmod u+w")
    monkeypatch.setattr(os, "access", lambda *arguments: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=GIB))
    says(nnunet._room("nnUNet_raw", bare, "--root"), "note", "1.0 GiB free", "make room")


@pytest.mark.parametrize(
    ("value", "cores", "state"),
    [(None, 4, "note"), (None, 16, "ok"), ("3", 4, "ok"), ("8", 4, "note"), ("many", 4, "note")],
)
def test_more_workers_than_cores(bare, monkeypatch, value, cores, state):
    if value:
        monkeypatch.setenv("nnUNet_n_proc_DA", value)
    line = nnunet.worker_line(cores)
    says(line, state)
    assert line.cure == ("export nnUNet_n_proc_DA=3" if state == "note" else "")


def test_the_external_trainer_can_be_pasted_and_keeps_what_is_there(bare, monkeypatch):
    says(nnunet.ext_trainer_line(), "note", f"export nnUNet_extTrainer={EXT_TRAINER}")
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    says(nnunet.ext_trainer_line(), "note", f"export nnUNet_extTrainer={EXT_TRAINER}:/mine")
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine:{EXT_TRAINER}")
    says(nnunet.ext_trainer_line(), "ok")


@pytest.mark.parametrize(("reason", "state"), [("", "ok"), ("operator nms is missing", "note")])
def test_torchvision_that_does_not_fit(bare, monkeypatch, reason, state):
    monkeypatch.setattr(torchvision_compat, "failure", lambda: reason)
    line = nnunet.torchvision_line()
    says(line, state, reason)
    assert line.cure == (f"export PYTHONPATH={torchvision_compat.CPU_TORCH}" if reason else "")


def test_nnunets_own_search_tells_why_it_fails_unless_it_is_left_out(bare, monkeypatch):
    monkeypatch.setattr(nnunet, "LOOK_UP", "raise RuntimeError('Could not find it')")
    monkeypatch.setattr(torchvision_compat, "failure", lambda: "")
    line = nnunet.look_up_line()
    says(line, "note", "does not find its trainer: RuntimeError: Could not find it")
    assert line.cure == f"export nnUNet_extTrainer={EXT_TRAINER}"
    monkeypatch.setattr(nnunet, "look_up_line", lambda: line)
    assert line in list(nnunet.lines())
    assert line not in list(nnunet.lines(quick=True))


@pytest.mark.slow
def test_the_cures_let_nnunets_own_search_find_the_trainer(bare, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER))
    monkeypatch.setenv("PYTHONPATH", str(torchvision_compat.CPU_TORCH))
    line = nnunet.look_up_line()
    assert (line.state, line.what) == ("ok", f"nnUNetv2_train -tr {TRAINER}"), line.text


# -- DeepMedic and YOLO ----------------------------------------------------------------------------


def test_a_checkout_of_deepmedic_and_what_this_python_lacks(monkeypatch, tmp_path):
    checkout = write_fake(tmp_path / "checkout")
    for name in ("GANSYNTH_DEEPMEDIC", "GANSYNTH_DEEPMEDIC_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    (line,) = doctor_lines()
    says(line, "note", "not named", "git clone", "export GANSYNTH_DEEPMEDIC=$PWD/deepmedic")
    monkeypatch.setenv("GANSYNTH_DEEPMEDIC", str(tmp_path))
    says(next(doctor_lines()), "note", "holds no deepMedicRun", "git clone")
    monkeypatch.setenv("GANSYNTH_DEEPMEDIC", str(checkout))
    named, python, *packages = doctor_lines()
    says(named, "ok", str(checkout))
    says(python, "ok", sys.executable, "gansynth's")
    says(packages[0], "ok", "h5py")


def test_another_python_than_this_for_deepmedic(tmp_path):
    checkout, python = write_fake(tmp_path / "checkout"), tmp_path / "python"
    lacks = dict.fromkeys(("tensorflow", "nibabel", "pandas", "scipy", "six", "h5py"), "")
    found = json.dumps({**lacks, "numpy": "1.26.4"})
    python.write_text(f"#!/bin/sh\necho python 3.12.3\necho 'found {found}'\n")
    python.chmod(0o755)
    lines = list(doctor_lines(str(checkout), str(python)))
    says(lines[1], "ok", f"3.12.3, {python} (--deepmedic-python)")
    says(lines[2], "ok", "numpy 1.26.4")
    says(lines[3], "note", "no tensorflow, nibabel", f"{python} -m pip install tensorflow-cpu")


def test_yolo_names_the_licences_and_releases_that_are_not_supported(monkeypatch):
    there: dict[str, str] = {}
    monkeypatch.setattr(yolo, "version_of", there.get)
    libre, ultralytics = yolo.lines()
    says(libre, "note", "MIT", "pip install 'gansynth[yolo]'")
    says(ultralytics, "note", "AGPL-3.0", "pip install 'gansynth[ultralytics]'")
    there |= {"libreyolo": "1.7.0", "ultralytics": "8.4.190"}
    libre, ultralytics = yolo.lines()
    says(libre, "note", "1.7.0, gansynth augment needs >=1.6,<1.7")
    says(ultralytics, "ok", "8.4.190 (AGPL-3.0")
