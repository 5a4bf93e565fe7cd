"""Lesions put into real images: choice of the donor, edits, and the place.

A lesion of one training case (the donor) is cut out with its image and changed by edits. It is put
into another case's image (the background). The condition holds the new voxels, the donor's image
there, and the label map of both. The generator draws the lesion into the background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.donor_selection import DonorEditOptions, donor_ids, draw_plane
from gansynth.conditions.lesion_donors import (
    EditedLesion,
    LesionCrop,
    LesionDonor,
    matched_intensities,
    scene_of,
)
from gansynth.conditions.location_prior import depth_of
from gansynth.conditions.placement_region import (
    PlacementRegion,
    Where,
    centres,
    corner_at,
    draw_distance,
    fill_emptied,
    put,
    put_mask,
    signed_distance,
)
from gansynth.conditions.removal import emptied, filled, similar_place
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import Edit
from gansynth.core.geometry import Mask, mask_of
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.data.lesions import parts
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs, OptionModel, read_options

SHAM = 1  # second part of the seeds of shams
CUTS = 3  # margins that are tried, each twice as wide, until one holds the edited lesion
CLIPPED = 2 / 3  # share of `inside` that suffices where no lesion has room, as in small crops
DONORS = 4  # lesions that are tried until one has room
OF_PLACES = (
    *("number", "sham", "what", "into", "inside", "shown", "apart_mm", "margin_mm", "mixing"),
    "tries",
)
Number = Literal["match", "add", "replace"]
NUMBERS = get_args(Number)
Shows = Literal["lesion", "sham", "nothing"]
"""What a sample shows: a new lesion, a sham (see ``LesionOptions``), or nothing new."""
_Edited = tuple[LesionDonor, EditedLesion, dict[str, Any]]


class LesionOptions(OptionModel):
    """How lesions are put into real images."""

    needs: ClassVar[Needs] = dict.fromkeys(OF_PLACES, "where!=own")
    number: Number = Field(
        "match",
        description="match: as many lesions as training cases have, so the background's own are "
        "taken out first; add: they stay; replace: the new one lies where the largest one was. A "
        "word without KEY= is this one",
    )
    sham: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of samples with a sham: tissue is drawn as a lesion would be, and "
        "labelled background",
    )
    what: Literal["all", "one"] = Field(
        "all", description="all lesions of the donor in their arrangement, or one connected lesion"
    )
    classes: tuple[Annotated[int, Field(ge=1)] | str, ...] | None = Field(
        None, min_length=1, description="labels of lesions, values or names; none: all foreground"
    )
    into: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="label values of the background that a lesion may lie on (the liver, say); "
        "none: anywhere in the body",
    )
    pairs: Literal["any", "ordered", "nearest"] = Field(
        "any",
        description="donor: any case of another subject; ordered: every case borrows from every "
        "other, pair by pair; nearest: the one with the most similar body",
    )
    where: Where = Field(
        "prior",
        description="place: prior, learnt from training cases; anywhere in the body; same as in "
        "the donor's body; own: the case's own foreground, drawn anew in its place (organs)",
    )
    inside: float = Field(
        0.9,
        gt=0,
        le=1,
        description="least share of a lesion in the body; the rest is clipped. Where none has "
        "room, two thirds of that suffice, clear of other lesions",
    )
    shown: float = Field(
        0.5, gt=0, le=1, description="least share of a lesion that lies in the crop"
    )
    apart_mm: float = Field(
        3.0, ge=0, le=100, description="distance kept from the background's own lesions, mm"
    )
    margin_mm: float = Field(
        8.0, ge=0, le=100, description="margin of the donor's image on each side, mm"
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="what is taken: the lesion, or (carve: CarveMix) all within a distance from "
        "its surface, inside or outside, that is drawn for each sample",
    )
    tries: int = Field(24, ge=1, le=1000, description="places tried for each of 4 lesions")


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion at its place in a scene.

    Attributes:
        labels: int16 (D, H, W) or (H, W), of the background with the lesion in it.
        lesion: int16, the same shape: the new lesion alone, 0 elsewhere; all 0 without one. The
            labels of a sham are those without it.
        donor: float32 (C, ...), the donor's image at and around the lesion; the background's own
            where the donor's is not usable.
        region: bool, the same shape: all replaced voxels; None for the lesion alone.
        steps: the edits with their drawn parameters, in order.
        told: provenance as JSON, which ``LesionDrawer.replay`` reads.
    """

    labels: LabelArray
    lesion: LabelArray
    donor: FloatArray
    region: Mask | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)


