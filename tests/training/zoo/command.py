"""``gansynth`` with the zoo in it, for tests that run it as a process of its own.

``python -m tests.training.zoo.command fit zoo_wgan_gp ...`` is ``gansynth fit zoo_wgan_gp ...``;
its data are ``--data zoo:16``. ``python -m tests.training.zoo.command serve`` forks such processes,
and trainings of the zoo's members, from one that has imported everything: it reads a JSON line for
each and answers with its process id, then, asked for that id, with its exit code.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.training import checkpoint as checkpoint_module
from gansynth.training.loop import train
from gansynth_cli.main import main
from tests.training.zoo.members import ZOO, ZooSource, loop, member, toy_batches
from tests.training.zoo.paired import MMGAN

SLOW: dict[str, Any] = {"where": "", "mark": "", "at": 0, "seconds": 1000.0}
"""What never ends (``read``, ``step``, ``preview``, ``torn`` or ``old``), from which step on; and a
file that says it has begun."""


def dawdle(where: str, step: int = 0) -> None:
    """Take longer than any test, if that is asked for here."""
    if SLOW["where"] == where and step >= SLOW["at"]:
        Path(SLOW["mark"]).touch()
        time.sleep(SLOW["seconds"])


class Slow(MMGAN):
    """MM-GAN, whose fifth step and whose sampling may never end."""

    name = "zoo_slow"

    def _paint(self, step: Any) -> Any:
        if step.index == 4:
            dawdle("step")
        time.sleep(0.005)
        return super()._paint(step)

    def sample(self, conditions: Any, seeds: Any) -> Any:
        """Draw, sooner or later."""
        dawdle("preview")
        return super().sample(conditions, seeds)


class SlowSource(ZooSource):
    """Toy cases, whose reading may never end."""

    def load(self, case_id: str) -> Any:
        """A case."""
        dawdle("read")
        return super().load(case_id)


@hookimpl
def register_generators(register: Any) -> None:
    """What is slow; our own are registered, those with options of their own under other names."""
    register("zoo_slow", lambda: Slow)
    for name in ("wgan_gp", "mmgan"):
        cls = type(name, (ZOO[name].cls,), {"name": f"zoo_{name}"})
        register(f"zoo_{name}", lambda cls=cls: cls)


@hookimpl
def register_sources(register: Any) -> None:
    """``zoo:16``, ``zoo:8x8x8``."""
    register("zoo", lambda: SlowSource)


def run(arguments: list[str]) -> None:
    """Be the ``gansynth`` command."""
    plugin = SimpleNamespace(
        register_generators=register_generators, register_sources=register_sources
    )
    installed().add(plugin, "zoo")
    assert "zoo" not in installed().broken, installed().broken
    sys.argv = ["gansynth", *arguments]
    main()


def learn(name: str, folder: str, **options: Any) -> None:
    """Train a member of the zoo; reading, and writing a checkpoint, may never end."""
    checkpoint: Any = checkpoint_module
    read, write, drop = toy_batches(name), checkpoint.write_json_atomic, checkpoint.drop_old

    def batches(step: int, *key: Any) -> Any:
        dawdle("step", step)
        return read(step, *key)

    def torn(path: Path, document: Any) -> None:
        dawdle("torn", document["step"])
        write(path, document)

    def old(where: Path, newest: Path) -> None:
        dawdle("old", int(newest.name[5:]))
        drop(where, newest)

    checkpoint.write_json_atomic, checkpoint.drop_old = torn, old
    train(member(name), batches, loop(name, **options), folder=Path(folder))


def serve() -> None:
    """Fork a process for each line on stdin."""
    import matplotlib.pyplot  # noqa: F401
    import safetensors.torch  # noqa: F401

    import gansynth.fitting.fit  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            _, status = os.waitpid(asked["pid"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if not child:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            SLOW.update(asked["slow"])
            if "learn" in asked:
                learn(**asked["learn"])
                os._exit(0)
            run(asked["arguments"])
        print(child, flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else run(sys.argv[1:])
