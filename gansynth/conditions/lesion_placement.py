"""Lesions into real images: whose, changed how, to which place.

A lesion of one training case (the donor) is cut out with its image, changed by edits, and brought
to a place in another case's image (the background). The condition says which voxels are new, what
the donor shows there, and the label map of both; the generator draws it into the background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.borrowing import BorrowOptions, draw_plane, lenders
from gansynth.conditions.lesion_donors import Changing, Cut, Donor, dressed, scene_of
from gansynth.conditions.lesion_grounds import (
    Ground,
    Where,
    centres,
    corner_at,
    draw_distance,
    put,
    put_mask,
    signed_distance,
)
from gansynth.conditions.location_prior import depth_of
from gansynth.core.edit import Edit
from gansynth.core.geometry import Mask, mask_of, nearest_voxels
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.data.lesion_parts import parts
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs, OptionModel, read_options

CUTS = 3
"""Margins that are tried, each twice as wide, for one that holds what edits made of a lesion."""
CLIPPED = 2 / 3
"""Share of ``inside`` that will do where no lesion has room: in small crops few have."""
DONORS = 4
"""Lesions that are tried for one that there is room for."""
OF_PLACES = ("what", "into", "inside", "shown", "apart_mm", "margin_mm", "mixing", "tries")
_Edited = tuple[Donor, Changing, dict[str, Any]]


class LesionOptions(OptionModel):
    """How lesions are put into real images."""

    needs: ClassVar[Needs] = dict.fromkeys(OF_PLACES, "where!=own")
    what: Literal["all", "one"] = Field(
        "all", description="all lesions of the donor as they lie, or one connected one of them"
    )
    classes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="label values of lesions; none: the whole foreground"
    )
    into: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="label values of the background that a lesion may lie on (the liver, say); "
        "none: anywhere in the body",
    )
    pairs: Literal["any", "ordered", "nearest"] = Field(
        "any",
        description="whose: any other person's; ordered has every case take every other's, pair by "
        "pair; nearest takes the one with the most alike body",
    )
    where: Where = Field(
        "prior",
        description="place: prior is learnt from training cases; anywhere in the body; same as in "
        "the donor's body; own draws the case's own foreground anew in its place (organs)",
    )
    inside: float = Field(
        0.9,
        gt=0,
        le=1,
        description="least share of a lesion in the body; the rest is clipped. Where none has "
        "room, two thirds of that will do, clear of other lesions",
    )
    shown: float = Field(
        0.5, gt=0, le=1, description="least share of a lesion that lies in the crop"
    )
    apart_mm: float = Field(
        3.0, ge=0, le=100, description="distance kept from the background's own lesions, mm"
    )
    margin_mm: float = Field(
        8.0, ge=0, le=100, description="how much of the donor's image goes along on each side, mm"
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="what is taken: the lesion, or (CarveMix) less of it, or more around it: all "
        "within a distance from its surface that is drawn for each sample",
    )
    tries: int = Field(24, ge=1, le=1000, description="places tried for each of 4 lesions")


@dataclass(frozen=True)
class Inserted:
    """A lesion at its place in a scene.

    Attributes:
        labels: int16 (D, H, W) or (H, W), of the background with the lesion in it.
        lesion: int16, the same shape: the new lesion alone, 0 elsewhere; all 0 where no room was
            found.
        donor: float32 (C, ...), the donor's image where the lesion is, and around it; the
            background's own wherever the donor shows nothing that is of use.
        region: bool, the same shape: all that is replaced, where that is more than the lesion; None
            for the lesion alone.
        steps: the edits with their drawn parameters, in order.
        told: JSON that says how it came about, which ``LesionDrawer.replay`` reads.
    """

    labels: LabelArray
    lesion: LabelArray
    donor: FloatArray
    region: Mask | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)


class LesionDrawer:
    """Draws what is put where: seeded, recorded, replayable."""

    def __init__(self, options: LesionOptions | None = None) -> None:
        self.options = options or LesionOptions()

    @property
    def in_turns(self) -> bool:
        """Whether backgrounds are to come one after the other, so that all pairs do."""
        return self.options.pairs == "ordered"

    def room_in(self, scene: Scene) -> float:
        """In which share of a background's voxels lesions may lie."""
        if self.options.where == "own":
            return float(mask_of(scene.labels, self._classes(scene)).any())
        return float(self._ground(scene, self._classes(scene)).free.mean())

    def draw(self, scene: Scene, edits: Sequence[Edit], rng: np.random.Generator) -> Inserted:
        """Draw a lesion, changed by edits, for a background.

        Raises:
            UsageFault: options that name a class the schema lacks.
        """
        seed = int(rng.integers(2**32))
        classes = self._classes(scene)
        told: dict[str, Any] = {"where": self.options.where, "classes": list(classes), "seed": seed}
        if self.options.where == "own":
            if not mask_of(scene.labels, classes).any():
                return _nothing(scene, {**told, "room": False})
            return _redrawn(scene, _own(scene).draw(edits, rng), told)
        ground = self._ground(scene, classes)
        told["into"] = None if self.options.into is None else list(self.options.into)
        told["apart_mm"] = self.options.apart_mm
        for change, tight in self._attempts(scene, classes, edits, rng):
            found = self._place(ground, change, rng, tight=tight)
            if found is not None:
                where = {**change[2], **found, "room": True}
                if self.options.mixing == "carve":
                    where["carve_mm"] = draw_distance(change[1].labels, scene.room.schema, rng)
                inserted = _brought(ground, change[1], {**told, **where})
                if inserted.lesion.any():
                    return inserted
        return _nothing(scene, {**told, "room": False})

    def replay(
        self, scene: Scene, edits: Mapping[str, Edit], provenance: Mapping[str, Any]
    ) -> Inserted:
        """What a condition's provenance stands for, bit for bit; options do not come into it."""
        told, steps = dict(provenance["lesions"]), provenance["edits"]
        if not told["room"]:
            return _nothing(scene, told)
        if told["where"] == "own":
            return _redrawn(scene, _own(scene).replay(edits, steps), told)
        into = None if told["into"] is None else tuple(told["into"])
        ground = Ground(scene, tuple(told["classes"]), into, told["apart_mm"])
        cut = Cut(
            told["donor"],
            told["slice"],
            told["part"],
            ground.classes,
            told_into(into, ground.classes, scene.room.schema),
            told["margin_mm"],
        )
        donor = cut(scene.room)
        own = scene_of(donor, scene.index, scene.room)
        return _brought(ground, Changing(own, donor.known).replay(edits, steps), told)

    def _classes(self, scene: Scene) -> tuple[int, ...]:
        schema = scene.room.schema
        chosen = tuple(sorted(set(self.options.classes or schema.foreground)))
        for key, values in (("classes", chosen), ("into", self.options.into or ())):
            unknown = sorted(set(values) - {0, *schema.foreground})
            if unknown:
                raise UsageFault(
                    f"--lesions {key}={'+'.join(map(str, values))}: {unknown} are no labels, "
                    f"expected values among {[0, *schema.foreground]}"
                )
        return chosen

    def _ground(self, scene: Scene, classes: tuple[int, ...]) -> Ground:
        return Ground(scene, classes, self.options.into, self.options.apart_mm)

    def _cuts(self, scene: Scene, classes: tuple[int, ...], rng: np.random.Generator) -> list[Cut]:
        """Lesions to try, in order."""
        room, depth = scene.room, depth_of(scene)
        asked = BorrowOptions(pairs=self.options.pairs)
        ids = lenders(asked, scene, classes, rng, DONORS)
        into = told_into(self.options.into, classes, room.schema)
        found = []
        for number in range(DONORS if ids else 0):
            case_id = ids[number % len(ids)]
            plane = draw_plane(room, case_id, classes, depth, rng)
            labels = room.uncut(case_id, plane).labels
            if labels is None or not mask_of(labels, classes).any():
                continue
            part = None
            if self.options.what == "one":
                part = int(rng.integers(len(parts(labels, room.schema, classes))))
            found.append(Cut(case_id, plane, part, classes, into, self.options.margin_mm))
        return found

    def _attempts(
        self,
        scene: Scene,
        classes: tuple[int, ...],
        edits: Sequence[Edit],
        rng: np.random.Generator,
    ) -> Iterator[tuple[_Edited, bool]]:
        """Edited lesions to try, one by one; then the same again, for places that clip them."""
        tried = []
        for cut in self._cuts(scene, classes, rng):
            change = _change(cut, scene, edits, rng)
            if change is not None:
                tried.append(change)
                yield change, False
        yield from ((change, True) for change in tried)

    def _place(
        self, ground: Ground, edited: _Edited, rng: np.random.Generator, *, tight: bool
    ) -> dict[str, Any] | None:
        """A place for an edited lesion; None if there is no room for it."""
        held, donor = np.argwhere(edited[1].labels > 0), edited[0]
        options = self.options
        least = options.inside * (CLIPPED if tight else 1)
        places = centres(ground, donor, options.where, options.tries, rng)
        for tried, centre in enumerate(places, start=1):
            corner = corner_at(held, centre)
            inside = ground.share(held + np.array(corner), least, options.shown, tight=tight)
            if inside is not None:
                told = {"corner": list(corner), "tries": tried, "inside": round(inside, 4)}
                return {**told, "clipped": True} if tight else told
        return None


