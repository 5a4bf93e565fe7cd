"""What differential privacy a run has: its terms, the epsilon spent, in numbers and in words.

The mechanism is the sampled Gaussian one (Abadi et al. 2016, DP-SGD, arXiv:1607.00133): each step
draws each person with the same probability, and adds noise to the sum of what they contribute. Its
accounting is Opacus' (Mironov et al. 2019, arXiv:1908.10530); docs/privacy.md says what is promised
and what is not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from gansynth.errors import EnvironmentFault, IntegrityFault, UsageFault

KEY = "privacy"
"""Of a manifest."""
KEY_FILE = "privacy.key"
"""In the folder of a run that is not done yet; whoever has it can take its noise off."""
OPTIONS = "privacy_"
"""What the names of its settings begin with."""
ACCOUNTANT = "rdp"
"""Opacus' name of it: an upper bound, whose numbers have no error of their own."""
UNIT = "subject"


@dataclass(frozen=True)
class Terms:
    """On what terms a run is private.

    Attributes:
        noise: standard deviation of the noise, in parts of ``clip``.
        clip: most that one person contributes to a sum of gradients (L2 norm).
        rate: probability with which a step draws a person.
        people: training subjects.
        delta: of (epsilon, delta).
        target: the epsilon that was asked for, if ``noise`` was found for it.
    """

    noise: float
    clip: float
    rate: float
    people: int
    delta: float
    target: float | None = None

    def epsilon(self, steps: int) -> float:
        """Epsilon after so many steps of the discriminator, those that were taken back included."""
        if steps == 0:
            return 0.0
        orders, once = _of_one_step(self.noise, self.rate)
        with _quiet():
            found = _opacus().analysis.rdp.get_privacy_spent(
                orders=orders, rdp=steps * once, delta=self.delta
            )
        return float(found[0])

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return asdict(self)


def terms(
    *,
    noise: float | None,
    epsilon: float | None,
    clip: float,
    delta: float | None,
    people: int,
    batch_size: int,
    steps: int,
) -> Terms:
    """The terms that are asked for.

    Args:
        noise: see ``Terms``; None to find the least one for an epsilon.
        epsilon: not to be exceeded after all steps; None if the noise is given.
        clip: see ``Terms``.
        delta: see ``Terms``; None takes a tenth of 1 / people.
        people: training subjects.
        batch_size: of them that a step draws on average.
        steps: of the whole training.

    Raises:
        UsageFault: terms that cannot be, or promise nothing.
        EnvironmentFault: Opacus is not installed.
    """
    _opacus()
    if batch_size > people:
        raise UsageFault(
            f"--set batch_size={batch_size}: the source has {people} training subject(s), of whom "
            f"a private step draws some, expected at most as many; --set batch_size={people} or "
            "less (fewer cost less privacy a step)"
        )
    chosen = 0.1 / people if delta is None else delta
    if chosen >= 1 / people:
        raise UsageFault(
            f"--set privacy_delta={chosen:g}: who publishes one of {people} people whole keeps "
            f"that promise, expected less than 1/{people}; leave it out to take {0.1 / people:g}"
        )
    asked = Terms(noise or 0.0, clip, batch_size / people, people, chosen, epsilon)
    if epsilon is None:
        return asked
    return Terms(**{**asked.to_json(), "noise": _noise_for(asked, epsilon, steps)})


def _noise_for(asked: Terms, epsilon: float, steps: int) -> float:
    try:
        with _quiet():
            found = _opacus().utils.get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=asked.delta,
                sample_rate=asked.rate,
                steps=max(steps, 1),
                accountant=ACCOUNTANT,
            )
            return float(found)
    except ValueError as error:
        raise UsageFault(
            f"--set privacy_epsilon={epsilon:g}: no noise is enough for it with {asked.people} "
            f"subjects, delta {asked.delta:g} and {steps} steps ({error}); expected a larger one, "
            "or fewer steps"
        ) from None


@lru_cache
def _of_one_step(noise: float, rate: float) -> tuple[list[float], Any]:
    """Orders, and the Renyi divergence of one step at each; that of n steps is n times it."""
    accountants = _opacus()
    orders = accountants.RDPAccountant.DEFAULT_ALPHAS
    found = accountants.analysis.rdp.compute_rdp(
        q=rate, noise_multiplier=noise, steps=1, orders=orders
    )
    return orders, found


def _opacus() -> Any:
    """Its accountants.

    Raises:
        EnvironmentFault: they are not installed.
    """
    try:
        import opacus.accountants.analysis.rdp
        import opacus.accountants.utils
    except ImportError as error:
        raise EnvironmentFault(
            f"privacy: opacus cannot be imported ({error}), expected it to account for noise; "
            "pip install 'gansynth[privacy]', or leave privacy_noise and privacy_epsilon out"
        ) from None
    return opacus.accountants


def _quiet() -> warnings.catch_warnings[Any]:
    """Without warnings of the accountant's: beyond its orders it has less tight a bound."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def refuse_others(generator: str, known: Mapping[str, Any], settings: Mapping[str, str]) -> None:
    """Say why a generator has no privacy that is asked for.

    Raises:
        UsageFault: it has none.
    """
    asked = next((key for key in settings if key.startswith(OPTIONS)), None)
    if asked is not None and not any(key.startswith(OPTIONS) for key in known):
        raise UsageFault(
            f"--set {asked}={settings[asked]}: {generator} cannot be private, expected a generator "
            "that draws from noise alone: what is drawn for label maps, boxes or cases shows them, "
            "and no noise on a discriminator protects these; fit dcgan"
        )


def record(terms: Terms, steps: int, uncovered: Sequence[str]) -> dict[str, Any]:
    """What a manifest says of it.

    Args:
        terms: of the run.
        steps: of the discriminator so far, those that were taken back included.
        uncovered: what has been learnt or written of people without noise.
    """
    return {
        **terms.to_json(),
        "unit": UNIT,
        "neighbours": f"add or remove one {UNIT}",
        "steps": steps,
        "accountant": f"opacus {ACCOUNTANT}",
        "epsilon": terms.epsilon(steps),
        "not_covered": list(uncovered),
    }


def spent(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The privacy a run has, as of the weights that its manifest names.

    Args:
        manifest: of a run.

    Returns:
        ``epsilon``, ``delta``, ``unit`` (``subject``) and ``what``: a sentence that says of what
        that holds, and of what not. None if nothing is promised: a run that was fitted without
        privacy, and every composite run (its parts may promise something, each for itself).

    Raises:
        IntegrityFault: the manifest's record is damaged.
    """
    found = manifest.get(KEY)
    if found is None or "parts" in manifest:
        return None
    try:
        epsilon, delta = float(found["epsilon"]), float(found["delta"])
        people, steps, uncovered = found["people"], found["steps"], list(found["not_covered"])
    except (TypeError, KeyError, ValueError) as error:
        raise IntegrityFault(
            f"manifest.json: key {KEY!r} is damaged ({type(error).__name__}: {error}), expected "
            "epsilon, delta, people, steps and not_covered; restore it from a copy"
        ) from None
    what = (
        f"weights and samples are ({epsilon:.3g}, {delta:.3g})-differentially private for each of "
        f"{people} training {UNIT}s (added or removed), after {steps} noisy steps; not covered: "
        f"{'; '.join(uncovered)}"
    )
    return {"epsilon": epsilon, "delta": delta, "unit": UNIT, "what": what}
