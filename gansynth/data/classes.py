"""Select cases by their class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gansynth.core.findings import Finding
from gansynth.core.source import CaseSource
from gansynth.runtime.errors import UsageFault, did_you_mean


def class_numbers(source: CaseSource, names: Iterable[str], *, asked: str) -> frozenset[int]:
    """Return the numbers of classes in a source's schema; UsageFault for an unknown one."""
    schema = source.schema
    if not schema.classes:
        raise UsageFault(
            f"{asked}: the cases of {source.name} have no classes, expected some; read them with "
            "--read classes=yes or a CSV (pictures:), or --read classes=foreground (slices:)"
        )
    for name in names:
        if name not in schema.classes:
            raise UsageFault(
                f"{asked}: class {name!r} is unknown, expected among {', '.join(schema.classes)}."
                f"{did_you_mean(name, schema.classes)}"
            )
    return frozenset(schema.classes.index(name) for name in names)


def training_cases(source: CaseSource, names: Sequence[str], *, asked: str) -> tuple[str, ...]:
    """Return the training cases of some classes, sorted; UsageFault if a class has none."""
    numbers = class_numbers(source, names, asked=asked)
    class_of = {case: source.header(case).label_class for case in source.train_ids}
    absent = sorted(numbers - set(class_of.values()))
    if absent:
        there = (n for i, n in enumerate(source.schema.classes) if i in class_of.values())
        raise UsageFault(
            f"{asked}: no training case that was seen is of class "
            f"{source.schema.classes[absent[0]]!r}, expected among {', '.join(there)}"
        )
    return tuple(case for case, number in class_of.items() if number in numbers)


def without_cases(source: CaseSource, names: Sequence[str], where: Path) -> Iterator[Finding]:
    """Report classes without training cases."""
    ids = source.train_ids
    occurring = {source.header(i).label_class for i in ids} if names else set()
    for number, name in enumerate(names):
        if number not in occurring:
            text = (
                f"{where}: no training case of fold {source.request.fold} is of class {name!r}; "
                "add cases, or take another fold"
            )
            yield Finding("warning", None, where, text)
