import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gansynth.core.hookspecs import hookimpl
from gansynth.core.requests.hosts import DoctorRequest
from gansynth.hosts.data_sets import doctor
from gansynth.runtime import devices, machine, torchvision_compat
from gansynth.runtime.machine import DoctorLine
from gansynth_deepmedic.program import ProgramSettings, doctor_lines
from gansynth_nnunet import doctor as nnunet
from gansynth_nnunet.launch import EXT_TRAINER
from gansynth_yolo import detectors
from tests.expected import raises_fault
from tests.offered import registered

QUICK = DoctorRequest(quick=True)
GIB = 2**30


def says(line: DoctorLine, state: str, *words: str) -> None:
    assert line.state == state
    assert [w for w in words if w not in line.text] == [], line.text
    assert bool(line.cure) == (state != "ok")


@pytest.fixture
def asked(monkeypatch):
    """Doctor without the imports that take seconds; what hosts are asked."""
    told: list[tuple[DoctorRequest, dict[str, str]]] = []

    def nothing(asked: DoctorRequest) -> list[DoctorLine]:
        told.append((asked, dict(asked.set)))
        return []

    monkeypatch.setattr(doctor, "host_lines", nothing)
    return told


def test_doctor_finds_this_machine_in_order_and_hands_options_to_the_hosts(asked, run_json):
    of_deepmedic = ("--deepmedic", "/dm", "--deepmedic-python", "python3")
    document = run_json("doctor", "--quick", "--root", "/data", *of_deepmedic)
    assert document["ok"] is True
    found = {line["what"] for line in document["lines"]}
    assert {"gansynth", "python", "torch", "auto", "threads", "/dev/shm"} <= found
    assert "temporary files" in found
    assert {tuple(line) for line in document["lines"]} == {("state", "what", "found", "cure")}
    settings = {"deepmedic": "/dm", "deepmedic_python": "python3"}
    request = DoctorRequest(root="/data", quick=True, set=settings)
    assert asked == [(request, settings)]


def test_something_essential_missing_is_exit_4_after_all_lines(asked, run_cli, monkeypatch):
    monkeypatch.setattr(machine, "version", lambda name: "1.0")
    result = run_cli("doctor", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {"state": "bad", "what": "torch"}.items() <= document["lines"][2].items()
    sentence = "doctor: torch not in order; see the lines above"
    assert result.stderr == f"error: {sentence} [command.environment-not-in-order]\n"


def test_a_host_that_cannot_be_looked_at_or_does_not_load_is_a_line(monkeypatch, capsys):
    def torn(*arguments: Any, **named: Any) -> None:
        raise ImportError("no module named tensorlib")

    @hookimpl
    def register_commands(register):
        register("doctor", "torn", torn)

    monkeypatch.setattr(nnunet, "lines", torn)
    with registered(SimpleNamespace(register_commands=register_commands)):
        lines = {line.what: line for line in doctor.host_lines(QUICK)}
    says(lines["torn"], "note", "does not load", "tensorlib", "again")
    says(lines["nnunet"], "note", "no module named tensorlib", "install gansynth again")
    assert {"deepmedic", "libreyolo"} <= set(lines)
    assert capsys.readouterr().err.startswith("frameworks: ")  # some import theirs, for long


@pytest.mark.fault(44)
def test_a_package_that_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "torn_package.py").write_text("raise OSError('libtorn.so is missing')")
    meta = tmp_path / "torn_package-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    line = machine.DoctorLine.of_package("torn-package", essential=True)
    says(line, "bad", "OSError: libtorn.so is missing", "--force-reinstall")


def cuda(free: float, arches: tuple[str, ...] = ("sm_80", "sm_90a")) -> Any:
    """A torch with one device."""
    module = SimpleNamespace(
        get_device_name=lambda index: "Imaginary 3000",
        get_device_capability=lambda index: (9, 0),
        mem_get_info=lambda index: (free * GIB, 80 * GIB),
        get_arch_list=lambda: list(arches),
    )
    return SimpleNamespace(cuda=module)


def nth(number: int, look: Any, *asked: Any) -> Any:
    """One of the lines that are looked for."""
    return lambda: list(look(*asked))[number]


def disk(free: int) -> dict[str, Any]:
    return {"shutil.disk_usage": lambda folder: SimpleNamespace(free=free, total=free)}


def gpus(count: int) -> dict[str, Any]:
    counted: dict[str, Any] = {"gansynth.runtime.devices.cuda_devices": lambda: (count, [])}
    return {**counted, "torch.cuda.device_count": lambda: count}


def found(**releases: str) -> dict[str, Any]:
    return {"gansynth_yolo.detectors.version_of": releases.get}


def many_cores(usable: int, there: int) -> dict[str, Any]:
    affinity = {"os.sched_getaffinity": lambda pid: set(range(usable))}
    return {**affinity, "os.cpu_count": lambda: there}