class LesionDrawer:
    """Draws lesions and their places: seeded, recorded, replayable."""

    def __init__(self, options: LesionOptions | None = None) -> None:
        self.options = options or LesionOptions.model_validate({})

    @property
    def in_turns(self) -> bool:
        """Whether backgrounds come one after the other, so that all pairs occur."""
        return self.options.pairs == "ordered"

    def room_in(self, case_context: CaseContext) -> float:
        """Room for lesions in a background, as a share of what is enough: 0 to 1."""
        classes = self.classes(case_context.case_pool.schema)
        if self.options.where == "own":
            return float(mask_of(case_context.labels, classes).any())
        return self._ground(case_context, classes).room

    def draw(
        self,
        case_context: CaseContext,
        edits: Sequence[Edit],
        rng: np.random.Generator,
        *,
        shows: Shows = "lesion",
        removal: Mapping[str, Any] | None = None,
    ) -> PlacedLesion:
        """Draw a lesion, changed by edits, for a background; or what else the sample shows.

        ``removal``: provenance of how the background's own lesions were taken out.
        """
        seed = int(rng.integers(2**32))
        classes = self.classes(case_context.case_pool.schema)
        provenance: dict[str, Any] = {
            "where": self.options.where,
            "classes": list(classes),
            "seed": seed,
            **(removal or {}),
        }
        if shows != "lesion":
            provenance["shows"] = shows
        if "stays" in provenance or shows == "nothing":
            return _nothing(case_context, {**provenance, "room": "stays" not in provenance})
        if self.options.where == "own":
            if not mask_of(case_context.labels, classes).any():
                return _nothing(case_context, {**provenance, "room": False})
            return _redrawn(case_context, _own(case_context).draw(edits, rng), provenance)
        ground = self._ground(case_context, classes)
        provenance["into"] = None if self.options.into is None else list(self.options.into)
        provenance["apart_mm"] = self.options.apart_mm
        for change, placement in self._places(ground, edits, rng):
            where = {**change[2], **placement, "room": True}
            if self.options.mixing == "carve":
                where["carve_mm"] = draw_distance(
                    change[1].labels, case_context.case_pool.schema, rng
                )
            inserted = _brought(ground, change[1], {**provenance, **where})
            if shows == "sham":
                inserted = _sham(inserted, case_context, seed)
            if inserted.lesion.any():
                return inserted
        if shows == "sham":
            return _nothing(case_context, {**provenance, "room": True, "shows": "nothing"})
        return _nothing(case_context, {**provenance, "room": False})

    def replay(
        self, case_context: CaseContext, edits: Mapping[str, Edit], provenance: Mapping[str, Any]
    ) -> PlacedLesion:
        """Repeat the insertion of a recorded provenance, bit for bit, whatever the options."""
        placement, steps = dict(provenance["lesions"]), provenance["edits"]
        if placement.get("emptied"):
            case_context = emptied(case_context, placement["classes"], placement["emptied"])
        if not placement["room"] or placement.get("shows") == "nothing":
            return _nothing(case_context, placement)
        if placement["where"] == "own":
            return _redrawn(case_context, _own(case_context).replay(edits, steps), placement)
        into = None if placement["into"] is None else tuple(placement["into"])
        ground = PlacementRegion(
            case_context, tuple(placement["classes"]), into, placement["apart_mm"]
        )
        cut = LesionCrop(
            placement["donor"],
            placement["slice"],
            placement["part"],
            ground.classes,
            lesion_provenance(into, ground.classes, case_context.case_pool.schema),
            placement["margin_mm"],
        )
        donor = cut(case_context.case_pool)
        donor_scene = scene_of(donor, case_context.index, case_context.case_pool)
        inserted = _brought(
            ground, EditedLesion(donor_scene, donor.known).replay(edits, steps), placement
        )
        sham = placement.get("shows") == "sham"
        return _sham(inserted, case_context, placement["seed"]) if sham else inserted

    def classes(self, schema: Schema) -> tuple[int, ...]:
        """Return the label values of lesions; UsageFault: values that are no labels."""
        values = {value: value for value in schema.foreground}
        names: dict[Any, int] = {**values, **schema.labels}
        asked = self.options.classes or schema.foreground
        chosen = tuple(sorted({names[each] for each in asked if names.get(each)}))
        for key, labels, known in (
            ("classes", asked, names),
            ("into", self.options.into or (), (0, *values)),
        ):
            if unknown := [each for each in labels if each not in known]:
                raise UsageFault(
                    f"--lesions {key}={'+'.join(map(str, labels))}: {unknown} are no labels, "
                    f"expected values among {[0, *schema.foreground]}"
                )
        return chosen

    def _ground(self, case_context: CaseContext, classes: tuple[int, ...]) -> PlacementRegion:
        options = self.options
        replaces = options.number == "replace"
        return PlacementRegion(
            case_context, classes, options.into, options.apart_mm, options.where, replaces
        )

    def _cuts(
        self, case_context: CaseContext, classes: tuple[int, ...], rng: np.random.Generator
    ) -> list[LesionCrop]:
        case_pool, depth = case_context.case_pool, depth_of(case_context)
        options = DonorEditOptions.model_validate({"pairs": self.options.pairs})
        ids = donor_ids(options, case_context, classes, rng, DONORS)
        into = lesion_provenance(self.options.into, classes, case_pool.schema)
        cuts = []
        for number in range(DONORS if ids else 0):
            case_id = ids[number % len(ids)]
            plane = draw_plane(case_pool, case_id, classes, depth, rng)
            labels = case_pool.uncut(case_id, plane).labels
            if labels is None or not mask_of(labels, classes).any():
                continue
            part = None
            if self.options.what == "one":
                part = int(rng.integers(len(parts(labels, case_pool.schema, classes))))
            cuts.append(LesionCrop(case_id, plane, part, classes, into, self.options.margin_mm))
        return cuts

    def _attempts(
        self, case_context: CaseContext, edits: Sequence[Edit], rng: np.random.Generator
    ) -> Iterator[tuple[_Edited, bool]]:
        """Yield edited lesions to try; then all again, for places that clip them."""
        tried = []
        for cut in self._cuts(case_context, self.classes(case_context.case_pool.schema), rng):
            change = _change(cut, case_context, edits, rng)
            if change is not None:
                tried.append(change)
                yield change, False
        yield from ((change, True) for change in tried)

    def _places(
        self, ground: PlacementRegion, edits: Sequence[Edit], rng: np.random.Generator
    ) -> Iterator[tuple[_Edited, dict[str, Any]]]:
        """Yield edited lesions with room, and their places; those at unlikely ones last."""
        unlikely = []
        for change, tight in self._attempts(ground.case_context, edits, rng):
            placement = self._place(ground, change, rng, tight=tight)
            if placement is not None and "unlikely" in placement:
                unlikely.append((change, placement))
            elif placement is not None:
                yield change, placement
        yield from sorted(unlikely, key=lambda at: -at[1]["likely"])

    def _place(
        self, ground: PlacementRegion, edited: _Edited, rng: np.random.Generator, *, tight: bool
    ) -> dict[str, Any] | None:
        """Find a likely place for an edited lesion, or else, beside a real one, the likeliest."""
        held, options, known = np.argwhere(edited[1].labels > 0), self.options, ground.surroundings
        least = options.inside * (CLIPPED if tight else 1)
        likeliest: dict[str, Any] | None = None
        places = centres(ground, edited[0], len(held), options.tries, rng)
        for tried, centre in enumerate(places, start=1):
            corner = corner_at(held, centre)
            shares = ground.share(held + np.array(corner), least, options.shown, tight=tight)
            if shares is None:
                continue
            inside, likely = (round(share, 4) for share in shares)
            placement = {"corner": list(corner), "tries": tried, "inside": inside}
            placement |= {"clipped": True} if tight else {}
            placement |= {"likely": likely} if known is not None else {}
            if likely >= ground.least_likely:
                return placement
            if not ground.bare and (likeliest is None or likely > likeliest["likely"]):
                likeliest = {**placement, "unlikely": True}
        return likeliest


