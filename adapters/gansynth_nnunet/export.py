"""``gansynth augment --export``: a data set on disk that stock nnU-Net trains on without gansynth.

It is built in a hidden folder beside its place, which nnU-Net takes for nothing, and gets its name
by one rename at the end. A killed export leaves that hidden folder; the same command goes on there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.bank.reader import BankReader
from gansynth.bank.spec import read_heartbeat
from gansynth.core.synthetic import KEY
from gansynth.hosts.export import building, samples_of
from gansynth.runtime.files import disk_errors, publish_dir, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.identifiers import names_in
from gansynth.sampling.sharing import forget_times
from gansynth_nnunet import export_mixed, export_raw
from gansynth_nnunet.export_plan import NOT_ANONYMOUS, ONE_FOLD, ExportPlan

MANIFEST = "gansynth.json"
"""In the data set: how its samples were made; no case of the source is named."""


def export_dataset(plan: ExportPlan, *, dry_run: bool, reporter: Reporter) -> dict[str, Any]:
    """Draw synthetic cases and write them as a data set; see ``Adapter.export``.

    Raises:
        EnvironmentFault: the disk has no room, or another process exports under this name.
        TrainingFault: the generator mostly draws what cannot be admitted.
    """
    if dry_run:
        return {"dry_run": True, **plan.describe()}
    with disk_errors(plan.record):
        plan.record.parent.mkdir(parents=True, exist_ok=True)
    with building(plan.build, reporter) as folder:
        reader = samples_of(
            plan.injection, plan.source, "nnunet", plan.build, plan.samples, plan.manifest_sha256,
            reporter=reporter,
        )  # fmt: skip
        rejected = dict(read_heartbeat(reader.folder).get("rejected", {}))
        _write(plan, folder, reader, reporter)
        if plan.injection.bank is None:
            shutil.rmtree(reader.folder, ignore_errors=True)
        publish_dir(folder, plan.folder)
    return {**plan.describe(), "bytes": _bytes(plan.folder), "rejected": rejected}


# -- writing -------------------------------------------------------------------------------------


def _write(plan: ExportPlan, folder: Path, reader: BankReader, reporter: Reporter) -> None:
    """Write the data set into the hidden folder, and its record to where that belongs."""
    ids = dict(zip(plan.names, reader.ids(), strict=False))  # a bank may hold more
    with disk_errors(folder):
        folder.mkdir()
        with reporter.task(plan.samples + len(plan.real_cases), "write") as bar:
            write = export_mixed.write if plan.content == "mixed" else export_raw.write
            write(plan, folder, reader, ids, bar)
        write_json_atomic(folder / MANIFEST, _manifest(plan, reader))
        write_json_atomic(plan.record, _record(plan, reader, ids))
        if plan.content == "synthetic":
            forget_times(folder)


def _manifest(plan: ExportPlan, reader: BankReader) -> dict[str, Any]:
    """What may leave the house with the data set: no name and no number of a source case."""
    mixed = plan.content == "mixed"
    document = {
        "gansynth": __version__,
        KEY: not mixed,
        "content": plan.content,
        "synthetic_cases": plan.samples,
        "generator": None if plan.manifest is None else plan.manifest["generator"],
        "manifest_sha256": plan.manifest_sha256,
        "edits": list(reader.spec.samples.edits or ()),
        "seed": reader.spec.samples.seed,
        "note": ONE_FOLD if mixed else NOT_ANONYMOUS,
    }
    source = plan.source
    if not mixed:
        names = names_in(reader.spec.lineage, source.schema)
        document["edits"] = names.blanked(document["edits"])
        return {**document, "units": export_raw.units(plan)}
    return {
        **document,
        "ratio": str(plan.injection.ratio),
        "real_training_cases": len(plan.real),
        "data": source.name,
        "configuration": source.configuration,
        "fold": source.fold,
    }


def _record(plan: ExportPlan, reader: BankReader, ids: Mapping[str, str]) -> dict[str, Any]:
    """Which cases each sample came from, and all that its maker has seen."""
    return {
        "gansynth": __version__,
        "dataset": plan.name,
        "folder": str(plan.folder),
        "content": plan.content,
        "held_out": list(plan.source.held_out_ids),
        "lineage": reader.spec.lineage.to_json(),
        "samples": {name: reader.read(i).provenance for name, i in ids.items()},
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
