"""Another source's cases for a chain of generators: tumour-free brains of which there is T1 alone.

Shin et al. 2018 (sec. 3.1) put tumours on tumour-free brain labels. What draws tissues of T1 does
so of these brains, too, unless they come with tissue labels of their own; images are not looked at
beyond that, so there may be fewer channels than the run has.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gansynth.conditions.external_source import BaseSource, label_values
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.data.views import LabelDrawer, View
from gansynth.runtime.errors import UsageFault


class ChainBase(BaseSource):
    """Cases of another source through the view of a chain.

    Args:
        base: the other source.
        view: the run's own source, with the labels that a part draws.

    Raises:
        UsageFault: as ``BaseSource``; or neither tissue labels nor what they are drawn of.
    """

    def __init__(self, base: CaseSource, view: View) -> None:
        labeller = view.labeller
        assert labeller is not None, "of views without one nothing is drawn"
        self.labeller: LabelDrawer = labeller
        self._merged = view.schema
        super().__init__(base, view.base.schema)
        self._tissues = self._own_tissues()
        lacking = [c for c in self.labeller.given if c not in self.shown]
        if not self._tissues and lacking:
            raise UsageFault(
                f"--conditions {base.request.kind}:{base.request.where}: its channels are "
                f"{', '.join(base.schema.channels)}, expected {', '.join(lacking)} among them, "
                f"of which {self.labeller.name} draws label maps; name them so: "
                f"--conditions-read channels={','.join(lacking)}"
            )

    @property
    def schema(self) -> Schema:
        """The run's own, with the labels that a part draws."""
        return self._merged

    @property
    def shown(self) -> tuple[str, ...]:
        """Those of the run's channels that its cases have."""
        return tuple(c for c in self._schema.channels if c in self.base.schema.channels)

    def _find_channels(self, schema: Schema) -> list[int]:
        return [self.base.schema.channels.index(name) for name in self.shown]

    def _find_labels(self, schema: Schema) -> dict[int, int]:
        return label_values(self.base, schema, self.labeller.labels)

    def _own_tissues(self) -> dict[int, int]:
        """Label value in the other source -> that of the drawn label of the same name."""
        drawn, own = self.labeller.labels, self._schema.labels
        return {
            value: drawn[name] + self.labeller.shift
            for name, value in self.base.schema.labels.items()
            if value > 0 and name in drawn and name not in own
        }

    def load(self, case_id: str) -> Case:
        """Read one case: channels that it lacks are zeros, labels are tissues and its own.

        Raises:
            DataFault: see the other source.
        """
        case = self.base.load(case_id)
        image = self._all_channels(case.image)
        own = self._labels(case)
        under = self._beneath(case, image)
        labels = np.where(own != 0, own, under)
        return replace(case, image=image, labels=labels, boxes=None, under=under, label_class=None)

    def _all_channels(self, image: FloatArray) -> FloatArray:
        channels = self._schema.channels
        whole = np.zeros((len(channels), *image.shape[1:]), np.float32)
        for name, number in zip(self.shown, self._order, strict=True):
            whole[channels.index(name)] = image[number]
        return whole

    def _beneath(self, case: Case, image: FloatArray) -> LabelArray:
        if not self._tissues or case.labels is None:
            seen = replace(case, image=image)
            return self.labeller.under(self.labeller.draw(seen, self._schema))
        under = np.zeros_like(case.labels)
        for value, merged in self._tissues.items():
            under[case.labels == value] = merged
        return under
