"""The base of a host's options."""

from __future__ import annotations

from typing import ClassVar

from gansynth.runtime.options import OptionModel


class HostOptions(OptionModel):
    """Base of a host's options, which a user gives as ``--KEY VALUE`` or ``--set KEY=VALUE``."""

    output_key: ClassVar[str] = ""
    """Key of the folder of a training's results, which ``-o`` sets; none if there is no such."""
