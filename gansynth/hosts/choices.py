"""A choice that a command makes for its user, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gansynth.core.requests.hosts import AugmentRequest


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

    def made(self, request: AugmentRequest) -> AugmentRequest:
        """Return a request with the value, unless the user has given one."""
        if self.left_out(request):
            if self.name in AugmentRequest.model_fields:
                return request.but(**{self.name: self.value})
            return request.but(set={**request.set, self.name: self.value})
        return request

    def left_out(self, request: AugmentRequest) -> bool:
        """Whether the user has given no value of it."""
        return self.name not in request.given and self.name not in request.set
