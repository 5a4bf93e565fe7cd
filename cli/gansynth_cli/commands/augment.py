"""``gansynth augment``: train a target framework with samples mixed in at a ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.hosts import AugmentRequest
from gansynth_cli.common import Hint, Output, examples, summary
from gansynth_cli.requests import request_command
from gansynth_cli.results import lines_of_training

if TYPE_CHECKING:
    from gansynth.core.adapter import HostOptions
    from gansynth.hosts.api import Augmented


def options_of_target(typed: Mapping[str, Any]) -> dict[str, type[HostOptions]]:
    """Return the options of the target that is typed."""
    name = typed.get("target")
    if name is None:
        return {}
    from gansynth.hosts.host import framework  # with numpy

    return {f"Options of {name}": framework(name).Options}


def show(request: AugmentRequest, done: Augmented, out: Output) -> None:
    """Print what was trained, written or planned; raise if samples were missing."""
    out.result(done.document, lines_of_augment(done))
    done.refuse_missing()


command = request_command(
    AugmentRequest,
    "gansynth.hosts.api:run_augment",
    show,
    models=options_of_target,
    epilog=examples(
        "gansynth augment --target nnunet --generator runs/g0 --ratio 1:1 --dry-run",
        "gansynth augment --target yolo --data yolo:data.yaml --generator runs/g1 "
        "--ratio 2813:4000 --epochs 100 -- mosaic=0.5",
    ),
)


def lines_of_augment(done: Augmented) -> Iterator[str]:
    """Yield what was trained, written or planned; of a comparison both, and what it proves."""
    if done.control is not None:
        for name, arm in {"without": done.control, "with": done}.items():
            yield f"-- {name} samples"
            lines = lines_of_augment(replace(arm, document=done.document[name], control=None))
            yield from (line for line in lines if not isinstance(line, Hint))
        yield from filter(None, [done.document.get("sentence")])
        yield f"warning: {done.document['warning']}:"
        yield from ("", *done.document["plan"].splitlines())
    elif done.result is None:
        from gansynth.hosts.dry_run import harm_lines

        yield from summary({k: v for k, v in done.document.items() if k != "will_it_harm"})
        harm = harm_lines(done.document)
        yield from ["", *harm] if harm else []
        if (folder := done.document.get("folder")) and not done.document.get("dry_run"):
            yield Hint(f"next: train on {folder} with your framework, without gansynth")
    else:
        labels = done.adapter.source.schema.labels
        yield from lines_of_training(done.document, done.adapter.name, labels)
