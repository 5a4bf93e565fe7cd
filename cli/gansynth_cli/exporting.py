"""``gansynth augment --export`` and ``-o``: what of it means something for a data set on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault
from gansynth_cli.common import summary
from gansynth_cli.typed import refuse_others, typed_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gansynth.core.adapter import Adapter, Content, Injection
    from gansynth.core.bank_options import BankSize
    from gansynth_cli.common import Output

SOURCE = ("data", "configuration", "plans", "fold", "subjects", "read", "root")
SAMPLES = ("run", "ratio", "bank", "bank_size", "restarts", "seed", "edits", "device")
REAL = ("real_in_generator_space", "nearest")
ASKED = ("boxes", "conditions", "how", "lesions", "weights", "filters")
SAYING = ("target", "export", "output", "content", "dry_run", "as_json", "quiet", "debug")
MEANT = frozenset((*SOURCE, *SAMPLES, *REAL, *ASKED, *SAYING))
"""Options that an export heeds; every other one is about a training, which there is none of."""


def run_export(
    adapter: Adapter,
    injection: Injection,
    name: str,
    content: Content | None,
    *,
    dry_run: bool,
    out: Output,
) -> None:
    """Export, and print what came of it.

    Raises:
        GansynthError: what the adapter refuses.
    """
    document: Mapping[str, Any] = adapter.export(
        injection,
        name,
        content=content or "mixed",
        size=asked_size(injection),
        dry_run=dry_run,
        reporter=out.reporter,
    )
    if dry_run and injection.run and injection.bank is None and injection.ratio.p > 0:
        from gansynth.hosts.checks import seconds_of_a_sample

        each = round(seconds_of_a_sample(adapter, injection), 3)
        document = {**document, "seconds_per_sample": each, "memory": "not measured"}
    out.result(document, summary(document))


def data_set_name(adapter: Adapter, export: str | None, output: Path | None) -> str:
    """What the new data set is called, in the host's way.

    Raises:
        UsageFault: the host's data sets are called otherwise, or it writes none.
    """
    if output is None:
        assert export is not None
        if adapter.exports == "folder":
            raise UsageFault(
                f"--export {export}: {adapter.name} has no list of data sets to add a name to, "
                "expected -o DIR, a new folder; take that instead"
            )
        said = f"--export {export}"
    else:
        if adapter.exports == "name":
            raise UsageFault(
                f"-o {output}: {adapter.name} finds data sets by name in its own folders, expected "
                "--export DatasetNNN_Name; take that instead"
            )
        said = f"-o {output}"
    if adapter.exports == "nothing":
        raise UsageFault(
            f"{said}: {adapter.name} has no data sets to write; expected a host that has, such as "
            "nnunet, deepmedic or yolo. Leave it out to train with samples mixed in"
        )
    return str(export if output is None else output)


def asked_size(injection: Injection) -> BankSize | None:
    """``--bank-size``, if it was given."""
    return injection.size if "bank_size" in typed_options(click.get_current_context()) else None


def check_options(export: str | None, output: Path | None, content: str | None) -> None:
    """Refuse what an export would ignore, and ``--content`` without an export.

    Raises:
        UsageFault: naming the first option that was given all the same.
    """
    if export is None and output is None:
        if content is not None:
            raise UsageFault(
                f"--content {content}: expected --export DatasetNNN_Name or -o DIR beside it; "
                "without, samples are mixed in at --ratio while the host trains"
            )
        return
    if export is not None and output is not None:
        raise UsageFault(
            f"--export {export} with -o {output}: one says where the data set goes, expected "
            "--export for nnunet or -o for yolo and deepmedic; leave one out"
        )
    said = "--export" if output is None else "-o"
    why = "nothing is trained, expected only what says which samples are written"
    refuse_others(MEANT, f"{said} with {{}}: {why}; leave it out")
