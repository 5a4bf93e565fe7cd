"""Times of files: what has them in common with the source's, and what their order tells."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from gansynth.quality.traces.look import Finding

TIME = 315_532_800
"""1980-01-01, in seconds since 1970: what files get that are to tell no time."""
FEWEST = 3
"""Files whose order is looked at: of two, one is always the later."""
_WAY_OUT = "give all files one time"


def times_of(files: Mapping[str, os.stat_result], known: Mapping[int, str]) -> Iterable[Finding]:
    """What times of files tell.

    Args:
        files: files and folders by path.
        known: times (ns) that single cases of the source have -> such a file there.
    """
    for path, stat in files.items():
        if stat.st_mtime_ns in known and stat.st_mtime_ns != TIME * 10**9:
            yield Finding(
                path, "file time", f"is that of the source's {known[stat.st_mtime_ns]}; {_WAY_OUT}"
            )
    alike: dict[str, list[tuple[Sequence[int], int, str]]] = defaultdict(list)
    for path, stat in files.items():
        numbers = [int(digits) for digits in re.findall(r"\d+", path)]
        alike[re.sub(r"\d+", "#", path)].append((numbers, stat.st_mtime_ns, path))
    for group in alike.values():
        group.sort()
        times = [when for _, when, _ in group]
        if len(group) >= FEWEST and times != sorted(times):
            folder = str(PurePath(group[0][2]).parent)
            yield Finding(
                group[0][2],
                "file times",
                f"{len(group)} files like it in {folder!r} have times in another order than "
                f"their numbers, which tells the order in which they were made; {_WAY_OUT}",
            )
