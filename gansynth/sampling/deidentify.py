"""Samples for sharing: uniform file dates, no source cases, no images of patients.

The source case of a sample is recorded in the run's folder instead, and stays there. The limits are
described in docs/sharing.md.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.run_folder import RunDescription, read_manifest
from gansynth.core.synthetic import marked
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.version import __version__
from gansynth.sampling.dataset_writer import write_provenance

if TYPE_CHECKING:
    from gansynth.core.schema import Sample
    from gansynth.runtime.progress import Reporter
    from gansynth.sampling.identifiers import Identifiers
    from gansynth.sampling.run import Run
    from gansynth.sampling.sampler import Sampler

TIME = 315_532_800
"""1980-01-01, in seconds since 1970: the date of shared files."""
REAL = frozenset({"lesion", "background", "image"})
"""A generator that heeds one of these keeps parts of real images (``Generator.conditioned_on``)."""


def check_new(out: Path) -> None:
    """Refuse a folder that is not empty.

    Raises:
        UsageFault: it is not, or is a file.
    """
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


def nifti_bytes(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """Return a gzipped NIfTI file in mm, marked as synthetic; the same voxels give the same bytes.

    Args:
        volume: (x, y, z).
        affine: (4, 4), voxel to mm.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(volume), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(marked(image).to_bytes(), 6, mtime=0)


def check_sharing(drawer: Sampler, out: Path) -> None:
    """Refuse to write samples into a folder for sharing.

    Raises:
        UsageFault: the folder is not empty, or samples would hold parts of real images.
    """
    check_new(out)
    refuse_real_images(drawer.run, "--deidentify", "leave --deidentify out, and keep them")


def shareable(run: Run, sample: Sample, names: Identifiers) -> dict[str, Any]:
    """Return the shareable part of a provenance: no case, no place, no edit's parameters."""
    provenance = sample.provenance
    document = {
        "sample": provenance["index"],
        "seed": provenance["seed"],
        "run": run.run_id,
        "generator": run.generator.name,
        "gansynth": __version__,
        "edits": [step["edit"] for step in provenance.get("edits", ())],
    }
    if provenance.get("class"):
        document["class"] = provenance["class"]
    if provenance.get("reject_reason"):
        document["reject_reason"] = names.blanked(provenance["reject_reason"])
    return document


def keep_origins(
    drawer: Sampler,
    out: Path,
    origins: Mapping[str, Mapping[str, Any]],
    reporter: Reporter | None = None,
) -> None:
    """Write into the run the source cases of the samples in a folder.

    Label maps that are unedited training cases are reported.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    write_provenance(record_of(drawer.run.folder, out), origins, drawer.lineage, out)
    conditioned = "labels" in drawer.run.generator.conditioned_on
    same = sum(map(unedited, origins.values())) if conditioned else 0
    if same and reporter is not None:
        reporter.warn(
            f"{out}: {same} of {len(origins)} label maps are training cases' own, not edited: they "
            "show a patient's anatomy. Draw with --edit, see: gansynth help sharing"
        )


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


def refuse_real_images(run: RunDescription, option: str, otherwise: str) -> None:
    """Refuse to share samples with parts of real images in them.

    In a chain, the given channels of one part are generated by another.

    Raises:
        UsageFault: with a hint.
    """
    folder, manifest = run.folder, run.manifest
    channels = () if "parts" in manifest else manifest["options"].get("given", ())
    if channels:
        raise UsageFault(
            f"{option}: the generator {folder} is given the channels {', '.join(channels)} of real "
            "cases, so its samples hold real images; expected one that draws all channels. Fit one "
            f"without 'given', or {otherwise}"
        )
    manifests = [manifest]
    manifests += [read_manifest(folder / "parts" / p["name"]) for p in manifest.get("parts", ())]
    conditioned_on = (
        frozenset[str]().union(*(document.get("conditioned_on", ()) for document in manifests))
        & REAL
    )
    if conditioned_on:
        does = "moves real cases" if conditioned_on == {"image"} else "puts lesions into real cases"
        raise UsageFault(
            f"{option}: the generator {folder} {does}, so its samples hold real images; expected "
            f"one that draws whole images. {otherwise[0].upper()}{otherwise[1:]}"
        )
