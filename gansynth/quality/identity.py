"""Does a folder that is to be handed on name a patient or a source? Every file of it is looked at.

Looked for are ids of cases and subjects, the source's files and folders, paths, users and machines,
what scanners and programs leave in headers, times, links, and images of the source itself. What is
found is told in one line each; nothing is changed. That nothing is found does not mean that nobody
can be known again: a generator may have learnt an image by heart, and a label map may be a
patient's own (``gansynth.quality.nearest`` looks for the first). See docs/sharing.md.
"""

from __future__ import annotations

import itertools
import re
import stat as modes
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.errors import DataFault, UsageFault
from gansynth.lineage import Lineage
from gansynth.quality.traces.entries import entries, look_at_entry, look_inside
from gansynth.quality.traces.kinds import look_into
from gansynth.quality.traces.look import Finding, Look, Notes
from gansynth.quality.traces.names import Names
from gansynth.quality.traces.nifti import frame_name
from gansynth.quality.traces.origin import Origin
from gansynth.quality.traces.times import times_of
from gansynth.quality.traces.wanted import data_sets, people_of, this_machine, words_of_schema
from gansynth.schema import Schema
from gansynth.sources.base import CaseSource, SourceRequest, places_of

MOST_OF_A_KIND = 20
"""Findings that are told of one kind; how many more there are is told, too."""


@dataclass(frozen=True)
class Audit:
    """What was found in a folder.

    Attributes:
        folder: its name.
        files: how many files were looked at, links among them.
        findings: a line each, naming the file, the place in it, and what was found. They quote what
            they found: keep them where the patients' names may be.
        compared: cases of the source that images were compared with; 0 if nobody had any.
    """

    folder: str
    files: int
    findings: tuple[str, ...]
    compared: int = 0

    def to_json(self) -> dict[str, Any]:
        """``folder``, ``files`` and ``findings``."""
        return {"folder": self.folder, "files": self.files, "findings": list(self.findings)}


def audit_export(
    folder: Path,
    lineage: Lineage,
    *,
    request: SourceRequest | None = None,
    sources: CaseSource | None = None,
    harmless: Collection[str] = (),
) -> Audit:
    """Look through every file of a folder that is to be handed on.

    Args:
        folder: the folder.
        lineage: of what drew the samples; its ids, subjects and data sets are looked for.
        request: where the source's cases came from; the source's own if None.
        sources: the source, whose images and files are compared; None compares files alone, as far
            as ``request`` leads to them.
        harmless: words that name nobody, though some folder or user is called so. Names of channels
            and labels of ``sources`` are taken for harmless.

    Raises:
        UsageFault: nothing is in it.
        EnvironmentFault: a file may not be read.
        DataFault: there is no such folder, or a case of the source cannot be read.
    """
    if not folder.is_dir():
        raise DataFault(f"{folder}: no such folder, expected one that is to be handed on")
    request = sources.request if request is None and sources is not None else request
    found = dict(entries(folder))
    files = [path for path, stat in found.items() if not modes.S_ISDIR(stat.st_mode)]
    if not files:
        raise UsageFault(f"{folder}: holds no files, expected an export; name another folder")
    if sources is not None:
        places = sources.places
    else:
        places = () if request is None else places_of(request)
    people = list(people_of(lineage, sources))
    origin = Origin(places, sources, [n.text for n in people if n.what == "case"], folder)
    if sources is not None:
        harmless = (*harmless, *words_of_schema(sources.schema))
    names = (*people, *data_sets(lineage, request), *origin.names(), *this_machine())
    notes, sums, known = Notes(), dict[str, tuple[str, int]](), Names(names, harmless)
    for path, stat in found.items():
        look = Look(path, known, notes, look_into)
        look_at_entry(folder / path, stat, look, origin.inodes)
        if modes.S_ISREG(stat.st_mode):
            sums[path] = look_inside(folder / path, stat, look)
    own = {path: stat for path, stat in found.items() if not modes.S_ISLNK(stat.st_mode)}
    notes.findings += times_of(own, origin.times)
    compared = _compare(notes, sums, origin)
    return Audit(folder.resolve().name, len(files), tuple(_told(notes.findings)), compared)


