"""``gansynth augment --target deepmedic -o DIR``: a folder that stock DeepMedic trains on.

It is built in a hidden folder beside its place and gets its name by one rename at the end. A killed
export leaves that hidden folder; the same command goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Adapter, Content, Injection
from gansynth.core.bank_options import BankSize
from gansynth.hosts.checks import check_drawing
from gansynth.hosts.export import exporting, hashes_of
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth_deepmedic.export_plan import ExportPlan, generator_space, plan_export
from gansynth_deepmedic.guards import open_origin
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.layout import Layout, write_layout
from gansynth_deepmedic.real_space import bring_real, moved
from gansynth_deepmedic.slots import Slot, Slots, additions_for, largest, write_slots
from gansynth_deepmedic.source import DeepMedicSource

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import ModelConfig

MANIFEST = "manifest.json"


def export_dataset(
    adapter: Adapter,
    injection: Injection,
    name: str,
    *,
    content: Content,
    size: BankSize | None,
    dry_run: bool,
    reporter: Reporter,
    model: ModelConfig | None = None,
) -> dict[str, Any]:
    """Draw samples, put each into its real case, and write a data set; see ``Adapter.export``.

    Args:
        adapter: opened on a ``deepmedic:`` source.
        injection: where samples come from, and at which ratio.
        name: folder of the new data set.
        content: ``mixed``; synthetic cases lie in real ones.
        size: how many samples, where the ratio (0:1) does not say.
        dry_run: check everything, write nothing.
        reporter: shows progress.
        model: of the network that is to be trained, which says how near to a border its segments
            may be; None for the source's, if that knows it.

    Raises:
        GansynthError: what ``validate`` and ``check`` refuse.
        UsageFault: an order that makes no data set.
        DataFault: too few samples have a place for a segment.
        EnvironmentFault: the disk has no room, or another process exports there.
        TrainingFault: the generator mostly draws what cannot be admitted.
    """
    if content == "synthetic":
        raise UsageFault(
            "--content synthetic: synthetic cases of DeepMedic lie in real training cases, which "
            "such data would give away; expected mixed. Leave --content out"
        )
    adapter.validate()
    source = adapter.source
    assert isinstance(source, DeepMedicSource), "see the adapter"
    open_origin(injection, source, adapter.held_out)
    check_drawing(adapter, injection)
    plan = plan_export(source, injection, name, size, model)
    if dry_run:
        return {"dry_run": True, **plan.describe()}
    with exporting(
        injection, source, adapter.name, plan.draws, plan.generator,
        build=plan.build, folder=plan.folder, rejected=plan.rejected, reporter=reporter,
    ) as (folder, reader, rejected):  # fmt: skip
        manifest = _write(plan, folder, reader, rejected, reporter)
    told = {key: manifest[key] for key in ("segments_of", "left_out", "rejected", "changed")}
    return {**plan.describe(), **told}


def _write(
    plan: ExportPlan,
    folder: Path,
    reader: BankReader,
    rejected: Mapping[str, Any],
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the data set into the hidden folder.

    Returns:
        The manifest.
    """
    with disk_errors(plan.folder):
        folder.mkdir()
        cases = _real_cases(plan, folder, reporter)
        slots = write_slots(plan, folder, reader, cases, reporter)
        listed = cases
        if plan.injection.real_in_generator_space:
            listed = tuple(moved(case, folder, plan.folder) for case in cases)
        additions = additions_for(plan, folder, cases, slots)
        layout = write_layout(
            plan.source.config, folder, plan.share, listed, len(slots.slots), additions=additions
        )
        manifest = _manifest(plan, reader, slots, layout, rejected) | {"files": hashes_of(folder)}
        write_json_atomic(folder / MANIFEST, manifest)
    return manifest


def _real_cases(plan: ExportPlan, folder: Path, reporter: Reporter) -> tuple[HostCase, ...]:
    """The real training cases, brought through the generator's space if that is asked for."""
    if not plan.injection.real_in_generator_space:
        return tuple(plan.source.host_case(case) for case in plan.source.train_ids)
    return bring_real(plan.source, generator_space(plan.injection), folder, reporter)


# -- what is said of it --------------------------------------------------------------------------


def _manifest(
    plan: ExportPlan,
    reader: BankReader,
    slots: Slots,
    layout: Layout,
    rejected: Mapping[str, Any],
) -> dict[str, Any]:
    told = plan.describe()
    del told["record"]
    return {
        "gansynth": __version__,
        **told,
        "train_config_of": str(plan.source.config.path),
        "changed": dict(layout.changed),
        **_where(plan, slots),
        "left_out": slots.left_out,
        "rejected": dict(rejected),
        "generator": None if plan.manifest is None else plan.manifest["generator"],
        "manifest_sha256": plan.generator,
        "seed": reader.spec.seed,
        "edits": list(reader.spec.edits),
        "boxes": reader.spec.boxes,
        "judged": reader.spec.judged,
        "held_out": list(plan.source.held_out_ids),
        "lineage": reader.spec.lineage.to_json(),
        "slots": {slot.name: _told(slot) for slot in slots.slots},
    }


def _where(plan: ExportPlan, slots: Slots) -> dict[str, Any]:
    """Where DeepMedic may take segments of synthetic cases."""
    size = largest(slots.slots)
    what = "predict" if plan.sampling.pad else "see"
    by = {"roi": "their regions of interest", "maps": "their sampling maps"}[plan.restricted]
    where = f"where the sample is, by {by}" if slots.restricted else "anywhere, as of real cases"
    told: dict[str, Any] = {
        "segments_of": f"synthetic cases are centred {where}; a segment may {what} up to {size} "
        "voxels along an axis, else some case is too near its border for any"
    }
    if slots.restricted and plan.restricted == "maps":
        told["categories"] = plan.sampling.categories
    return told


def _told(slot: Slot) -> dict[str, Any]:
    return {
        "case": slot.case,
        "corner": slot.corner,
        "sample": slot.sample,
        "share_of_voxels": slot.centres,
        "provenance": slot.provenance,
    }
