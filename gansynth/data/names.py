"""Names of channels and labels in a ``dataset.json`` beside ``images/``; channels by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.data.reading import complete_labels
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.files import read_json

FILE = "dataset.json"


@dataclass(frozen=True)
class Names:
    """Names that a folder says of itself; None where it does not say.

    ``normalised``: intensities are taken as they are, as of what ``gansynth sample`` wrote.
    ``spacing``: mm per axis.
    """

    where: Path
    channels: tuple[str, ...] | None
    labels: dict[str, int] | None
    normalised: bool = False
    spacing: tuple[float, ...] | None = None


def read_names(folder: Path) -> Names | None:
    """Read ``channel_names`` and ``labels``, as nnU-Net writes them; None without such a file.

    Raises DataFault: it is no JSON object, or one of the two is not as it must be.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    doc = read_json(path, way_out="see docs/sources.md")
    return Names(
        path,
        _channels(path, doc.get("channel_names")),
        _labels(path, doc.get("labels")),
        doc.get("normalised") is True,
        _spacing(path, doc.get("spacing")) if doc.get("normalised") is True else None,
    )


def picture_keys(folder: Path) -> dict[str, str]:
    """``--read`` keys of pictures that ``gansynth sample`` wrote; none of other folders."""
    said = read_names(folder)
    if said is None or not said.normalised:
        return {}
    keys = {"channels": ",".join(said.channels or ())}
    if said.labels is not None:
        keys["labels"] = ",".join(f"{name}:{value}" for name, value in said.labels.items())
    if said.spacing is not None:
        keys["spacing"] = ",".join(f"{mm:g}" for mm in said.spacing)
    return keys


def _spacing(path: Path, spacing: Any) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    numbers = spacing if isinstance(spacing, list) else []
    if not numbers or not all(type(mm) in (int, float) and 0 < mm < 1e6 for mm in numbers):
        raise DataFault(
            f"{path}: spacing is {spacing!r:.200}, expected mm per axis, for example [1.0, 0.5]; "
            "correct it, or remove it"
        )
    return tuple(map(float, numbers))


def _channels(path: Path, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    numbers = {str(i) for i in range(len(names))} if isinstance(names, dict) else set()
    each = list(names.values()) if isinstance(names, dict) else []
    texts = all(isinstance(name, str) and name.strip() for name in each)
    if not numbers or set(names) != numbers or not texts or len(set(each)) < len(each):
        raise DataFault(
            f"{path}: channel_names is {names!r:.200}, expected different names numbered from 0, "
            'for example {"0": "T1"}; correct it, or remove it'
        )
    return tuple(names[str(i)] for i in range(len(names)))


def _labels(path: Path, labels: Any) -> dict[str, int] | None:
    if labels is None:
        return None
    values = list(labels.values()) if isinstance(labels, dict) else []
    whole = all(type(value) is int and 0 <= value < 2**15 for value in values)
    if not values or not whole or len(set(values)) < len(values):
        raise DataFault(
            f"{path}: labels is {labels!r:.200}, expected a different whole number for each name, "
            'for example {"background": 0, "tumour": 1}; correct it, or remove it'
        )
    return complete_labels(labels)


def pick(asked: Sequence[str], known: Sequence[str], where: Path) -> tuple[int, ...]:
    """Places of channels asked for by name among those there are; upper and lower case are alike.

    Raises UsageFault: there is no such channel.
    """
    places = {name.casefold(): place for place, name in reversed(list(enumerate(known)))}
    places |= {name: place for place, name in enumerate(known)}
    unknown = [name for name in asked if name not in places and name.casefold() not in places]
    if unknown:
        raise UsageFault(
            f"--read channels={','.join(asked)}: {where} has no channel {unknown[0]!r}, expected "
            f"among: {', '.join(known) or 'none'}.{did_you_mean(unknown[0], known)}"
        )
    return tuple(places.get(name, places.get(name.casefold(), 0)) for name in asked)
