"""Named checks, each with a verdict and a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gansynth.runtime.errors import IntegrityFault

Verdict = Literal["passed", "failed", "skipped"]


class CheckFailed(Exception):
    """Raised by a failed check, with the finding and the expectation."""


class CheckSkipped(Exception):
    """Raised by a check that is not applicable, with the reason."""


@dataclass(frozen=True)
class Check:
    """One check: its name, its verdict, and a message unless it passed."""

    name: str
    verdict: Verdict
    message: str = ""


@dataclass
class ConformanceReport:
    """The results of the checks."""

    subject: str  # name of the checked plugin
    # in order; checks that need a failed one are missing
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.verdict == "failed")

    @property
    def passed(self) -> bool:
        """Whether at least one check passed and none failed."""
        return not self.failed and any(check.verdict == "passed" for check in self.checks)

    def run(self, name: str, check: Callable[[], object]) -> bool:
        """Run one check; its error becomes the message. Return True if it passed."""
        try:
            check()
        except CheckSkipped as reason:
            self.checks.append(Check(name, "skipped", str(reason)))
        except CheckFailed as fault:
            self.checks.append(Check(name, "failed", str(fault)))
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            self.checks.append(Check(name, "failed", f"raised {type(error).__name__}: {text}"))
        else:
            self.checks.append(Check(name, "passed"))
        return self.checks[-1].verdict == "passed"

    def raise_if_failed(self) -> None:
        """Raise an error that lists the failed checks."""
        if self.passed:
            return
        failures = "; ".join([f"{check.name}: {check.message}" for check in self.failed])
        raise IntegrityFault(
            "testing.contract-violated",
            f"{self.subject} violates its contract: {failures or 'no check passed'}",
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return {
            "subject": self.subject,
            "passed": self.passed,
            "checks": [vars(check) for check in self.checks],
        }