NOWHERE = Path(__file__) / "nowhere"  # inside a file: nobody can make it
HIDDEN = "CUDA_VISIBLE_DEVICES"
NO_DRIVER: dict[str, Any] = {"gansynth.runtime.devices.DRIVER": NOWHERE, HIDDEN: None}
NO_DRIVER["shutil.which"] = lambda name: None
DRIVER = {**NO_DRIVER, "gansynth.runtime.devices.DRIVER": Path("/")}
EIGHT = {"gansynth.runtime.machine.cores": lambda: 8}
OMP, WORKERS, EXT = "OMP_NUM_THREADS", "nnUNet_n_proc_DA", "nnUNet_extTrainer"
OLD, UNBUILT = ("sm_50", "sm_60"), "no code for its architecture (sm_9x)"
NEWER: dict[str, Any] = {"gansynth.runtime.machine.version": lambda name: "2.99.1+cpu"}
NEWER["gansynth.runtime.machine._requirements"] = dict
GONE = {"gansynth.runtime.machine.SHARED_MEMORY": NOWHERE}
CPU_BUILD, CUDA_BUILD = (partial(devices.no_cuda, of, ["too old"]) for of in (None, "12.8"))
NO_HOST, TORCH = (
    partial(machine.DoctorLine.of_package, name) for name in ("no-such-host", "torch")
)
LIBREYOLO, ULTRALYTICS = (nth(n, detectors.doctor_lines, QUICK) for n in (0, 1))
ROOM = partial(nnunet._room, "nnUNet_raw", Path.cwd(), "--root")
FITS, TORN = (
    {"gansynth.runtime.torchvision_compat.failure": lambda reason=reason: reason}
    for reason in ("", "nms is missing")
)
SAID: list[tuple[Any, dict[str, Any], str, str]] = [
    (NO_HOST, {}, "note", "not installed~pip install no-such-host"),
    (TORCH, {"gansynth.runtime.machine.version": lambda name: "2.5"}, "note",
     "2.5, gansynth needs ~>=2.6~pip install 'torch"),
    (machine.torch_line, NEWER, "note",
     "2.99.1+cpu, newer than 2.~pip install 'torch==2."),
    (CPU_BUILD, NO_DRIVER, "ok", "no CUDA device"),
    (CPU_BUILD, DRIVER, "note", "built for the CPU, but there is an NVIDIA driver"),
    (CUDA_BUILD, NO_DRIVER, "note", "there is no NVIDIA driver~--gpus all"),
    (CUDA_BUILD, DRIVER, "note", "this driver does not serve (too old)~update the NVIDIA"),
    (CUDA_BUILD, {**DRIVER, HIDDEN: ""}, "note", "hides every CUDA device~unset " + HIDDEN),
    (partial(devices.cuda_line, cuda(79), 0), {}, "ok", "Imaginary 3000, 79.0 GiB free of 80.0"),
    (partial(devices.cuda_line, cuda(3), 0), {}, "note", "nvidia-smi lists them"),
    (partial(devices.cuda_line, cuda(79, OLD), 0), {}, "note", UNBUILT),
    (partial(devices.cuda_line, SimpleNamespace(), 0), {}, "note", "cannot be used"),
    (nth(-1, devices.device_lines), gpus(1), "ok", "the producer on cuda:0 (shared with training)"),
    (nth(-1, devices.device_lines), gpus(2), "ok", "training on cuda:0, the producer on cuda:1"),
    (machine.threads, {**EIGHT, OMP: "1"}, "ok", ""),
    (machine.threads, {**EIGHT, OMP: None}, "note", OMP),
    (machine.shared_memory, disk(64 << 20), "note", "67.1 MB free~--shm-size"),
    (machine.shared_memory, disk(8 * GIB), "ok", "8.6 GB free"),
    (machine.shared_memory, GONE, "note", "not there~temporary folder"),
    (machine.temporary, disk(1 << 20), "note", "1.0 MB free~TMPDIR"),
    (nnunet.worker_line, {**many_cores(4, 16), WORKERS: None}, "note",
     f"nnU-Net augments in 12 processes, 4 by gansynth augment, on 4 cores~export {WORKERS}=3"),
    (nnunet.worker_line, {**many_cores(2, 2), WORKERS: None}, "ok",
     "not set: nnU-Net augments in 2 processes, 2 by gansynth augment, on 2 cores"),
    (nnunet.worker_line, {**many_cores(16, 16), WORKERS: None}, "ok", "12 by gansynth"),
    (nnunet.worker_line, {**many_cores(4, 16), WORKERS: "8"}, "note", f"export {WORKERS}=3"),
    (nnunet.worker_line, {**many_cores(4, 4), WORKERS: "many"}, "note", f"export {WORKERS}=3"),
    (nnunet.ext_trainer_line, {EXT: None}, "note", f"export {EXT}={EXT_TRAINER}"),
    (nnunet.ext_trainer_line, {EXT: "/mine"}, "note", f"export {EXT}={EXT_TRAINER}:/mine"),
    (nnunet.ext_trainer_line, {EXT: f"/mine:{EXT_TRAINER}"}, "ok", ""),
    (ROOM, {"os.access": lambda *_: False}, "note", "is not writable~chmod u+w"),
    (ROOM, {"os.access": lambda *_: True, **disk(GIB)}, "note", "1.1 GB free~make room"),
    (nnunet.torchvision_line, FITS, "ok", ""),
    (nnunet.torchvision_line, {**TORN, "PYTHONPATH": None}, "note",
     f"nms is missing~export PYTHONPATH={torchvision_compat.CPU_TORCH}"),
    (LIBREYOLO, found(), "note", "MIT~pip install '.[yolo]' -c constraints.txt"),
    (LIBREYOLO, found(libreyolo="1.7.0"), "note", "1.7.0, gansynth augment needs 1.6.*"),
    (ULTRALYTICS, found(), "note", "AGPL-3.0~pip install '.[ultralytics]'"),
    (ULTRALYTICS, found(ultralytics="8.4.190"), "ok", "8.4.190 (AGPL-3.0"),
]  # fmt: skip
"""Who looks, what is patched (variables where there is no dot), and what is said, parted by ~."""


