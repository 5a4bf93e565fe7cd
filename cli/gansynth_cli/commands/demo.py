"""``gansynth demo``: every step on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gansynth.testing.demo_request import DemoRequest
from gansynth_cli.common import Output, examples
from gansynth_cli.requests import request_command
from gansynth_cli.results import lines_of_demo, lines_of_phantoms


def show(request: DemoRequest, document: dict[str, Any], out: Output) -> None:
    """Print what was found or written."""
    written = request.phantoms is not None
    folder = Path(request.out)
    out.result(
        document, lines_of_phantoms(document) if written else lines_of_demo(document, folder)
    )


command = request_command(
    DemoRequest,
    "gansynth.testing.demonstration:run_demonstration",
    show,
    epilog=examples("gansynth demo -o runs/demo", "gansynth demo -o phantoms --phantoms yolo"),
)
