"""The other sources of a request: ``--label-source`` and ``--unlabelled``, and who is in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gansynth.conditions.condition_source import ConditionSource, open_base
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.unlabelled import MarkedSource, UnlabelledSource, open_unlabelled
from gansynth.core.capabilities import Capabilities
from gansynth.core.identity import Compared, Door, HeldOut, refuse_seen
from gansynth.core.lineage import Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource, lineage_of
from gansynth.data.held_out import test_images_of


@dataclass(frozen=True)
class OtherSources:
    """The sources that a request names beside the run's own, opened as the run reads.

    Attributes:
        base: whose label maps condition the samples; None for the run's own.
        unlabelled: lesion-free scans that lesions are drawn into, too.
        marked: all these scans with the labels of their maps, for self-training; none without it.
    """

    base: ConditionSource | None = None
    unlabelled: tuple[UnlabelledSource, ...] = ()
    marked: tuple[MarkedSource, ...] = ()

    @classmethod
    def open(cls, request: SampleRequest, source: CaseSource, can: Capabilities) -> OtherSources:
        """Open the sources that a request names, for a generator that takes what ``can`` says."""
        base, scans = None, tuple[UnlabelledSource, ...]()
        if request.label_source is not None:
            base = open_base(request.label_source, source, labelled=can.draws != "labels")
        if request.unlabelled:
            lesions = lesion_drawer(request.lesions, can.lesions).classes(source.schema)
            scans = open_unlabelled(request, source, lesions)
        if not request.self_train:
            return cls(base, scans)
        marked = tuple([each.marked for each in scans])
        return cls(base, tuple([each for each in scans if each.train_ids]), marked)

    @property
    def named(self) -> bool:
        """Whether there is one."""
        return self.base is not None or bool(self.scans)

    @property
    def scans(self) -> tuple[UnlabelledSource, ...]:
        """The sources of ``--unlabelled``, with all cases that are taken of them."""
        return self.marked or self.unlabelled

    @cached_property
    def lineages(self) -> tuple[Lineage, ...]:
        """Their cases, which are read once."""
        every = self.scans if self.base is None else (*self.scans, self.base)
        return tuple([lineage_of(source) for source in every])

    def refuse_held_out(self, held_out: HeldOut, own: CaseSource) -> Compared:
        """Refuse sources that show a held-out case; see ``refuse_seen``.

        Args:
            own: the data set that holds it out.
        """
        compared = Compared()
        options = ["--unlabelled"] * len(self.scans)
        if self.base is not None:
            options.append("--label-source")
        for option, lineage in zip(options, self.lineages, strict=True):
            compared = compared.joined(refuse_shown(option, lineage, held_out))
        texts = [test_images_of(scans.request, own) for scans in self.scans]
        warnings = tuple([f"--unlabelled {text}" for text in texts if text])
        return compared.joined(Compared(warnings=warnings))


def refuse_shown(option: str, shown: Lineage, held_out: HeldOut) -> Compared:
    """Refuse a source, named by an option, that shows a held-out case; see ``refuse_seen``."""
    door = Door(
        option,
        "Leave these cases out: name the others in a file of splits, "
        f"{option}-read splits=FILE, with {option}-read fold=0; or move their files away",
        f"{option}-read subjects='{{}}'".format,
    )
    return refuse_seen(shown, held_out, door)
