"""Plugins of a test's own, registered for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.metrics.comparison import Metric


@contextmanager
def registered(plugin: Any, name: str = "stranger") -> Iterator[None]:
    installed().add(plugin, name)
    try:
        yield
    finally:
        installed().remove(name)


def metric_of(name: str, function: Callable[..., Any], **more: Any) -> type[Metric]:
    """A metric that computes a function of samples, real cases and schema."""
    return type(name, (Metric,), {"name": name, "compute": staticmethod(function), **more})


@contextmanager
def offered(plugin: str, **kinds: Mapping[str, Any]) -> Iterator[None]:
    """A plugin offers things by kind and name: ``offered("toys", sources={"toy": open_toy})``."""

    def hook(things: Mapping[str, Any]) -> Any:
        def register_all(register: Any) -> None:
            for name, thing in things.items():
                register(name, lambda thing=thing: thing)

        return hookimpl(register_all)

    hooks = {f"register_{kind}": hook(things) for kind, things in kinds.items()}
    with registered(SimpleNamespace(**hooks), plugin):
        assert plugin not in installed().broken, installed().broken
        yield
