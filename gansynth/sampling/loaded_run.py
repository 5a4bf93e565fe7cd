"""``gansynth.load``, and the run that it and ``gansynth.fit`` return."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.core.requests.base import function_of, method_of
from gansynth.core.requests.data import CacheRequest
from gansynth.core.requests.samples import DrawSection, SheetSection
from gansynth.runtime.progress import NullReporter, counting
from gansynth.sampling.request_checks import read_request

if TYPE_CHECKING:
    from gansynth.core.schema import Sample
    from gansynth.core.source import CaseSource
    from gansynth.sampling.manifest import Run
    from gansynth.sampling.sampler import Sampler


@with_checked_arguments
def load(
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
) -> FittedRun:
    """Open a run that ``gansynth.fit`` or ``gansynth fit`` wrote.

    Args:
        folder: of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.
        root: folder with the framework's own folders, if they were moved.

    Raises:
        GansynthError: there is no run, it has no weights yet, or they are damaged.
    """
    run = FittedRun(Path(folder), device=device, data=data, root=root)
    run.opened  # noqa: B018 - a fault shows now, not at the first sample
    return run


def write_cache(request: CacheRequest) -> tuple[dict[str, Any], CaseSource]:
    """Copy the cases of any source into one HDF5 file; also return the source.

    Without a file, tell what is kept of the cases, or remove it.
    """
    from gansynth.data.h5 import estimate, refuse_homeless, write_h5
    from gansynth.data.kinds import source_of
    from gansynth.sampling.run_source import open_source

    if request.out is None:
        source = open_source(source_of(request))
        return _kept(source, clear=request.clear), source
    path, dtype, chunk = Path(request.out), request.dtype, request.chunk
    refuse_homeless(path)
    source = open_source(source_of(request))
    if request.dry_run and not path.exists():
        return estimate(source, path, dtype=dtype, chunk=chunk), source
    with counting(request.reporter, "cache") as progress:
        report = write_h5(
            source,
            path,
            dtype=dtype,
            compression=request.compression,
            chunk=chunk,
            progress=progress,
        )
        return report, source


def _kept(source: CaseSource, *, clear: bool) -> dict[str, Any]:
    """Return the bytes that are kept of cases, by what they are; remove them if asked."""
    each = [source.store_of(case_id) for case_id in (*source.train_ids, *source.held_out_ids)]
    stores = [store for store in each if store is not None]
    kept: dict[str, int] = {}
    for store in stores:
        for what, size in store.sizes().items():
            kept[what] = kept.get(what, 0) + size
        if clear:
            store.clear()
    return {
        "data": source.name,
        "folders": sorted({str(store.folder.parent) for store in stores}),
        "kept": kept,
        "bytes": sum(kept.values()),
        "cleared": clear,
    }


def run_cache(request: CacheRequest) -> dict[str, Any]:
    """Copy the cases of any source into one HDF5 file that is fast to read: ``gansynth cache``.

    Returns:
        What ``--json`` prints: counts and bytes, of a dry run an estimate; without a file, what is
        kept of the cases.

    Raises:
        GansynthError: the file is another, a case cannot be read, or the disk is full.
    """
    return write_cache(request)[0]


cache = function_of(CacheRequest, run_cache)


class FittedRun(os.PathLike[str]):
    """A run folder: draws samples, shows them, and stands for its path everywhere."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        data: str | None = None,
        root: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder  # of the run
        self.report = dict(report or {})  # of the fit, empty for a run that was loaded
        self._device = device
        self._moved = (data, root)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"gansynth.load({str(self.folder)!r})"

    @cached_property
    def opened(self) -> Run:
        """The run with its generator, averaged weights loaded and checked."""
        from gansynth.sampling.open_run import load_run

        return load_run(self.folder, self._device)

    @cached_property
    def source(self) -> CaseSource:
        """The cases that the run was fitted on, held-out ones apart."""
        from gansynth.sampling.run_source import open_moved

        return open_moved(self.opened, *self._moved)

    def sampler(self, **words: Any) -> Sampler:
        """Return the sampler of a request in the words of ``sample``."""
        return self._sampler(DrawSection(**words))

    def _sampler(self, words: DrawSection) -> Sampler:
        from gansynth.sampling.open_run import refuse_below_size
        from gansynth.sampling.sampler import Sampler

        request = read_request(words, words.seed)
        refuse_below_size(self.opened, request)
        return Sampler(self.opened, self.source, request, NullReporter())

    def _sample(self, words: DrawSection) -> list[Sample]:
        """Generate labelled samples; the same seed gives the same ones.

        Arguments are as after ``gansynth sample``: ``edit="elastic"``, ``filter=["faithful"]``.

        Returns:
            Samples with ``image`` float32 (C, D, H, W), ``labels`` int16 (D, H, W) or None,
            ``boxes`` in voxels or None, and ``provenance``. Slices have no D.
        """
        return self._sampler(words).draw(0, words.n)

    def _sheet(self, words: SheetSection) -> Sheet:
        """Write a preview grid of samples beside the real cases of their labels.

        It shows patients. A notebook displays it. Arguments are as for ``sample``.
        """
        from gansynth.sampling.sample import write_sheet

        sampler = self._sampler(words)
        path = self.folder / "samples" / "sheet.png" if words.out is None else Path(words.out)
        return Sheet(write_sheet(path, sampler, sampler.draw(0, words.n)))

    sample = method_of(DrawSection, _sample)
    sheet = method_of(SheetSection, _sheet)

    def _repr_html_(self) -> str:
        """Return a table of facts for a notebook; no picture, which could be a patient's."""
        manifest = self.opened.manifest
        lineage = self.opened.lineage
        state = "complete" if manifest.get("complete") else "unfinished"
        seen = f"{lineage.dataset}, fold {lineage.fold}: {len(lineage.cases)} training case(s)"
        facts = {
            "run": self.folder,
            "generator": manifest["generator"],
            "state": state,
            "steps": manifest.get("steps"),
            "lineage": seen,
        }
        known = {key: escape(str(value)) for key, value in facts.items() if value}
        rows = [f"<tr><th>{key}</th><td>{text}</td></tr>" for key, text in known.items()]
        return f"<table>{''.join(rows)}</table>"


@dataclass(frozen=True)
class Sheet(os.PathLike[str]):
    """A preview grid in a PNG file, which a notebook displays."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()
