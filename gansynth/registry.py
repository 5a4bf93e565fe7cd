"""Finding plugins: entry points loaded one by one; a broken one is a warning, not the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from gansynth import hookspecs
from gansynth.errors import UsageFault, did_you_mean

if TYPE_CHECKING:
    from gansynth.adapter import Adapter
    from gansynth.conditions.base import Edit
    from gansynth.findings import Check
    from gansynth.generator import Generator
    from gansynth.quality.metric import Metric
    from gansynth.sources.base import CaseSource, SourceRequest

GROUP = "gansynth"
KINDS = ("generators", "adapters", "sources", "edits", "checks", "metrics")


@dataclass
class Registry:
    """Everything registered, by kind and name, and what could not be loaded.

    Attributes:
        plugins: entry-point name -> the module it names.
        broken: entry-point name -> one line saying why it was left out.
        found: kind -> name -> (entry-point name, loader).
    """

    plugins: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    found: dict[str, dict[str, tuple[str, Callable[[], Any]]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )

    def names(self, kind: str) -> tuple[str, ...]:
        """Names registered for a kind, sorted."""
        return tuple(sorted(self.found[kind]))

    def generator(self, name: str) -> type[Generator]:
        """The generator class registered under a name (``cgan3d``)."""
        loaded: type[Generator] = self._load("generators", name)
        return loaded

    def adapter(self, name: str) -> type[Adapter]:
        """The adapter class registered for a target (``nnunet``)."""
        loaded: type[Adapter] = self._load("adapters", name)
        return loaded

    def edit(self, name: str) -> type[Edit]:
        """The condition edit registered under a name (``elastic``)."""
        loaded: type[Edit] = self._load("edits", name)
        return loaded

    def check(self, kind: str) -> Check:
        """What finds the faults of a kind of source (``nifti``)."""
        loaded: Check = self._load("checks", kind)
        return loaded

    def metric(self, name: str) -> Metric:
        """The metric registered under a name (``spectrum``)."""
        loaded: Metric = self._load("metrics", name)
        return loaded

    def open_source(self, request: SourceRequest) -> CaseSource:
        """Open the source a request names."""
        opener: Callable[[SourceRequest], CaseSource] = self._load("sources", request.kind)
        return opener(request)

    def add(self, plugin: object, name: str) -> None:
        """Register a plugin object under an entry-point name; a failing one is listed as broken."""
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hookspecs)
        found: dict[str, dict[str, tuple[str, Callable[[], Any]]]] = {kind: {} for kind in KINDS}

        def offer(kind: str, label: str, load: Callable[[], Any]) -> None:
            taken = self.found[kind].get(label) or found[kind].get(label)
            if taken is not None:
                raise ValueError(f"{kind[:-1]} {label!r} is already registered by {taken[0]!r}")
            found[kind][label] = (name, load)

        try:
            manager.register(plugin, name)
            manager.check_pending()
            for kind in KINDS:
                hook = getattr(manager.hook, f"register_{kind}")
                hook(register=functools.partial(offer, kind))
        except (Exception, SystemExit) as error:
            self.broken[name] = _one_line(error)
            return
        self.plugins[name] = plugin
        for kind in KINDS:
            self.found[kind].update(found[kind])

    def remove(self, name: str) -> None:
        """Forget a plugin and all it registered."""
        self.plugins.pop(name, None)
        self.broken.pop(name, None)
        for kind in KINDS:
            self.found[kind] = {k: v for k, v in self.found[kind].items() if v[0] != name}

    def _load(self, kind: str, name: str) -> Any:
        if name not in self.found[kind]:
            raise UsageFault(self._unknown(kind, name))
        plugin, load = self.found[kind][name]
        try:
            return load()
        except Exception as error:  # whatever a stranger's module raises, it is one line here
            raise UsageFault(
                f"{kind[:-1]} {name!r} of plugin {plugin!r} does not load: {_one_line(error)}"
            ) from error

    def _unknown(self, kind: str, name: str) -> str:
        known = self.names(kind)
        hint = did_you_mean(name, known)
        broken = f" Broken plugins: {', '.join(self.broken)}." if self.broken else ""
        return (
            f"{kind[:-1]} {name!r} is unknown, expected one of: {', '.join(known) or 'none'}."
            f"{hint}{broken} See: gansynth plugins list"
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


def load_registry(points: Mapping[str, EntryPoint] | None = None) -> Registry:
    """Load every entry point of the group ``gansynth``, each on its own.

    Args:
        points: entry points by name; those installed if None.
    """
    if points is None:
        points = {point.name: point for point in entry_points(group=GROUP)}
    registry = Registry()
    from gansynth import conditions

    registry.add(conditions, "gansynth")
    for name in sorted(points):
        try:
            plugin = points[name].load()
        except (Exception, SystemExit) as error:
            registry.broken[name] = _one_line(error)
            continue
        registry.add(plugin, name)
    return registry


@functools.cache
def installed() -> Registry:
    """The registry of what is installed, loaded once per process."""
    return load_registry()
