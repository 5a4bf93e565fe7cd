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

from gansynth.core.run_folder import RunDescription, read_manifest
from gansynth.core.schema import Sample
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.version import __version__
from gansynth.sampling.copies import REPEATED, CopySearch
from gansynth.sampling.dataset_writer import write_provenance

if TYPE_CHECKING:
    from gansynth.core.schema import FloatArray
    from gansynth.core.source import CaseSource
    from gansynth.core.space import Space
    from gansynth.runtime.progress import Reporter
    from gansynth.sampling.identifiers import Identifiers
    from gansynth.sampling.run import Run
    from gansynth.sampling.sampler import Sampler

TIME = 315_532_800  # 1980-01-01, in seconds since 1970: the date of shared files
REAL = frozenset({"lesion", "background", "image", "channels"})
"""A generator that heeds one of these keeps parts of real images (``Generator.conditioned_on``)."""
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


def forget_times(folder: Path) -> None:
    """Set the date of a folder and its content to 1980-01-01.

    Raises:
        OSError: a date cannot be set.
    """
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (TIME, TIME))


class SharedSamples:
    """Watches the samples of a folder for sharing; every writer of such a folder has one.

    Args:
        out: the folder, for messages.
        source: the training cases, in the samples' space.
        space: the generator's own space, if known.
        drawer: draws the samples; the source cases are then written into its run.
    """

    def __init__(
        self,
        out: Path,
        source: CaseSource,
        space: Space | None,
        reporter: Reporter,
        drawer: Sampler | None = None,
    ) -> None:
        self.out, self.source, self.space, self.reporter = out, source, space, reporter
        self.drawer = drawer
        self.origins: dict[str, Mapping[str, Any]] = {}
        self.search, self.searched = CopySearch(), list[str]()

    def add(self, name: str, image: FloatArray, provenance: Mapping[str, Any]) -> None:
        """Take a sample in the source's space, before it is written.

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
        self.origins[name] = provenance
        if len(self.searched) < SEARCHED:
            self.searched.append(name)
            self.search.add(image)

    def finish(self) -> None:
        """Search for some of the samples in all training cases, and warn of those found.

        Label maps that are unedited training cases are reported, too.
        """
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
        if (drawer := self.drawer) is None:
            return
        record = record_of(drawer.run.folder, self.out)
        write_provenance(record, self.origins, drawer.lineage, self.out)
        conditioned = "labels" in drawer.run.generator.conditioned_on
        if same := sum(map(unedited, self.origins.values())) if conditioned else 0:
            self.reporter.warn(
                f"{self.out}: {same} of {len(self.origins)} label maps are training cases' own, "
                "not edited: they show a patient's anatomy. Draw with --edit, see: gansynth help "
                "sharing"
            )


def check_sharing(drawer: Sampler, out: Path, option: str, reporter: Reporter) -> SharedSamples:
    """Refuse to write samples into a folder for sharing; else return what watches them."""
    check_new(out)
    run = drawer.run
    refuse_real_images(real_parts(run), run.folder, option, f"leave {option} out, and keep them")
    return SharedSamples(out, drawer.source, run.space, reporter, drawer)


def shareable(run: Run, sample: Sample, names: Identifiers) -> dict[str, Any]:
    """Return the shareable part of a provenance: no case, no place, no edit's parameters."""
    provenance = sample.provenance
    document = {
        "sample": provenance["index"],
        "seed": provenance["seed"],
        "run": run.run_id,
        "generator": run.generator.name,
        "gansynth": __version__,
        "edits": names.blanked([step["edit"] for step in provenance.get("edits", ())]),
    }
    told = {key: provenance[key] for key in ("class", "reject_reason") if provenance.get(key)}
    return {**document, **names.blanked(told)}


def unedited(provenance: Mapping[str, Any]) -> bool:
    """Return whether the requested label map is a training case's, unchanged."""
    return all(step["edit"] == "identity" for step in provenance.get("edits", ()))


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
    parts = [read_manifest(run.folder / "parts" / p["name"]) for p in run.manifest.get("parts", ())]
    heeded = {name for part in parts for name in part.get("conditioned_on", ())} - {"channels"}
    return tuple(sorted(heeded.union(run.manifest.get("conditioned_on", ())) & REAL))


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
