"""``gansynth augment``: train a target framework with samples mixed in at a ratio."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.base import EMPTY
from gansynth.core.requests.hosts import AugmentRequest
from gansynth_cli.common import Hint, Output, examples, summary, then
from gansynth_cli.requests import request_command
from gansynth_cli.results import NO_NAMES, lines_of_training

if TYPE_CHECKING:
    from gansynth.core.host_options import HostOptions
    from gansynth.hosts.augment import Augmented


def options_of_target(typed: Mapping[str, Any]) -> dict[str, type[HostOptions]]:
    """Return the options of the target that is typed, or that the data are of."""
    data, words = typed.get("data"), typed.get("options")
    words = [data] if isinstance(data, str) else words
    name = typed.get("target") or target_of(words if isinstance(words, list | tuple) else ())
    if name is None:
        return {}
    from gansynth.hosts.contract.host import framework  # with numpy

    return {f"Options of {name}": framework(name).Options}


def target_of(words: Sequence[str]) -> str | None:
    """Return the target that data, the first word or one of KIND, are of; None without such."""
    from gansynth.core.requests.hosts import names_data

    data = next(filter(names_data, words), None)
    if data is None and words and os.path.isdir(words[0]):
        from gansynth.data.kinds import find_kind

        data = find_kind(words[0])
    if data is None:
        return None
    from gansynth.hosts.contract.host import target_of_kind

    return target_of_kind(data.partition(":")[0])


def show(request: AugmentRequest, done: Augmented, out: Output) -> None:
    """Print what was trained, written or planned; raise if samples were missing."""
    from gansynth.hosts.contract.host import framework
    from gansynth.metrics.detection.record import FILE

    target = request.target or target_of((str(request.data),))
    if target:
        out = replace(out, variables=framework(target).needed(request.set))
    lines = [*lines_of_augment(done, out.variables)]
    if done.result is not None and done.control is None:
        folder = Path(done.document["folder"])
        if (folder / FILE).is_file():
            lines.append(then("detections", folder))
        elif done.document["drawn_synthetic"]:
            lines.append(out.again(compare=True))
    advised = request.undecided and (request.compare or "ratio" not in request.given)
    if advised and request.dry_run:
        lines.append("all measured sets, with their reports: gansynth help results")
    out.result(done.document, lines)
    done.refuse_missing()


command = request_command(
    AugmentRequest,
    "gansynth.hosts.augment:run_augment",
    show,
    models=options_of_target,
    epilog=examples(
        "gansynth augment nnunet:004 --dry-run",
        "gansynth augment --target yolo --data yolo:data.yaml --generator runs/g1 "
        "--ratio 2813:4000 --epochs 100 -- mosaic=0.5",
    ),
)


def lines_of_augment(done: Augmented, variables: Mapping[str, str] = NO_NAMES) -> Iterator[str]:
    """Yield what was trained, written or planned; of a comparison both, and what it proves."""
    if done.control is not None:
        for name, arm in {"without": done.control, "with": done}.items():
            yield f"-- {name} samples"
            lines = lines_of_augment(replace(arm, document=done.document[name], control=None))
            yield from [line for line in lines if not isinstance(line, Hint)]
        yield from filter(None, [done.document.get("sentence")])
        yield f"warning: {done.document['warning']}"
        file = done.document.get("plan_file")
        if file and done.session is not None and done.session.request.run is not None:
            yield then("benchmark", file, "--dry-run", variables=variables)
    elif done.result is None:
        from gansynth.hosts.deciding.dry_run import harm_lines

        told = {k: v for k, v in done.document.items() if v not in EMPTY and k != "will_it_harm"}
        yield from summary(told)
        harm = harm_lines(done.document)
        yield from ["", *harm] if harm else []
        found, run = done.document.get("will_it_harm") or {}, done.document.get("generator")
        if run and found.get("all_rejected"):
            yield then("sample", run, "--sheet")
        elif run and found.get("harms"):
            yield then("evaluate", run)  # which names the cure
        folder = done.document.get("folder")
        if folder and not done.document.get("dry_run"):
            yield f"train on {folder} with your framework, without gansynth"
    else:
        assert done.session is not None, "it has trained"
        labels = done.session.source.schema.labels
        yield from lines_of_training(done.document, done.session.host.name, labels, variables)
