"""A case is known by what its files hold, and no other case by that.

That it is the same on every machine, ``tests/test_same_bits.py`` has.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gansynth.core.lineage import CaseRecord, Lineage, other_records
from gansynth.core.schema import content_hash
from gansynth.core.source import (
    case_content,
    case_record,
    comparable_records,
    is_recorded,
)
from gansynth.sampling.run_source import open_source
from tests.data import sets
from tests.flat_sets import pictures


def changed(path: Path) -> None:
    """Change one voxel of an image or a label map, or the first box of a list."""
    if path.suffix == ".gz":
        image: Any = nib.load(path)
        array = np.asanyarray(image.dataobj).copy()
        middle = tuple(n // 2 for n in array.shape[:3])
        array[middle] = np.where(array[middle] == 1, 0, 1)
        nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
    elif path.suffix == ".png":
        pixels = np.array(Image.open(path))
        middle = tuple(n // 2 for n in pixels.shape[:2])
        pixels[middle] = np.where(pixels[middle] == 1, 0, 1)
        Image.fromarray(pixels).save(path)
    else:
        label, *box = path.read_text().split()[:5]
        others = path.read_text().splitlines()[1:]
        path.write_text("\n".join([" ".join([label, *box[:3], f"{float(box[3]) * 0.9}"]), *others]))


@pytest.mark.parametrize("kind", ["nifti", "msd", "pictures", "slices", "yolo", "deepmedic"])
def test_one_voxel_label_or_box_makes_another_case(kind, tmp_path):
    asked = sets.KINDS[kind](tmp_path)
    asked = replace(asked, read={**asked.read, **sets.RESAMPLED[kind]})

    def contents() -> dict[str, str]:
        source = open_source(asked)
        return {i: case_content(source, i) for i in (*source.train_ids, *source.held_out_ids)}

    before = contents()
    files = [
        *tmp_path.rglob("*.nii.gz"),
        *tmp_path.rglob("*.png"),
        *tmp_path.rglob("labels/**/*.txt"),
    ]
    for path in filter(lambda path: path.stat().st_size, files):
        stored = path.read_bytes()
        changed(path)
        after = contents()
        path.write_bytes(stored)
        assert any(after[i] != before[i] for i in before.keys() & after.keys()), path
    assert files


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, "same"),
        ({"sha256": "of resampled arrays"}, "alike"),
        ({"sha256": "of resampled arrays", "prints": ()}, "other"),
        ({"sha256": "of other files", "as_stored": True}, "other"),
    ],
    ids=["kept arrays", "resampled", "another look", "of this version"],
)
def test_records_of_an_earlier_version_are_known_by_their_arrays_or_by_their_looks(
    change, same, tmp_path, monkeypatch
):
    monkeypatch.setattr("tests.flat_sets.SHAPE", (40, 48))
    source = open_source(pictures(tmp_path))
    case = source.load("p0_s0")
    of_arrays = content_hash(case.image, case.labels)
    prints = case_record(source, "p0_s0").prints
    record = replace(CaseRecord("p0_s0", "p0", of_arrays, prints=prints), **change)
    assert is_recorded(record, source, case_content(source, "p0_s0")) == same


def test_a_lineage_of_an_earlier_version_is_verified_by_arrays_or_looks(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.flat_sets.SHAPE", (40, 48))
    source = open_source(pictures(tmp_path, resize="36x44"))
    earlier = Lineage("pictures:ill", "0", (CaseRecord("p0_s0", "p0", "of arrays"),))
    found = comparable_records(earlier, source)
    elsewhere = [replace(record, sha256="of another machine", image="too") for record in found]
    assert list(other_records(elsewhere, found)) == []
    first, second, *others = elsewhere
    swapped = [replace(first, prints=second.prints), replace(second, prints=first.prints), *others]
    assert len(list(other_records(swapped, found))) == 2
