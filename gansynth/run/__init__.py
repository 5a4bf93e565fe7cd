"""Requests in a YAML file: ``python -m gansynth.run REQUEST.yaml``.

    fit: {generator: cgan3d, data: nnunet:004, out: runs/g0, set: {steps: 2000}}
    augment: {target: nnunet, generator: runs/g0, ratio: "1:1"}

Each key is a command, each value what the function of that name takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from gansynth.core.requests.base import Request, in_python
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.yaml_text import read_yaml

SHOWN = "commands and what they take, see: gansynth help python"
COMMANDS = {
    "augment": ("core.requests.hosts:AugmentRequest", "hosts.api:augment"),
    "benchmark": ("core.requests.studies:BenchmarkRequest", "benchmark.api:benchmark"),
    "cache": ("core.requests.data:CacheRequest", "sampling.api:cache"),
    "check": ("core.requests.samples:CheckRequest", "evaluation.check:check"),
    "demo": ("testing.demo_request:DemoRequest", "testing.demonstration:demo"),
    "detections": ("core.requests.studies:DetectionsRequest", "evaluation.detections:detections"),
    "doctor": ("core.requests.hosts:DoctorRequest", "hosts.commands:doctor"),
    "evaluate": ("core.requests.samples:EvaluateRequest", "evaluation.api:evaluate"),
    "fit": ("core.requests.fit:FitRequest", "fitting.api:fit"),
    "hard_cases": ("core.requests.data:HardCasesRequest", "evaluation.hard_cases.job:hard_cases"),
    "import_data": ("core.requests.hosts:ImportRequest", "hosts.commands:import_data"),
    "papers": ("core.requests.studies:PapersRequest", "benchmark.api:papers"),
    "prepare": ("core.requests.hosts:PrepareRequest", "hosts.commands:prepare"),
    "sample": ("core.requests.samples:SampleRunRequest", "sampling.sample:sample"),
    "show": ("core.requests.data:ShowRequest", "sampling.api:show"),
    "splits": ("core.requests.hosts:SplitsRequest", "hosts.commands:splits"),
    "tune": ("core.requests.studies:TuneRequest", "benchmark.api:tune"),
    "turing_test": ("core.requests.samples:TuringRequest", "evaluation.turing.api:turing_test"),
}
"""Command -> the class of its request, and its function in Python."""


def run_file(path: Path) -> dict[str, Any]:
    """Execute the requests of a YAML file, in their order.

    Returns:
        Command -> what its function returned.

    Raises:
        GansynthError: names file, command and key.
    """
    values, _ = read_yaml(path, SHOWN)
    if not isinstance(values, Mapping) or not values:
        raise UsageFault(f"{path}: holds {type(values).__name__}, expected {SHOWN}")
    requests: dict[str, Request] = {}
    for command, words in values.items():
        if command not in COMMANDS:
            raise UsageFault(
                f"{path}: {command}: no command.{did_you_mean(str(command), COMMANDS)}"
            )
        if not isinstance(words, Mapping):
            raise UsageFault(f"{path}: {command}: {words!r}, expected keys and values")
        model: type[Request] = _load(COMMANDS[command][0])
        with in_python(model, f"{path}: {command}."):
            requests[command] = model(**words)
    found = {}
    for command, request in requests.items():  # all are checked before one runs
        given = {name: getattr(request, name) for name in request.given}
        found[command] = _load(COMMANDS[command][1])(**given)
    return found


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"gansynth.{module}"), name)