@pytest.mark.parametrize(("look", "told", "state", "words"), SAID, ids=[said[3] for said in SAID])
def test_doctor_says_state_and_cure(monkeypatch, look, told, state, words):
    for name, value in told.items():
        if "." in name:
            monkeypatch.setattr(name, value)
        elif value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    says(look(), state, *words.split("~"))


COMMANDS = (
    "fit means --data toy:3 -o fitted",
    "augment --target toyhost --data toy:3 --ratio 1:1 --generator run --dry-run",
    "demo -o demo",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_why_auto_is_the_cpu(monkeypatch, run, succeed, command):
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(devices, "cuda_devices", lambda: (0, []))
    monkeypatch.setattr("gansynth.testing.demonstration.run_demo", lambda *_, **__: {})
    monkeypatch.setattr("gansynth_cli.commands.demo.lines_of_demo", lambda *_: [])
    monkeypatch.setattr("shutil.which", lambda name: None)
    for driver in (Path("/"), NOWHERE) if command == COMMANDS[-1] else (Path("/"),):
        monkeypatch.setattr(devices, "DRIVER", driver)
        result = succeed(*command.split())
        line = f"device {next(devices.device_lines()).text}"
        assert (line in result.stderr.splitlines()) is (driver != NOWHERE)


@pytest.mark.parametrize("limit", ["max", str(2 * GIB)])
def test_a_containers_limits_count(tmp_path, monkeypatch, limit):
    for name, text in (("cpu.max", "100000 100000\n"), ("memory.max", limit)):
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.current").write_text(str(GIB))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    memory = SimpleNamespace(total=64 * GIB, available=50 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert machine.cores() == 1
    free = "53.7 GB" if limit == "max" else "1.1 GB"
    with raises_fault("machine.needs-more-memory-than-free", names=f"the {free} that"):
        machine.refuse_beyond_memory(51 * GIB, "a volume")


FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No variable of nnU-Net's is set, and the working folder is empty."""
    others = ("nnUNet_extTrainer", "nnUNet_n_proc_DA", "PYTHONPATH")
    for name in (*FOLDERS, *others):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_folder_says_who_names_it_or_what_to_type(bare, monkeypatch):
    for line, name in zip(nnunet.folder_lines(None), FOLDERS, strict=True):
        says(line, "note", "not set", f"export {name}={bare / 'nnunet' / name}")
    monkeypatch.setenv("nnUNet_raw", str(bare / "gone"))
    monkeypatch.setenv("nnUNet_results", str(bare))
    raw, _, results = nnunet.folder_lines(None)
    says(raw, "note", "gone is not there ($nnUNet_raw)", "mkdir -p")
    says(results, "ok", "($nnUNet_results)", "B free")
    assert all("--root" in line.found for line in nnunet.folder_lines(str(bare)))


def test_nnunets_own_search_tells_why_it_fails_unless_it_is_left_out(bare, monkeypatch):
    monkeypatch.setattr(nnunet, "LOOK_UP", "raise RuntimeError('Could not find it')")
    monkeypatch.setattr(torchvision_compat, "failure", lambda: "")
    line = nnunet.look_up_line()
    says(line, "note", "does not find its trainer: RuntimeError: Could not find it")
    assert line.cure == f"export nnUNet_extTrainer={EXT_TRAINER}"
    monkeypatch.setattr(nnunet, "look_up_line", lambda: line)
    assert line in list(nnunet.lines(DoctorRequest()))
    assert line not in list(nnunet.lines(QUICK))


def test_a_deepmedic_that_is_not_named_is_told_how_to_get_it(monkeypatch):
    for name in ("GANSYNTH_DEEPMEDIC", "GANSYNTH_DEEPMEDIC_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    (line,) = doctor_lines(QUICK, ProgramSettings())
    says(line, "note", "not named", "git clone", "export GANSYNTH_DEEPMEDIC=$PWD/deepmedic")
