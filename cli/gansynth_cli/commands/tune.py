"""``gansynth tune``: choose generator, ratio and schedule by inner folds of the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gansynth.core.requests.studies import TuneRequest
from gansynth_cli.common import Hint, Output, examples
from gansynth_cli.requests import request_command


def show(request: TuneRequest, document: dict[str, Any], out: Output) -> None:
    """Print the choice, or what would be compared."""
    facts = (f"{key}  {value}" for key, value in document.items())
    out.result(document, facts if request.dry_run else _lines(document))


command = request_command(
    TuneRequest,
    "gansynth.benchmark.api:run_tuning",
    show,
    epilog=examples(
        "gansynth tune plan.yaml --executor local:2",
        "gansynth tune plan.yaml --size 12 --draw 1 -o runs/tune",
    ),
)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"chosen: {document['chosen']}; {document['why']}"
    yield from (f"dropped: {arm}: {why}" for arm, why in document["dropped"].items())
    last = document["rungs"][-1]
    for key, values in {document["by"]: last["scores"], **last["beside"]}.items():
        told = (f"{arm} {'-' if v is None else f'{v:.4f}'}" for arm, v in values.items())
        rungs = len(document["rungs"])
        yield f"{key} on inner folds, at the last of {rungs} rungs: {', '.join(told)}"
    for arm, gain in document["gains"].items():
        yield f"{arm} against {document['compared_with']}: {gain['words']}"
    yield from (Hint(f"next: {line}") for line in document["use"])
