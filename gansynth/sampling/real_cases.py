"""``--real SOURCE``: real cases that samples are held against, instead of a run's own.

They are read like the run's own where nothing else is said, and handed out as if its source had
them: what ``--conditions`` does for cases that samples are drawn of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gansynth.runtime.errors import said_of

if TYPE_CHECKING:
    from gansynth.core.source import CaseSource


def read_real(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    """The source of ``--real``, as JSON of a ``SourceRequest``; None for the run's own.

    Args:
        text: ``KIND:WHERE``.
        how: how it is read, as for ``--conditions-read``.

    Raises:
        UsageFault: naming the option.
    """
    from gansynth.sampling.request_parsing import read_request

    with said_of("--conditions", "--real"):
        asked = read_request(conditions=text, how=how).conditions
    return None if asked is None else dict(asked)


def open_real(asked: Mapping[str, Any], own: CaseSource) -> CaseSource:
    """Another source's cases as the run's own source would have them.

    Args:
        asked: a ``SourceRequest`` as JSON; what is not in it is as for the run's own source.
        own: the run's own.

    Raises:
        UsageFault, DataFault: it does not open, or its cases are not like the run's own.
    """
    from gansynth.conditions.external_source import open_base

    with said_of("--conditions", "--real"):  # which is read alike
        return open_base(asked, own)
