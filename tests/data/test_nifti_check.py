import contextlib
import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.core.synthetic import marked
from gansynth.runtime.errors import GansynthError
from tests.data.sets import AFFINE, SHAPE, SIDES, check, only, opened, pair, save
from tests.data.sets import lesion as labels
from tests.data.sets import volume as image
from tests.expected import raises_fault
from tests.heads import head

IMAGE, LABEL = "images/p1_r_0001.nii.gz", "labels/p1_r.nii.gz"
FILES = ("images/{}_0000.nii.gz", "images/{}_0001.nii.gz", "labels/{}.nii.gz")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def header(offset: int, form: str, *values: Any, every: bool = False) -> Callable[[Path], None]:
    """Change the header of a file, or of every file of the data set alike."""

    def change(path: Path) -> None:
        for file in path.parents[1].rglob("*.nii.gz") if every else [path]:
            data = bytearray(gzip.decompress(file.read_bytes()))
            struct.pack_into(form, data, offset, *values)
            file.write_bytes(gzip.compress(bytes(data), 1))

    return change


def not_finite(path: Path) -> None:
    array = image()
    array[0, 0, :3] = np.nan, np.nan, np.inf
    save(path, array)


PIXDIM, SLOPE, UNITS, CODES, SROW_X = 80, 112, 123, 252, 280  # bytes of a header
FIRST = "labels/p1_l.nii.gz"
Fault = tuple[str, Callable[[Path], Any], str]
ERRORS: dict[str, Fault] = {
    "truncated": (IMAGE, halve, "truncated at byte"),
    "nan": (IMAGE, not_finite, "2 NaN and 1 infinite voxel(s)"),
    "shape": (IMAGE, lambda p: save(p, image()[1:]), "shape is (5, 7, 8), but (6, 7, 8) in p1_"),
    "affine": (IMAGE, lambda p: save(p, image(), AFFINE * 1.01), "affine differs"),
    "missing channel": (IMAGE, Path.unlink, "missing, expected for case 'p1_r'"),
    "missing labels": (LABEL, Path.unlink, "missing, expected for case 'p1_r'"),
    "2D": (IMAGE, lambda p: save(p, image()[..., 0]), "image is 2D of shape (6, 7), expected 3D"),
    "4D": (IMAGE, lambda p: save(p, np.stack([image()] * 2, -1)), "image is 4D"),
    "fraction": (LABEL, lambda p: save(p, labels() / np.float32(2)), "[0.5] are no labels"),
    "negative": (LABEL, lambda p: save(p, labels().astype("i2") - 1), "[-1] are no labels"),
    "image as labels": (LABEL, lambda p: save(p, image()), "different values from"),
    "labels + 1": (LABEL, header(SLOPE, "<2f", 1, 1), "scl_inter 1, which"),
    "labels x 2": (LABEL, header(SLOPE, "<2f", 2, 0), "scl_slope is 2 and"),
    "labels + 1 in ITK": (LABEL, header(SLOPE, "<2f", 0, 1), "scl_slope is 0"),
    "two endings": (
        IMAGE,
        lambda p: p.with_suffix("").write_bytes(gzip.decompress(p.read_bytes())),
        "there is p1_r_0001.nii too",
    ),
}  # fmt: skip
WARNINGS: dict[str, Fault] = {
    "even": (IMAGE, lambda p: save(p, np.full(SHAPE, 7, np.int16)), "every voxel is 7"),
    "no lesion": (LABEL, lambda p: save(p, labels() * 0), "no foreground, only backg"),
    "sheared": (
        FIRST, header(SROW_X, "<4f", 1, 0.2, 0, 0, every=True), "two axes meet at 78.7 degrees"
    ),
    "no orientation": (FIRST, header(CODES, "<2h", 0, 0, every=True), "read with x to the left"),
    "micrometres": (
        FIRST, header(UNITS, "B", 3, every=True), "read as voxels of 0.001 x 0.001 x 0.002 mm"
    ),
    "metres": (FIRST, header(UNITS, "B", 1, every=True), "of 1000 x 1000 x 2000 mm"),
    "sform without scales": (
        FIRST, header(PIXDIM, "<3f", 1.5, 1.5, 10, every=True), "and 1.5 x 1.5 x 10 mm by its pixd"
    ),
    "qform": (
        LABEL, header(CODES, "<2h6f", 1, 2, 0, 0, 0, 5, 0, 0), "by its qform it lies up to 5 mm"
    ),
}  # fmt: skip