def lesion_provenance(
    into: Sequence[int] | None, classes: Sequence[int], schema: Schema
) -> tuple[int, ...]:
    """Return label values around a lesion, besides 0: as requested, or all other classes."""
    values = schema.foreground if into is None else into
    return tuple(v for v in values if v > 0 and v not in classes)


def _change(
    cut: LesionCrop, case_context: CaseContext, edits: Sequence[Edit], rng: np.random.Generator
) -> _Edited | None:
    """Cut a lesion out and draw its edits; None if edits leave nothing."""
    for widened in range(CUTS):
        wide = replace(cut, margin_mm=cut.margin_mm * 2**widened)
        donor = wide(case_context.case_pool)
        donor_scene = scene_of(donor, case_context.index, case_context.case_pool)
        change = EditedLesion(donor_scene, donor.known).draw(edits, rng)
        if not (change.labels > 0).any():
            return None
        if not change.touches:
            break
    provenance = {"donor": cut.case_id, "slice": cut.slice_index, "part": cut.part}
    return donor, change, {**provenance, "margin_mm": wide.margin_mm}


def _own(case_context: CaseContext) -> EditedLesion:
    return EditedLesion(case_context, np.asarray(case_context.labels != OUTSIDE))


def _brought(
    ground: PlacementRegion, change: EditedLesion, provenance: dict[str, Any]
) -> PlacedLesion:
    case_context = ground.case_context
    image, usable = matched_intensities(change, provenance["seed"])
    labels, taken = change.labels, None
    if "carve_mm" in provenance:
        carved = (
            signed_distance(labels > 0, case_context.case_pool.schema.spacing)
            <= provenance["carve_mm"]
        )
        usable &= carved | (labels == 0)
        labels = np.where(carved, labels, np.int16(0))
        taken = carved & usable
    lesion, donor = put(ground, labels, image, usable, provenance["corner"])
    region = None if taken is None else (lesion > 0) | put_mask(ground, taken, provenance["corner"])
    labels = np.where(lesion > 0, lesion, case_context.labels)
    return PlacedLesion(labels, lesion, donor, region, change.steps, provenance)


