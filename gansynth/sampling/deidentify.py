"""Samples for sharing: uniform file dates, no source cases, no images of patients.

Generators that declare to take real images are refused at once. Of all others every sample is
measured (``repeated_share``), and a few are searched for in the training cases. The source case of
a sample is recorded in the run's folder instead, and stays there. The limits are
described in docs/sharing.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.capabilities import REAL
from gansynth.core.run_folder import RunDescription, RunFolder
from gansynth.core.schema import Sample
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.version import __version__
from gansynth.sampling.copies import REPEATED, CopySearch
from gansynth.sampling.identifiers import names_in

if TYPE_CHECKING:
    from gansynth.core.lineage import Lineage
    from gansynth.core.schema import FloatArray
    from gansynth.core.source import CaseSource
    from gansynth.core.space import Space
    from gansynth.runtime.progress import Reporter

MOST_REPEATED = 0.02
"""Largest share of a real image's textured blocks that a sample for sharing may repeat."""
SEARCHED = 64  # samples of a folder that are searched for in all training cases
ALIKE = 0.99
"""Similarity from which such a sample is reported: docs/sharing.md has what was measured."""


def check_new(out: Path) -> None:
    """Refuse a folder that is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageFault(
            f"-o {out}: exists already, expected a new folder: an export is never added to; choose "
            "another, or remove it"
        )


class SharedSamples:
    """Watches the samples of a folder for sharing, and tells what its files may say of them.

    Args:
        out: the folder, for messages.
        source: the training cases, in the samples' space.
        space: the generator's own space, if known.
        lineage: whose names are removed from texts.
        maker: ``run`` and ``generator`` of the samples.
        record: the file that keeps their origins, outside of the folder.
        labels_given: whether label maps are training cases' own unless edited.
    """

    def __init__(
        self,
        out: Path,
        source: CaseSource,
        space: Space | None,
        lineage: Lineage,
        maker: Mapping[str, Any],
        record: Path,
        reporter: Reporter,
        labels_given: bool = False,
    ) -> None:
        self.out, self.source, self.space, self.reporter = out, source, space, reporter
        self.lineage, self.maker, self.record = lineage, maker, record
        self.labels_given, self.unedited = labels_given, 0
        self.names = names_in(lineage, source.schema)
        self.search, self.searched = CopySearch(), list[str]()

    def add(self, name: str, image: FloatArray, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Take a sample in the source's space; return the shareable part of its provenance.

        This has no case, no place, no edit's parameters.

        Raises:
            IntegrityFault: it repeats a real image, or nothing has measured whether it does.
        """
        if (share := provenance.get(REPEATED)) is None:
            raise IntegrityFault(
                f"{self.out}: {name} has no {REPEATED!r} in its provenance, which the producer of "
                "a frozen bank writes; expected it of every sample for sharing. Make the bank again"
            )
        if share > MOST_REPEATED:
            raise IntegrityFault(
                f"{self.out}: {name} repeats {share:.0%} of the textured blocks of a patient's "
                f"image that its condition shows, expected at most {MOST_REPEATED:.0%}; nothing is "
                "written. Fit a generator that draws whole images, or keep its samples"
            )
        if len(self.searched) < SEARCHED:
            self.searched.append(name)
            self.search.add(image)
        edits = provenance.get("edits", ())
        self.unedited += all(step["edit"] == "identity" for step in edits)
        told = {key: provenance[key] for key in ("class", "reject_reason") if provenance.get(key)}
        return {
            "sample": provenance.get("index"),
            "seed": provenance.get("seed"),
            **self.maker,
            "gansynth": __version__,
            "edits": self.names.blanked([step["edit"] for step in edits]),
            **self.names.blanked(told),
        }

    def finish(self, samples: int) -> None:
        """Search for some of the samples in all training cases; warn of copies, and of own maps."""
        space = self.space
        with self.reporter.task(len(self.source.train_ids), "compare") as bar:
            for case in map(self.source.load, self.source.train_ids) if self.searched else ():
                image = case.image
                if space is not None and space.grid == "resample":  # there and back, as samples
                    own = Sample(space.to_generator(case).image)
                    image = space.to_host(own, image.shape[1:]).image
                self.search.look_in(image)
                bar.advance(1)
        found = [
            f"{name} ({similarity:.3f})"
            for name, similarity in zip(self.searched, self.search.similarities(), strict=True)
            if similarity >= ALIKE
        ]
        if found:
            self.reporter.warn(
                f"{self.out}: {len(found)} of {len(self.searched)} samples searched for resemble "
                f"a place of a training case as copies do (from {ALIKE}): {', '.join(found[:3])}. "
                "Look at them before you share them, see: gansynth sample --nearest"
            )
        if self.labels_given and self.unedited:
            self.reporter.warn(
                f"{self.out}: {self.unedited} of {samples} label maps are training cases' own, "
                "not edited: they show a patient's anatomy. Draw with --edit, see: gansynth help "
                "sharing"
            )


def record_of(run: Path | None, out: Path) -> Path:
    """Return the file with the source cases of the samples in a folder, inside the run.

    Without a run (samples of a bank) it lies beside the folder.
    """
    apart = hashlib.sha256(os.path.abspath(out).encode()).hexdigest()[:8]
    name = f"{out.name}_{apart}.json"
    return out.with_name(f"gansynth_export_{name}") if run is None else run / "exports" / name


def real_parts(run: RunDescription) -> tuple[str, ...]:
    """Return what of real images a run's generator takes, by its manifest; sorted.

    In a chain, the given channels of one part are generated by another.
    """
    parts = [RunFolder(run.folder / "parts" / p["name"]) for p in run.manifest.get("parts", ())]
    takes = {each for part in parts for each in part.capabilities.takes} - {"channels"}
    return tuple(sorted(takes.union(run.capabilities.takes) & REAL))


def refuse_real_images(
    real: Collection[str] | None, maker: object, option: str, otherwise: str
) -> None:
    """Refuse to share samples with parts of real images in them.

    Args:
        real: ``real_parts`` of the generator; None if unknown.
        maker: its run, or the bank of its samples.
    """
    if real is None:
        does = "does not say whether its generator takes real images"
    elif "channels" in real:
        does = "is given channels of real cases, so its samples hold real images"
    elif real:
        does = "moves real cases" if set(real) == {"image"} else "puts lesions into real cases"
        does += ", so its samples hold real images"
    else:
        return
    raise UsageFault(
        f"{option}: {maker} {does}; expected a generator that draws whole images. "
        f"{otherwise[0].upper()}{otherwise[1:]}"
    )
