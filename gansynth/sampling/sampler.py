"""Sampling from a run: conditions from its training source, images from its generator.

A producer and all checks before it call ``open_drawer``. The checks therefore refuse at once what
the producer would refuse after minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gansynth.conditions.boxes import DEFAULT_BOXES, box_drawer
from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import lesion_drawer, no_room
from gansynth.conditions.sampler import SCANS, ConditionSampler
from gansynth.conditions.standing_out import LesionContrasts
from gansynth.core.case_pool import CaseCheck
from gansynth.core.filter import FilterRequest
from gansynth.core.generator import ContextOf, Generator, generated, given_of
from gansynth.core.intake import Intake
from gansynth.core.lineage import Lineage, guard_host
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import MARKED, SampleRequest
from gansynth.core.schema import Case, Condition, FloatArray, Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache
from gansynth.data.held_out import held_out_of
from gansynth.data.views import SourceView, unwrap
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.composite import CompositeBase
from gansynth.sampling.deidentify import REPEATED, repeated_share
from gansynth.sampling.filters.fitted import ensure_learnt, to_learn
from gansynth.sampling.manifest import Run, conditioned_on_classes, content_check, seen_classes
from gansynth.sampling.open_run import load_run, refuse_below_size
from gansynth.sampling.other_sources import OtherSources
from gansynth.sampling.request_checks import GeneratorInfo, check_request
from gansynth.sampling.run_source import source_for, viewed
from gansynth.sampling.self_training import MarkedScans

log = logging.getLogger("gansynth")
T = TypeVar("T", Condition, Sample)
BESIDE = "beside"
"""Provenance key of the real case that preview grids show beside an unconditional sample."""
OF_A_CASE = ("case", "placement", "edits")
"""Provenance keys that an unconditional sample lacks, since it comes from no case."""


class Sampler:
    """Generate samples of a run in its host's space; sample ``i`` of a seed is always the same.

    Args:
        source: the run's training source, whose content must be what the run has seen.
        request: conditions and filters of the samples; unfitted filters are fitted now.
        cache: holds cases of the source already; a fit's.
        learn: False leaves out unfitted filters: nothing is trained or written.
        checked: whether the other sources of the request have been compared with what a host holds
            out; else they are with what the run's own fold does.

    Attributes:
        measured: whether the provenance says what share of its real images a sample repeats.
        source: real cases with the channels and labels that samples have.
        others: sources that the request names beside the run's own.
        filters: fitted filters; they write their results into the provenance.
        request: conditions and filters, with the run's own edits where none were named.
    """

    def __init__(
        self,
        run: Run,
        source: CaseSource,
        request: SampleRequest | None = None,
        reporter: Reporter | None = None,
        learn: bool = True,
        cache: CaseCache | None = None,
        checked: bool = False,
    ) -> None:
        source = viewed(source, run.request.view)
        check_source(run, source)
        # A composite run's samples have its source's labels, without those a part has generated.
        composite = "parts" in run.manifest and "labels_by" in source.request.view
        self.source = source.base if composite and isinstance(source, SourceView) else source
        self._viewed = self.source is not source
        self.run, self.measured = run, False
        generator, request = run.generator, request or SampleRequest()
        check_request(request, GeneratorInfo.of(run))
        check_classes(run, request.classes or ())
        self.others = OtherSources.open(request, source, generator.capabilities)
        # A generator of label maps draws those of other cases, and learns nothing from them.
        learnt_from = generator.capabilities.draws != "labels"
        if self.others.named and learnt_from and not checked:
            own = unwrap(source)
            warn = log.warning if reporter is None else reporter.warn
            for text in self.others.refuse_held_out(held_out_of(own), own).warnings:
                warn(text)
        if reporter is not None:
            for scans in (*self.others.unlabelled, *self.others.marked):
                reporter.say(str(scans))
        if request.edits is None:
            request = replace(request, edits=run.edits)
        self.request = request
        check = content_check(run.folder, run.lineage)
        self.sampler = sampler_for(
            generator,
            source,
            run.space,
            request,
            base=self.others.base,
            unlabelled=self.others.unlabelled,
            check=check,
            cache=cache,
        )
        traced = {"generator": generator.name, "run": run.run_id}
        backgrounds = {
            self.others.marked.index(scans.marked): held
            for scans, held in zip(self.others.unlabelled, self.sampler.scans, strict=True)
            if self.others.marked
        }
        self.marked = MarkedScans(
            self.others.marked, run.space, request.self_train, traced, backgrounds
        )
        filters, device = request.filters, str(generator.device)
        if not learn:
            filters = tuple(text for text in filters if not to_learn(run.folder, [text]))
        self.filters = ensure_learnt(run, source, filters, device, reporter)

    def with_seed(self, seed: int) -> Sampler:
        """Return a sampler of another seed that shares all that was learnt and is kept."""
        other = copy(self)
        other.request = replace(self.request, seed=seed)
        other.sampler = self.sampler.with_seed(seed)
        return other

    @property
    def lineage(self) -> Lineage:
        """Every case that samples may depend on: seen by run or filters, or of another source."""
        others = list(self.others.lineages)
        if self.filters.lineage is not None:
            others.append(self.filters.lineage)
        return self.run.lineage.joined(*others)

    def draw(self, first: int, count: int) -> list[Sample]:
        """Generate samples ``first`` to ``first + count - 1`` in the host's space.

        Returns:
            Samples with image float32 (C, D, H, W), labels int16 (D, H, W).
        """
        space = self.run.space
        return [space.to_host(s, s.provenance["shape"]) for s in self.draw_raw(first, count)]

    def draw_raw(self, first: int, count: int) -> list[Sample]:
        """Generate the same samples in the generator's own space."""
        every, seed = range(first, first + count), self.request.seed
        scans = {index for index in every if self.marked.has(seed, index)}
        drawn = iter(self._drawn([index for index in every if index not in scans]))
        return [self._scan(index) if index in scans else next(drawn) for index in every]

    def _scan(self, index: int) -> Sample:
        """Return the unlabelled scan that a sample of ``--self-train`` is."""
        sample = self._boxed(self.marked.draw(self.request.seed, index))
        if self.measured:
            sample = replace(sample, provenance=dict(sample.provenance) | {REPEATED: 1.0})
        return sample

    def _drawn(self, which: Sequence[int]) -> list[Sample]:
        if not which:  # which no network would take
            return []
        conditions = [self._condition(index) for index in which]
        samples = []
        for drawn, condition in zip(self._generated(conditions), conditions, strict=True):
            sample = self._traced(drawn, condition)
            sample = self._with_flaw(sample, _lent(condition))
            sample = self._with_ignored(sample, condition)
            sample = self._cleared(sample)
            sample = self._boxed(sample)
            if self.measured:
                sample = self._measured(sample, condition)
            samples.append(sample)
        return samples

    def _generated(self, conditions: Sequence[Condition]) -> list[Sample]:
        """Composites hand each part its own conditions."""
        generator, seeds = self.run.generator, [c.latent_seed for c in conditions]
        if isinstance(generator, CompositeBase):
            return generator.sample(conditions, seeds)
        return generated(generator, conditions, seeds)

    def _traced(self, sample: Sample, condition: Condition) -> Sample:
        """Write the provenance of a sample, whatever the plugin has written there."""
        generator, provenance = self.run.generator, dict(condition.provenance)
        if sample.label_class is not None:
            provenance.setdefault("class", generator.schema.classes[sample.label_class])
        if isinstance(generator, CompositeBase):
            provenance |= generator.composition(condition)
        if sample.notes:
            provenance["notes"] = dict(sample.notes)
        provenance |= {"generator": generator.name, "run": self.run.run_id}
        return replace(sample, provenance=provenance)

    def _measured(self, sample: Sample, condition: Condition) -> Sample:
        given = (condition.background, condition.donor, condition.moved, condition.given)
        real = [image for image in given if image is not None]
        real.append(self.matching_real_case(sample).image)
        provenance = dict(sample.provenance)
        provenance[REPEATED] = round(repeated_share(sample.image, real), 4)
        return replace(sample, provenance=provenance)

    def _condition(self, index: int) -> Condition:
        """Return a sample's condition; without a class if the generator ignores classes."""
        drawn = self.sampler.draw(index)
        if drawn.label_class is None or conditioned_on_classes(self.run):
            return drawn
        provenance = {key: value for key, value in drawn.provenance.items() if key != "class"}
        return replace(drawn, label_class=None, provenance=provenance)

    def matching_real_case(self, sample: Sample) -> Case:
        """Return the real case of a sample's condition, at the same place, in the generator's
        space.

        For an unconditional sample it is any training case.
        """
        where = sample.provenance.get(BESIDE, sample.provenance)
        if MARKED in where:
            return self.marked.case_of(dict(where))
        # A composite run's conditions come through a view; its real cases are the source's own.
        own = self._viewed and self.others.base is None and SCANS not in where
        load = self.source.load if own else self.sampler.cases_with(where)
        return _drawn_of(load, self.run.space, where)

    def background_of(self, sample: Sample) -> FloatArray | None:
        """Return the image that a sample's lesions were drawn into, its own ones taken out.

        It is in the host's space, as ``draw`` returns samples; None where none were drawn.
        """
        if self.sampler.lesions is None or MARKED in sample.provenance:
            return None
        background = self._condition(sample.provenance["index"]).background
        if background is None:
            return None
        shape = sample.provenance["shape"]
        return self.run.space.to_host(Sample(background, None), shape).image

    def check_cases(self) -> None:
        """Read all training cases, and refuse any that differs from what the run has seen."""
        cases = self.sampler.case_pool.cases
        for case_id in cases.ids:
            cases.admit(case_id)

    def _with_flaw(self, sample: Sample, condition: Condition) -> Sample:
        """Write into the provenance the flaw that the generator or a filter finds, if any."""
        provenance, lent = dict(sample.provenance), _lent(sample)
        reject_reason = ""
        if not self.request.keep_flawed:
            reject_reason = no_room(provenance) or self.run.generator.reject_reason(lent)
            reject_reason = reject_reason or self._faint(sample, condition)
        if reject_reason:
            provenance["reject_reason"] = reject_reason
            return replace(sample, provenance=provenance)
        drawn_of = None
        if self.run.capabilities.of_a_case:
            where = condition.provenance
            # A plugin gets it: no reference may lead to the sampler and its source.
            drawn_of = partial(_drawn_of, self.sampler.cases_with(where), self.run.space, where)
        request = FilterRequest(condition, drawn_of, self.sampler.case_pool)
        provenance.update(self.filters.judge(lent, request))
        return replace(sample, provenance=provenance)

    def _faint(self, sample: Sample, condition: Condition) -> str:
        """Return why a lesion in an unlabelled scan cannot be seen, or an empty text."""
        drawer, lesion, body = self.sampler.lesions, condition.lesion, condition.body
        if SCANS not in condition.provenance or drawer is None or lesion is None or body is None:
            return ""
        if "shows" in condition.provenance["lesions"]:  # a sham, or nothing
            return ""
        pool = self.sampler.case_pool
        contrasts = LesionContrasts.learn(pool, drawer.classes(pool.schema))
        return "" if contrasts is None else contrasts.faint(sample.image, lesion, body, pool.schema)

    def _with_ignored(self, sample: Sample, condition: Condition) -> Sample:
        """Ignore what is to be ignored in the case, where a sample has no label of its own."""
        labels, ignore = sample.labels, self.run.generator.schema.ignore
        if labels is None or condition.ignored is None or ignore is None:
            return sample
        bare = labels == (0 if sample.under is None else sample.under)
        return replace(sample, labels=np.where(condition.ignored & bare, np.int16(ignore), labels))

    def _boxed(self, sample: Sample) -> Sample:
        if sample.boxes is not None or sample.labels is None:
            return sample
        return replace(sample, boxes=self.source.boxes_around(sample.labels))

    def _cleared(self, sample: Sample) -> Sample:
        """Clear the padding as in the source's own crops, or the case that a sample has not."""
        can = self.run.capabilities
        if "boxes" in can.takes:  # boxes are a case's, or like a case's; the rest is generated
            return sample
        if not can.of_a_case:  # the sample belongs to no case or place
            provenance = {k: v for k, v in sample.provenance.items() if k not in OF_A_CASE}
            provenance[BESIDE] = {k: sample.provenance[k] for k in ("case", "placement")}
            return replace(sample, provenance=provenance)
        placement = Placement.from_json(sample.provenance["placement"])
        return self.run.space.clear_padding(sample, sample.provenance["shape"], placement)