@pytest.mark.fault(1, of="truncated")
@pytest.mark.fault(6, of="nan")
@pytest.mark.fault(7, of="even|no lesion")
@pytest.mark.fault(9, of="shape|affine")
@pytest.mark.fault(10, of="fraction|negative|as labels|labels . ")
@pytest.mark.fault(11, of="missing")
@pytest.mark.fault(14, of="2D|4D")
@pytest.mark.parametrize("fault", [*ERRORS, *WARNINGS])
def test_a_fault_is_one_error_or_warning_that_names_the_file(pairs, fault):
    name, spoil, said = (ERRORS | WARNINGS)[fault]
    spoil(pairs / name)
    finding = only(pairs)
    assert finding.level == ("warning" if fault in WARNINGS else "error")
    assert finding.message.startswith(str(pairs / name))
    assert said in finding.message
    read_ = pytest.raises(GansynthError) if finding.level == "error" else contextlib.nullcontext()
    with read_:  # a source refuses the same, and no more
        source = opened(pairs)
        list(map(source.load, (*source.train_ids, *source.held_out_ids)))


@pytest.mark.fault(1, 6, 10, 11)
def test_all_faults_are_found_in_one_pass(pairs):
    names = ("p1_l_0000", "p1_l_0001", "p1_r_0001", "p2_l_0000", "p2_r")
    halve(pairs / f"images/{names[0]}.nii.gz")
    not_finite(pairs / f"images/{names[1]}.nii.gz")
    (pairs / IMAGE).unlink()
    not_finite(pairs / f"images/{names[3]}.nii.gz")
    save(pairs / f"labels/{names[4]}.nii.gz", labels().astype("i2") - 1)
    found = {(f.case, Path(f.file).name) for f in check(pairs).findings}
    assert found == {(name[:4], f"{name}.nii.gz") for name in names}


def test_a_label_map_with_a_last_axis_of_one_is_a_volume(pairs):
    save(pairs / LABEL, labels()[..., None])
    assert list(check(pairs).findings) == []


def test_labels_that_are_named_are_kept_to(pairs):
    finding = only(pairs, labels="organ:1,other:2,third:3")
    assert (finding.level, "[3] occur in no case" in finding.message) == ("warning", True)
    save(pairs / LABEL, labels() * 3)
    messages = [f.message for f in check(pairs, labels="organ:1,other:2").findings]
    assert len(messages) == 1
    assert "label value(s) [3, 6] are not in --read labels, expected among [0, 1, 2]" in messages[0]


@pytest.mark.fault(10)
def test_a_gap_in_labels_is_an_error_unless_they_are_named(pairs):
    for number, case in enumerate(SIDES):
        save(pairs / f"labels/{case}.nii.gz", labels() * (2 if number else 1))
    message = only(pairs).message
    assert "label values are [0, 1, 2, 4]" in message
    assert f"4 is in {pairs}/labels/{SIDES[1]}.nii.gz" in message
    assert not check(pairs, labels="organ:1,other:2,third:4").findings


def test_a_label_of_held_out_cases_alone_is_an_error_until_it_is_named(pairs):
    held_out = opened(pairs).held_out_ids[0]
    drawn = labels().copy()
    drawn[0, 0, 0] = drawn.max() + 1
    save(pairs / "labels" / f"{held_out}.nii.gz", drawn)
    message = only(pairs).message
    assert f"fold 0 holds out case {held_out!r} with label" in message
    named = message.partition("--read labels='")[2].rstrip("'")
    assert check(pairs, labels=named).findings == []
    assert opened(pairs, labels=named).load(held_out).labels.max() == drawn.max()


def test_255_beside_other_labels_is_proposed_as_ignored_and_the_proposal_is_taken(pairs):
    for case in SIDES:
        drawn = labels()
        drawn[0] = 255
        save(pairs / f"labels/{case}.nii.gz", drawn)
    proposed = only(pairs).message.partition("--read labels=")[2].strip("'")
    assert "ignore:255" in proposed
    assert not check(pairs, labels=proposed).findings


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Case;Image;Label", ";images\\{0}_0000.nii.gz;labels\\{0}.nii.gz"),
        ("case, image, label", ', "images/{0}_0000.nii.gz", "labels/{0}.nii.gz"'),
        ("CASE\timage\tLABEL", "\timages/{0}_0000.nii.gz\tlabels/{0}.nii.gz"),
    ],
)
def test_a_manifest_is_read_as_spreadsheets_save_it(pairs, text, paths):
    path = pairs / "cases.csv"
    lines = [text, *(case + paths.format(case) for case in SIDES)]
    path.write_text("\r\n".join(lines), "utf-8-sig")
    assert not check(path).findings
    assert opened(path).schema.foreground


