"""Isolated execution of plugin code, and one-line reports of its faults."""

from __future__ import annotations

import contextlib
import inspect
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from types import FrameType
from typing import Any

from gansynth.core import hookspecs
from gansynth.runtime.progress import write_stderr
from gansynth.runtime.version import __version__

API_NAME = "gansynth_api"
"""Optional variable of a plugin module: the API version it was written for."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
PATIENCE = 5.0
_DECLARED: tuple[type[Any], ...] = (bool, str, int, float, tuple, Set, Mapping)
"""Kinds of what a contract's class declares."""
MARKER = f"{hookspecs.hookimpl.project_name}_impl"


class InvalidPlugin(Exception):
    """A plugin, or an object it registered, is unusable: the reason and a hint."""


@contextlib.contextmanager
def guard_plugin_code(name: str = "") -> Iterator[None]:
    """Run plugin code: its output goes to stderr, and an attempt to exit raises InvalidPlugin.

    ``name``: the plugin that stderr names if its code takes more than ``PATIENCE`` seconds.
    """
    text = f"plugin {name!r} takes more than {PATIENCE:g} s to load; waiting for it (Ctrl-C ends)"
    slow = threading.Timer(PATIENCE, write_stderr, (text,))
    slow.daemon = True
    if name:
        slow.start()
    # A command's stdout is data: one JSON document with --json.
    with contextlib.redirect_stdout(sys.stderr), _signals() as received:
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as stop:
            if received:  # not the plugin: the process is to end
                raise
            raise InvalidPlugin(f"{type(stop).__name__}: {str(stop) or 'no message'}") from stop
        finally:
            slow.cancel()


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that gets the number of each SIGINT and SIGTERM; they act as before."""
    received: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        before[number](number, frame)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:  # else the plugin has set its own
                signal.signal(number, handler)


def check_api(plugin: object, distribution: str) -> None:
    """Refuse (Unfit) a plugin that was written for another version of the interface."""
    version = getattr(plugin, API_NAME, hookspecs.API_VERSION)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InvalidPlugin(
            f"{API_NAME} is {version!r}, expected a whole number, {hookspecs.API_VERSION}"
        )
    if version > hookspecs.API_VERSION:
        raise InvalidPlugin(
            f"made for plugin API {version}, gansynth {__version__} has {hookspecs.API_VERSION}; "
            "install a newer gansynth"
        )
    if version < hookspecs.OLDEST_API:
        raise InvalidPlugin(
            f"made for plugin API {version}, gansynth {__version__} needs {hookspecs.OLDEST_API} "
            f"or newer; install a newer {distribution}: pip install -U {distribution}"
        )


def check_marked(plugin: object, kinds: tuple[str, ...]) -> None:
    """Refuse (Unfit) a hook without ``@hookimpl``, which would never be called."""
    for kind in kinds:
        hook = getattr(plugin, f"register_{kind}", None)
        if hook is not None and getattr(hook, MARKER, None) is None:
            raise InvalidPlugin(f"register_{kind} is not marked @hookimpl, expected it to be")


def check_offer(kind: str, name: object, load: object) -> None:
    """Refuse (Unfit) a name that cannot be typed, or a loader that is no function."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidPlugin(
            f"register_{kind}: name {name!r}, expected letters, digits, '_', '-' and '.' only"
        )
    if not callable(load) or isinstance(load, type):
        raise InvalidPlugin(
            f"register_{kind}: {name!r} comes with {_shown(load)}, expected a function without "
            "arguments that returns the object, such as: lambda: TheClass"
        )


def check_verb(verb: object) -> None:
    """Refuse (Unfit) a command that gansynth does not have."""
    if verb not in hookspecs.VERBS:
        verbs = ", ".join(hookspecs.VERBS)
        raise InvalidPlugin(f"register_commands: verb {verb!r}, expected one of: {verbs}")


def check_loaded(kind: str, loaded: object) -> None:
    """Refuse (Unfit) an object that a loader returned if it has the wrong type for its kind."""
    if kind in ("recipes", "arms"):
        if not isinstance(loaded, Path):
            raise InvalidPlugin(
                f"load() returned {_shown(loaded)}, expected the pathlib.Path of a file"
            )
        return
    base = _BASES.get(kind)
    if base is None:
        if not callable(loaded):
            raise InvalidPlugin(f"load() returned {_shown(loaded)}, expected a function")
        if kind == "commands":
            inspect.get_annotations(loaded, eval_str=True)  # they name the model of its options
        return
    expected = base()
    if not isinstance(loaded, type) or not issubclass(loaded, expected):
        raise InvalidPlugin(
            f"load() returned {_shown(loaded)}, expected a subclass of gansynth.{expected.__name__}"
        )
    missing = sorted(getattr(loaded, "__abstractmethods__", ()))
    if missing:
        raise InvalidPlugin(
            f"{loaded.__name__} lacks {', '.join(missing)}, expected it to define them"
        )
    for name, usual in inspect.getmembers_static(expected):
        if not name.startswith("_"):
            _check_declared(loaded, name, usual)


def _check_declared(plugin: type[Any], name: str, usual: object) -> None:
    """Refuse (Unfit) an attribute of another kind than that of the contract's class."""
    own = inspect.getattr_static(plugin, name)
    if hasattr(own, "__get__"):  # a method, or a property that decides later
        return
    if isinstance(usual, type):
        fits, kind = isinstance(own, type), "a class"
    elif inspect.isfunction(usual):
        fits, kind = callable(own), "a method"
    else:
        kinds = [each for each in _DECLARED if isinstance(usual, each)]
        fits, kind = not kinds or isinstance(own, kinds[0]), f"one such as {usual!r:.60}"
    if not fits:
        raise InvalidPlugin(f"{plugin.__name__}.{name} is {_shown(own)}, expected {kind}")


def one_line(error: BaseException) -> str:
    """Format an exception as one line."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InvalidPlugin) else f"{type(error).__name__}: {text}"


def _shown(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"{thing!r:.60}"


# Imported only if an object of the kind was loaded; its module has then imported it already.
_BASES: dict[str, Callable[[], type[Any]]] = {
    "generators": hookspecs.lazily("gansynth.core.generator:Generator"),
    "hosts": hookspecs.lazily("gansynth.hosts.contract.host:Framework"),
    "edits": hookspecs.lazily("gansynth.core.edit:Edit"),
    "filters": hookspecs.lazily("gansynth.core.filter:Filter"),
    "readers": hookspecs.lazily("gansynth.core.volumes:VolumeReader"),
    "writers": hookspecs.lazily("gansynth.core.writer:Writer"),
    "metrics": hookspecs.lazily("gansynth.metrics.comparison:Metric"),
    "trials": hookspecs.lazily("gansynth.hosts.deciding.trials:Trials"),
}
