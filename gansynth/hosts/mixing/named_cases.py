"""Held-out cases as a user's own training names them: by ids, files, arrays or a folder of images.

See ``gansynth.mix``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gansynth.bank.store import BankSpec
from gansynth.core.fingerprint import prints_of
from gansynth.core.identity import HeldOut
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import content_hash
from gansynth.core.source import case_record
from gansynth.data.images import open_images
from gansynth.runtime.errors import UsageFault

CHANNEL = re.compile(r"_\d{4}$")
"""What nnU-Net adds to a case's id in the name of a channel's file."""
NamedCase: TypeAlias = CaseRecord | str | os.PathLike[str] | npt.NDArray[Any]
NamedCases: TypeAlias = HeldOut | Iterable[NamedCase] | os.PathLike[str]


def held_out_named(named: NamedCases, spec: BankSpec) -> HeldOut:
    """Return held-out cases to compare with those a bank's generator has seen.

    Args:
        named: a folder of their images, or a list of records, of ids or files (compared without
            folder, ending and case) or of images (C, D, H, W), (C, H, W).
    """
    if isinstance(named, HeldOut):
        return named
    if isinstance(named, str):
        raise UsageFault(
            "hosts.held-out-not-a-list",
            f"held_out is {named!r}, expected a list of cases, or a folder of their images as a "
            f"Path: held_out=Path({named!r})",
        )
    if isinstance(named, os.PathLike):
        source = open_images(os.fspath(named), {}, spec.schema.channels)
        ids = (*source.train_ids, *source.held_out_ids)
        return HeldOut(tuple([case_record(source, case_id) for case_id in ids]))
    cases = list(named)
    if not cases:
        raise UsageFault(
            "hosts.held-out-empty",
            "held_out is an empty list, expected your validation and test cases; leave it out if "
            "there are none",
        )
    known = _names_in(spec)
    names = [os.fspath(case) for case in cases if isinstance(case, str | os.PathLike)]
    _refuse_strange(names, known, spec)
    return HeldOut(tuple([_record(case, place, known, spec) for place, case in enumerate(cases)]))


def _record(case: Any, place: int, known: Mapping[str, str], spec: BankSpec) -> CaseRecord:
    if isinstance(case, CaseRecord):
        return case
    if isinstance(case, str | os.PathLike):
        text = os.fspath(case)
        name = next((known[name] for name in _plain_names(text) if name in known), text)
        return CaseRecord(text, name, "unknown")
    image = np.asarray(case)
    if image.ndim == 0:
        raise UsageFault(
            "hosts.held-out-not-a-case",
            f"held_out[{place}] is a {type(case).__name__}, expected an id, a file, an image or a "
            "gansynth.CaseRecord",
        )
    if image.ndim == spec.schema.ndim:
        image = image[None]
    if image.ndim != spec.schema.ndim + 1:
        raise UsageFault(
            "hosts.held-out-array-axes-differ",
            f"held_out[{place}] has the shape {image.shape}, expected an image with the axes "
            f"C{spec.schema.axes}",
        )
    name = f"held_out[{place}]"
    digest = content_hash(image.astype(np.float32))
    return CaseRecord(name, name, digest, digest, prints_of(image, spec.schema.spacing))


def _names_in(spec: BankSpec) -> dict[str, str]:
    """Map names, folded, to the subject that the guard compares."""
    names: dict[str, str] = {}
    for lineage in spec.lineage.everyone():
        for case in lineage.cases:
            for name in (*_plain_names(case.id), case.subject.casefold()):
                names.setdefault(name, case.subject)
    return names


def _plain_names(text: str) -> Iterator[str]:
    """Yield a case's name as it may be meant: as it is, then without folder, endings, channel."""
    yield text.casefold()
    name = Path(text).name.casefold()
    while name:
        yield name
        yield CHANNEL.sub("", name)
        shorter = name.rpartition(".")[0]
        if not shorter:
            break
        name = shorter


def _refuse_strange(names: list[str], known: Mapping[str, str], spec: BankSpec) -> None:
    """Refuse a list whose names can be none of the bank's, since they are made otherwise."""
    forms = {_form(name) for name in known}
    if names and not any(_form(plain) in forms for name in names for plain in _plain_names(name)):
        example = min(case.id for each in spec.lineage.everyone() for case in each.cases)
        raise UsageFault(
            "hosts.held-out-names-strange",
            f"held_out: {names[0]!r}, for one, has not the form of the bank's cases, such as "
            f"{example!r}, so none could be recognised; name them as the bank's generator knows "
            "them, or give their images: arrays, or a folder as a Path",
        )


def _form(name: str) -> str:
    """Return of what words a name is made: letters, digits, or both, and what is between."""
    text = re.sub(r"[^\W\d_]+", "a", name)
    text = re.sub(r"\d+", "0", text)
    return re.sub(r"[a0]{3,}", "a0a", text)
