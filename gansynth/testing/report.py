"""Named checks with a verdict and a message each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gansynth.runtime.errors import IntegrityFault

Verdict = Literal["passed", "failed", "skipped"]


class Broken(Exception):
    """Raised inside a check: what was found and what was expected."""


class Skip(Exception):
    """Raised inside a check that cannot be made here: why."""


@dataclass(frozen=True)
class Check:
    """One check: its name, its verdict, and what was found where it did not pass."""

    name: str
    verdict: Verdict
    message: str = ""


@dataclass
class CheckReport:
    """What became of each check.

    Attributes:
        subject: what was checked.
        checks: in the order they were made; those that a failure made pointless are missing.
    """

    subject: str
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")

    @property
    def passed(self) -> bool:
        """Something passed and nothing failed."""
        return not self.failed and any(check.verdict == "passed" for check in self.checks)

    def run(self, name: str, check: Callable[[], object]) -> bool:
        """Make one check; whatever it raises becomes its message. True if it passed."""
        try:
            check()
        except Skip as reason:
            self.checks.append(Check(name, "skipped", str(reason)))
        except Broken as found:
            self.checks.append(Check(name, "failed", str(found)))
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            self.checks.append(Check(name, "failed", f"raised {type(error).__name__}: {text}"))
        else:
            self.checks.append(Check(name, "passed"))
        return self.checks[-1].verdict == "passed"

    def raise_if_failed(self) -> None:
        """Stop with the failed checks.

        Raises:
            IntegrityFault: naming every failed check with what was found; also if none passed.
        """
        if self.passed:
            return
        found = "; ".join(f"{check.name}: {check.message}" for check in self.failed)
        raise IntegrityFault(
            f"{self.subject} does not keep its contract: {found or 'no check passed'}"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "subject": self.subject,
            "passed": self.passed,
            "checks": [vars(check) for check in self.checks],
        }
