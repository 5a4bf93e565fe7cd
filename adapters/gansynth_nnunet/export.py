"""``gansynth augment --export``: a data set on disk that stock nnU-Net trains on without gansynth.

It is built in a hidden folder beside its place, which nnU-Net takes for nothing, and gets its name
by one rename at the end. A killed export leaves that hidden folder; the same command goes on there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth import __version__
from gansynth._bank_spec import read_heartbeat
from gansynth.adapter import Content, Injection
from gansynth.bank import BankReader
from gansynth.errors import DataFault, GansynthError
from gansynth.integrity import disk_errors, publish_dir, read_json, write_json_atomic
from gansynth.reporting import Reporter
from gansynth.supply import BankSize
from gansynth_nnunet import export_mixed, export_raw
from gansynth_nnunet.export_plan import NOT_ANONYMOUS, ONE_FOLD, ExportPlan, plan_export

if TYPE_CHECKING:
    from gansynth.producer import ProducerConfig
    from gansynth_nnunet.adapter import NnunetAdapter

SEGMENT = 16
MANIFEST = "gansynth.json"
"""In the data set: how its samples were made; no case of the source is named."""


def export_dataset(
    adapter: NnunetAdapter,
    injection: Injection,
    name: str,
    *,
    content: Content,
    size: BankSize | None,
    dry_run: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw synthetic cases and write them as a data set; see ``Adapter.export``.

    Raises:
        GansynthError: what ``validate`` and ``check`` refuse.
        UsageFault: a name or number that is taken, or an order that makes no data set.
        EnvironmentFault: the disk has no room, or another process exports under this name.
        TrainingFault: the generator mostly draws what cannot be admitted.
    """
    adapter.validate()
    adapter.check(injection, {}, ())
    plan = plan_export(adapter, injection, name, content, size)
    if dry_run:
        return {"dry_run": True, **plan.describe()}
    with _building(plan, reporter):
        reader = _samples(plan, reporter)
        rejected = dict(read_heartbeat(reader.folder).get("rejected", {}))
        _write(plan, reader, reporter)
        if injection.bank is None:
            shutil.rmtree(reader.folder, ignore_errors=True)
        publish_dir(plan.build / "dataset", plan.folder)
    return {**plan.describe(), "bytes": _bytes(plan.folder), "rejected": rejected}


@contextlib.contextmanager
def _building(plan: ExportPlan, reporter: Reporter) -> Iterator[None]:
    """Hold the hidden folder and clean it up; samples stay only if a fault may be put right."""
    from gansynth.run import locked

    with disk_errors(plan.record):
        plan.record.parent.mkdir(parents=True, exist_ok=True)
    with locked(plan.build, "export under another name"):
        keep = False
        try:
            shutil.rmtree(plan.build / "dataset", ignore_errors=True)
            yield
        except GansynthError:
            keep = any((plan.build / "bank").glob("segment-*.h5"))
            if keep:
                reporter.say(f"{plan.build}: keeps the samples so far; the same command goes on")
            raise
        finally:
            shutil.rmtree(plan.build / "dataset" if keep else plan.build, ignore_errors=True)


# -- samples -------------------------------------------------------------------------------------


def _samples(plan: ExportPlan, reporter: Reporter) -> BankReader:
    """A bank with the samples: the one that was named, or one that is filled now."""
    if plan.injection.bank is not None:
        return BankReader(plan.injection.bank)
    config = _order(plan)
    _take_up(plan, config)
    _fill(plan, config, reporter)
    return BankReader(config.bank)


def _order(plan: ExportPlan) -> ProducerConfig:
    from gansynth.producer import ProducerConfig

    injection = plan.injection
    return ProducerConfig(
        run=str(injection.run),
        request=plan.adapter.host.request.to_json(),
        target=plan.adapter.name,
        bank=str(plan.build / "bank"),
        frozen=True,
        capacity=plan.samples,
        segment_samples=min(SEGMENT, plan.samples),
        seed=injection.seed,
        edits=injection.edits or None,
        device=injection.device,
        parent=os.getpid(),
        dtype="float32",
    )


def _take_up(plan: ExportPlan, config: ProducerConfig) -> None:
    """Throw away what a killed export of this name left, unless it had the same order."""
    order = {k: v for k, v in config.to_json().items() if k not in ("parent", "device")}
    order = json.loads(json.dumps({**order, "generator": plan.manifest_sha256}))
    file = plan.build / "order.json"
    with contextlib.suppress(DataFault):
        if read_json(file) == order:
            return
    shutil.rmtree(config.bank, ignore_errors=True)
    write_json_atomic(file, order)


def _fill(plan: ExportPlan, config: ProducerConfig, reporter: Reporter) -> None:
    """Let a producer draw, check and store the samples, as for any bank."""
    from gansynth.keeper import Keeper

    shown = 0
    with reporter.task(plan.samples, "sample") as bar:

        def progress(count: int) -> None:
            nonlocal shown
            bar.advance(count - shown)
            shown = count

        keeper = Keeper.start(config, plan.build / "producer.log", restarts=plan.injection.restarts)
        try:
            keeper.wait(plan.samples, float("inf"), progress)
        finally:
            keeper.stop()
            for said in keeper.messages():
                reporter.say(said)


# -- writing -------------------------------------------------------------------------------------


def _write(plan: ExportPlan, reader: BankReader, reporter: Reporter) -> None:
    """Write the data set into the hidden folder, and its record to where that belongs."""
    folder = plan.build / "dataset"
    ids = dict(zip(plan.names, reader.ids(), strict=False))  # a bank may hold more
    with disk_errors(folder):
        folder.mkdir()
        with reporter.task(plan.samples + len(plan.real_cases), "write") as bar:
            write = export_mixed.write if plan.content == "mixed" else export_raw.write
            write(plan, folder, reader, ids, bar)
        write_json_atomic(folder / MANIFEST, _manifest(plan, reader))
        write_json_atomic(plan.record, _record(plan, reader, ids))
        if plan.content == "synthetic":
            export_raw.forget_times(folder)


def _manifest(plan: ExportPlan, reader: BankReader) -> dict[str, Any]:
    """What may leave the house with the data set: no name and no number of a source case."""
    mixed = plan.content == "mixed"
    document = {
        "gansynth": __version__,
        "content": plan.content,
        "synthetic_cases": plan.samples,
        "generator": None if plan.manifest is None else plan.manifest["generator"],
        "manifest_sha256": plan.manifest_sha256,
        "edits": list(reader.spec.edits),
        "seed": reader.spec.seed,
        "note": ONE_FOLD if mixed else NOT_ANONYMOUS,
    }
    if not mixed:
        return {**document, "units": export_raw.units(plan)}
    source = plan.adapter.host
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
        "held_out": list(plan.adapter.host.held_out_ids),
        "lineage": reader.spec.lineage.to_json(),
        "samples": {name: reader.read(i).provenance for name, i in ids.items()},
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
