"""A choice that a command makes for its user, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Choice:
    """One value that the user has left out.

    Attributes:
        name: a field of ``AugmentRequest``, or a setting of the target.
        value: what is chosen for it.
        why: what the choice follows from.
        change: the option that changes it.
        prepare: settings of the target's preparation that the value needs.
    """

    name: str
    value: str
    why: str
    change: str
    prepare: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.name.replace("_", " ")
        return f"chose {name} {self.value} because {self.why}; change it with {self.change}"
