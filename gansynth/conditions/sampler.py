"""Draw conditions: a training case, a place in it, a chain of edits, a latent seed.

The i-th condition of a seed is always the same, in any process and any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gansynth.conditions.boxes import BoxContext, BoxDrawer, PlacedBoxes, place_boxes, record
from gansynth.conditions.edit_chain import ContextFn, apply_edits
from gansynth.conditions.edits.donors import alike
from gansynth.conditions.edits.warps import CaseWarp
from gansynth.conditions.lesion_placement import LesionDrawer, Shows
from gansynth.conditions.location_prior import labelled_places
from gansynth.conditions.removal import FOUND, Removal, without_lesions
from gansynth.core.body_mask import shown_body
from gansynth.core.case_pool import CaseCheck, CaseContext, CasePool, TrainingCases, own_labels
from gansynth.core.case_store import Arrays, digest
from gansynth.core.edit import Edit, EditContext
from gansynth.core.geometry import Rng, mask_of, unpacked_mask
from gansynth.core.kept import Kept
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Mask, known_labels
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache
from gansynth.data.context_maps import ContextMaps
from gansynth.data.folds import training_cases
from gansynth.runtime.errors import DataFault

TRIES = 16  # cases that are tried for one with boxes, and compared for a similar body
GROUNDS = 4  # number of these that are tried for room for boxes
LOOKS, LOOKS_IN_SCANS = 8, 32
"""Places that are tried for room for a lesion: scans show the vertex and the skull base, too."""
ENOUGH = 0.8  # room in a background that is taken at once: nearly that of training cases
SMALL = 0.9 * ENOUGH  # room in a scan that has none for the very lesion
UNFIT = -0.5  # room in a background whose own lesions cannot be taken out
SHOWS, TAKEN_OUT, VARIANT, WHOSE = 1, 2, 3, 4
"""Last parts of keys: of what a sample shows, of what is taken out, of the background's variant, of
whether the background is an unlabelled scan."""
SCANS = "unlabelled"  # provenance key: number of the source of an unlabelled scan
BODIES, ROOMS, REMOVALS = 1 << 28, 1 << 28, 1 << 30
"""Bytes of cases' bodies, of the room for lesions at places of cases, and of what replaces lesions
there, that are kept."""
VARIANTS, BACKGROUNDS = 4, 256
"""Ways in which a case's lesions are replaced, fewer if these are more backgrounds in all: then
each is seldom seen, and more would not be kept."""
GivenFn = Callable[[Case], FloatArray | None]


class _Pools:
    """The training cases and the scans of a sampler, by the ids that it knows them by."""

    def __init__(self, cases: TrainingCases, scans: Sequence[TrainingCases]) -> None:
        self.cases = cases
        # Named anew, since a training case may have the same id.
        self.scans = {
            f"{SCANS} {number}: {case_id}": (number, case_id)
            for number, each in enumerate(scans)
            for case_id in each.ids
        }
        self._scans = scans

    def kept(self, case_id: str, what: str, make: Callable[[], Arrays]) -> Arrays:
        """Return what is kept of a case, or scan; see ``TrainingCases.kept``."""
        cases, name = self._of(case_id)
        return cases.kept(name, what, make)

    def mapped(
        self, case_id: str, what: str, how: str, make: Callable[[], Arrays]
    ) -> Arrays | None:
        """Return what is kept so of a case, or scan; see ``TrainingCases.mapped``."""
        cases, name = self._of(case_id)
        return cases.mapped(name, what, how, make)

    def _of(self, case_id: str) -> tuple[TrainingCases, str]:
        if case_id not in self.scans:
            return self.cases, case_id
        number, name = self.scans[case_id]
        return self._scans[number], name


class _Bodies:
    """The bodies of the last cases; apart from the sampler, since edits hold on to it."""

    def __init__(self, space: Space, pools: _Pools) -> None:
        self._space, self._pools = space, pools
        self._found = Kept[Mask](BODIES, lambda body: body.nbytes)

    def whole(self, case: Case) -> Mask:
        """Return the body of a case; where a space does not cut, of the case in that space."""
        return self._found(case.id, lambda: self._kept(case))

    def _kept(self, case: Case) -> Mask:
        def find() -> Arrays:
            return {"bits": np.packbits(shown_body(case.image, case.labels))}

        shape = case.image.shape[1:]
        how = "" if self._space.cuts else json.dumps(self._space.to_json(), sort_keys=True)
        name = f"body-{digest(str(shape), how)[:16]}"
        return unpacked_mask(self._pools.kept(case.id, name, find)["bits"], shape)

    def cut(self, case: Case, placement: Placement) -> Mask:
        """Return the body of a case's image, cropped: it cannot be found in the crop itself."""
        return self._space.cut_mask(self.whole(case), placement)


