"""Conclusions of an evaluation in sentences: what is shown, what is not, and alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.metrics.estimate import Figure

BLURRED, NOISY = 0.5, 2.0
"""Power in the highest frequencies, as a ratio to real, at which an alarm is raised."""
UNFAITHFUL = "no more than shuffled labels"
POWER = 0.5
"""Less of samples' Dice than that share of the real is an alarm, too."""


def alarms(document: Mapping[str, Any], figures: Sequence[Figure]) -> list[dict[str, str]]:
    """Problems and how to solve them, one line each."""
    alarms_found = [*_texture(figures), *_diversity(figures)]
    faithful = document.get("faithfulness") or {}
    row = faithful.get("mean") or {}
    if faithful.get("finding") == UNFAITHFUL:
        alarms_found.append(
            (
                "faithfulness",
                f"samples do not show what their labels say: Dice {row['synthetic']:.2f}, with "
                f"other samples' labels {row['shuffled']:.2f}, real {row['real']:.2f}; a host "
                "would learn wrong labels. Fit longer, or with a stronger label loss",
            )
        )
    memory = document.get("memorisation") or {}
    copies = memory.get("copies") or {}
    if copies.get("count"):
        alarms_found.append(
            (
                "memorisation",
                f"{copies['count']} of {copies['of']} samples are near-copies of training cases: "
                "to pass them on is to pass these on. They are listed in near_copies.csv; more "
                "cases, fewer steps, a smaller generator or more edits help",
            )
        )
    elif memory.get("finding") == "nearer to training":
        alarms_found.append(
            (
                "memorisation",
                "samples lie nearer to the people the generator was fitted on than to others: who "
                "has them can tell, better than by chance, whom it was fitted on",
            )
        )
    identity = document.get("identity") or {}
    if identity.get("findings"):
        alarms_found.append(
            (
                "identity",
                f"{len(identity['findings'])} trace(s) of where samples come from, or files "
                f"not read, in {identity.get('folder', 'the export')}: see the list; export again",
            )
        )
    return [{"key": key, "text": text} for key, text in alarms_found]