def test_a_row_that_leads_out_is_told_first(pairs):
    path = pairs / "cases.csv"
    path.write_text("case,T1,label\n" + "".join(f"{c},/x/{c}.nii,/y/{c}.nii\n" for c in SIDES))
    said = {finding.message.rpartition("allow it: ")[2] for finding in check(path).findings}
    assert said == {"--read allow_absolute=yes"}


def test_files_that_gansynth_made_are_told(pairs):
    for file in (pairs / "images").iterdir():
        marked(nib.Nifti1Image.from_filename(file)).to_filename(file)
    finding = only(pairs)
    assert (finding.level, "--synthetic-source RUN" in finding.message) == ("warning", True)


def test_nearly_identical_cases_are_both_named(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        image = np.kron(rng.normal(size=(6, 6, 6)), np.ones((5, 5, 5))) + rng.normal(size=(30,) * 3)
        drawn = np.zeros(image.shape, np.uint8)
        drawn[9:12, 9:12, 9:12] = 1
        for case in (f"p{number}", "copy")[: 1 + (number == 2)]:
            noise = rng.normal(0, 0.1, image.shape) * (case == "copy")
            save(tmp_path / f"images/{case}.nii.gz", (image + noise).astype(np.float32))
            save(tmp_path / f"labels/{case}.nii.gz", drawn)
    message = only(tmp_path, folds="2").message
    for case in ("p2", "copy"):
        assert f"{tmp_path}/images/{case}.nii.gz" in message
    table = "case,subject\ncopy,p2\n" + "".join(f"p{n},p{n}\n" for n in range(4))
    (tmp_path / "subjects.csv").write_text(table)
    assert not check(tmp_path, folds="2").findings


@pytest.mark.fault(12)
def test_check_refuses_names_that_clash(pairs):
    for name in FILES:
        save(pairs / name.format("P1_r"), image() if "images" in name else labels())
    finding = only(pairs)
    assert finding.level == "error"
    assert "cases ['P1_r', 'p1_r'] differ in upper and lower case" in finding.message


def rows(pairs: Path, *more: str) -> Path:
    sides = zip(SIDES, ("train", "train", "train", "val", "test", "test"), strict=True)
    own = [f"{c},images/{c}_0000.nii.gz,labels/{c}.nii.gz,{c},{side}" for c, side in sides]
    (pairs / "cases.csv").write_text("\n".join(("case,T1,label,subject,split", *own, *more)))
    return pairs / "cases.csv"


@pytest.mark.fault(12, 19)
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"p1_l,{IMAGE},{LABEL},x,val", "case 'p1_l' occurs twice"),
        (f"f,{IMAGE},,x,val", "line 8: label is empty"),
        (f"f,{IMAGE},{LABEL},x,tset", "split is 'tset', expected train, val"),
        (f"f,{IMAGE},{LABEL},p1_l,val", "f and p1_l (subject p1_l)"),
        (f"f,../f.nii.gz,{LABEL},f,val", "leads out of"),
        (f"f,/etc/f.nii.gz,{LABEL},f,val", "leads out of"),
        (f"f,images/p1_r_0000.nii.gz,{LABEL},f,val", "cases f, p1_r have the same image"),
    ],
)
def test_each_wrong_row_of_a_manifest_is_one_error(pairs, row, said):
    finding = only(rows(pairs, row))
    assert finding.level == "error"
    assert said in finding.message


def test_the_same_image_is_found_however_it_is_stored(pairs):
    row = f"f,images/p1_r_0000.nii.gz,{LABEL},f,train"
    assert only(rows(pairs, row)).level == "warning"  # twice on one side
    save(pairs / "images/f_0001.nii.gz", pair("p1_l")[0][..., 0].astype(np.float64))
    row = f"f,images/f_0001.nii.gz,{LABEL},f,val"
    assert "cases f, p1_l have the same image" in only(rows(pairs, row)).message


@pytest.mark.fault(13)
def test_too_few_cases_are_an_error(pairs):
    path = rows(pairs)
    path.write_text(path.read_text().replace("val", "train").replace("test", "train"))
    assert "no case under val" in only(path).message
    for kept, words in (("p1_l", "expected at least 2"), ("", "no cases")):
        for file in pairs.rglob("*.nii.gz"):
            if not kept or not file.name.startswith(kept):
                file.unlink()
        finding = only(pairs)
        assert finding.level == "error"
        assert words in finding.message


