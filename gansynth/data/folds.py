"""Subjects, classes and folds of cases: read, dealt out, checked, and written as another split.

No subject is on both sides of a fold. A split that is written copies no data: a folder gets the
split, a CSV of subjects, and what else a framework reads.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import re2

from gansynth.core.lineage import guard_split
from gansynth.core.source import CaseSource, Finding, FoldSplit, SourceRequest
from gansynth.data.listing import SPLITS, SUBJECTS, VolumeSet
from gansynth.data.read_options import OF_SPLITS, ReadOptions, VolumeOptions
from gansynth.runtime.errors import DataFault, UsageFault, describe_error, did_you_mean
from gansynth.runtime.files import disk_errors, read_json, write_bytes_atomic, write_json_atomic
from gansynth.runtime.measuring import measuring
from gansynth.runtime.tables import cell, read_cell

DIVIDED = "divided.json"  # record of the data set and the split that a folder holds
LETTERS = r"\pL\pM\pN_"  # also accents that stand beside their letters, as in names on a Mac
# All other categories, for brackets, in which RE2 negates nothing: of connectors all but "_".
NO_LETTERS = (
    r"\pC\pZ\pS\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}"
    r"\x{203F}\x{2040}\x{2054}\x{FE33}\x{FE34}\x{FE4D}-\x{FE4F}\x{FF3F}"
)
EACH = "each"
"""What ``--subjects`` is where every case is a subject of its own."""
_REPAIR = "correct the file, or remove it to have folds made"
Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""Training and held-out cases of a fold, each sorted."""

# -- subjects ------------------------------------------------------------------------------------


def is_table(text: str) -> bool:
    """Return whether ``--subjects`` is a table; an expression may be longer than a name."""
    return text.lower().endswith(".csv") or os.path.isfile(text)


