"""How to read a report: what its bands, intervals and tests mean."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.evaluation.report.found import RESULTS
from gansynth.report.blocks import Block, Terms, Words
from gansynth.report.words import Line

LINES = (
    "A distance of samples to real images says nothing by itself: images of other real people "
    "are not at distance zero either. So each figure is worked out twice: for samples, and for "
    "other real people in their place, against the same real people. Real people are dealt out "
    "in two halves, again and again, and nobody is in both; where 95 % of such comparisons of "
    "real people lie is the band. Samples within it are as far from real people as these are "
    "from each other.",
    "A figure is like real if it lies within the band or on its better side; unlike real if it "
    "lies beyond it and the interval of the difference leaves zero out; unclear if that "
    "interval holds zero. A test is unlike real if p is below 0.05. Like real means no more "
    "than: not told apart by this figure, with so many images.",
)
TERMS: tuple[tuple[str, Line], ...] = (
    ("band", ["drawn equally wide in each row of realism; right of it a row is logarithmic, "
              "and 10× is ten half widths of the band from its middle"]),
    ("95 % CI", ["holds the true value in 95 % of such evaluations; of few people it is wide"]),
    ("p", ["how often chance alone would show as much; below 0.05 it is called shown"]),
    ("two-sample test", ["a classifier is to tell samples from real images: 0.5 is a coin, so "
                         "they are alike to it; 1 is always right"]),
    ("AUC", ["the chance that an attack holds a person that was trained on for a member rather "
             "than one that was not: 0.5 is a coin, 1 gives everybody away"]),
    ("ratio", ["Dice of samples over that of real cases"]),
    ("shuffled", ["each sample with the labels of another: what a judge finds by chance, or by "
                  "what all samples have in common"]),
    ("usual distance", ["that of a real image to the nearest one of another person"]),
)  # fmt: skip
LINKS: tuple[tuple[str, Line], ...] = (
    ("numbers", [f"each is a link to its place in {RESULTS}, named by its JSON pointer"]),
)


def reading() -> Sequence[Block]:
    """In words, and term by term."""
    return [*(Words([line]) for line in LINES), Terms((*TERMS, *LINKS), LINKS)]
