"""Figures of an evaluation: realism, spectra, intensities, maps, faithfulness, memorisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from gansynth.report.figures import (
    BAND,
    GAIN,
    INK,
    LOSS,
    SOFT,
    as_svg,
    axes_of,
    hollow,
    plain,
    write_above,
)
from gansynth.report.numbers import known
from gansynth_evaluate.report.tables import (
    ATTACKS,
    SIDES,
    Entry,
    known_dice,
    known_distances,
    sign_of,
    title_of,
)

MARKS = {"◆": ("D", "#0b6b60"), "▼": ("v", LOSS), "○": ("o", SOFT), "–": ("o", SOFT)}
"""Sign of a finding -> marker and colour."""
POINTS = {"training": ("o", "#8a5a00"), "held-out": ("s", "#7a3588"), "synthetic": ("^", GAIN)}
FARTHEST = 100.0
"""Half widths of the band of real subjects at which the axis ends at the latest."""
TICKS = (2, 5, 10, 20, 50, 100)
FEW_BINS, CUT = 4, 3.0
"""So many bins are cut off if they exceed the next ones by this factor."""
TRIFLE = 0.003  # smallest share of a panel's height at which outer bins are drawn


def drawn(root: Entry) -> dict[str, str]:
    """Return all figures: key -> data URI; none of what is not known."""
    found = {
        "realism": realism(root),
        "faithfulness": faithfulness(root),
        "copies": distances(root),
        "attacks": attacks(root),
    }
    found |= {f"spectrum-{n}": figure for n, figure in enumerate(spectra(root))}
    found |= {
        f"intensity-{n}": figure for n, figure in enumerate(map(histogram, intensities(root)))
    }
    found |= {f"map-{n}": scatter(node) for n, node in enumerate(root.get("maps", ()))}
    return {key: figure for key, figure in found.items() if figure}


# -- realism ---------------------------------------------------------------------------------------


def on_band(figure: Entry, value: float) -> float:
    """Return a number's place: -1 to 1 is the band of other real subjects, beyond it logarithmic.

    Further right is less like real, whichever direction is better.
    """
    low, high, better = figure["real_low"], figure["real_high"], figure["better"]
    middle = (low + high) / 2
    aim = 0.5 if better == "half" else middle
    turned = better == "higher" or (better in ("real", "half") and figure["value"] < aim)
    times = (value - middle) / ((high - low) / 2) * (-1 if turned else 1)
    return bent(times)


def bent(times: float) -> float:
    """Return half widths of the band, logarithmic outside of it."""
    far = abs(times)
    return times if far <= 1 else math.copysign(1 + math.log(far), times)


def has_band(figure: Entry) -> bool:
    """Return whether there is a band of other real subjects that has a width."""
    ends = known([figure["value"], figure["real_low"], figure["real_high"]])
    return len(ends) == 3 and ends[2] > ends[1]


def realism(root: Entry) -> str:
    """Draw each figure that has a band of other real subjects, on its own scale."""
    figures = [figure for figure in root.get("figures", ()) if has_band(figure)]
    if not figures:
        return ""
    axes = axes_of(4.8, 0.42 * len(figures) + 0.6)
    values = [on_band(f, v) for f in figures for v in known([f["value"], f["high"], f["low"]])]
    right = min(max(bent(5.0), *values) + 0.2, bent(FARTHEST))
    axes.set(xlim=(-bent(3.0), right), ylim=(len(figures) - 0.4, -0.8), yticks=[])
    axes.axvspan(-1, 1, color=BAND)
    for y, figure in enumerate(figures):
        name = ", ".join(filter(None, (title_of(figure), figure["name"])))
        write_above(axes, y - 0.45, name, x=1.0, ha="right")
        _chance(figure, axes, y)
        for middle in known([figure["real"]]):
            axes.plot(on_band(figure, middle), y, "|", color=SOFT, ms=12)
        ends = [
            min(max(on_band(figure, v), -bent(3.0)), right)
            for v in known([figure["low"], figure["high"]])
        ]
        axes.hlines(y, min(ends, default=0), max(ends, default=0), INK, lw=1.4)
        place = on_band(figure, figure["value"])
        marker, colour = MARKS[sign_of(figure["finding"])]
        if place > right:
            place, marker, colour = right, ">", INK
        axes.plot(place, y, marker, color=colour, ms=7, clip_on=False, **hollow(marker))
    ticks = [tick for tick in TICKS if bent(tick) <= right]
    axes.set_xticks([0, *map(bent, ticks)], ["real\nsubjects"] + [f"{tick}×" for tick in ticks])
    axes.set_xlabel("half widths of the band, less like real ▸")
    axes.spines["left"].set_visible(False)
    return as_svg(axes)


def _chance(figure: Entry, axes: Any, y: float) -> None:
    if figure["better"] == "half":
        place = on_band(figure, 0.5)
        axes.vlines(place, y - 0.3, y + 0.3, SOFT, "dotted")


# -- spectra and intensities -----------------------------------------------------------------------


def known_spectra(root: Entry) -> list[Entry]:
    """Return the channels whose spectrum is known."""
    nodes = (root.get("curves") or {}).get("spectrum", ())
    return [node for node in nodes if known(node["ratio"])]


def spectra(root: Entry) -> Iterator[str]:
    """Draw the power of samples over that of real images, a figure for each channel."""
    nodes = known_spectra(root)
    keys = ("ratio", "low", "high", "real_low", "real_high")
    values = [1.0]
    for node in nodes:
        for key in keys:
            values += [value for value in known(node[key]) if value > 0]
    along = [value for node in nodes for value in known(node["frequency"]) if value > 0]
    for node in nodes:
        axes = axes_of(2.9, 2.1)
        numbers = {key: [math.nan if v is None else v for v in node[key]] for key in keys}
        frequency = node["frequency"]
        axes.fill_between(frequency, numbers["real_low"], numbers["real_high"], color=BAND)
        axes.vlines(frequency, numbers["low"], numbers["high"], GAIN, lw=0.9)
        axes.plot(frequency, numbers["ratio"], "-o", color=GAIN, ms=2.5, lw=1.5)
        axes.axhline(1, color=INK, lw=0.8)
        axes.set(xscale="log", yscale="log", xlabel="1/mm", ylabel="samples / real")
        axes.set_ylim(min(values) / 1.1, max(values) * 1.1)
        axes.set_xlim(min(along) / 1.2, max(along) * 1.2)
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        yield as_svg(axes)


def intensities(root: Entry) -> list[Entry]:
    """Return known distributions of intensities, those of whole channels first."""
    nodes = [
        node
        for node in (root.get("curves") or {}).get("intensities", ())
        if len(known(node["edges"])) > 1 and (known(node["synthetic"]) or known(node["real"]))
    ]
    return sorted(nodes, key=lambda node: bool(node["label"]))


def name_of(node: Entry) -> str:
    """Return the name of a distribution: its channel, and its label if it has one."""
    return ", ".join(filter(None, (node["channel"] or "Channel without a name", node["label"])))


def histogram(node: Entry) -> str:
    """Draw a distribution of intensities; bins that would flatten all others are cut."""
    sides = {key: [value or 0.0 for value in node[key]] for key in ("real", "synthetic")}
    densities = sorted(sides["real"] + sides["synthetic"], reverse=True)
    usual = densities[min(FEW_BINS, len(densities) - 1)]
    top = 1.1 * usual if densities[0] > CUT * usual > 0 else densities[0] or 1.0
    bins = [i for values in sides.values() for i, v in enumerate(values) if v > TRIFLE * top]
    first, last = (min(bins), max(bins) + 1) if bins else (0, 1)
    edges = node["edges"][first : last + 1]
    axes = axes_of(2.9, 1.9)
    for key, style in (
        ("real", {"fill": True, "color": BAND, "ec": SOFT}),
        ("synthetic", {"color": GAIN}),
    ):
        if sides[key]:
            axes.stairs(sides[key][first:last], edges, label=key, lw=1.5, **style)
    axes.set(ylim=(0, top), yticks=[])
    axes.legend(fontsize=8, frameon=False)
    return as_svg(axes)


# -- maps, faithfulness, memorisation --------------------------------------------------------------


def scatter(node: Entry) -> str:
    """Draw a map: each image a point, its side a mark."""
    axes = axes_of(4.4, 3.4)
    for side, (marker, colour) in POINTS.items():
        points = [p for p in node["points"] if p["side"] == side]
        if points:
            x, y = [point["x"] for point in points], [point["y"] for point in points]
            face = "none" if marker == "s" else colour
            axes.plot(x, y, marker, color=colour, mfc=face, ms=4, alpha=0.85, label=SIDES[side])
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_adjustable("datalim")
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return as_svg(axes)


def faithfulness(root: Entry) -> str:
    """Draw Dice on real cases, on samples, and with shuffled labels, for each label."""
    lanes = {"real": ("s", SOFT, "real cases"), "synthetic": ("^", GAIN, "samples"),
             "shuffled": ("o", LOSS, "shuffled labels")}  # fmt: skip
    entries = known_dice(root)
    if not entries:
        return ""
    axes = axes_of(4.8, 0.55 * len(entries) + 0.9)
    for y, entry in enumerate(entries):
        for lane, (key, (marker, colour, name)) in enumerate(lanes.items()):
            at, ends = (
                y + 0.25 * (lane - 1),
                known([entry.get(f"{key}_low"), entry.get(f"{key}_high")]),
            )
            _interval(axes, at, entry[key], ends, marker, colour, "" if y else name)
    axes.set(xlim=(0, 1), ylim=(len(entries) - 0.4, -0.6), xlabel="Dice, better ▸")
    axes.set_yticks(range(len(entries)), [plain(entry["label"], 20) for entry in entries])
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return as_svg(axes)


def _interval(
    axes: Any,
    y: float,
    middle: float | None,
    ends: Sequence[float],
    marker: str,
    colour: str,
    name: str = "",
) -> None:
    if len(ends) == 2:
        axes.hlines(y, min(ends), max(ends), INK, lw=1.2)
    if middle is not None:
        axes.plot(middle, y, marker, color=colour, ms=6, label=name or None)


def distances(root: Entry) -> str:
    """Draw a box for each side: quantiles of distances to the nearest case of another subject."""
    entries = known_distances(root)
    if not entries:
        return ""
    keys = ("whislo", "q1", "med", "q3", "whishi")
    axes = axes_of(4.8, 0.5 * len(entries) + 0.6)
    boxes: list[dict[str, Any]] = []
    for entry in entries:
        boxes.append(dict(zip(keys, entry["quantiles"], strict=True)))
        boxes[-1]["fliers"] = []
    parts = axes.bxp(
        boxes, range(len(entries)), orientation="horizontal", patch_artist=True, widths=0.4
    )
    for entry, box in zip(entries, parts["boxes"], strict=True):
        box.set(facecolor="#9cc7f0" if entry["of"].startswith("synthetic") else BAND)
    for middle in parts["medians"]:
        middle.set(color=INK)
    axes.set_yticks([])
    axes.set(ylim=(len(entries) - 0.5, -0.7), xlabel=plain(root["memorisation"]["unit"]))
    axes.set_xlim(left=0)
    for y, entry in enumerate(entries):
        write_above(axes, y - 0.38, entry["of"], x=0.01)
    return as_svg(axes)


def attacks(root: Entry) -> str:
    """Draw the attacks' AUC beside chance."""
    found = (root.get("memorisation") or {}).get("membership", ())
    if not found:
        return ""
    axes = axes_of(4.8, 0.5 * len(found) + 0.6)
    axes.axvline(0.5, color=SOFT, ls=":")
    for y, attack in enumerate(found):
        _interval(axes, y, attack["auc"], known([attack["low"], attack["high"]]), "o", GAIN)
        write_above(axes, y - 0.35, ATTACKS.get(attack["attack"], attack["attack"]), x=0.01)
    axes.set(
        xlim=(0, 1),
        ylim=(len(found) - 0.5, -0.7),
        yticks=[],
        xlabel="AUC, 0.5 is chance, memorised ▸",
    )
    return as_svg(axes)
