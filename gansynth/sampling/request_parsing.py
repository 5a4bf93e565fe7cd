"""What a command line, or the environment, says of samples, as one ``Asking``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.sample_request import Asking
from gansynth.runtime.errors import UsageFault

OWN, NONE = "own", "none"
"""``--filter``: what the generator itself finds is heeded; or nothing is."""
_REQUEST = ("fold", "configuration", "plans", "subjects", "root")
"""Of ``--conditions-read``: what is no key of the source's own."""
_BY_NAME = ("nnunet", "nnunet-raw")
"""Kinds whose data sets have names, not paths."""


def read_asking(
    conditions: str | None = None,
    how: Mapping[str, str] | None = None,
    lesions: str | None = None,
    weights: str | None = None,
    filters: Sequence[str] = (),
) -> tuple[Asking, bool]:
    """Check what is said, as far as that needs no run, and bring it into one value.

    Args:
        conditions: ``KIND:WHERE`` of another source.
        how: how it is read: its own keys, and ``fold``, ``configuration``, ``plans``, ``subjects``
            and ``root``.
        lesions: ``KEY=VALUE,...``.
        weights: a file.
        filters: ``own``, ``none``, ``NAME`` or ``NAME:KEY=VALUE,...``.

    Returns:
        What is asked, and whether samples that the generator itself finds flawed are left out.

    Raises:
        UsageFault: naming the option.
    """
    judged = _judged(filters)
    asking = Asking(
        conditions=_conditions(conditions, how or {}),
        lesions=lesions,
        weights=None if weights is None else str(Path(weights).expanduser().absolute()),
        filters=tuple(text for text in filters if text not in (OWN, NONE)),
    )
    check_texts(asking)
    return asking, judged


def check_texts(asking: Asking) -> None:
    """Refuse lesions, weights and filters that no generator could be asked for.

    Raises:
        UsageFault: an unknown key or name, a value that does not fit, or no such file.
        IntegrityFault: a damaged file.
    """
    if asking.lesions is not None:
        from gansynth.conditions.lesion_placement import lesion_drawer

        lesion_drawer(asking.lesions).options.refuse_idle(f"--lesions {asking.lesions}")
    if asking.weights is not None:
        from gansynth.conditions.weights import Weights

        Weights.read(Path(asking.weights))
    if asking.filters:
        from gansynth.sampling.filters.requested import build_filters

        for text, one in zip(asking.filters, build_filters(asking.filters), strict=True):
            one.options.refuse_idle(f"--filter {text}")


def split_asked(text: str) -> list[str]:
    """``flip,shift:max_mm=3,classes=1 elastic`` as three texts: an option goes with its name."""
    found: list[str] = []
    for word in text.split():
        for at, part in enumerate(filter(None, word.split(","))):
            before, equals, _ = part.partition("=")
            if at and equals and ":" not in before:
                found[-1] += f",{part}"
            else:
                found.append(part)
    return found


def _judged(filters: Sequence[str]) -> bool:
    if NONE in filters and len(set(filters)) > 1:
        other = next(text for text in filters if text != NONE)
        raise UsageFault(
            f"--filter {NONE} with --filter {other}: one lets every sample in, expected it alone, "
            "or without it; leave one of them out"
        )
    return NONE not in filters


def _conditions(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    if text is None:
        for key, value in how.items():
            raise UsageFault(
                f"--conditions-read {key}={value}: how is what read? expected --conditions "
                "KIND:WHERE beside it; add it, or see --read"
            )
        return None
    kind, colon, where = text.partition(":")
    if not (kind and colon and where):
        raise UsageFault(f"--conditions {text!r}: expected KIND:WHERE, for example nifti:healthy/")
    _check_kind(text, kind)
    asked: dict[str, Any] = {"kind": kind, "where": _anywhere(kind, where)}
    asked |= {key: value for key, value in how.items() if key in _REQUEST}
    if asked.get("root"):
        asked["root"] = str(Path(asked["root"]).expanduser().absolute())
    read = {key: value for key, value in how.items() if key not in _REQUEST}
    return {**asked, "read": read} if read else asked


def _check_kind(text: str, kind: str) -> None:
    from gansynth.core.registry import installed

    try:
        installed().load("sources", kind)
    except UsageFault as fault:
        raise UsageFault(f"--conditions {text}: {fault}") from fault


def _anywhere(kind: str, where: str) -> str:
    """Where a source is, as it can be read in another folder."""
    if kind in _BY_NAME:
        return where
    inner, colon, rest = where.partition(":")
    if colon and inner:
        from gansynth.core.registry import installed

        if inner in installed().names("sources"):
            return f"{inner}:{_anywhere(inner, rest)}"
    path = Path(where).expanduser()
    return str(path.absolute()) if path.exists() else where


def check_heeded(
    asking: Asking, name: str, heeds: Iterable[str], labelling: str, *, parts: bool = False
) -> None:
    """Refuse what a generator is not asked for.

    Args:
        asking: what is asked.
        name: of the generator.
        heeds: what of a condition it heeds.
        labelling: where its label maps come from.
        parts: whether it is several generators in one run, one for each class of cases.

    Raises:
        UsageFault: naming the option.
    """
    heeds = frozenset(heeds)
    if asking.lesions is not None and "lesion" not in heeds:
        raise UsageFault(
            f"--lesions {asking.lesions}: {name} draws no lesions into real images, expected a "
            "generator that does, such as copypaste; leave --lesions out"
        )
    if asking.weights is not None and labelling != "asked":
        raise UsageFault(
            f"--weights {asking.weights}: {name} is asked for no label maps, expected a generator "
            "that is, such as cgan3d: they say which to draw more often; leave --weights out"
        )
    if asking.conditions is None:
        return
    said = f"--conditions {asking.conditions['kind']}:{asking.conditions['where']}"
    if parts:
        raise UsageFault(
            f"{said}: {name} is a generator for each class of its own source's cases, expected one "
            "for all cases; leave --conditions out"
        )
    if labelling != "asked":
        raise UsageFault(
            f"{said}: {name} is asked for no label maps that could be another source's, expected a "
            "generator that is, such as cgan3d; leave --conditions out"
        )
    if "boxes" in heeds:
        raise UsageFault(
            f"{said}: {name} is asked for boxes, which are those of its own training cases; leave "
            "--conditions out, or see --boxes"
        )


def per_class(manifest: Mapping[str, Any]) -> bool:
    """Whether a run has a part for each class of whole cases."""
    return any("classes" in part for part in manifest.get("parts", ()))