def audit_exported(
    folder: Path,
    *,
    run: Path | None = None,
    bank: Path | None = None,
    sources: CaseSource | None = None,
    root: str | None = None,
) -> Audit:
    """The same for what a run or a bank has drawn: lineage and source are looked up there.

    Args:
        folder: the folder that is to be handed on.
        run: run folder; its source is opened unless ``sources`` is given.
        bank: folder of a bank, which does not know its source: name it by ``sources`` to have
            images compared.
        sources: the source, if it is open already.
        root: overrides where the source's host folders lie.

    Raises:
        UsageFault: neither run nor bank, or both; or as ``audit_export``.
        GansynthError: what opening the source raises.
    """
    if (run is None) == (bank is None):
        raise UsageFault(
            f"{folder}: expected either a run or a bank that drew it; name one of them"
        )
    if bank is not None:
        from gansynth._bank_spec import load_spec

        spec = load_spec(bank)
        words = (*words_of_schema(spec.schema), spec.run_id)
        return audit_export(folder, spec.lineage, sources=sources, harmless=words)
    assert run is not None
    from gansynth.own_source import open_source
    from gansynth.run import own_request, read_manifest

    manifest = read_manifest(run)
    if sources is None:
        request = own_request(run, manifest)
        request = request if root is None else replace(request, root=root)
        sources = open_source(request)
    words = (
        *words_of_schema(Schema.from_json(manifest["schema"])),
        *(str(manifest[key]) for key in ("generator", "run_id")),
    )
    lineage = Lineage.from_json(manifest["lineage"])
    return audit_export(folder, lineage, sources=sources, harmless=words)


# -- comparing and telling ------------------------------------------------------------------------


def _compare(notes: Notes, sums: dict[str, tuple[str, int]], origin: Origin) -> int:
    """Compare files, headers and images with the source's; how many cases there were."""
    copies = origin.copies({size for _, size in sums.values()})
    copied = {path: copies[digest] for path, (digest, _) in sums.items() if digest in copies}
    linked = {f.file for f in notes.findings if f.found.endswith("(a hard link)")}
    for path, name in copied.items():
        if path not in linked:
            notes.findings.append(
                Finding(path, "content", f"is the source's {name}, byte for byte: a real case")
            )
    for frame in notes.frames:
        if (owner := origin.frames.get(frame.bits)) and frame.file not in copied:
            what = f"the {frame_name(frame.bits)} of the source's {owner}, to the bit"
            notes.findings.append(Finding(frame.file, frame.place, f"has {what}"))
    images, compared = origin.images({p for shown in notes.shown for p in shown.prints})
    told: set[str] = set()
    for shown in notes.shown:
        same = next((images[p] for p in sorted(shown.prints) if p in images), None)
        if same is not None and shown.file not in copied and shown.file not in told:
            told.add(shown.file)
            said = f"show the image of {same}: a real case, not a synthetic one"
            notes.findings.append(Finding(shown.file, shown.place, said))
    return compared


def _told(findings: Iterable[Finding]) -> Iterator[str]:
    """A line each; of many that differ in names and numbers alone the first ones."""
    kinds: dict[str, dict[str, str]] = {}
    for finding in findings:
        kind = re.sub(r"'[^']*'|\d+", "#", f"{finding.place}: {finding.found}")
        kinds.setdefault(kind, {})[str(finding)] = finding.file
    for lines in kinds.values():
        yield from itertools.islice(lines, MOST_OF_A_KIND)
        if (more := len(lines) - MOST_OF_A_KIND) > 0:
            files = len(set(lines.values()))
            yield f"{more} more findings like the last one, {files} file(s) in all"
