"""``--format deepmedic``: volumes, and the lists of them that a DeepMedic configuration names."""

# ruff: noqa: D102 - methods that override those of Writer

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE
from gansynth.core.writer import Item, Writer
from gansynth.data.case_writer import write_volume
from gansynth.runtime.files import folder_name, write_bytes_atomic, write_json_atomic
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
        inside = (item.labels != OUTSIDE).astype(np.int16)
        arrays: dict[str, npt.NDArray[Any]] = {LABELS: item.mask, ROI: inside}
        arrays |= dict(zip(self._channels(), item.image, strict=True))
        for name, array in arrays.items():
            path = self._cases / item.name / f"{name}{ENDING}"
            assert item.affine is not None, "a writer always gets one"
            write_volume(path, array, item.affine, synthetic=item.synthetic)

    def finish(self, about: Mapping[str, Any]) -> None:
        lists = {name: self._list(name) for name in (*self._channels(), LABELS, ROI)}
        keys = {
            "channelsTraining": [lists[name] for name in self._channels()],
            "gtLabelsTraining": lists[LABELS],
            "roiMasksTraining": lists[ROI],
        }
        text = "# Synthetic cases. Add the other keys of your own configuration.\n"
        text += "".join(f"{key} = {value!r}\n" for key, value in keys.items())
        write_bytes_atomic(self.folder / "trainConfig.cfg", text.encode())
        write_json_atomic(self.folder / "manifest.json", about)

    @property
    def _cases(self) -> Path:
        return self.folder / "cases"

    def _channels(self) -> list[str]:
        return [folder_name(f"{i:02d}_{name}") for i, name in enumerate(self.schema.channels)]

    def _list(self, name: str) -> str:
        cases = sorted(path.name for path in self._cases.iterdir())
        text = "".join(f"./cases/{case}/{name}{ENDING}\n" for case in cases)
        write_bytes_atomic(self.folder / f"{name}.cfg", text.encode())
        return f"./{name}.cfg"
