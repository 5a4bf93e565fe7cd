"""Conclusions of an evaluation in sentences: what is shown, what is not, and alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gansynth.metrics.comparison import Estimate
from gansynth.metrics.places import ASTRIDE
from gansynth_evaluate.sites import site_lines

BLURRED, NOISY = 0.5, 2.0
"""Power in the highest frequencies, as a ratio to real, at which an alarm is raised."""
UNFAITHFUL = "no more than shuffled labels"
SHARED = "images with "  # names of figures that are shares of images
MEANT = "meant"
POWER = 0.5  # smallest share of the real Dice without an alarm


Alarm = tuple[str, str] | tuple[str, str, str]  # part of the report, text, and a cure, if known


def alarms(document: Mapping[str, Any], figures: Sequence[Estimate]) -> list[dict[str, str]]:
    """Problems and how to solve them, one line each.

    ``cure`` is what another fit changes: ``narrower`` or ``wider`` (rims of lesions)
    or ``longer`` (a training); ``MEANT``: nothing, to train with these samples; empty where no
    command is known.
    """
    found: list[Alarm] = []
    for look in (_texture, _diversity, _lesions, _places):
        found += look(figures)
    found += _findings(document)
    return [{"key": k, "text": text, "cure": "".join(cure)} for k, text, *cure in found]


def _findings(document: Mapping[str, Any]) -> Iterator[Alarm]:
    faithful = document.get("faithfulness") or {}
    row = faithful.get("mean") or {}
    if faithful.get("finding") == UNFAITHFUL:
        yield (
            "faithfulness",
            f"samples do not show what their labels say: Dice {row['synthetic']:.2f}, with "
            f"other samples' labels {row['shuffled']:.2f}, real {row['real']:.2f}; a "
            "segmenter would learn wrong labels. Fit longer, or with a stronger label loss",
            "longer",
        )
    memory = document.get("memorisation") or {}
    copies = memory.get("copies") or {}
    if copies.get("count") and memory.get("in_real_images"):
        yield (
            "memorisation",
            f"{copies['count']} of {copies['of']} samples are near-copies of training cases, into "
            "whose images lesions are put: that is meant, and does a training no harm. Sharing "
            "them shares these cases, listed in near_copies.csv: to share samples, fit a "
            "generator of whole images (gansynth help sharing)",
            MEANT,
        )
    elif copies.get("count"):
        yield (
            "memorisation",
            f"{copies['count']} of {copies['of']} samples are near-copies of training cases: "
            "sharing them shares these. They are listed in near_copies.csv. More cases, fewer "
            "steps, a smaller generator or more edits help",
        )
    for attack in memory.get("membership", ()):
        if attack["succeeds"] and attack["attack"] == "distance":
            yield (
                "memorisation",
                "samples reveal, better than chance, who the training subjects are, by "
                f"{_attack(attack)}",
                MEANT if memory.get("in_real_images") else "",
            )
    identity = document.get("identity") or {}
    if identity.get("findings"):
        yield (
            "identity",
            f"{len(identity['findings'])} trace(s) of where samples come from, or files "
            f"not read, in {identity.get('folder', 'the export')}: see the list; export again",
        )


def _texture(figures: Sequence[Estimate]) -> Iterator[Alarm]:
    """Blur and noise, beyond the range of real subjects."""
    of_high = [f for f in figures if (f.metric, f.name) == ("spectrum", "high")]
    figure = next((f for f in of_high if f.value is not None), None)
    if figure is None or figure.value is None or figure.finding != "unlike real":
        return
    share = f"{figure.value:.2g} times the real power in the highest third of frequencies"
    if figure.value < BLURRED:
        yield (
            "spectrum",
            f"samples are blurred: they have {share}; a segmenter would not learn real "
            "texture. Lower the share of L1, or fit longer with the adversarial loss",
            "longer",
        )
    elif figure.value > NOISY:
        yield (
            "spectrum",
            f"samples are noisy: they have {share}; look for checkerboards and grain "
            "(gansynth sample --sheet)",
        )


def _diversity(figures: Sequence[Estimate]) -> Iterator[Alarm]:
    for figure in figures:
        if figure.metric != "diversity" or figure.finding != "unlike real":
            continue
        if figure.value is not None and figure.real is not None and figure.value > figure.real:
            lost = (figure.value - figure.real) / max(1 - figure.real, 1e-6)
            consequence = "they add less than as many real subjects would"
            if lost > 0.3:
                consequence = (
                    "mode collapse. An earlier checkpoint, or another objective, may be better"
                )
            yield (
                "diversity",
                f"samples are more alike than real subjects: mean MS-SSIM of pairs "
                f"{figure.value:.2f}, of real subjects {figure.real:.2f}; {consequence}",
            )
            return


LESIONS = {
    "edge": (
        "change by {} deviations of the body per mm across their edge, so they look smeared; a "
        "smaller rim_mm helps, where there is one",
        "change by {} deviations of the body per mm across their edge, so they look cut out; a "
        "larger rim_mm helps, where there is one",
        ("narrower", "wider"),
    ),
    "contrast": (
        "stand out from their surroundings by {} deviations of the body, too little; fit longer, "
        "or take another checkpoint",
        "stand out from their surroundings by {} deviations of the body, too much; fit longer, or "
        "take another checkpoint",
        ("longer", "longer"),
    ),
    "halo": (
        "change tissue outside of their labels by {} deviations of the body; a segmenter would "
        "learn wrong outlines; a larger rim_mm helps, where there is one",
        "change tissue outside of their labels by {} deviations of the body; a segmenter would "
        "learn wrong outlines; a smaller rim_mm helps, where there is one",
        ("wider", "narrower"),
    ),
    "grain 4": (
        "have {} times the real power at the highest frequencies; look at some (gansynth sample "
        "--sheet), another checkpoint may be better",
        "have {} times the real power at the highest frequencies; look at some (gansynth sample "
        "--sheet), another checkpoint may be better",
        ("", ""),
    ),
}
"""What is wrong with lesions of less, and of more, than other subjects' have, and its cures."""