def _lent(traced: T) -> T:
    """Return a condition or a sample for a plugin, which may write into its provenance."""
    return replace(traced, provenance=deepcopy(dict(traced.provenance)))


def _drawn_of(load: Callable[[str], Case], space: Space, where: Mapping[str, Any]) -> Case:
    """Return the case of a condition at its place, in the generator's space."""
    return space.to_generator(load(where["case"]), Placement.from_json(where["placement"]))


def open_drawer(
    source: CaseSource,
    intake: Intake | None,
    run: RunFolder,
    request: SampleRequest,
    *,
    device: str,
    learn: bool = True,
    cache: CaseCache | None = None,
) -> tuple[Sampler, Callable[[Sample], Sample] | None]:
    """Open a run to generate samples for a host on a source, or for none.

    Returns:
        The drawer, in the space of the run's own source, and a function that maps its samples to
        the host. It is None if both have the same source.
    """
    opened = load_run(run, device)
    refuse_below_size(opened, request)
    own, convert = source_for(opened, source, intake)
    checked = intake is not None  # by the host's session
    sampler = Sampler(opened, own, request, learn=learn, cache=cache, checked=checked)
    return sampler, convert


def sampler_for(
    generator: Generator,
    source: CaseSource,
    space: Space,
    request: SampleRequest,
    *,
    base: CaseSource | None = None,
    unlabelled: Sequence[CaseSource] = (),
    check: CaseCheck | None = None,
    cache: CaseCache | None = None,
) -> ConditionSampler:
    """Return the sampler of the conditions that a generator takes."""
    can, drawn_in = generator.capabilities, None
    if "lesion" in can.takes:
        drawn_in = lesion_drawer(request.lesions, can.lesions, images=can.donors)
    return ConditionSampler(
        source,
        space,
        build_edits(request.edits or ()),
        seed=request.seed,
        context=ContextOf(generator),
        context_follows=can.follows,
        given=partial(given_of, generator),
        labelled=can.from_labels,
        classes=request.classes,
        boxes=box_drawer(request.boxes or DEFAULT_BOXES) if "boxes" in can.takes else None,
        backgrounds="background" in can.takes,
        lesions=drawn_in,
        moving="image" in can.takes,
        base=base,
        unlabelled=unlabelled,
        share_unlabelled=request.backgrounds if unlabelled else 0.0,
        check=check,
        cache=cache,
        prevalence=request.prevalence,
    )


