"""The kind of a sample, as a number: its case's class, or whether it shows foreground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gansynth.core.generator import Batch
from gansynth.core.schema import Case, Condition, Schema
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_dcgan.options import DCGANOptions


class SampleKinds:
    """The kinds of samples that can be requested. Raises UsageFault: the cases have none."""

    def __init__(self, schema: Schema, options: DCGANOptions) -> None:
        self.by = options.condition
        kinds = {"none": (), "class": schema.classes, "foreground": ("without", "with")}
        self.names: tuple[str, ...] = kinds[self.by]
        if self.by == "class" and not self.names:
            raise UsageFault(
                "--set condition=class: the source's cases have no classes, expected some; name "
                "them (gansynth help sources), or use condition=foreground or none"
            )
        if self.by == "foreground" and not schema.foreground:
            raise UsageFault(
                "--set condition=foreground: the source's cases have no label maps, expected some; "
                "add them, or use condition=none"
            )
        self.counts = [0] * len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def of_case(self, case: Case) -> int | None:
        """Return a training case's kind, None if unconditional; DataFault: it has none."""
        if self.by == "none":
            return None
        if self.by == "class":
            kind = case.label_class
        else:
            kind = None if case.labels is None else int((case.labels > 0).any())
        if kind is None:
            lacks = "class" if self.by == "class" else "label map"
            raise DataFault(
                f"case {case.id!r}: has no {lacks}, expected one for "
                f"condition={self.by}; leave the case out, or use --set condition=none"
            )
        return kind

    def of_batch(self, batch: Batch) -> Tensor | None:
        """Return the kinds of a training batch, int64 (B,); None if unconditional."""
        if self.by == "none":
            return None
        if self.by == "class":
            assert batch.classes is not None, "observe() checks that each case has a class"
            return batch.classes
        assert batch.labels is not None, "observe() checks that each case has labels"
        return (batch.labels > 0).flatten(1).any(1).long()

    def of_condition(self, condition: Condition) -> int | None:
        """Return the kind that a condition requests, if any; UsageFault: no such class."""
        if self.by == "class":
            kind = condition.label_class
            if kind is not None and not 0 <= kind < len(self):
                raise UsageFault(
                    f"condition: class {kind}, expected 0 to {len(self) - 1} "
                    f"({', '.join(self.names)})"
                )
            return kind
        if self.by == "foreground" and condition.labels is not None:
            return int((condition.labels > 0).any())
        return None

    def drawn(self, rng: torch.Generator) -> int:
        """Return a random kind, with the frequencies of the training crops."""
        shares = np.cumsum(self.counts) / max(sum(self.counts), 1)
        at = float(torch.rand((), generator=rng))
        return min(int(np.searchsorted(shares, at, side="right")), len(self) - 1)


def stacked(kinds: Sequence[int | None], device: torch.device) -> Tensor | None:
    """Return kinds as int64 (B,) on a device; None if unconditional."""
    if not kinds or kinds[0] is None:
        return None
    return torch.tensor(kinds, device=device)
