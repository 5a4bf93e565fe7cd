"""Networks compiled by ``torch.compile`` while they train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from gansynth.core.generator import Generator
from gansynth.runtime.errors import EnvironmentFault, UsageFault

Compile = Literal["auto", "on", "graphs", "off"]
BACKEND = "inductor"


def compiles(choice: Compile) -> bool:
    """Whether a choice compiles networks."""
    return choice == "on"


@contextmanager
def compiled(generator: Generator, choice: Compile) -> Iterator[None]:
    """Compile a generator's networks in place, and run them as they were afterwards.

    Names of weights stay. ``graphs`` compiles nothing: ``replay.py``.
    """
    names = generator.capabilities.compiles if compiles(choice) else ()
    nets = [generator.nets[name] for name in names if name in generator.nets]
    if not nets:
        if compiles(choice):
            raise UsageFault(
                f"compile={choice}: {generator.name} has no network that can be compiled, "
                "expected one that neither grows nor recomputes its features; use compile=off"
            )
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes seconds

    try:
        with as_written(generator):
            for net in nets:
                net.compile(backend=BACKEND, dynamic=False)
            yield
    except TorchDynamoException as error:
        raise EnvironmentFault(
            f"compile={choice}: {' '.join(str(error).split())[:300]}; expected a working compiler "
            "of torch.compile; use compile=off"
        ) from error


@contextmanager
def as_written(generator: Generator) -> Iterator[None]:
    """Run a generator's networks as they are written; compiled ones are restored after."""
    calls = {net: net._compiled_call_impl for net in generator.nets.values()}
    for net in calls:
        net._compiled_call_impl = None
    try:
        yield
    finally:
        for net, call in calls.items():
            net._compiled_call_impl = call