def told_into(
    into: Sequence[int] | None, classes: Sequence[int], schema: Schema
) -> tuple[int, ...]:
    """Label values of what surrounds a lesion, besides 0: as asked for, or all that are none."""
    values = schema.foreground if into is None else into
    return tuple(v for v in values if v > 0 and v not in classes)


def _change(
    cut: Cut, scene: Scene, edits: Sequence[Edit], rng: np.random.Generator
) -> _Edited | None:
    """A lesion with edits drawn, in an array that holds all of it; None if edits leave nothing."""
    for widened in range(CUTS):
        wide = replace(cut, margin_mm=cut.margin_mm * 2**widened)
        donor = wide(scene.room)
        own = scene_of(donor, scene.index, scene.room)
        change = Changing(own, donor.known).draw(edits, rng)
        if not (change.labels > 0).any():
            return None
        if not change.touches:
            break
    told = {"donor": cut.case_id, "slice": cut.slice_index, "part": cut.part}
    return donor, change, {**told, "margin_mm": wide.margin_mm}


def _own(scene: Scene) -> Changing:
    return Changing(scene, np.asarray(scene.labels != OUTSIDE))


def _brought(ground: Ground, change: Changing, told: dict[str, Any]) -> Inserted:
    """A lesion, all edits applied, at its place."""
    scene = ground.scene
    image, known = dressed(change, told["seed"])
    labels, taken = change.labels, None
    if "carve_mm" in told:
        carved = signed_distance(labels > 0, scene.room.schema.spacing) <= told["carve_mm"]
        known &= carved | (labels == 0)
        labels = np.where(carved, labels, np.int16(0))
        taken = carved & known
    lesion, donor = put(ground, labels, image, known, told["corner"])
    region = None if taken is None else (lesion > 0) | put_mask(ground, taken, told["corner"])
    labels = np.where(lesion > 0, lesion, scene.labels)
    return Inserted(labels, lesion, donor, region, change.steps, told)


