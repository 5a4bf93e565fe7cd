"""Does a folder that is to be handed on name a patient or a source? Every file of it is looked at.

Looked for are ids of cases and subjects, the source's files and folders, paths, the user and the
machine: in file names, texts, NIfTI headers and PNG metadata. Files of other kinds are reported as
not read. That nothing is found does not mean that nobody can be known again: images are not
compared here. See docs/sharing.md.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import platform
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gansynth.core.lineage import Lineage
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource
from gansynth.evaluation.audit.files import Finding, Look, look_at
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.sampling.identifiers import Name, Names, names_of, names_of_case, words_of_schema

MOST_OF_A_KIND = 20
"""Findings that are listed of one kind; how many more there are is said, too."""
MOST_FOLDERS = 3
"""A file name that so many folders of the source have, such as ``flair.nii.gz``, is no case's."""
_IMAGE = re.compile(
    r"(.+?)(?:_\d{4})?\.(?:nii(?:\.gz)?|png|jpe?g|tiff?|h5|hdf5|np[yz]|b2nd|pkl|mh[ad]|nrrd|dcm|img)",
    re.IGNORECASE,
)
"""An image file; its name without ending and number of a channel."""


@dataclass(frozen=True)
class Audit(Document):
    """What was found in a folder.

    Attributes:
        files: how many files were looked at, links and files that were not read among them.
        findings: a line each, naming the file, the place in it, and what was found. They quote what
            they found: keep them where the patients' names may be.
    """

    folder: str
    files: int
    findings: tuple[str, ...]


def audit_export(
    folder: Path,
    lineage: Lineage,
    *,
    sources: CaseSource | None = None,
    harmless: Collection[str] = (),
) -> Audit:
    """Look through every file of a folder that is to be handed on.

    Args:
        lineage: of what drew the samples; its ids, subjects and data sets are looked for.
        sources: the source: its held-out cases, files and folders are looked for, too.
        harmless: words that name nobody, though some folder or user is called so. Names of channels
            and labels of ``sources`` are taken for harmless.

    Raises:
        UsageFault: nothing is in it.
        EnvironmentFault: a file may not be read.
        DataFault: there is no such folder.
    """
    if not folder.is_dir():
        raise DataFault(f"{folder}: no such folder, expected one that is to be handed on")
    paths = sorted(folder.rglob("*"))
    files = [path for path in paths if path.is_symlink() or not path.is_dir()]
    if not files:
        raise UsageFault(f"{folder}: holds no files, expected an export; name another folder")
    wanted = [*names_of(lineage), *_this_machine()]
    if sources is not None:
        wanted += _names_of_source(sources, folder.resolve())
        harmless = (*harmless, *words_of_schema(sources.schema))
    names, findings = Names(wanted, harmless), list[Finding]()
    for path in paths:
        look_at(path, Look(str(path.relative_to(folder)), names, findings))
    return Audit(folder.resolve().name, len(files), tuple(_listed(findings)))


def audit_exported(
    folder: Path,
    *,
    run: Path | None = None,
    bank: Path | None = None,
    sources: CaseSource | None = None,
) -> Audit:
    """The same for what a run or a bank has drawn: lineage and source are looked up there.

    Args:
        run: run folder; its source is opened unless ``sources`` is given.
        bank: folder of a bank, which does not know its source: name it by ``sources`` to have
            its held-out cases, files and folders looked for.
        sources: the source, if it is open already.

    Raises:
        UsageFault: neither run nor bank, or both; or as ``audit_export``.
        GansynthError: what opening the source raises.
    """
    if (run is None) == (bank is None):
        raise UsageFault(
            f"{folder}: expected either a run or a bank that drew it; name one of them"
        )
    from gansynth.bank.spec import load_spec
    from gansynth.core.run_folder import own_request, read_manifest
    from gansynth.sampling.opening import open_source

    if bank is not None:
        spec = load_spec(bank)
        words = (*words_of_schema(spec.schema), spec.run_id)
        return audit_export(folder, spec.lineage, sources=sources, harmless=words)
    assert run is not None
    manifest = read_manifest(run)
    if sources is None:
        sources = open_source(own_request(run, manifest))
    words = words_of_schema(Schema.from_json(manifest["schema"]))
    words = (*words, str(manifest["generator"]), str(manifest["run_id"]))
    lineage = Lineage.from_json(manifest["lineage"])
    return audit_export(folder, lineage, sources=sources, harmless=words)


def _names_of_source(source: CaseSource, export: Path) -> Iterator[Name]:
    """Its cases, held-out ones too, its image files, and the folders that lead to them."""
    for case_id in (*source.train_ids, *source.held_out_ids):
        yield from names_of_case(case_id, source.subject(case_id))
    homes = defaultdict[str, set[Path]](set)
    for place in source.places:
        for path in (place, *place.rglob("*")):
            image = _IMAGE.fullmatch(path.name)
            if image and export not in path.resolve().parents:  # which may lie in the source
                homes[image[1]].add(path.parent)
    yield from (Name(stem, "file") for stem, at in homes.items() if len(at) < MOST_FOLDERS)
    request = source.request
    texts = (request.where, request.root, request.subjects, *request.read.values())
    written = [text.rpartition(":")[2] for text in texts if text]
    for place in (*source.places, *(Path(text) for text in written if os.path.isabs(text))):
        for part in Path(os.path.abspath(place)).parts[1:]:
            yield Name(part, "folder")


def _this_machine() -> Iterator[Name]:
    """The user and the machine."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        yield Name(getpass.getuser(), "user")
    with contextlib.suppress(RuntimeError):
        yield Name(Path.home().name, "user")
    if node := platform.node():
        yield Name(node, "machine")


def _listed(findings: Iterable[Finding]) -> Iterator[str]:
    """A line each; of many that differ in names and numbers alone the first ones."""
    kinds: dict[str, dict[str, str]] = {}
    for finding in findings:
        kind = re.sub(r"'[^']*'|\d+", "#", finding.said)
        kinds.setdefault(kind, {})[str(finding)] = finding.file
    for lines in kinds.values():
        yield from itertools.islice(lines, MOST_OF_A_KIND)
        if (more := len(lines) - MOST_OF_A_KIND) > 0:
            files = len(set(lines.values()))
            yield f"{more} more findings like the last one, {files} file(s) in all"