def check_classes(run: Run, classes: Sequence[str]) -> None:
    """Refuse classes of samples if the generator is not conditioned on classes."""
    if not classes:
        return
    parts = [part.run for part in getattr(run.generator, "parts", ())]
    asked = [part_run for part_run in parts if not set(classes).isdisjoint(seen_classes(part_run))]
    for part_run in asked or [run]:
        fitted = seen_classes(part_run)
        if not conditioned_on_classes(part_run) and not (fitted and set(fitted) <= set(classes)):
            raise UsageFault(
                "sampling.class-not-selectable",
                f"--class {classes[0]}: {part_run.folder} was fitted to draw samples of any of its "
                "classes, expected one that is set to take the class, or fitted with --per-class",
            )


def check_source(run: Run, source: CaseSource) -> None:
    """Refuse a source whose training cases are not the ones the run was fitted on.

    No case is read. ``Sampler`` checks the content of a case when it uses it.
    """
    lineage = run.lineage
    guard_host(lineage.host, source.space.host)
    schema, expected = source.schema, run.schema
    # The source of a composite run may have more labels, generated by one of its parts.
    same_labels = expected.labels.items() <= schema.labels.items()
    if (schema.channels, schema.axes) != (expected.channels, expected.axes) or not same_labels:
        raise IntegrityFault(
            "sampling.source-schema-differs",
            f"{run.folder}: fitted on the channels {', '.join(expected.channels)} "
            f"({expected.axes}) and labels {dict(expected.labels)}, the source has "
            f"{', '.join(schema.channels)} ({schema.axes}) and {dict(schema.labels)}; expected the "
            "same. Fit again",
        )
    unseen = sorted(set(source.train_ids) - {c.id for c in lineage.cases})
    if unseen:
        raise IntegrityFault(
            "sampling.source-cases-unseen",
            f"{run.folder}: fitted on {lineage.dataset} fold {lineage.fold}. {len(unseen)} of "
            f"{len(source.train_ids)} training case(s) of {source.name} fold {source.request.fold} "
            "are "
            f"not in that fit, first {unseen[0]}; expected the same data set and split. Name them "
            "(--data, --fold), or fit again",
        )