def _lesions(figures: Sequence[Estimate]) -> Iterator[Alarm]:
    for figure in figures:
        if figure.metric != "appearance" or figure.finding != "unlike real":
            continue
        value, low, high = figure.value or 0.0, figure.real_low or 0.0, figure.real_high or 0.0
        more = abs(value) > max(abs(low), abs(high))  # darker than around is less than 0
        for name, (less, much, cures) in LESIONS.items():
            if figure.name.endswith(f" {name}"):
                others = f"(real subjects: {low:.2g} to {high:.2g})"
                what = (much if more else less).format(f"{value:.2g} {others}")
                channel = figure.name.removesuffix(f" {name}")
                yield "appearance", f"{channel}: lesions {what}", cures[more]


def _places(figures: Sequence[Estimate]) -> Iterator[Alarm]:
    """Lesions across the middle of a body whose real lesions lie on one side."""
    for figure in figures:
        if (figure.metric, figure.finding) != ("places", "unlike real") or figure.value is None:
            continue
        real = figure.real or 0.0
        if figure.name.startswith(ASTRIDE) and figure.value > real:
            yield (
                "places",
                f"{100 * figure.value:.0f} % of lesions lie {figure.name} of the body, "
                f"{100 * real:.0f} % of real ones; look at some (gansynth sample --sheet). "
                "--lesions where=prior, the default, avoids it",
            )


def sentences(document: Mapping[str, Any], figures: Sequence[Estimate]) -> dict[str, list[str]]:
    """``words`` of the document."""
    claims: list[str] = []
    hidden: list[str] = []
    if document["differs"]:
        claims.append(document["differs"])
    _say_realism(figures, claims, hidden)
    for differs, line in site_lines(document):
        (claims if differs else hidden).append(line)
    _say_faithfulness(document.get("faithfulness"), claims, hidden)
    _say_memory(document, claims, hidden)
    _say_identity(document.get("identity"), claims, hidden)
    return {"shown": claims, "not_shown": hidden}


def differing_counts(figures: Sequence[Estimate]) -> str:
    """How many lesions samples and real images have, in sentences; empty unless it differs."""
    texts = []
    for figure in figures:
        if figure.metric == "counts" and figure.finding == "unlike real":
            value, real, what = figure.value or 0.0, figure.real or 0.0, figure.name
            if what.startswith(SHARED):
                whose = {0.0: "No sample has", 1.0: "Every sample has"}
                text = whose.get(value, f"{100 * value:.0f} % of samples have")
                texts.append(
                    f"{text} {what.removeprefix(SHARED)}; {100 * real:.0f} % of real "
                    "images have one."
                )
            else:
                texts.append(f"Samples have {value:.1f} {what}, real ones {real:.1f}.")
    return " ".join(texts)