def _texture(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """Blur and noise, beyond the range of real subjects."""
    for figure in figures:
        if (figure.metric, figure.name) != ("spectrum", "high") or figure.value is None:
            continue
        if figure.finding != "unlike real":
            return []
        share = f"{figure.value:.2g} times the real power in the highest third of frequencies"
        if figure.value < BLURRED:
            return [
                (
                    "spectrum",
                    f"samples are blurred: they have {share}; a host would learn that real grain "
                    "is foreign. Lower the share of L1, or fit longer with the adversarial loss",
                )
            ]
        if figure.value > NOISY:
            return [
                (
                    "spectrum",
                    f"samples are noisy: they have {share}; look for checkerboards and grain "
                    "(gansynth sample --sheet)",
                )
            ]
    return []


def _diversity(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    for figure in figures:
        if figure.metric != "diversity" or figure.finding != "unlike real":
            continue
        if figure.value is not None and figure.real is not None and figure.value > figure.real:
            lost = (figure.value - figure.real) / max(1 - figure.real, 1e-6)
            return [
                (
                    "diversity",
                    f"samples are more alike than people are: mean MS-SSIM of pairs "
                    f"{figure.value:.2f}, of real people {figure.real:.2f}; "
                    + (
                        "modes are lost. An earlier checkpoint, or another objective, may be better"
                        if lost > 0.3
                        else "they add less than as many people would"
                    ),
                )
            ]
    return []


def sentences(document: Mapping[str, Any], figures: Sequence[Figure]) -> dict[str, list[str]]:
    """``words`` of the document."""
    claims: list[str] = []
    hidden: list[str] = []
    _say_realism(figures, claims, hidden)
    _say_faithfulness(document.get("faithfulness"), claims, hidden)
    _say_memory(document, claims, hidden)
    _say_identity(document.get("identity"), claims, hidden)
    return {"shown": claims, "not_shown": hidden}


def _say_realism(figures: Sequence[Figure], claims: list[str], hidden: list[str]) -> None:
    if not figures:
        return
    unlike = [f for f in figures if f.finding == "unlike real"]
    tests = [f for f in figures if f.p is not None]
    distinguishing = [f for f in tests if f.finding == "unlike real"]
    names = sorted({f.title for f in unlike if f.p is None})
    if distinguishing:
        best = max(distinguishing, key=lambda f: f.value or 0)
        claims.append(
            f"Samples can be told from real people: {best.title} has an accuracy of "
            f"{best.value:.2f} (p = {best.p:.3g}), where 0.5 is chance."
        )
    elif tests:
        hidden.append(
            "That samples are like real people is not shown: the two-sample tests cannot tell them "
            f"apart, with {min(f.images for f in tests)} images on each side; better ones, more "
            "images or a radiologist (gansynth turing-test) may."
        )
    if names:
        claims.append(
            f"{len(unlike)} of {len(figures)} figures lie beyond what other real people have: "
            f"{'; '.join(names) if names else 'the tests'}."
        )
    elif not unlike:
        hidden.append(
            f"None of {len(figures)} figures lies beyond what other real people have; each of them "
            "sees some differences and is blind to others."
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
            f"comes to {dice} in real people it has not seen, too little to judge by."
        )
        return
    verdict = {
        "faithful": "Samples show what their labels say as well as real cases do",
        "partly": "Samples show what their labels say less well than real cases do",
        UNFAITHFUL: "Samples do not show what their labels say",
    }[finding]
    claims.append(
        f"{verdict}: a segmenter of the fold comes to a Dice of {row['synthetic']:.2f}, in real "
        f"people it has not seen to {row['real']:.2f}, with other samples' labels to "
        f"{row['shuffled']:.2f}."
    )


def _say_memory(document: Mapping[str, Any], claims: list[str], hidden: list[str]) -> None:
    result = document.get("memorisation")
    if result is None:
        return
    if "why" in result:
        hidden.append(f"Whether training cases are remembered is not known: {result['why']}.")
        return
    copies, near = result["copies"], result["nearer"]
    if copies["count"]:
        claims.append(f"{copies['count']} of {copies['of']} samples are near-copies of cases.")
    else:
        hidden.append(
            f"None of {copies['of']} samples is a near-copy of a training case; that does not show "
            "that none of those still to be drawn is one, nor that nobody can be recognised."
        )
    _say_nearer(near, claims, hidden)
    for attack in result["membership"]:
        text = (
            f"{attack['attack']} ({attack['what']}): area {attack['auc']:.2f} "
            f"({attack['low']:.2f} to {attack['high']:.2f}), {attack['members']} people fitted on "
            f"and {attack['others']} others"
        )
        if attack["p"] < 0.05:
            claims.append(f"An attacker can tell who was fitted on by {text}.")
        else:
            hidden.append(f"That an attacker can tell who was fitted on is not shown by {text}.")
    to_own = result.get("own")
    if to_own:
        hidden.append(
            "Samples were drawn of the label maps of training cases: these maps are those "
            f"people's anatomy, edited or not. Samples lie at {to_own['ratio']:.2f} of the usual "
            "distance to them."
        )
    hidden.append(
        "No attack that fails here bounds what another one may do. Nothing in this report makes "
        "samples anonymous."
    )


def _say_identity(result: Mapping[str, Any] | None, claims: list[str], hidden: list[str]) -> None:
    if result is None:
        return
    where = f"{result['files']} files of {result['folder']}"
    if result["findings"]:
        count = len(result["findings"])
        claims.append(f"{where} tell where they come from, or were not read: {count} finding(s).")
    else:
        hidden.append(
            f"Nothing that names a patient or a source was found in {where}: not in file names, "
            "texts, headers or PNG metadata. The audit compares no images: what they give away is "
            "above."
        )


def _say_nearer(near: Mapping[str, Any] | None, claims: list[str], hidden: list[str]) -> None:
    if near is None:
        hidden.append(
            "Whether samples lie nearer to people fitted on than to others is not known: fewer "
            "than three people are held out; name other people's cases with --real."
        )
        return
    share = (
        f"{near['value']:.2f} of the samples lie nearer to people fitted on than to as many "
        f"({near['people']}) who were not"
    )
    if near["p"] < 0.05 and near["value"] > 0.5:
        claims.append(f"{share}, where 0.5 is expected without memory (p = {near['p']:.3g}).")
    else:
        hidden.append(
            f"Memory is not shown by distances: {share}, where 0.5 is expected "
            f"(p = {near['p']:.3g})."
        )
