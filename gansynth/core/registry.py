"""Discovery of plugins: entry points are loaded one by one; a broken one gives a warning."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from gansynth.core import hookspecs
from gansynth.core.capabilities import Capabilities
from gansynth.core.plugin_checks import (
    InvalidPlugin,
    check_api,
    check_loaded,
    check_marked,
    check_offer,
    check_verb,
    guard_plugin_code,
    one_line,
)
from gansynth.runtime.errors import GansynthError, UsageFault, did_you_mean
from gansynth.runtime.options import OptionModel, read_settings
from gansynth.runtime.parts import refuse_absent
from gansynth.runtime.progress import RichReporter
from gansynth.runtime.version import parts

if TYPE_CHECKING:
    from gansynth.core.edit import Edit
    from gansynth.core.filter import Filter
    from gansynth.core.generator import Generator
    from gansynth.core.source import Check
    from gansynth.core.writer import Writer

GROUP = "gansynth"
KINDS = (
    "generators",
    "hosts",
    "commands",
    "sources",
    "edits",
    "checks",
    "metrics",
    "recipes",
    "filters",
    "arms",
    "writers",
    "trials",
    "readers",
)


@dataclass(frozen=True)
class PluginOrigin:
    """The installed distribution that holds a plugin."""

    distribution: str
    version: str

    @property
    def ours(self) -> bool:
        """Whether gansynth itself consists of it."""
        return self.distribution in parts()

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass
class Registry:
    """Registered objects, kind -> name -> (entry point, loader), and broken plugins."""

    plugins: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    origins: dict[str, PluginOrigin] = field(default_factory=dict)
    loaders: dict[str, dict[str, tuple[str, Callable[[], Any]]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    packages: dict[str, str] = field(default_factory=dict)  # of code in use -> the plugin

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names registered for a kind, sorted."""
        return tuple(sorted(self.loaders[kind]))

    def generator(self, name: str) -> type[Generator]:
        """Return the generator class registered under a name (``cgan3d``)."""
        loaded: type[Generator] = self.load("generators", name)
        return loaded

    def host(self, name: str) -> type[Any]:
        """Return the host registered for a target framework (``nnunet``)."""
        loaded: type[Any] = self.load("hosts", name)
        return loaded

    def hosts_with(self, verb: str) -> tuple[str, ...]:
        """Return the hosts with a command (``prepare``), sorted."""
        commands = [key.partition(" ") for key in self.names("commands")]
        return tuple(host for of, _, host in commands if of == verb)

    def command(self, verb: str, host: str) -> Callable[..., Any]:
        """Return the function of a host's command; UsageFault: names the hosts that have one."""
        hosts = self.hosts_with(verb)
        if host not in hosts:
            refuse_absent("host", host)
            raise UsageFault(
                "registry.host-without-command",
                f"gansynth {verb}: {host!r} has no such command, expected one of: "
                f"{', '.join(hosts) or 'none'}.{did_you_mean(host, hosts)}",
            )
        function: Callable[..., Any] = self.load("commands", f"{verb} {host}")
        return function

    def command_options(self, verb: str, host: str) -> type[OptionModel]:
        """Return the settings of a host's command: the annotation of its parameter ``options``."""
        return _options_of(self.command(verb, host))

    def run(self, verb: str, host: str, request: Any, settings: Mapping[str, str]) -> Any:
        """Run a host's command."""
        command = self.command(verb, host)
        model = _options_of(command)
        options = read_settings(model, settings, f"{verb} of {host}")
        return command(request, options) if model.model_fields else command(request)

    def edit(self, name: str) -> type[Edit]:
        """Return the condition edit registered under a name (``elastic``)."""
        loaded: type[Edit] = self.load("edits", name)
        return loaded

    def check(self, kind: str) -> Check:
        """Return the data set check of a kind of source (``nifti``)."""
        loaded: Check = self.load("checks", kind)
        return loaded

    def filter(self, name: str) -> type[Filter]:
        """Return the admission filter registered under a name (``faithful``)."""
        loaded: type[Filter] = self.load("filters", name)
        return loaded

    def writer(self, name: str) -> type[Writer]:
        """Return the format of samples registered under a name (``nifti``)."""
        loaded: type[Writer] = self.load("writers", name)
        return loaded

    def offers(self, plugin: str) -> dict[str, tuple[str, ...]]:
        """Return what a plugin registered: kind -> names, without empty kinds."""
        offered = {}
        for kind in KINDS:
            names = [n for n, (owner, _) in self.loaders[kind].items() if owner == plugin]
            if names:
                offered[kind] = tuple(sorted(names))
        return offered

    def add(self, plugin: object, name: str, origin: PluginOrigin | None = None) -> None:
        """Register a plugin object under an entry-point name; a failing one is listed as broken."""
        if origin is not None:
            self.origins[name] = origin
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hookspecs)
        offers: dict[str, dict[str, tuple[str, Callable[[], Any]]]] = {kind: {} for kind in KINDS}

        def offer_command(verb: str, host: str, load: Callable[[], Any]) -> None:
            check_verb(verb)
            offer("commands", host, load, f"{verb} ")

        def offer(kind: str, label: str, load: Callable[[], Any], verb: str = "") -> None:
            check_offer(kind, label, load)
            label = f"{verb}{label}"
            taken = self.loaders[kind].get(label) or offers[kind].get(label)
            if taken is not None:
                raise InvalidPlugin(f"{kind[:-1]} {label!r} is already registered by {taken[0]!r}")
            offers[kind][label] = (name, load)

        with self._isolated(name):
            check_api(plugin, origin.distribution if origin is not None else name)
            check_marked(plugin, KINDS)
            manager.register(plugin, name)
            manager.check_pending()
            for kind in KINDS:
                hook = getattr(manager.hook, f"register_{kind}")
                hook(
                    register=offer_command if kind == "commands" else functools.partial(offer, kind)
                )
            self.plugins[name] = plugin
            for kind in KINDS:
                self.loaders[kind].update(offers[kind])

    def load_point(self, point: EntryPoint) -> None:
        """Import an entry point's module and register it; one that fails is listed as broken."""
        origin = _origin(point)
        name = point.name
        if name in self.plugins or name in self.broken:
            owner = self.origins.get(name)
            name = f"{name} of {origin}" if origin is not None else f"{name} ({point.value})"
            self.broken[name] = f"the name {point.name!r} is already taken by {owner or 'another'}"
            return
        if origin is not None:
            self.origins[name] = origin
        with self._isolated(name):
            self.add(point.load(), name, origin)

    def remove(self, name: str) -> None:
        """Remove a plugin and all it registered."""
        self.plugins.pop(name, None)
        self.broken.pop(name, None)
        self.origins.pop(name, None)
        for kind in KINDS:
            self.loaders[kind] = {k: v for k, v in self.loaders[kind].items() if v[0] != name}

    def load(self, kind: str, name: str) -> Any:
        """Load the object registered for a kind under a name.

        Raises UsageFault: unknown name, failed loading, or an object of the wrong type.
        EnvironmentFault: it is in a distribution of gansynth that is not installed.
        GansynthError: raised by its own loader (a missing package, say).
        """
        if name not in self.loaders[kind]:
            refuse_absent(kind[:-1], name)
            raise UsageFault("registry.name-unknown", self._unknown(kind, name))
        plugin, load = self.loaders[kind][name]
        whence = f" ({self.origins[plugin]})" if self._foreign(plugin) else ""
        try:
            with guard_plugin_code(self._foreign(plugin)):
                loaded = load()
                check_loaded(kind, loaded)
        except GansynthError:
            raise
        except Exception as error:  # any exception of plugin code becomes one line here
            raise UsageFault(
                "registry.plugin-does-not-load",
                f"{kind[:-1]} {name!r} of plugin {plugin!r}{whence} does not load: "
                f"{one_line(error)}",
            ) from error
        package = str(getattr(loaded, "__module__", "")).partition(".")[0]
        if self._foreign(plugin) and package != GROUP:
            self.packages[package] = plugin
        return loaded

    def fault_of(self, error: BaseException) -> UsageFault | None:
        """Return the fault of the plugin whose code an error comes through; None if it is ours."""
        for frame, _ in traceback.walk_tb(error.__traceback__):
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            plugin = self.packages.get(package)
            if plugin is not None:
                origin = self.origins[plugin]
                return UsageFault(
                    "registry.plugin-fails",
                    f"plugin {plugin!r} of {origin} fails: {one_line(error)}; expected it to work "
                    "as gansynth plugins check says. Report it to its authors (--debug shows where "
                    f"it fails), or do without it: pip uninstall {origin.distribution}",
                )
        return None

    @contextmanager
    def _isolated(self, name: str) -> Iterator[None]:
        """Catch every error of a plugin and record it as a line in ``broken``."""
        try:
            with guard_plugin_code(self._foreign(name)):
                yield
        except Exception as error:
            self.broken[name] = one_line(error)

    def _foreign(self, name: str) -> str:
        """Return a plugin's name if it is not of gansynth itself, else nothing."""
        origin = self.origins.get(name)
        return "" if origin is None or origin.ours else name

    def _unknown(self, kind: str, name: str) -> str:
        names = self.names(kind)
        hint = did_you_mean(name, names)
        broken = f" Broken plugins: {', '.join(self.broken)}." if self.broken else ""
        return (
            f"{kind[:-1]} {name!r} is unknown, expected one of: {', '.join(names) or 'none'}."
            f"{hint}{broken} See: gansynth plugins list"
        )