def _redrawn(scene: Scene, change: Changing, told: dict[str, Any]) -> Inserted:
    """A case's own foreground, all edits applied, in its place."""
    before, after, classes = scene.labels, change.labels, told["classes"]
    changed = before != after
    chosen = mask_of(after, classes) | (changed & (after > 0))
    emptied = np.asarray(changed & (after == 0))
    image, known = dressed(change, told["seed"])
    image = _emptied_filled(image, known, emptied, scene)
    donor = np.where(known | emptied, image, scene.case.image)
    return Inserted(
        labels=after,
        lesion=np.where(chosen, after, np.int16(0)),
        donor=donor.astype(np.float32),
        region=chosen | emptied if emptied.any() else None,
        steps=change.steps,
        told={**told, "room": bool(chosen.any()), "changed": bool(changed.any())},
    )


def _emptied_filled(image: FloatArray, known: Mask, emptied: Mask, scene: Scene) -> FloatArray:
    """The image with the nearest background where foreground is gone and still shown."""
    gaps, bare = emptied & ~known, known & (scene.labels == 0) & ~emptied
    if not gaps.any() or not bare.any():
        return image
    nearest: Any = nearest_voxels(bare, scene.room.schema.spacing)
    out = image.copy()
    out[:, gaps] = scene.case.image[:, *(index[gaps] for index in nearest)]
    return out


def _nothing(scene: Scene, told: dict[str, Any]) -> Inserted:
    """The background as it is."""
    return Inserted(
        labels=scene.labels,
        lesion=np.zeros_like(scene.labels),
        donor=scene.case.image,
        told=told,
    )


def no_room(provenance: Mapping[str, Any]) -> str:
    """The flaw of a sample for whose lesion there was no room; nothing of any other."""
    told = provenance.get("lesions")
    if told is None or told["room"]:
        return ""
    return (
        "no room for a lesion, expected one that fits into the background: lower inside or "
        "apart_mm, or raise tries, of --lesions"
    )


def lesion_drawer(asked: str | None, usual: str | None = None) -> LesionDrawer:
    """What puts lesions where: ``KEY=VALUE,...`` as asked for, other keys as usual.

    Raises:
        UsageFault: an unknown key, or a value that does not fit.
    """
    given: dict[str, Any] = {}
    for text in filter(None, (usual, asked)):
        read = read_options(LesionOptions, text, f"--lesions {text}", "KEY=VALUE,KEY=VALUE,...")
        given.update({key: getattr(read, key) for key in read.model_fields_set})
    return LesionDrawer(LesionOptions(**given))
