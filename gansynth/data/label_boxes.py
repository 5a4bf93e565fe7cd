"""Boxes of cases that have label maps: one around each connected part of the chosen labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.core.schema import Boxes, Case, LabelArray, Schema
from gansynth.data.connected_components import boxes_of
from gansynth.data.read_options import BoxesAsked
from gansynth.runtime.errors import DataFault, UsageFault

_ONE = Schema(("mask",), {"background": 0, "lesion": 1}, (1.0, 1.0), "HW")


def box_record(boxes: BoxesAsked | None, least: int) -> dict[str, Any]:
    """Return the record of ``boxes`` and ``least``; empty without boxes."""
    return {} if boxes is None else {"boxes": {"of": boxes, "least": least}}


@dataclass(frozen=True)
class LabelBoxes:
    """Makes boxes of label maps."""

    classes: Mapping[str, tuple[int, ...]]
    least: int

    @classmethod
    def asked(
        cls, boxes: BoxesAsked | None, least: int, schema: Schema, where: str
    ) -> LabelBoxes | None:
        """Return the maker of requested boxes, or None; UsageFault: no labels, or unknown ones."""
        if boxes is None:
            return None
        names = {number: name for name, number in schema.labels.items()
                 if number in schema.foreground}  # fmt: skip
        if not names:
            raise UsageFault(
                f"--read boxes: {where} has no label maps, expected some to draw boxes around; add "
                "them, or leave that out"
            )
        if boxes == "yes":
            classes = {names[number]: (number,) for number in schema.foreground}
            return cls(classes, least)
        for name, numbers in boxes.items():
            for number in numbers:
                if number not in names:
                    expected = ", ".join(f"{n} {label}" for n, label in names.items())
                    raise UsageFault(
                        f"--read boxes={name}:{'+'.join(map(str, numbers))}: {where} has no label "
                        f"{number}, expected among {expected}; correct the number"
                    )
        return cls(boxes, least)

    def of(self, labels: LabelArray) -> Boxes:
        """Boxes of a label map int16 (D, H, W) or (H, W), by class and then by size."""
        per_class = [
            boxes_of(np.isin(labels, numbers).astype(np.int16), _ONE, self.least)
            for numbers in self.classes.values()
        ]
        classes = [np.full(len(b.labels), n, np.int16) for n, b in enumerate(per_class)]
        return Boxes(np.concatenate([b.coords for b in per_class]), np.concatenate(classes))

    def of_case(self, case: Case) -> Boxes:
        """Boxes of a case. Raises DataFault: it has no label map."""
        if case.labels is None:
            raise DataFault(
                f"case {case.id!r}: has no label map, expected one to draw boxes around; leave "
                "--read boxes out"
            )
        return self.of(case.labels)
