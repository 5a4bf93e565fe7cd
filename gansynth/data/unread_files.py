"""Files beside images that look like annotations, of formats that no kind of source reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gansynth.data.name_patterns import files_below

BOXES = "convert boxes to a text file for each image (gansynth help boxes has the form)"
VOLUMES = "convert them to NIfTI (.nii.gz)"
WAYS = {
    ".json": "of labelme, perhaps: convert them to COCO's JSON, which coco:FOLDER reads",
    ".xml": f"of Pascal VOC, perhaps: {BOXES}",
    ".csv": f"a table: name it if it lists files, as nifti:FILE.csv; {BOXES}",
    ".gif": "convert masks to PNG",
    ".npz": VOLUMES,
    ".npy": VOLUMES,
    ".mat": VOLUMES,
    ".h5": f"gansynth's own caches alone are read (h5:FILE); {VOLUMES}",
    ".hdf5": f"gansynth's own caches alone are read (h5:FILE); {VOLUMES}",
    ".nrrd": VOLUMES,
    ".mha": VOLUMES,
    ".mhd": VOLUMES,
    ".dcm": "convert each series with dcm2niix -z y",
}
"""Ending -> what may be done about such files."""
OWN = frozenset(
    {
        "dataset.json",
        "splits.json",
        "subjects.csv",
        "manifest.json",
        "provenance.json",
        "dataset_description.json",
        "participants.json",
        "gansynth.json",
        "lineage.json",
    }
)
"""Names of files that describe a data set."""


def unread_files(folder: Path) -> Iterator[str]:
    """Yield a line for each format of annotations, or of images, that is there and is not read."""
    found: dict[str, list[Path]] = defaultdict(list)
    with suppress(OSError):
        for _, path in files_below(folder):
            ending = path.suffix.lower()
            if ending in WAYS and path.name not in OWN:
                found[ending].append(path)
    for ending, files in sorted(found.items(), key=lambda item: -len(item[1])):
        yield (
            f"{folder}: {len(files)} {ending} file(s) are not read, such as {files[0]}: "
            f"{WAYS[ending]}"
        )