@dataclass(eq=False)
class ConditionSampler:
    """Draws conditions from the training cases of a source.

    Args:
        source: where label maps come from; only its ``train_ids`` are ever opened.
        space: the generator's space (which crops or slices to draw).
        edits: applied in order to each drawn label map.
        seed: first half of every key; the second is the condition's index.
        context: makes the context channels of a case in the generator's space; None for none.
        context_follows: whether edits move them along; else they are made of the edited case.
        given: the channels of such a case that are given; None for none. With given channels, label
            maps are not edited, because they would no longer fit the given image.
        labelled: whether cases must have labels; else conditions of unlabelled cases have none.
        classes: names of the classes whose cases are drawn; None for all.
        boxes: draws the boxes of conditions; None draws none.
        backgrounds: whether conditions hold a case's image that lesions are drawn into, preferably
            of a case without boxes. Boxes then come from a case with boxes.
        lesions: puts lesions of training cases into a case's image; the edits are then those of
            the lesions. None draws whole images.
        moving: whether conditions hold the case's image, moved along with its labels; edits are
            then maps of space.
        base: the cases that label maps come from; None for the source.
        unlabelled: sources of scans without lesions, which are backgrounds, too.
        share_unlabelled: share of conditions whose background is one of these scans.
        weights: draws some conditions more often than others; None draws all alike.
        check: see ``TrainingCases``, of the source's cases.
        cache: holds cases of the source that others read, too; another source's is left alone.
        prevalence: share of samples with a lesion; None for that of training cases.

    Attributes:
        cases: the training cases that label maps or background images come from.
        scans: unlabelled scans, by source.
        case_pool: the training cases of the source, which edits borrow from.
    """

    source: CaseSource
    space: Space
    edits: Sequence[Edit] = ()
    _: KW_ONLY
    seed: int = 0
    context: ContextFn | None = None
    given: GivenFn | None = None
    labelled: bool = True
    classes: Sequence[str] | None = None
    boxes: BoxDrawer | None = None
    backgrounds: bool = False
    lesions: LesionDrawer | None = None
    moving: bool = False
    base: CaseSource | None = None
    unlabelled: Sequence[CaseSource] = ()
    share_unlabelled: float = 0.0
    context_follows: bool = True
    check: CaseCheck | None = None
    cache: CaseCache | None = None
    prevalence: float | None = None

    def __post_init__(self) -> None:
        lender = self.source
        source = lender if self.base is None else self.base
        self.schema = self.space.generator_schema(lender.schema)
        self._in_turns = any(edit.in_turns for edit in self.edits)
        self._in_turns |= self.lesions is not None and self.lesions.in_turns
        self._rooms = Kept[float](ROOMS, lambda _: 0)
        self._removals = Kept[Removal](REMOVALS, lambda removal: removal.nbytes)
        self._ids = source.train_ids
        if self.classes is not None:
            asked = f"--class {','.join(self.classes)}"
            self._ids = training_cases(source, self.classes, asked=asked)
        cache = self.cache
        if cache is None or cache.source is not lender:
            cache = CaseCache(lender)
        lent = TrainingCases(cache, check=self.check)
        self.cases = lent if lender is source else TrainingCases(CaseCache(source))
        self.scans = [TrainingCases(CaseCache(scans)) for scans in self.unlabelled]
        self._pools = _Pools(self.cases, self.scans)
        self._scans = self._pools.scans
        self._bodies = _Bodies(self.space, self._pools)
        if self.context is not None:
            self._contexts = ContextMaps(self.space, self.context, self._pools.mapped)
        self._scan_names = tuple(self._scans)
        cases = len(self._ids) + len(self._scans)
        self._variants = max(1, min(VARIANTS, BACKGROUNDS // cases))
        self.case_pool = CasePool(lent, self.space, self._ids if lender is source else None)

    def with_seed(self, seed: int) -> ConditionSampler:
        """Return a sampler of another seed that shares all that was learnt and is kept."""
        other = copy(self)
        other.seed = seed
        return other

    def draw(self, index: int) -> Condition:
        """Return the ``index``-th condition of this seed: labels in the generator's space."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, index)))
        case, placement = self._place(index, rng)
        put: PlacedBoxes | None = None
        boxes_provenance: dict[str, Any] = {}
        ready: CaseContext | None = None
        shows, removal = self._shows(index), dict[str, Any]()
        if self.backgrounds and self.boxes is not None:
            case, placement, put, boxes_provenance = self._with_room(self.boxes, shows, index, rng)
        if self.lesions is not None:
            case, placement, ready, removal = self._background(case, placement, shows, index, rng)
        elif self.boxes is None and self.prevalence is not None:
            case, placement = self._of_kind(case, placement, shows, index, rng)
        placed = self.space.to_generator(case, placement) if ready is None else ready.case
        labels: LabelArray | None = None
        follows = self.context is not None and self.context_follows
        context = self._context(placed, placement, case) if follows else None
        given_channels = self.given(placed) if self.given is not None else None
        steps: list[dict[str, Any]] = []
        # What only some conditions have, and what their provenance says of it.
        fields: dict[str, Any] = {"background": placed.image} if self.backgrounds else {}
        notes: dict[str, Any] = {}
        if self.labelled or placed.labels is not None:
            _check_labelled(placed)
            case_context = ready or self._case_context(placed, placement, case, index)
            fields["ignored"] = case_context.case.ignored
            edits = self.edits if given_channels is None else ()
            if self.lesions is not None:
                inserted = self.lesions.draw(
                    case_context, edits, rng, sampler_seed=self.seed, shows=shows, removal=removal
                )
                labels, steps = inserted.labels, inserted.steps
                notes["lesions"] = inserted.provenance
                fields |= {"background": placed.image, "body": case_context.body}
                fields |= {"lesion": inserted.lesion, "donor": inserted.donor}
                fields["region"] = inserted.region
            elif self.moving:
                warp = CaseWarp(self.space, case_context.schema)
                shown = warp.all_to_move(case_context.labels)
                start = EditContext(shown, case_context.schema, case_context)
                _, steps = apply_edits(start, edits, rng)
                by_name = {edit.name: edit for edit in edits}
                moved = warp(case, placement, by_name, steps)
                labels, fields["moved"] = moved.labels, moved.image
                notes["moved"] = moved.displacement
                fields["ignored"] = None  # moved with the others
            else:
                start = EditContext(case_context.labels, case_context.schema, case_context, context)
                after, steps = apply_edits(start, edits, rng)
                labels, context = placed.over(after.labels), after.channels
        if self.context is not None and not follows:
            context = self.context(replace(placed, labels=labels))
        latent_seed = int(rng.integers(2**63))
        if put is not None:
            fields |= {"boxes": put.boxes, "present": put.present}
            fields.setdefault("body", put.body)
            notes["boxes"] = boxes_provenance
        elif self.boxes is not None:
            other = partial(self._placed, index, rng)
            box_context = BoxContext(placed, self.schema, rng, index, other)
            fields["boxes"], notes["boxes"] = self.boxes.draw(box_context)
        if case.label_class is not None:
            notes["class"] = self.schema.classes[case.label_class]
        provenance = self._whose(case)
        provenance |= {
            "shape": list(case.image.shape[1:]),
            "placement": placement.to_json(),
            "edits": steps,
            "seed": self.seed,
            "index": index,
            "latent_seed": latent_seed,
        }
        provenance |= notes
        return Condition(
            labels=labels,
            label_class=case.label_class,
            context=context,
            given=given_channels,
            latent_seed=latent_seed,
            provenance=provenance,
            **fields,
        )

    def cases_with(self, provenance: Mapping[str, Any]) -> TrainingCases:
        """Return the cases, or scans, among which is the one that a sample was drawn of."""
        number = provenance.get(SCANS)
        return self.cases if number is None else self.scans[number]

    def _whose(self, case: Case) -> dict[str, Any]:
        """Return provenance of a training case, or of a scan by its own name."""
        if case.id not in self._scans:
            return {"dataset": self.cases.name, "case": case.id}
        number, name = self._scans[case.id]
        return {"dataset": self.scans[number].name, "case": name, SCANS: number}

    def _context(self, placed: Case, placement: Placement, case: Case) -> LabelArray | None:
        """Return the context channels of a case at a place, made once where that can be."""
        assert self.context is not None
        if self.lesions is not None:  # its own may have been taken out
            return self.context(placed)
        context = self._contexts(placed, placement, case.image.shape[1:], lambda: case)
        return None if context is None else context.copy()  # a generator may write into it

    def _case_context(
        self, placed: Case, placement: Placement, case: Case, index: int
    ) -> CaseContext:
        placed = own_labels(placed, self.schema)
        turn = index // len(self._ids) if self._in_turns else None
        if self.space.cuts:
            body = partial(self._bodies.cut, case, placement)
        else:
            body = partial(self._bodies.whole, placed)
        shape = tuple(case.image.shape[1:])
        whole = partial(self._bodies.whole, case) if case.id in self._scans else None
        return CaseContext(
            placed, placement, shape, index, self.case_pool, turn, body, whole_body=whole
        )

    def _place(self, index: int, rng: Rng) -> tuple[Case, Placement]:
        """Draw a training case or a scan, as the sample has it, and a place in it.

        Where cases take turns, it is the next case.
        """
        if self._of_scan(index):
            name = self._scan_names[int(rng.integers(len(self._scans)))]
            number, case_id = self._scans[name]
            case = replace(self.scans[number](case_id), id=name)
            return case, self.space.place(case, rng)
        turn = index % len(self._ids) if self._in_turns else int(rng.integers(len(self._ids)))
        case = self.cases(self._ids[turn])
        return case, self.space.place(known_labels(case, self.cases.schema), rng)

    def _of_scan(self, index: int) -> bool:
        """Whether a sample's background is a scan; no other random number depends on it."""
        if not self._scans:
            return False
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, index, 0, WHOSE)))
        return bool(rng.random() < self.share_unlabelled)

    def _background(
        self, case: Case, placement: Placement, shows: Shows, index: int, rng: Rng
    ) -> tuple[Case, Placement, CaseContext, dict[str, Any]]:
        """Draw places until one has room for what a sample shows, its own lesions taken out.

        Without any, return the one with most room. The last value is the provenance of the removal.
        """
        assert self.lesions is not None
        options = self.lesions.options
        takes_out = options.number != "add" and options.where != "own"
        found, most = None, -1.0
        drawn = np.random.SeedSequence((self.seed, index, 0, VARIANT)).generate_state(1)
        variant = int(drawn[0]) % self._variants
        for _ in range(LOOKS_IN_SCANS if case.id in self._scans else LOOKS):
            placed = self.space.to_generator(case, placement)
            _check_labelled(placed)
            case_context = self._case_context(placed, placement, case, index)
            case_context = replace(case_context, key=(case.id, placement))
            removal: dict[str, Any] = {}
            stays = False
            if takes_out:
                corner = placement.corner if self.space.cuts else (0,) * self.schema.ndim
                emptied = self._removal(case, placement, variant).made_in(case_context, corner)
                stays = emptied is None
                removal = {"stays": True}
                if emptied is not None:
                    bare, tissue = emptied
                    removal = {"emptied": [source.to_json() for source in tissue]}
                    case_context = replace(bare, key=(case.id, placement, variant))
            room = UNFIT if stays else 1.0
            if shows != "nothing" and self.space.cuts and not stays:
                find = partial(self.lesions.room_in, case_context)
                room = self._rooms(case_context.key, find)
            if case.id in self._scans and shows == "lesion" and room >= ENOUGH:
                # Else a lesion that fits would be taken instead of it, and those are small.
                fits = self.lesions.fits(case_context, self.edits, deepcopy(rng), self.seed)
                room = room if fits else SMALL
            if room > most:
                found, most = (case, placement, case_context, removal), room
            if most >= ENOUGH:
                break
            case, placement = self._place(index, rng)
        assert found is not None, "the first place is always taken"
        return found

    def _removal(self, case: Case, placement: Placement, variant: int) -> Removal:
        """Return what replaces the lesions of a case, or slice, in one of its variants, found once.

        It depends on these alone, whichever sample comes first.
        """
        place = Placement(slice_index=placement.slice_index)
        text = json.dumps([case.id, place.to_json(), variant])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]), TAKEN_OUT

        def find() -> Arrays:
            whole = own_labels(self.space.uncut(case, place.slice_index), self.schema)
            shown = self._bodies.whole(case if self.space.cuts else whole)
            body = shown if place.slice_index is None else shown[place.slice_index]
            context = CaseContext(
                whole,
                place,
                tuple(case.image.shape[1:]),
                index=0,
                case_pool=self.case_pool,
                find_body=lambda: body,
                key=(case.id, place),
            )
            return without_lesions(context, self._classes, seed).to_arrays()

        how = json.dumps([FOUND, self._classes, self.space.to_json()], sort_keys=True)
        return self._removals(
            (case.id, place, variant),
            lambda: Removal.from_arrays(
                self._pools.kept(case.id, f"emptied-{digest(text, how)[:16]}", find)
            ),
        )

    def _shows(self, index: int) -> Shows:
        """Draw what a sample shows; no other random number of it depends on this one."""
        if self.lesions is None and self.boxes is None and self.prevalence is None:
            return "lesion"
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, index, 0, SHOWS)))
        if self.lesions is not None and rng.random() < self.lesions.options.sham:
            return "sham"
        if self._in_turns or (self.lesions is not None and self.lesions.options.where == "own"):
            return "lesion"
        return "lesion" if rng.random() < self.share_with_lesions else "nothing"

    @cached_property
    def share_with_lesions(self) -> float:
        """The requested share of samples with a lesion, or that of training cases, as drawn."""
        if self.prevalence is not None:
            return self.prevalence
        return self.case_pool.learnt(f"prevalence of {self._classes}", self._prevalence)

    @property
    def _classes(self) -> tuple[int, ...]:
        known = self.schema.foreground
        return known if self.lesions is None else self.lesions.classes(self.schema)

    def _prevalence(self, case_pool: CasePool) -> float:
        return float(np.mean([self._has_lesions(case) for _, case in labelled_places(case_pool)]))

    def _has_lesions(self, case: Case) -> bool:
        if self.boxes is not None:
            return _boxed(case)
        return case.labels is not None and bool(mask_of(case.labels, self._classes).any())

    def _of_kind(
        self, case: Case, placement: Placement, shows: Shows, index: int, rng: Rng
    ) -> tuple[Case, Placement]:
        """Draw places until one shows a lesion, or none, as the requested share has it."""
        wanted = shows == "lesion"
        for _ in range(TRIES):
            if self._has_lesions(self.space.to_generator(case, placement)) == wanted:
                break
            case, placement = self._place(index, rng)
        return case, placement

    def _with_room(
        self, drawer: BoxDrawer, shows: Shows, index: int, rng: Rng
    ) -> tuple[Case, Placement, PlacedBoxes, dict[str, Any]]:
        """Place a training case's boxes in a case of similar body, preferably without boxes."""
        like = self._lender(index, rng)
        another = partial(self._lent_case, index, rng)
        context = BoxContext(like.case, self.schema, rng, index, another)
        requested, provenance = drawer.draw(context)
        if shows == "nothing":
            requested = replace(requested, coords=requested.coords[:0], labels=requested.labels[:0])
        grounds = [self._ground(index, rng) for _ in range(TRIES)]
        grounds.sort(key=lambda at: (_boxed(at[2].case), -alike(at[2], like)))
        for ground in grounds[:GROUNDS]:
            case, placement, scene = ground
            put = place_boxes(requested, scene, rng, as_asked=provenance["by"] == "file")
            if len(put.boxes.labels) or not len(requested.labels):
                break
        provenance |= {"asked": provenance["coords"], "moved": put.moved, "like": like.case.id}
        provenance |= record(put.boxes, provenance["by"])
        return case, placement, put, provenance

    def _ground(self, index: int, rng: Rng) -> tuple[Case, Placement, CaseContext]:
        """Draw a case and a place in it, as a scene."""
        case, placement = self._place(index, rng)
        placed = self.space.to_generator(case, placement)
        return case, placement, self._case_context(placed, placement, case, index)

    def _lender(self, index: int, rng: Rng) -> CaseContext:
        """Draw a case to borrow from and a place, with boxes there if possible."""
        for _ in range(TRIES):
            ids = self.case_pool.ids
            case = self.case_pool.cases(ids[int(rng.integers(len(ids)))])
            placement = self.space.place(case, rng)
            placed = self.space.to_generator(case, placement)
            if _boxed(placed):
                break
        return self._case_context(placed, placement, case, index)

    def _lent_case(self, index: int, rng: Rng) -> Case:
        return self._lender(index, rng).case

    def _placed(self, index: int, rng: Rng) -> Case:
        return self.space.to_generator(*self._place(index, rng))


def _boxed(case: Case) -> bool:
    return case.boxes is not None and len(case.boxes.labels) > 0


def _check_labelled(case: Case) -> None:
    if case.labels is None:
        raise DataFault(
            "conditions.case-without-labels",
            f"case {case.id!r}: has no labels, expected a label map to draw conditions from; leave "
            "it out of the training cases",
        )
