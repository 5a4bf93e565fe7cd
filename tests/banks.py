"""Banks that tests write without a generator."""

from pathlib import Path
from typing import Any

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample, Schema

Pairs = list[tuple[Sample, dict[str, Any]]]


def write_bank(
    folder: Path, schema: Schema, lineage: Lineage, pairs: Pairs | None = None, **more: Any
) -> Path:
    """A bank of samples with their extras; frozen, unless ``more`` of ``BankSpec`` says not."""
    told: dict[str, Any] = {"frozen": True, "capacity": max(1, len(pairs or ())), **more}
    spec = BankSpec(schema, lineage, "toy", "0" * 64, **told)
    with BankWriter.create(folder, spec) as writer:
        for pair in pairs or ():
            writer.publish(*pair)
        if pairs and spec.frozen:
            writer.finish()
    return folder
