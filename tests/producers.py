"""Producer processes for tests: real in all but what they draw."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from gansynth.bank import producer, supervisor
from gansynth.bank.producer import ProducerConfig, produce
from gansynth.bank.reader import BankReader, BankSpec, BankWriter

ROOT = Path(__file__).parents[1]
CONFIG = ProducerConfig(
    run="run",
    request={"kind": "toy", "where": "ok"},
    target="toy",
    bank="bank",
    frozen=True,
    capacity=13,
    device="cpu",
)

# Found on the way in by the child, it stands in for run, source and intake: what a producer is
# made of, not what it does. "where" says how the generator behaves.
STAND_IN = """
import os, signal, sys, time, types
from dataclasses import replace
from types import SimpleNamespace as Bag

def load_run(folder, device):
    from gansynth.core.capabilities import Capabilities
    from gansynth.core.lineage import Lineage
    from gansynth.core.source import SourceRequest
    generator = Bag(device=Bag(type=device.partition(":")[0]))
    return Bag(generator=generator, lineage=Lineage("toy", "0", ()), run_id="run",
               manifest_sha256="f", edits=("elastic",), device=device,
               request=SourceRequest("toy", "ok"), manifest={},
               capabilities=Capabilities())

class SampleDrawer:
    def __init__(self, run, source, request):
        self.where, self.device, self.lineage = source.where, run.device, run.lineage
        self.run = run
        self.request = replace(request, edits=request.edits or run.edits)

    def draw(self, first, count):
        import numpy as np
        from gansynth.core.schema import Sample
        while self.where == "slow" and first:
            time.sleep(60)
        while self.where == "stubborn" and first:
            try:
                time.sleep(60)
            except BaseException:
                pass
        if self.where == "bug":
            raise KeyError("a bug")
        if self.where == "data":
            from gansynth.runtime.errors import DataFault
            raise DataFault("test.fault", "labels: not there; look for them")
        if self.where == "memory" and self.device != "cpu":
            import torch
            raise torch.OutOfMemoryError("CUDA out of memory.\\nTried to allocate 1 GiB.")
        if self.where == "busy" and self.device != "cpu":
            raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")
        if self.where.startswith("once ") and first:  # once only, then it is well again
            _, what, marker = self.where.split()
            if not os.path.exists(marker):
                open(marker, "x").close()
                os.kill(os.getpid(), {"kill": 9, "freeze": signal.SIGSTOP}[what])
        def one(k):
            image = np.random.default_rng(k).normal(size=(2, 4, 4, 4)).astype(np.float32)
            return Sample(image, (image[0] > 1).astype(np.int16), None, {"seed": 0})
        return [one(k) for k in range(first, first + count)]

class Intake:
    sample_size = (4, 4, 4)
    any_size = False

    def __init__(self, source, target):
        self.source = source

    def finalise(self, sample):
        return {}

def open_source(request):
    from gansynth.core.schema import Schema
    names = {"background": 0, "tumour": 1}
    schema = Schema(("T1", "FLAIR"), names, (1.0, 1.0, 1.0), has_outside=True)
    space = Bag(oriented=False)
    if request.where.startswith("once block "):
        marker = request.where.split()[-1]
        if not os.path.exists(marker):
            os.mkfifo(marker)
            open(marker)  # as of a file system that does not answer
    return Bag(where=request.where, host={}, train_ids=(), schema=schema, space=space)

def open_drawer(source, intake, run, request, *, device, cache=None):
    return SampleDrawer(load_run(run, device), source, request), None

registry = Bag(host=lambda name: Bag(Intake=Intake))
for name, content in {
    "gansynth.sampling.run_source": {"open_source": open_source},
    "gansynth.sampling.sampler": {"open_drawer": open_drawer},
    "gansynth.core.registry": {"installed": lambda: registry},
}.items():
    sys.modules[name] = module = types.ModuleType(name)
    module.__dict__.update(content)
"""


def put_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let child processes of this one find the stand-in."""
    (folder / "sitecustomize.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(ROOT)


def config_of(folder: Path, where: str = "ok", **changes) -> ProducerConfig:
    """What a producer of the stand-in is told; its bank lies in a folder."""
    request = {"kind": "toy", "where": where}
    return replace(CONFIG, request=request, bank=str(folder / "bank"), **changes)


def fill_here(folder: Path, drawer: Any, capacity: int, **told: Any) -> BankReader:
    """What a producer does, in this process: ``folder / "bank"`` with a sampler's samples."""
    source, run = drawer.source, drawer.run
    bank = folder / "bank"
    spec = BankSpec(source.schema, drawer.lineage, run.run_id, run.manifest_sha256, True, capacity)
    config = replace(CONFIG, bank=str(bank), capacity=capacity, **told)
    how = {"stop": lambda: False, "min_size": run.space.size}
    with BankWriter.create(bank, spec) as writer:
        try:
            produce(writer, drawer.draw, lambda _: {}, config, **how)
        finally:
            (folder / "counts.json").write_text(json.dumps(dict(writer.rejected)))
    return BankReader(bank)


class Forked:
    """A producer as a fork of this process, which has imported what takes seconds.

    It has what ``ProducerSupervisor`` asks of ``subprocess.Popen``.
    """

    def __init__(self, command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> None:
        def work() -> None:
            os.dup2(stdout.fileno(), 1)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
            os.environ.update(env)
            torch.set_num_threads(1)  # as OMP_NUM_THREADS has a new process do
            os.setpgid(0, 0)
            sys.exit(producer.main(command[-1]))

        self._process = multiprocessing.get_context("fork").Process(target=work)
        self._process.start()
        self.terminate, self.kill = self._process.terminate, self._process.kill

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("producer", timeout or 0)
        return self._process.exitcode


@contextlib.contextmanager
def forked_producers() -> Iterator[None]:
    """Producers are forks, for tests that are not about a process of theirs."""

    def started(command: list[str], **how: Any) -> Any:
        kind: Any = Forked if producer.__name__ in command else subprocess.Popen
        return kind(command, **how)

    with pytest.MonkeyPatch.context() as patch:
        forking = SimpleNamespace(**{**vars(subprocess), "Popen": started})
        patch.setattr(supervisor, "subprocess", forking)
        yield


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