def _say_realism(figures: Sequence[Estimate], claims: list[str], hidden: list[str]) -> None:
    if not figures:
        return
    unlike = [f for f in figures if f.finding == "unlike real"]
    tests = [f for f in figures if f.p is not None]
    distinguishing = [f for f in tests if f.finding == "unlike real"]
    names = sorted({f.title for f in unlike if f.p is None})
    if distinguishing:
        best = max(distinguishing, key=lambda f: f.value or 0)
        claims.append(
            f"Samples are distinguishable from real subjects: {best.title} has an accuracy of "
            f"{best.value:.2f} (p = {best.p:.3g}), where 0.5 is chance."
        )
    elif tests:
        hidden.append(
            "It is not shown that samples are like real subjects: the two-sample tests cannot "
            f"distinguish them with {min(f.images for f in tests)} images on each side. Better "
            "tests, more images or a radiologist (gansynth turing-test) may."
        )
    if names:
        claims.append(
            f"{len(unlike)} of {len(figures)} figures lie beyond the range of other real subjects: "
            f"{'; '.join(names) if names else 'the tests'}."
        )
    elif not unlike:
        hidden.append(
            f"None of {len(figures)} figures lies beyond the range of other real subjects. Each of "
            "them detects some differences only."
        )


def _say_faithfulness(
    result: Mapping[str, Any] | None, claims: list[str], hidden: list[str]
) -> None:
    if result is None:
        return
    if "why" in result:
        hidden.append(f"Whether samples show what their labels say is not known: {result['why']}.")
        return
    row, finding = result["mean"], result["finding"]
    if finding == "unclear":
        real = row["real"]
        dice = "nothing" if real is None else f"a Dice of {real:.2f}"
        hidden.append(
            "Whether samples show what their labels say is not known: a segmenter of the fold "
            f"has {dice} in unseen real subjects, too little for a conclusion."
        )
        return
    verdict = {
        "faithful": "Samples show what their labels say as well as real cases do",
        "partly": "Samples show what their labels say less well than real cases do",
        UNFAITHFUL: "Samples do not show what their labels say",
    }[finding]
    claims.append(
        f"{verdict}: the Dice of the fold's segmenter is {row['synthetic']:.2f}, in unseen real "
        f"subjects {row['real']:.2f}, with other samples' labels {row['shuffled']:.2f}."
    )


def _say_memory(document: Mapping[str, Any], claims: list[str], hidden: list[str]) -> None:
    result = document.get("memorisation")
    if result is None:
        return
    if "why" in result:
        hidden.append(f"Whether training cases are memorised is not known: {result['why']}.")
        return
    copies = result["copies"]
    if copies["count"]:
        claims.append(
            f"{copies['count']} of {copies['of']} samples are near-copies of training cases."
        )
    else:
        hidden.append(
            f"None of {copies['of']} samples is a near-copy of a training case. This does not show "
            "that no further sample is one, nor that nobody can be recognised."
        )
    for attack in result["membership"]:
        if not attack["succeeds"]:
            hidden.append(
                "It is not shown that an attacker can identify training subjects by "
                f"{_attack(attack)}."
            )
        elif attack["attack"] != "distance":  # that one is an alarm
            claims.append(f"An attacker can identify training subjects by {_attack(attack)}.")
    if not result["membership"]:
        hidden.append(
            "Whether an attacker can identify training subjects is not known: fewer than three "
            "subjects are held out; name other subjects' cases with --real."
        )
    to_own = result.get("own")
    if to_own:
        hidden.append(
            "Samples are based on the label maps of training cases, which are the anatomy of those "
            f"subjects, edited or not. Samples lie at {to_own['ratio']:.2f} of the usual "
            "distance to them."
        )
    hidden.append(
        "An attack that fails here does not bound other attacks. Nothing in this report makes "
        "samples anonymous."
    )


def _attack(attack: Mapping[str, Any]) -> str:
    p = "p < 0.001" if attack["p"] < 0.001 else f"p = {attack['p']:.3f}"
    return (
        f"{attack['what']}: AUC {attack['auc']:.2f} (95 % CI {attack['low']:.2f} to "
        f"{attack['high']:.2f}, {p}; 0.5 is chance), {attack['members']} training subjects and "
        f"{attack['others']} others"
    )


def _say_identity(result: Mapping[str, Any] | None, claims: list[str], hidden: list[str]) -> None:
    if result is None:
        return
    said = claims if result["findings"] else hidden
    said.append(sentence_of(result))


def sentence_of(audit: Mapping[str, Any]) -> str:
    """Return in words what an audit of exported files has found."""
    where, bits = f"{audit['files']} files of {audit['folder']}", audit.get("state_bits")
    state = ""
    if bits is not None:
        state = f" The run's state packs to {bits:.0f} bits for each training case."
    if audit["findings"]:
        count = len(audit["findings"])
        return f"{where} reveal their source, or were not read: {count} finding(s).{state}"
    return (
        f"Nothing that names a patient or a source was found in {where}: not in file names, "
        f"texts, headers or PNG metadata. The audit compares no images; see memorisation.{state}"
    )
