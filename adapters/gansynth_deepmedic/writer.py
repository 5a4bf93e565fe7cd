"""``--format deepmedic``: volumes, and the lists of them that a DeepMedic configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gansynth import OUTSIDE, Item, Writer, write_json_atomic, write_volume
from gansynth.runtime.files import folder_name, write_bytes_atomic
from gansynth_deepmedic.layout import ENDING, LABELS, ROI


class DeepMedicWriter(Writer):
    """A folder a case, and a ``trainConfig.cfg`` that holds their lists and nothing else.

    A region of interest is written for all cases: 1 where their labels are inside of the body.
    """

    name = "deepmedic"
    ndim = frozenset({3})
    needs = frozenset({"labels"})

    def add(self, item: Item) -> None:
        assert item.labels is not None, "see needs"
        assert item.mask is not None, "of labels"
        assert item.affine is not None, "a writer always gets one"
        inside = (item.labels != OUTSIDE).astype(np.int16)
        for name, array in zip(self._names, (*item.image, item.mask, inside), strict=True):
            path = self.folder / "cases" / item.name / f"{name}{ENDING}"
            write_volume(path, array, item.affine, synthetic=item.synthetic)

    def finish(self, about: Mapping[str, Any]) -> None:
        cases = sorted(path.name for path in (self.folder / "cases").iterdir())
        for name in self._names:
            lines = [f"./cases/{case}/{name}{ENDING}\n" for case in cases]
            write_bytes_atomic(self.folder / f"{name}.cfg", "".join(lines).encode())
        *channels, labels, roi = [f"./{name}.cfg" for name in self._names]
        keys = {"channelsTraining": channels, "gtLabelsTraining": labels, "roiMasksTraining": roi}
        text = "# Synthetic cases. Add the other keys of your own configuration.\n"
        text += "".join([f"{key} = {value!r}\n" for key, value in keys.items()])
        write_bytes_atomic(self.folder / "trainConfig.cfg", text.encode())
        write_json_atomic(self.folder / "manifest.json", about)

    @property
    def _names(self) -> list[str]:
        """Channels, label map and region of interest."""
        each = enumerate(self.schema.channels)
        return [folder_name(f"{number:02d}_{name}") for number, name in each] + [LABELS, ROI]
