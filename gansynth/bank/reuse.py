"""How often each sample is drawn: what is said of it before, while and after a host trains.

A network that sees one sample again and again learns that sample. One implementation for all hosts.
"""

from __future__ import annotations

import math
from typing import Any

from gansynth.core.injection import Injection

MOST_DRAWS = 4
"""How often a sample may be drawn before it is said."""


def different(draws: int, most: float = MOST_DRAWS) -> int:
    """Samples it takes so that none is drawn more than so often."""
    return math.ceil(draws / most)


def foreseen(injection: Injection, draws: int, held: int) -> dict[str, Any]:
    """What is known beforehand, for dry runs.

    Args:
        injection: how samples enter.
        draws: synthetic samples that the training draws.
        held: samples that its bank holds.

    Returns:
        ``synthetic_draws``; ``draws_of_a_sample`` of a finite bank, or ``samples_to_make`` of one
        that is kept fresh; ``reuse``, in words.
    """
    document: dict[str, Any] = {"synthetic_draws": draws}
    if injection.frozen or injection.bank is not None:
        each = draws / max(1, held)
        document["draws_of_a_sample"] = round(each, 2)
        return document | ({"reuse": said} if (said := too_few(injection, draws, held)) else {})
    least = different(draws)
    return document | {
        "samples_to_make": least,
        "reuse": f"no sample is drawn more than {MOST_DRAWS} times if the producer makes {least} "
        "while it trains; the log says if it makes fewer",
    }


def too_few(injection: Injection, draws: int, held: int) -> str:
    """What is said of a finite bank that will be drawn too often, or ""."""
    if draws <= MOST_DRAWS * held:
        return ""
    return (
        f"each of {held} samples will be drawn {draws / max(1, held):.1f} times, more than "
        f"{MOST_DRAWS}: {_larger(injection, draws)}"
    )


def worn(injection: Injection, most: int, distinct: int, draws: int) -> str:
    """What is said of samples that were drawn too often, or "".

    Args:
        injection: how samples enter.
        most: draws of the sample that was drawn most often.
        distinct: different samples drawn so far.
        draws: synthetic samples of the whole training.
    """
    if most <= MOST_DRAWS:
        return ""
    if injection.frozen or injection.bank is not None:
        cure = _larger(injection, draws)
    else:
        cure = (
            "the producer makes too few. Let it cost more (--overhead 10%, or --reuse 4 for as "
            "many as it can), give it a device of its own (--device), or fill a bank first "
            f"(--frozen --bank-size {different(draws)})"
        )
    return (
        f"{distinct} different samples were drawn up to {most} times each, more than {MOST_DRAWS}: "
        f"{cure}"
    )


def _larger(injection: Injection, draws: int) -> str:
    if injection.bank is not None:
        return f"give a bank of {different(draws)} samples, or train for fewer steps"
    return f"take --bank-size {different(draws)}, or leave --frozen out"
