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
from gansynth.runtime.parts import refuse_absent
from gansynth.runtime.yaml_text import read_yaml

PYTHON_HELP = "commands and what they take, see: gansynth help python"


def run_file(path: Path) -> dict[str, Any]:
    """Execute the requests of a YAML file, in their order.

    Returns:
        Command -> what its function returned.

    Raises:
        GansynthError: names file, command and key.
    """
    values, _ = read_yaml(path, PYTHON_HELP)
    if not isinstance(values, Mapping) or not values:
        raise UsageFault(
            "run.file-holds-no-requests",
            f"{path}: holds {type(values).__name__}, expected {PYTHON_HELP}",
        )
    face: Any = import_module("gansynth")
    requests: dict[str, Request] = {}
    for command, words in values.items():
        function = getattr(face, command, None) if command in dir(face) else None
        model = getattr(function, "request", None)
        if model is None:
            refuse_absent(f"{path}:", str(command).replace("_", "-"))
            functions = {name: getattr(face, name, None) for name in face.COMMANDS}
            known = [name for name, found in functions.items() if hasattr(found, "request")]
            hint = did_you_mean(str(command), known)
            raise UsageFault("run.command-unknown", f"{path}: {command}: no command.{hint}")
        if not isinstance(words, Mapping):
            raise UsageFault(
                "run.command-without-keys",
                f"{path}: {command}: {words!r}, expected keys and values",
            )
        with in_python(model, f"{path}: {command}."):
            requests[command] = model(**words)
    found = {}
    for command, request in requests.items():  # all are checked before one runs
        given = {name: getattr(request, name) for name in request.given}
        found[command] = getattr(face, command)(**given)
    return found