def cases_of_sites(text: str, subject_of: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the cases of each site, both sorted, by a CSV (case,site) or an expression.

    ``text``: as after ``--sites``; ``subject_of``: of each case.
    """
    cases: dict[str, list[str]] = {}
    for case, site in site_of_cases(text, subject_of).items():
        cases.setdefault(site, []).append(case)
    if len(cases) < 2:
        raise DataFault(
            "folds.only-one-site",
            f"--sites {text}: all cases are of site {site!r}, expected two or more sites; correct "
            "it, or name the other site's cases with gansynth check --against KIND:WHERE",
        )
    return {site: tuple(cases[site]) for site in sorted(cases)}


def site_of_cases(text: str, subject_of: Mapping[str, str]) -> dict[str, str]:
    """Map cases, sorted, to their sites; DataFault: a person is of two. As ``cases_of_sites``."""
    with describe_error("--subjects", "--sites"):
        site_of = read_subjects(text, subject_of, ("site",))
    seen: dict[str, str] = {}
    for case, site in site_of.items():
        subject = subject_of[case]
        if seen.setdefault(subject, site) != site:
            raise DataFault(
                "folds.subject-of-two-sites",
                f"--sites {text}: subject {subject!r} is of {seen[subject]!r} and {site!r}; "
                "expected one site for all cases of a person; correct --sites or --subjects",
            )
    return site_of


def read_subjects(
    text: str, ids: Iterable[str], columns: Sequence[str] = ("subject", "subject_group")
) -> dict[str, str]:
    """Map cases to subjects, by a CSV or by a rule (``SubjectRule``), or each to itself (``EACH``).

    ``columns``: of the CSV, of which the first that it has is read.
    """
    ids = sorted(ids)
    if text == EACH:
        return {case: case for case in ids}
    if is_table(text):
        subjects = read_column(Path(text), *columns)
        where, hint = text, "add a line for each case"
    else:
        rule = SubjectRule.parse(text)
        subjects = {case: rule.subject_of(case) for case in ids}
        where, hint = f"--subjects {text!r}", "correct the expression, or give a CSV"
    missing = [case for case in ids if not subjects.get(case)]
    if missing:
        raise DataFault(
            "folds.cases-without-subject",
            f"{where}: {len(missing)} case(s) have no {columns[0]}, {missing[0]!r} first; expected "
            f"one for each of {len(ids)}; {hint}",
        )
    return {case: subjects[case] for case in ids}


@dataclass(frozen=True)
class SubjectRule:
    """A regular expression whose first group is the subject, in any case's id.

    ``other:(p[0-9]+)_`` has a prefix, which tells people of one number apart: ``other-p17``.
    """

    prefix: str
    pattern: Any

    @classmethod
    def parse(cls, text: str) -> SubjectRule:
        """Compile a rule; UsageFault: no expression, or one without a group."""
        prefix, colon, expression = text.partition(":")
        if not colon or not re.fullmatch(r"[\w.-]+", prefix):
            prefix, expression = "", text
        try:
            pattern = compile_pattern(expression)
        except ValueError as error:
            raise UsageFault(
                "folds.subjects-malformed",
                f"--subjects {text!r}: neither a file nor a regular expression ({error}); expected "
                "a CSV with the columns case and subject, or an expression with one group",
            ) from error
        if pattern.groups < 1:
            raise UsageFault(
                "folds.subjects-expression-without-group",
                f"--subjects {text!r}: the expression has no group, expected the subject in the "
                r"first, for example '(patient\d+)_'. If it is meant to be a file, there is none",
            )
        return cls(f"{prefix}-" if prefix else "", pattern)

    def subject_of(self, case_id: str) -> str:
        """Return a case's subject; empty if the expression finds none."""
        match = self.pattern.search(case_id)
        return f"{self.prefix}{match.group(1)}" if match and match.group(1) else ""

    def before(self, case_id: str) -> str:
        """Return what an id has before its subject, but for folders; each digit as 0."""
        match = self.pattern.search(case_id)
        text = case_id[: match.start(1)].rpartition("/")[2] if match else case_id
        return re.sub(r"[0-9]", "0", text)


def compile_pattern(text: str) -> Any:
    """Compile a user's or a file's regular expression; RE2 searches in linear time.

    Raises ValueError: it is none, or has what RE2 lacks: lookaround and backreferences.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(_of_all_letters(text), options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from error


def _of_all_letters(pattern: str) -> str:
    r"""Return a pattern whose ``\w`` and ``\W`` know all letters, as Python's do.

    RE2's are those of English: it would find ``ller`` in ``Müller``.
    """
    parts, in_brackets = list[str](), False
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        if part == r"\w":
            parts.append(LETTERS if in_brackets else f"[{LETTERS}]")
        elif part == r"\W":
            parts.append(NO_LETTERS if in_brackets else f"[^{LETTERS}]")
        else:
            parts.append(part)
            in_brackets = part == "[" or (in_brackets and part != "]")
    return "".join(parts)


def read_column(path: Path, *names: str) -> dict[str, str]:
    """Map cases of a CSV to the first column among ``names``; DataFault: unfit, or twice."""
    first, *others = names
    expected = f"case and {first}" + (f" (or {', '.join(others)})" if others else "")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except PermissionError:  # a fault of the machine, not of the data
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DataFault(
            "folds.table-unreadable",
            f"{path}: cannot be read: {error}; expected a CSV with the columns {expected}",
        ) from error
    rows = csv.DictReader(io.StringIO(text))
    header = rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    found = [name for name in names if name in header]
    if not found or "case" not in header:
        raise DataFault(
            "folds.table-header-differs",
            f"{path}: header is {header}, expected the columns {expected}",
        )
    column = found[0]
    values: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        case, value = [read_cell((row[name] or "").strip()) for name in ("case", column)]
        if values.setdefault(case, value) != value:
            raise DataFault(
                "folds.case-has-two-values",
                f"{path}: line {number}: case {case!r} has {first} {values[case]!r} and {value!r}, "
                "expected one; remove a line",
            )
    return values


def subjects_of(listing: VolumeSet, request: str | None) -> dict[str, str]:
    """Map cases to subjects: by request, by the layout or a CSV beside it; else to themselves."""
    ids = [entry.case for entry in listing.entries]
    if request is not None:
        return read_subjects(request, ids)
    if any(entry.subject for entry in listing.entries):
        return {entry.case: entry.subject or entry.case for entry in listing.entries}
    if listing.subjects.is_file():
        return read_subjects(str(listing.subjects), ids)
    return {case: case for case in ids}


# -- classes -------------------------------------------------------------------------------------


def class_numbers(source: CaseSource, names: Iterable[str], *, asked: str) -> frozenset[int]:
    """Return the numbers of classes in a source's schema; UsageFault for an unknown one."""
    classes = source.schema.classes
    if not classes:
        raise UsageFault(
            "folds.no-classes",
            f"{asked}: the cases of {source.name} have no classes, expected some; read them with "
            "--read classes=yes or a CSV (pictures:), or --read classes=foreground (slices:)",
        )
    for name in names:
        if name not in classes:
            raise UsageFault(
                "folds.class-unknown",
                f"{asked}: class {name!r} is unknown, expected among {', '.join(classes)}."
                f"{did_you_mean(name, classes)}",
            )
    return frozenset([classes.index(name) for name in names])


def training_cases(source: CaseSource, names: Sequence[str], *, asked: str) -> tuple[str, ...]:
    """Return the training cases of some classes, sorted; UsageFault if a class has none."""
    numbers = class_numbers(source, names, asked=asked)
    class_of = {case: source.header(case).label_class for case in source.train_ids}
    absent = sorted(numbers - set(class_of.values()))
    if absent:
        there = [n for i, n in enumerate(source.schema.classes) if i in class_of.values()]
        raise UsageFault(
            "folds.class-without-training-case",
            f"{asked}: no training case that was seen is of class "
            f"{source.schema.classes[absent[0]]!r}, expected among {', '.join(there)}",
        )
    return tuple([case for case, number in class_of.items() if number in numbers])


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


# -- folds ---------------------------------------------------------------------------------------


def grouped_splits(
    ids: Iterable[str], subject_of: Mapping[str, str], folds: int, seed: int
) -> list[FoldSplit]:
    """K folds of about equal numbers of cases in which no subject is on both sides.

    Subjects are shuffled by the seed, then assigned, those with most cases first, each to the
    smallest fold. Raises UsageFault: fewer than two folds; DataFault: fewer subjects than folds.
    """
    ids = sorted(ids)
    if folds < 2:
        raise UsageFault("folds.fewer-than-two-folds", f"folds is {folds}, expected at least 2")
    counts = Counter([subject_of[case] for case in ids])
    if len(counts) < folds:
        raise DataFault(
            "folds.split-fewer-subjects-than-folds",
            f"splits: {len(counts)} subject(s) for {folds} folds, expected at least one for each; "
            + (_all_of_one(counts) or f"ask for at most {len(counts)} folds, or add subjects"),
        )
    subjects = sorted(counts)
    order = np.random.default_rng(seed).permutation(len(subjects))
    shuffled = sorted((subjects[i] for i in order), key=lambda s: -counts[s])
    loads, fold_of = [0] * folds, {}
    for subject in shuffled:
        fold_of[subject] = loads.index(min(loads))
        loads[fold_of[subject]] += counts[subject]
    return [_held_out({c: fold_of[subject_of[c]] for c in ids}, fold) for fold in range(folds)]


def splits_of_sites(text: str, subject_of: Mapping[str, str]) -> list[FoldSplit]:
    """Return a fold for each site of ``cases_of_sites``, which holds out its cases."""
    sites = cases_of_sites(text, subject_of)
    site_of = {case: site for site, cases in sites.items() for case in cases}
    return [_held_out(dict(sorted(site_of.items())), site) for site in sites]


def folds_dealt(options: ReadOptions, subjects: int) -> int:
    """Return how many folds subjects are dealt into: as asked, else not more than there are."""
    folds = int(vars(options)["folds"])
    return folds if "folds" in options.model_fields_set else max(2, min(folds, subjects))


def fewer_folds(where: Path, options: ReadOptions, subjects: int) -> str:
    """Return a line on folds that are fewer than usual because there are few subjects, or ""."""
    folds, usual = folds_dealt(options, subjects), vars(options)["folds"]
    if folds == usual:
        return ""
    return f"{where}: {subjects} subjects, so {folds} folds, not {usual}"


def _all_of_one(cases_of: Mapping[str, int]) -> str:
    """Return the way out where all cases are of one subject; empty where they are not."""
    if len(cases_of) != 1:
        return ""
    [(subject, cases)] = cases_of.items()
    if cases == 1:
        return "add cases"
    return (
        f"all {cases} cases are of {subject!r}: if that is no person, take a longer expression, "
        "such as --subjects '(.+)_', all before the last underscore, or a table of subjects"
    )


def _held_out(part_of: Mapping[str, Any], part: Any) -> FoldSplit:
    """The fold that holds out the cases of one part."""
    return FoldSplit(
        train=[case for case, its in part_of.items() if its != part],
        val=[case for case, its in part_of.items() if its == part],
    )


def folds_of(
    listing: VolumeSet, subject_of: Mapping[str, str], options: VolumeOptions
) -> dict[str, FoldSplit]:
    """Return every fold by its number, as text.

    Splits come from the first of these: a requested JSON, the layout's columns, the JSON beside it,
    new folds. Test cases are held out unless a JSON says otherwise. Raises DataFault: an unusable
    split, or too few subjects.
    """
    cases = {entry.case for entry in listing.entries}
    if options.splits is not None:
        return read_folds(Path(options.splits), cases, listing.where)
    test = [entry.case for entry in listing.entries if entry.part == "test"]
    part_of = {entry.case: entry.part for entry in listing.entries if entry.part != "test"}
    parts = set(part_of.values()) - {""}
    if parts & {"train", "val"}:
        odd = [case for case, part in part_of.items() if part not in ("train", "val")]
        if odd:
            raise DataFault(
                "folds.case-split-unknown",
                f"{listing.where}: case {odd[0]!r} has split {part_of[odd[0]]!r}, expected train, "
                "val or test for every case; complete the column",
            )
        folds = {"0": _held_out(part_of, "val")}
    elif parts:
        folds = {number: _held_out(part_of, number) for number in sorted(parts, key=int)}
    elif listing.splits.is_file():
        return read_folds(listing.splits, cases, listing.where)
    else:
        folds = _dealt(listing, subject_of, options, list(part_of), bool(test))
    for split in folds.values():
        split["val"] += test
    return folds


def _dealt(
    listing: VolumeSet,
    subject_of: Mapping[str, str],
    options: VolumeOptions,
    ids: list[str],
    tested: bool,
) -> dict[str, FoldSplit]:
    cases_of = Counter([subject_of[case] for case in ids])
    count = len(cases_of)
    folds = folds_dealt(options, count)
    if count < folds:
        if tested and count:  # there are test cases to hold out, and no folds are needed
            return {"0": FoldSplit(train=ids, val=[])}
        way = f"say --read folds={count}" if count > 1 else "add cases"
        hint = _all_of_one(cases_of) or way
        raise DataFault(
            "folds.data-fewer-subjects-than-folds",
            f"{listing.where}: {count} subject(s) for {folds} folds, expected at least "
            f"one for each; {hint}, or hold nothing out: --fold all",
        )
    splits = grouped_splits(ids, subject_of, folds, options.seed)
    return {str(number): split for number, split in enumerate(splits)}


def read_splits(path: Path) -> dict[str, FoldSplit]:
    """Every fold of a JSON list of ``{"train": [...], "val": [...]}``; DataFault if it is none."""
    folds: dict[str, FoldSplit] = {}
    for number, doc in enumerate(read_json(path, expected=list, hint=_REPAIR)):
        sides: list[Any] = [doc.get(k) for k in ("train", "val")] if isinstance(doc, dict) else []
        good = [side for side in sides if isinstance(side, list) and set(map(type, side)) == {str}]
        if len(good) < 2:
            raise DataFault(
                "folds.fold-malformed",
                f"{path}: fold {number} is {doc!r:.80}, expected lists of cases under train and "
                f"val; {_REPAIR}",
            )
        folds[str(number)] = FoldSplit(train=sides[0], val=sides[1])
    if not folds:
        raise DataFault(
            "folds.splits-without-fold", f"{path}: holds no fold, expected at least one; {_REPAIR}"
        )
    return folds


def read_folds(path: Path, cases: Collection[str], where: Path) -> dict[str, FoldSplit]:
    """Every fold of a JSON of splits, as ``read_splits``; DataFault for unknown cases."""
    folds = read_splits(path)
    for number, split in folds.items():
        unknown = sorted({*split["train"], *split["val"]} - set(cases))
        if unknown:
            raise DataFault(
                "folds.fold-names-unknown-cases",
                f"{path}: fold {number} names {len(unknown)} case(s) that {where} does not have, "
                f"{unknown[0]!r} first; {_REPAIR}",
            )
    return folds


def choose_fold(
    listing: VolumeSet, subject_of: Mapping[str, str], options: VolumeOptions, fold: str
) -> Sides:
    """Return training and held-out cases of a fold, sorted; ``all`` holds out test cases only."""
    if fold == "all":
        split = _held_out({entry.case: entry.part for entry in listing.entries}, "test")
    else:
        split = _named(folds_of(listing, subject_of, options), fold, listing.where)
    if not split["train"] or not (split["val"] or fold == "all" or listing.unvalidated):
        raise DataFault(
            "folds.fold-side-empty",
            f"{listing.where}: fold {fold}: no {'held-out' if split['train'] else 'training'} "
            "case, expected at least one; correct the split",
        )
    return _guarded(split_file(listing, options), subject_of, fold, split)


def one_fold(
    path: Path,
    fold: str,
    subject_of: Mapping[str, str],
    where: Path,
    missing: Sequence[FoldSplit] = (),
) -> Sides:
    """Training and held-out cases of one fold of a JSON of splits, sorted.

    ``missing``: the splits of a file that is not there. It is written, but not by a dry run.
    """
    if missing:
        folds = {str(number): split for number, split in enumerate(missing)}
    else:
        folds = read_folds(path, subject_of.keys(), where)
    sides = _guarded(path, subject_of, fold, _named(folds, fold, path))
    if missing and not measuring().dry:
        write_json_atomic(path, missing)
    return sides


def _named(folds: Mapping[str, FoldSplit], fold: str, where: Path) -> FoldSplit:
    if fold not in folds:
        raise UsageFault(
            "folds.fold-unknown",
            f"--fold {fold!r}: {where} has the folds {', '.join(folds)}; expected one of them, or "
            "'all'",
        )
    return folds[fold]


def _guarded(where: Path, subject_of: Mapping[str, str], fold: str, split: FoldSplit) -> Sides:
    guard(where, subject_of, fold, split)
    return tuple(sorted(split["train"])), tuple(sorted(split["val"]))


def guard(where: Path, subject_of: Mapping[str, str], fold: str, split: FoldSplit) -> None:
    """Refuse a split with a subject, or a case, on both sides (IntegrityFault)."""
    guard_split(
        [(case, subject_of[case]) for case in split["train"]],
        [(case, subject_of[case]) for case in split["val"]],
        fold=fold,
        repair=f"put all cases of a subject on one side in {where}",
    )


def split_file(listing: VolumeSet, options: VolumeOptions) -> Path:
    """Return the file that defines the folds: a JSON, or the layout's manifest."""
    if options.splits is not None:
        return Path(options.splits)
    parts = {entry.part for entry in listing.entries} - {"", "test"}
    return listing.splits if not parts and listing.splits.is_file() else listing.where


# -- another split -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldFiles:
    """An absolute folder that holds a split; cases of each fold are sorted."""

    folder: Path
    splits: tuple[FoldSplit, ...]

    @property
    def file(self) -> Path:
        """The split as JSON, a list of ``{"train": [...], "val": [...]}``."""
        return self.folder / SPLITS

    @property
    def subjects(self) -> Path:
        """CSV with the columns ``case`` and ``subject``."""
        return self.folder / SUBJECTS

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases that any fold names, sorted."""
        return tuple(sorted({case for s in self.splits for case in (*s["train"], *s["val"])}))

    def request(self, request: SourceRequest) -> SourceRequest:
        """Request fold 0 of this split, for kinds of source that have ``--read splits=``."""
        read = {key: text for key, text in request.read.items() if key not in OF_SPLITS}
        read["splits"] = str(self.file)
        return replace(request, fold="0", read=read, subjects=str(self.subjects))


def write_resplit(
    source: CaseSource, ids: Collection[str], splits: Sequence[FoldSplit], folder: Path
) -> FoldFiles:
    """Check a split, and write it with all subjects to a folder, which is made if missing."""
    folder, subject_of = folder.absolute(), {case: source.header(case).subject for case in ids}
    for number, split in enumerate(splits):
        for side, cases in (("train", split["train"]), ("val", split["val"])):
            _refuse_side(source, subject_of, f"fold {number}: ", side, sorted(set(cases)))
        guard_split(
            [(case, subject_of[case]) for case in sorted(set(split["train"]))],
            [(case, subject_of[case]) for case in sorted(set(split["val"]))],
            fold=str(number),
            repair=f"split the cases of {source.name} with all of a subject on one side",
        )
    if not splits:
        raise UsageFault(
            "folds.resplit-without-fold",
            f"{source.name}: split into no fold, expected at least one; add one",
        )
    each = [FoldSplit(train=sorted(set(s["train"])), val=sorted(set(s["val"]))) for s in splits]
    files = FoldFiles(folder, tuple(each))
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(source, files)
    write_json_atomic(files.file, files.splits)
    text = table_text(("case", "subject"), sorted(subject_of.items()))
    write_bytes_atomic(files.subjects, text.encode())
    return files


def _refuse_side(
    source: CaseSource, ids: Collection[str], fold: str, side: str, cases: Sequence[str]
) -> None:
    unknown = [case for case in cases if case not in ids]
    if unknown:
        raise UsageFault(
            "folds.resplit-names-unknown-cases",
            f"{source.name}: {fold}{side} names {len(unknown)} case(s) that it does not have, "
            f"{unknown[0]!r} first; expected among {len(ids)}, for example {min(ids)!r}; correct "
            "the split",
        )
    if not cases:
        raise UsageFault(
            "folds.resplit-side-empty",
            f"{source.name}: {fold}no case under {side}, expected at least one on either side; "
            "correct the split",
        )


def _claim(source: CaseSource, files: FoldFiles) -> None:
    """Record a folder's data set and split before anything else is written there."""
    path = files.folder / DIVIDED
    claim: dict[str, Any] = {
        "name": source.name,
        "request": {k: v for k, v in source.request.to_json().items() if k != "fold"},
        "splits": list(files.splits),
    }
    if path.is_file():
        try:
            written = read_json(path)
        except DataFault as fault:
            raise UsageFault(
                "folds.folder-record-unreadable", f"{fault}, or choose another folder"
            ) from fault
        for differing in [key for key in claim if written.get(key) != claim[key]]:
            raise UsageFault(
                "folds.folder-of-other-split",
                f"{path}: {differing} is another than asked for, expected the same split of the "
                "same data set; choose another folder, or remove this one",
            )
    write_json_atomic(path, claim)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The text of a CSV, of which spreadsheets run no cell."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([[cell(text) for text in row] for row in rows])
    return text.getvalue()