@pytest.mark.fault(18, 24)
def test_cases_with_unusual_names_are_read(pairs):
    for case, name in zip(SIDES, ("ein fall", "脳-1", "Ünïcode", "a;rm -rf $HOME"), strict=False):
        for old in FILES:
            (pairs / old.format(case)).rename(pairs / old.format(name))
    assert not check(pairs).findings


@pytest.mark.fault(18)
def test_a_name_that_does_not_fit_a_line_is_shown_quoted(pairs):
    (pairs / IMAGE).rename(pairs / "images/b\nc_0001.nii.gz")
    messages = [f.message for f in check(pairs).findings]
    assert any(r"'images/b\nc_0001.nii.gz' holds '\n'" in message for message in messages)
    assert not any("\n" in message for message in messages)


def test_mixed_spacing_is_a_warning(pairs):
    for name in (IMAGE, "images/p1_r_0000.nii.gz"):
        save(pairs / name, image() + len(name), np.eye(4))
    save(pairs / LABEL, labels(), np.eye(4))
    assert (only(pairs).level, only(pairs).case) == ("warning", "p1_r")
    assert not check(pairs, spacing="native").findings


def test_a_manifest_that_is_no_json_stops_the_check(pairs):
    (pairs / "cases.json").write_text(json.dumps({"rows": []}))
    with raises_fault("listing.manifest-not-list"):
        check(pairs / "cases.json")


def test_slices_stored_as_volumes_are_checked_and_what_many_share_is_said_once(tmp_path, succeed):
    for number in range(9):
        drawn = head(number, 32)
        lesion = drawn.lesion * (number < 7)
        save(
            tmp_path / "images" / f"p{number}.nii.gz", (1000 * drawn.image[..., None]).astype("i2")
        )
        save(tmp_path / "labels" / f"p{number}.nii.gz", lesion[..., None].astype("u1"))
    told = succeed("check", f"nifti:{tmp_path}")
    (bare,) = [line for line in told.stdout.splitlines() if "no foreground" in line]
    assert bare.endswith("p7.nii.gz: no foreground, only background (2 files are so)")


def test_ct_that_would_be_read_as_mr_is_told_until_a_modality_is_said(pairs):
    for file in pairs.glob("images/*_0001.nii.gz"):
        hu = np.round(image([*file.name.encode()]) - 60).astype("i2")
        hu[:, :2] = -1000  # air
        save(file, hu)
    finding = only(pairs)
    assert finding.level == "warning"
    said = finding.cure["read"]["modality"]
    assert said == "mr,ct"
    assert f"--read modality={said}" in finding.message
    for modality in (said, "mr"):
        assert not check(pairs, modality=modality).findings


def phantoms(folder: Path, flipped: range) -> Path:
    """40 volumes with a bright box, of which some have flipped label maps."""
    for number in range(40):
        rng = np.random.default_rng(number)
        volume = 100 + 20 * gaussian_filter(rng.standard_normal((24,) * 3), 1)
        drawn = np.zeros(volume.shape, np.uint8)
        z, y, x = rng.integers(2, 10, 3)
        drawn[z : z + 8, y : y + 7, x : x + 6] = 1
        volume[drawn > 0] += 120
        drawn = drawn[::-1] if number in flipped else drawn
        save(folder / f"images/c{number:02}_0000.nii.gz", volume.astype(np.int16), np.eye(4))
        save(folder / f"labels/c{number:02}.nii.gz", drawn, np.eye(4))
    return folder


def test_flipped_label_maps_are_found_on_either_side_of_the_fold_by_any_number_of_processes(
    tmp_path, monkeypatch
):
    def looked(flipped: range, processes: int = 1) -> Any:
        monkeypatch.setattr("gansynth.data.check.processes_for", lambda *_: processes)
        return check(phantoms(tmp_path / f"{flipped}", flipped)).looked

    assert looked(range(0)) == ("", "")
    first, last = looked(range(24)), looked(range(16, 40))
    assert "flipped along x" in first.wrong
    assert "flipped along x" in last.wrong
    assert looked(range(16, 40), processes=2) == last


def test_processes_find_what_one_finds_in_the_same_order(pairs, monkeypatch):
    halve(pairs / "images/p1_l_0000.nii.gz")
    not_finite(pairs / IMAGE)
    save(pairs / "images/p2_l_0000.nii.gz", np.full(SHAPE, 7, np.int16))
    found = []
    for processes in (1, 3):
        monkeypatch.setattr("gansynth.data.check.processes_for", lambda *_, n=processes: n)
        found.append(check(pairs))
    assert len(found[0].findings) > 2
    assert found[0] == found[1]
