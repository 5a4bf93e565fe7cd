import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import distributions, entry_points
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gansynth.core import plugin_checks
from gansynth.core.edit import Edit
from gansynth.core.generator import Generator
from gansynth.core.hookspecs import API_VERSION, hookimpl
from gansynth.core.registry import GROUP, PluginOrigin, installed, load_registry
from gansynth.metrics.comparison import Metric
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.version import __version__
from tests.expected import raises_fault

GOOD = """
from gansynth.core.hookspecs import hookimpl

@hookimpl
def register_generators(register):
    register("good", lambda: None)
"""
TEXT = "def register_metrics(register):\n    pass\n"
OFFER = '"good", lambda: None'
BROKEN = {
    "imports_nothing": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
    "exits": ("import sys; print('hello'); sys.exit(3)", "SystemExit: 3"),
    "exits_as_if_terminated": ("import sys; sys.exit(143)", "SystemExit: 143"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt: no message"),
    "has_a_typo": ("def register(:", "SyntaxError"),
    "raises": (
        GOOD.replace(OFFER, '"half", lambda: None) or 1 / (0'),
        "ZeroDivisionError: division by zero",
    ),
    "misspells_the_hook": (GOOD.replace("generators", "generatorz"), "register_generatorz"),
    "misspells_the_argument": (GOOD.replace("register):", "registre):"), "registre"),
    "forgets_the_marker": (TEXT, "register_metrics is not marked @hookimpl"),
    "is_of_tomorrow": (
        GOOD.replace("good", "new") + f"gansynth_api = {API_VERSION + 1}",
        f"made for plugin API {API_VERSION + 1}, gansynth {__version__} has {API_VERSION}; "
        "install a newer gansynth",
    ),
    "is_of_yesterday": (
        GOOD.replace("good", "old") + f"gansynth_api = {API_VERSION - 1}",
        f"made for plugin API {API_VERSION - 1}, gansynth {__version__} needs {API_VERSION} or "
        "newer; install a newer is_of_yesterday: pip install -U is_of_yesterday",
    ),
    "is_of_no_number": (
        GOOD.replace("good", "odd") + "gansynth_api = '1'",
        "gansynth_api is '1', expected a whole number",
    ),
    "offers_a_class": (
        GOOD.replace(OFFER, '"cls", dict'),
        "'cls' comes with the class dict, expected a function without arguments",
    ),
    "offers_a_bad_verb": (
        GOOD.replace("generators", "commands").replace('"good"', '"train", "good"'),
        "register_commands: verb 'train', expected one of: import, prepare, splits, doctor",
    ),
    "offers_a_bad_name": (GOOD.replace('"good"', '"a b"'), "name 'a b', expected letters"),
    "takes_a_name": (GOOD, "generator 'good' is already registered by 'a_good_one'"),
    "a_good_one of other 2.5": (GOOD, "'a_good_one' is already taken by a_good_one 2.5"),
}


@pytest.fixture
def registry(tmp_path, monkeypatch, capsys):
    """A registry of one good plugin and one for each way to be broken, as pip installs them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"a_good_one": GOOD, **{k: text for k, (text, _) in BROKEN.items()}}.items():
        point, _, other = name.partition(" of ")
        module, distribution = f"plugin_{other[:5]}_{point}", other[:5] or name
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{distribution}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
        )
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{point} = {module}\n")
    found = distributions(path=[str(tmp_path)])
    yield load_registry(point for one in found for point in one.entry_points)
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        sys.modules.pop(name)


@pytest.fixture
def alone():
    """A registry with gansynth's own edits only."""
    return load_registry(entry_points(group=GROUP, name="conditions"))


def plugin(**hooks: Any) -> SimpleNamespace:
    return SimpleNamespace(**{f"register_{kind}": hookimpl(hook) for kind, hook in hooks.items()})


@pytest.mark.fault(42)
def test_broken_plugins_are_left_out_with_a_reason_each_in_one_line(registry, capsys, monkeypatch):
    assert set(registry.broken) == set(BROKEN)
    for name, reason in registry.broken.items():
        assert BROKEN[name][1] in reason
        assert "\n" not in reason
    assert registry.names("generators") == ("good",)
    assert registry.loaders["generators"]["good"][0] == "a_good_one"
    assert set(registry.plugins) == {"a_good_one"}
    assert capsys.readouterr().out == ""  # a command's stdout is data
    monkeypatch.setattr("gansynth.core.registry.load_registry", lambda: registry)
    installed.__wrapped__()
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == len(BROKEN)
    assert "warning: plugin 'exits' (exits 2.5) is left out: SystemExit: 3. See" in str(warnings)


def ending() -> None:
    sys.exit(3)


def missing() -> None:
    raise ImportError("no module named tensorlib")


def odd_edit(**declared: Any) -> type[Edit]:
    """An edit whose declarations are of another kind."""
    whole: dict[str, Any] = {"draw": lambda *_: {}, "apply": lambda *_: None}
    return type("Odd", (Edit,), {**whole, **declared})


NONSENSE = [
    ("generators", dict, "returned the class dict, expected a subclass of gansynth.Generator"),
    ("generators", Generator, "Generator lacks sample"),
    ("hosts", "nnunet", "returned 'nnunet', expected a subclass of gansynth.Framework"),
    ("edits", None, "returned None, expected a subclass of gansynth.Edit"),
    ("edits", odd_edit(Options={}), "Odd.Options is {}, expected a class"),
    ("edits", odd_edit(apply=1), "Odd.apply is 1, expected a method"),
    ("sources", 7, "returned 7, expected a function"),
    ("metrics", min, "expected a subclass of gansynth.Metric"),
    ("metrics", Metric, "Metric lacks compute"),
    ("recipes", "x.yaml", "returned 'x.yaml', expected the pathlib.Path of a file"),
    ("metrics", ending, "SystemExit: 3"),
    ("generators", missing, "no module named tensorlib"),
]


@pytest.mark.fault(42)
@pytest.mark.parametrize(("kind", "nonsense", "reason"), NONSENSE)
def test_a_plugin_that_loads_another_kind_is_refused(alone, kind, nonsense, reason):
    load = nonsense if nonsense in (ending, missing) else lambda: nonsense
    alone.add(plugin(**{kind: lambda register: register("odd", load)}), "fake")
    assert alone.loaders[kind]["odd"][0] == "fake"  # nothing is loaded before it is asked for
    with raises_fault("registry.plugin-does-not-load") as fault:
        alone.load(kind, "odd")
    assert reason in str(fault.value)


@pytest.mark.fault(42)
def test_an_error_that_comes_through_a_plugin_names_it_and_its_distribution(alone):
    code = ModuleType("stranger_x.metrics")
    exec("class Odd:\n    def compute(self):\n        return self.nothing", vars(code))
    origin = PluginOrigin("stranger-x", "1.2")
    alone.add(plugin(sources=lambda register: register("odd", lambda: code.Odd)), "odd", origin)
    ours, theirs = [raised_by(act) for act in (ending, alone.load("sources", "odd")().compute)]
    assert alone.fault_of(ours) is None
    fault = alone.fault_of(theirs)
    assert fault is not None
    assert "plugin 'odd' of stranger-x 1.2 fails: AttributeError" in str(fault)


def raised_by(act: Callable[[], object]) -> BaseException:
    with pytest.raises((AttributeError, SystemExit)) as caught:
        act()
    return caught.value


def test_a_signal_that_ends_the_process_does_end_it(alone):
    load = partial(signal.raise_signal, signal.SIGINT)
    alone.add(plugin(metrics=lambda register: register("bye", load)), "fake")
    with pytest.raises(KeyboardInterrupt):
        alone.load("metrics", "bye")


def test_a_slow_plugin_is_named(monkeypatch, capsys):
    monkeypatch.setattr(plugin_checks, "PATIENCE", 0.01)
    with plugin_checks.guard_plugin_code("sleepy"):
        time.sleep(0.3)
    assert capsys.readouterr().err.startswith("plugin 'sleepy' takes more than 0.01 s to load")


@pytest.mark.fault(44)
def test_a_loader_may_say_what_to_install(alone):
    def load():
        raise EnvironmentFault("test.fault", "pip install tensorlib")

    alone.add(plugin(metrics=lambda register: register("needy", load)), "fake")
    with raises_fault("test.fault"):
        alone.load("metrics", "needy")


def test_removing_a_plugin_removes_all_it_registered(alone):
    before = {kind: dict(names) for kind, names in alone.loaders.items()}
    alone.add(plugin(generators=lambda register: register("mine", lambda: int)), "fake")
    alone.remove("fake")
    assert (alone.loaders, alone.plugins.keys()) == (before, {"conditions"})