def _options_of(command: Callable[..., Any]) -> type[OptionModel]:
    annotations = inspect.get_annotations(command, eval_str=True)
    model: type[OptionModel] = annotations.get("options", OptionModel)
    return model


def _origin(point: EntryPoint) -> PluginOrigin | None:
    return None if point.dist is None else PluginOrigin(point.dist.name, point.dist.version)


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every entry point in isolation; gansynth's own first, so that they keep their names.

    One that two distributions have, as a clone beside a release, is loaded once.
    """
    registry = Registry()

    def place(point: EntryPoint) -> tuple[bool, str, str]:
        origin = _origin(point)
        return not (origin and origin.ours), point.name, str(origin or "")

    loaded = set()
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=place):
        if (point.name, point.value) not in loaded:
            loaded.add((point.name, point.value))
            registry.load_point(point)
    return registry


@functools.cache
def installed() -> Registry:
    """Return the registry of installed plugins, loaded once; a broken plugin gives a warning."""
    registry = load_registry()
    for name, reason in registry.broken.items():
        origin = registry.origins.get(name)
        whence = f" ({origin})" if origin is not None else ""
        RichReporter().warn(f"plugin {name!r}{whence} is left out: {reason}. See: gansynth plugins")
    return registry


def such_as(can: Callable[[Capabilities], bool]) -> str:
    """Return the names of registered generators that can by their usual options, for messages."""
    from gansynth.core.generator import capabilities_of

    names = []
    for name in installed().names("generators"):
        with suppress(Exception):  # of a plugin: it hides no message
            if can(capabilities_of(installed().generator(name))):
                names.append(name)
    return ", ".join(names) or "none that is installed"
