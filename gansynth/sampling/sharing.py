"""What is handed on: files of one date, samples without their cases, no image of a patient.

Which case a sample came from is written into the run's folder instead, and stays there. What this
cannot do is in docs/sharing.md.
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

from gansynth.core.run_folder import Described, read_manifest
from gansynth.core.synthetic import marked
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.version import __version__
from gansynth.sampling.dataset_writer import write_provenance

if TYPE_CHECKING:
    from gansynth.core.schema import Sample
    from gansynth.runtime.progress import Reporter
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.identifiers import Names
    from gansynth.sampling.run import Run

TIME = 315_532_800
"""1980-01-01, in seconds since 1970: the date of files that are to tell none."""
REAL = frozenset({"lesion", "background", "image"})
"""A generator that heeds one of these keeps parts of real images (``Generator.heeds``)."""


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageFault: it does, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageFault(
            f"-o {out}: exists already, expected a new folder: an export is never added to; choose "
            "another, or remove it"
        )


def forget_times(folder: Path) -> None:
    """Give a folder, and all that is in it, the same date: 1980-01-01.

    Raises:
        OSError: the disk refuses.
    """
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (TIME, TIME))


def nifti_bytes(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI file in mm, marked as synthetic: for the same voxels the same bytes, always.

    Args:
        volume: (x, y, z).
        affine: (4, 4), voxel to mm.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(volume), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(marked(image).to_bytes(), 6, mtime=0)


def check_sharing(drawer: SampleDrawer, out: Path) -> None:
    """Refuse to write samples into a folder that is to be handed on.

    Raises:
        UsageFault: the folder holds something, or samples would hold parts of real images.
    """
    check_new(out)
    refuse_real_images(drawer.run, "--for-sharing", "leave --for-sharing out, and keep them")


def shareable(run: Run, sample: Sample, names: Names) -> dict[str, Any]:
    """What is handed on of a sample's provenance: no case, no place, no edit's parameters."""
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
    if provenance.get("flaw"):
        document["flaw"] = names.blanked(provenance["flaw"])
    return document


def keep_origins(
    drawer: SampleDrawer,
    out: Path,
    origins: Mapping[str, Mapping[str, Any]],
    reporter: Reporter | None = None,
) -> None:
    """Write into the run which cases the samples of a folder came from.

    A reporter is told of label maps that are training cases' own.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    write_provenance(record_of(drawer.run.folder, out), origins, drawer.lineage, out)
    conditioned = "labels" in drawer.run.generator.heeds
    same = sum(map(unedited, origins.values())) if conditioned else 0
    if same and reporter is not None:
        reporter.warn(
            f"{out}: {same} of {len(origins)} label maps are training cases' own, not edited: they "
            "show a patient's anatomy. Draw with --edit, see docs/sharing.md"
        )


def unedited(provenance: Mapping[str, Any]) -> bool:
    """Whether the label map that was asked for is a training case's as it is."""
    return all(step["edit"] == "identity" for step in provenance.get("edits", ()))


def record_of(run: Path | None, out: Path) -> Path:
    """Where it is kept which cases the samples in a folder came from: in the run's own folder.

    Of a bank's samples, which have none, beside the folder.
    """
    apart = hashlib.sha256(os.path.abspath(out).encode()).hexdigest()[:8]
    name = f"{out.name}_{apart}.json"
    return out.with_name(f"gansynth_export_{name}") if run is None else run / "exports" / name


def refuse_real_images(run: Described, option: str, otherwise: str) -> None:
    """Refuse to hand on samples with parts of real images in them.

    In a chain, what one part is given another part has drawn.

    Raises:
        UsageFault: with the way out.
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
    heeds = frozenset[str]().union(*(document.get("heeds", ()) for document in manifests)) & REAL
    if heeds:
        does = "moves real cases" if heeds == {"image"} else "puts lesions into real cases"
        raise UsageFault(
            f"{option}: the generator {folder} {does}, so its samples hold real images; expected "
            f"one that draws whole images. {otherwise[0].upper()}{otherwise[1:]}"
        )
