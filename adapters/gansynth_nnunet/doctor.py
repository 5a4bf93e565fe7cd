"""The nnU-Net part of ``gansynth doctor``: its folders, its workers, and gansynth's trainer."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gansynth import DoctorLine, DoctorRequest, GansynthError
from gansynth.runtime import torchvision_compat
from gansynth.runtime.files import in_units
from gansynth.runtime.machine import cores
from gansynth_nnunet.dataset import NnunetRoot
from gansynth_nnunet.launch import EXT_TRAINER, EXT_VARIABLE, TRAINER
from gansynth_nnunet.workers import WORKERS, own_workers, workers

LITTLE_SPACE = 5 * 2**30
LOOK_UP_SECONDS = 180
LOOK_UP = """
import sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
recursive_find_trainer_class_by_name(sys.argv[1])
"""


def lines(request: DoctorRequest) -> Iterator[DoctorLine]:
    """Check nnU-Net's packages and environment; ``quick`` does not find the trainer as it does."""
    nnunet = DoctorLine.of_package("nnunetv2", essential=True)
    yield nnunet
    yield from map(DoctorLine.of_package, ("batchgeneratorsv2", "blosc2"))
    yield from folder_lines(request.root)
    if nnunet.state == "ok":  # else nothing of it is imported
        yield worker_line()
    yield torchvision_line()
    yield ext_trainer_line()
    if not request.quick and nnunet.state == "ok":
        yield look_up_line()


def folder_lines(root: str | None) -> Iterator[DoctorLine]:
    """Check nnU-Net's three folders: which setting names them, existence, and free space."""
    for name, text in NnunetRoot.find(root).variables().items():
        named = f"${name}" if os.environ.get(name) else ""
        named = named if root is None else "--root"
        if not named:
            found = f"not set; gansynth takes {text}, nnU-Net's own commands need it"
            yield DoctorLine("note", name, found, f"export {name}={shlex.quote(text)}")
        elif not Path(text).is_dir():
            cure = f"mkdir -p {shlex.quote(text)}"
            yield DoctorLine("note", name, f"{text} is not there ({named})", cure)
        else:
            yield _room(name, Path(text), named)


def _room(name: str, folder: Path, named: str) -> DoctorLine:
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK | os.X_OK):
        cure = "make it writable (chmod u+w), or name another"
        return DoctorLine("note", name, f"{folder} ({named}) is not writable", cure)
    text = f"{folder} ({named}), {in_units(free)} free"
    if free < LITTLE_SPACE:
        return DoctorLine("note", name, text, "make room, or name a folder on a larger disk")
    return DoctorLine("ok", name, text)


def worker_line() -> DoctorLine:
    """Check the number of augmentation processes: more than cores slow each other down."""
    try:
        own, given = own_workers(), workers()
    except GansynthError as fault:
        return DoctorLine("note", WORKERS, str(fault), f"export {WORKERS}={max(1, cores() - 1)}")
    count = cores()
    found = f"{os.environ.get(WORKERS) or 'not set'}: nnU-Net augments in {own} processes"
    found += f", {given} by gansynth augment, on {count} core{'s' * (count != 1)}"
    if own > count:
        return DoctorLine("note", WORKERS, found, f"export {WORKERS}={max(1, count - 1)}")
    return DoctorLine("ok", WORKERS, found)


def torchvision_line() -> DoctorLine:
    """Check that torchvision's operators load: nnU-Net and the YOLO packages import it."""
    if importlib.util.find_spec("torchvision") is None:
        return DoctorLine("ok", "torchvision", "not installed, nothing needs it")
    reason = torchvision_compat.failure()
    if not reason:
        return DoctorLine("ok", "torchvision", "imports, its operators load")
    found = f"does not fit this torch ({reason}); gansynth copes, a host's own commands do not"
    cure = _paste("PYTHONPATH", torchvision_compat.CPU_TORCH)
    return DoctorLine("note", "torchvision", found, cure)


def ext_trainer_line() -> DoctorLine:
    """Check that nnU-Net's own commands can find gansynth's trainer."""
    value = os.environ.get(EXT_VARIABLE, "")
    if EXT_TRAINER.resolve() in [Path(part).resolve() for part in value.split(os.pathsep) if part]:
        return DoctorLine("ok", EXT_VARIABLE, value)
    found = f"{value or 'not set'}: for nnUNetv2_train -tr {TRAINER}; gansynth augment sets it"
    return DoctorLine("note", EXT_VARIABLE, found, _paste(EXT_VARIABLE, EXT_TRAINER))


def look_up_line() -> DoctorLine:
    """Look up gansynth's trainer by nnU-Net's own function, in the current environment."""
    name = f"nnUNetv2_train -tr {TRAINER}"
    command = [sys.executable, "-P", "-c", LOOK_UP, TRAINER]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=LOOK_UP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        found = f"not known: nnU-Net did not look it up within {LOOK_UP_SECONDS} s"
        return DoctorLine("note", name, found, "on a machine that is less busy: gansynth doctor")
    except OSError as error:
        return DoctorLine("note", name, f"not known: {error}", "gansynth doctor --debug")
    if ended.returncode == 0:
        return DoctorLine("ok", name, "finds its trainer")
    last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
    cures = [line.cure for line in (ext_trainer_line(), torchvision_line()) if line.cure]
    cure = " && ".join(cures) or f"look at it: {shlex.join(command)}"
    return DoctorLine("note", name, f"does not find its trainer: {last[:200]}", cure)


def _paste(variable: str, folder: Path) -> str:
    folders = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
    return f"export {variable}={shlex.quote(os.pathsep.join([str(folder), *folders]))}"