def _redrawn(
    case_context: CaseContext, change: EditedLesion, provenance: dict[str, Any]
) -> PlacedLesion:
    before, after, classes = case_context.labels, change.labels, provenance["classes"]
    changed = before != after
    chosen = mask_of(after, classes) | (changed & (after > 0))
    emptied = np.asarray(changed & (after == 0))
    image, usable = matched_intensities(change, provenance["seed"])
    image = fill_emptied(image, usable, emptied, case_context)
    donor = np.where(usable | emptied, image, case_context.case.image)
    return PlacedLesion(
        labels=after,
        lesion=np.where(chosen, after, np.int16(0)),
        donor=donor.astype(np.float32),
        region=chosen | emptied if emptied.any() else None,
        steps=change.steps,
        told={**provenance, "room": bool(chosen.any()), "changed": bool(changed.any())},
    )


def _sham(inserted: PlacedLesion, case_context: CaseContext, seed: int) -> PlacedLesion:
    """Give a lesion's voxels tissue of the background; without such tissue there is no lesion."""
    where, image = inserted.lesion > 0, case_context.case.image
    rng = np.random.default_rng((seed, SHAM))
    free = np.asarray(case_context.body & ~where)
    found = similar_place(image, where, free, rng)
    donor = image if found is None else filled(image, where, found[0], free)
    lesion = np.zeros_like(inserted.lesion) if found is None else inserted.lesion
    return replace(inserted, labels=case_context.labels, lesion=lesion, donor=donor, region=None)


def _nothing(case_context: CaseContext, provenance: dict[str, Any]) -> PlacedLesion:
    return PlacedLesion(
        labels=case_context.labels,
        lesion=np.zeros_like(case_context.labels),
        donor=case_context.case.image,
        told=provenance,
    )


def no_room(provenance: Mapping[str, Any]) -> str:
    """Return why a sample without room for its lesion is rejected; empty for others."""
    placement = provenance.get("lesions")
    if placement is None or placement["room"]:
        return ""
    if "stays" in placement:
        return (
            "a lesion of the background cannot be taken out, expected tissue like its rim "
            "elsewhere in the image; set --lesions add"
        )
    return (
        "no room for a lesion, expected a background that looks like training cases with one, and "
        "a likely place: lower inside or apart_mm, raise tries, or set where=anywhere, of --lesions"
    )


def lesion_drawer(options: str | None, usual: str | None = None) -> LesionDrawer:
    """Return the drawer of ``--lesions KEY=VALUE,...``; ``usual`` has defaults of other keys.

    Raises:
        UsageFault: an unknown key, or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for text in filter(None, (usual, options)):
        if text.partition(",")[0] in NUMBERS:
            text = f"number={text}"
        read = read_options(LesionOptions, text, f"--lesions {text}", "KEY=VALUE,KEY=VALUE,...")
        values.update({key: getattr(read, key) for key in read.model_fields_set})
    return LesionDrawer(LesionOptions(**values))
