"""The audit of exports: it finds each kind of leak and nothing else, and nothing where none is."""

import gzip
import io
import json
import os
import platform
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gansynth.errors import DataFault, UsageFault
from gansynth.lineage import CaseRecord, Lineage
from gansynth.quality.identity import audit_export, audit_exported
from gansynth.quality.traces.names import Name, Names, marks
from gansynth.sharing import forget_times
from gansynth.sources.nifti import open_nifti
from tests.quality.exported import (
    CASES,
    jpeg,
    made_up,
    picture,
    png,
    tarred,
    volume,
    write_clean,
    write_h5,
    write_source,
    zipped,
)

SCAN = "images/muster_02.nii.gz"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Any:
    return open_nifti(write_source(tmp_path_factory.mktemp("data") / "klinik_nord" / "gehirne"))


@pytest.fixture(scope="module")
def home(source) -> Path:
    return Path(source.request.where)


@pytest.fixture
def out(tmp_path) -> Path:
    return write_clean(tmp_path / "exported")


@pytest.fixture
def found(source, out) -> Callable[..., tuple[str, ...]]:
    """Findings in ``out``: all files get one time before, unless times are what it is about."""

    def look(*, forget: bool = True, sources: Any = source, **more: Any) -> tuple[str, ...]:
        if forget:
            forget_times(out)
        return audit_export(out, source.lineage(), sources=sources, **more).findings

    return look


def test_nothing_is_found_in_files_of_every_kind(source, out):
    audit = audit_export(out, source.lineage(), sources=source)
    assert audit.findings == ()
    files = sum(path.is_file() for path in out.rglob("*"))
    assert audit.to_json() == {"folder": "exported", "files": files, "findings": []}
    assert audit.compared == 4


# -- every kind of leak, and exactly it ------------------------------------------------------------


def meta(**texts: str) -> PngInfo:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return info


def chunk(kind: bytes, body: bytes) -> bytes:
    """The picture with a chunk before its end."""
    import zlib

    data = png()
    new = len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    return data[:-12] + new + data[-12:]


def named_gzip(name: str, comment: bool = False) -> bytes:
    plain = volume()
    flag = 16 if comment else 8
    return plain[:3] + bytes([flag]) + plain[4:10] + name.encode() + b"\0" + plain[10:]


def text_file(path: Path, text: str) -> None:
    path.write_text(text)


def saved(path: Path, **more: Any) -> None:
    Image.fromarray(picture()).save(path, **more)


EXIF = Image.Exif()
EXIF[0x010E] = "a head"
LEAKS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    # texts
    "json value": (
        lambda o: text_file(o / "a.json", json.dumps({"samples": [{"of": "muster_02"}]})),
        "a.json",
        "value of 'samples[0].of': names case 'muster_02'",
    ),
    "json key": (
        lambda o: text_file(o / "a.json", json.dumps({"beispiel_01": 3})),
        "a.json",
        "key 'beispiel_01': names case 'beispiel_01'",
    ),
    "json lines": (
        lambda o: text_file(o / "a.jsonl", '{"n": 1}\n{"n": "Muster-02"}\n'),
        "a.jsonl",
        "value of 'line 2.n': names case 'muster_02'",
    ),
    "subject": (
        lambda o: text_file(o / "a.txt", "first\nwritten by Beispiel, alone\n"),
        "a.txt",
        "line 2: names subject 'beispiel'",
    ),
    "table": (
        lambda o: text_file(o / "a.csv", "of,n\nx,1\nmuster_01,2\n"),
        "a.csv",
        "line 3, column 1: names case 'muster_01'",
    ),
    "yaml": (
        lambda o: text_file(o / "a.yaml", "from:\n  - muster_01_0000.nii.gz\n"),
        "a.yaml",
        "line 2: names case 'muster_01'",
    ),
    "utf-16": (
        lambda o: (o / "a.txt").write_bytes("of muster_01".encode("utf-16")),
        "a.txt",
        "line 1: names case 'muster_01'",
    ),
    "data set": (
        lambda o: text_file(o / "a.txt", "nifti:gehirne"),
        "a.txt",
        "line 1: names data set 'gehirne'",
    ),
    "folder": (
        lambda o: text_file(o / "a.txt", "scans of Klinik Nord"),
        "a.txt",
        "line 1: names folder 'klinik_nord'",
    ),
    "path": (
        lambda o: text_file(o / "a.json", json.dumps({"file": "/srv/pacs/7/x.nii"})),
        "a.json",
        "value of 'file': holds a path, '/srv/pacs/7/x.nii'",
    ),
    "path to a case": (
        lambda o: text_file(o / "a.txt", "at /klinik_nord/gehirne/muster_01.nii.gz"),
        "a.txt",
        "names data set 'gehirne'; names case 'muster_01'; "
        "holds a path, '/klinik_nord/gehirne/muster_01.nii.gz'",
    ),
    "windows path": (
        lambda o: text_file(o / "a.txt", r"from D:\pacs\x.nii"),
        "a.txt",
        "holds a path",
    ),
    "dicom identifier": (
        lambda o: text_file(o / "a.txt", "uid 1.2.840.113619.2.5.1762583153.215519"),
        "a.txt",
        "holds a DICOM identifier, '1.2.840.113619.2.5.1762583153.215519'",
    ),
    "dicom field": (
        lambda o: text_file(o / "a.json", json.dumps({"PatientBirthDate": "x"})),
        "a.json",
        "key 'PatientBirthDate': holds a DICOM field, 'PatientBirthDate'",
    ),
    # names
    "file name": (
        lambda o: (o / "muster_01_0000.nii.gz").write_bytes(volume()),
        "muster_01_0000.nii.gz",
        "name: names case 'muster_01'",
    ),
    "folder name": (
        lambda o: (o / "images" / "beispiel").mkdir(),
        "images/beispiel",
        "name: names subject 'beispiel'",
    ),
    "hidden file": (lambda o: text_file(o / ".notes", "x"), ".notes", "name: is hidden"),
    # links
    "link": (
        lambda o: (o / "x.png").symlink_to("/srv/x.png"),
        "x.png",
        "link: leads out of the folder, to '/srv/x.png'",
    ),
    "relative link": (
        lambda o: (o / "x.png").symlink_to("../elsewhere.png"),
        "x.png",
        "link: leads out of the folder",
    ),
    # NIfTI
    "descrip": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(descrip=b"TE=2.9;Time=123021.045")),
        "a.nii.gz",
        "NIfTI header, descrip: holds 'TE=2.9;Time=123021.045'",
    ),
    "aux_file": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(aux_file=b"muster_01")),
        "a.nii.gz",
        "NIfTI header, aux_file: holds 'muster_01', expected none; names case 'muster_01'",
    ),
    "db_name": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(db_name=b"MUSTER^ANNA")),
        "a.nii.gz",
        "NIfTI header, db_name: holds 'MUSTER^ANNA'",
    ),
    "intent_name": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(intent_name=b"x")),
        "a.nii.gz",
        "NIfTI header, intent_name",
    ),
    "extension": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(extension=b"of muster_01 ")),
        "a.nii.gz",
        "NIfTI header extension: has comment of 36 bytes, expected none; names case 'muster_01'",
    ),
    "slice time": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(slice_duration=0.083)),
        "a.nii.gz",
        "NIfTI header, slice_duration: is 0.083, expected 0",
    ),
    "range": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(cal_max=1234)),
        "a.nii.gz",
        "NIfTI header, cal_max: is 1234",
    ),
    "behind the voxels": (
        lambda o: (o / "a.nii").write_bytes(gzip.decompress(volume()) + b"muster_01 was here"),
        "a.nii",
        "after the voxels: 18 bytes, expected none; names case 'muster_01'",
    ),
    # gzip, zip, tar
    "gzip time": (
        lambda o: (o / "a.nii.gz").write_bytes(gzip.compress(b"1", mtime=1_600_000_000)),
        "a.nii.gz",
        "gzip header: has the time 1600000000",
    ),
    "gzip name": (
        lambda o: (o / "a.nii.gz").write_bytes(named_gzip("muster_01.nii")),
        "a.nii.gz",
        "gzip header: has the file name 'muster_01.nii', expected none; names case 'muster_01'",
    ),
    "gzip comment": (
        lambda o: (o / "a.nii.gz").write_bytes(named_gzip("hm", comment=True)),
        "a.nii.gz",
        "gzip header: has the comment 'hm'",
    ),
    "in a gzip": (
        lambda o: (o / "a.txt.gz").write_bytes(gzip.compress(b"muster_01", mtime=0)),
        "a.txt.gz",
        "line 1: names case 'muster_01'",
    ),
    "in a zip": (
        lambda o: (o / "a.zip").write_bytes(zipped({"b.zip": zipped({"c.txt": b"muster_01"})})),
        "a.zip",
        "line 1 of 'c.txt' in 'b.zip' in it: names case 'muster_01'",
    ),
    "zip entry": (
        lambda o: (o / "a.zip").write_bytes(zipped({"muster_01.txt": b"x"})),
        "a.zip",
        "zip entry: names case 'muster_01'",
    ),
    "tar owner": (
        lambda o: (o / "a.tar").write_bytes(tarred({"x.txt": b"x"}, uname="radiologin")),
        "a.tar",
        "tar entries: belong to 'radiologin', expected nobody",
    ),
    "npz": (
        lambda o: np.savez(o / "a.npz", of=np.array(["x", "muster_02"])),
        "a.npz",
        "array of 'of.npy' in it: names case 'muster_02'",
    ),
    # pictures
    "png text": (
        lambda o: saved(o / "a.png", pnginfo=meta(Comment="muster_01")),
        "a.png",
        "PNG chunk tEXt: holds 'Comment': 'muster_01', expected none; names case 'muster_01'",
    ),
    "png time": (
        lambda o: (o / "a.png").write_bytes(chunk(b"tIME", bytes([7, 228, 1, 2, 3, 4, 5]))),
        "a.png",
        "PNG chunk tIME: holds a time",
    ),
    "png exif": (
        lambda o: saved(o / "a.png", exif=EXIF),
        "a.png",
        "PNG chunk eXIf: holds EXIF data",
    ),
    "behind a png": (
        lambda o: (o / "a.png").write_bytes(png() + b"muster_01"),
        "a.png",
        "after the picture: 9 bytes of data; names case 'muster_01'",
    ),
    "jpeg exif": (
        lambda o: (o / "a.jpg").write_bytes(jpeg(exif=EXIF)),
        "a.jpg",
        "JPEG header: holds EXIF or XMP",
    ),
    "jpeg comment": (
        lambda o: (o / "a.jpg").write_bytes(jpeg(comment=b"muster_01")),
        "a.jpg",
        "JPEG header: holds a comment, expected none; names case 'muster_01'",
    ),
    "tiff": (
        lambda o: saved(o / "a.tif", tiffinfo={270: "of a head"}),
        "a.tif",
        "TIFF tag 270: holds 'of a head'",
    ),
    # arrays
    "hdf5 attribute": (
        lambda o: write_h5(o / "a.h5", attributes={"of": "muster_02"}),
        "a.h5",
        "HDF5 attribute 'of' of '/': names case 'muster_02'",
    ),
    "hdf5 texts": (
        lambda o: write_h5(o / "a.h5", texts={"ids": ["x", "muster_02"]}),
        "a.h5",
        "HDF5 data set '/ids': names case 'muster_02'",
    ),
    "hdf5 name": (
        lambda o: write_h5(o / "a.h5", texts={"muster_02": "x"}),
        "a.h5",
        "HDF5 name '/muster_02': names case 'muster_02'",
    ),
    "hdf5 json": (
        lambda o: write_h5(o / "a.h5", texts={"told": json.dumps({"case": "muster_02"})}),
        "a.h5",
        "value of \"HDF5 data set '/told'.case\": names case 'muster_02'",
    ),
    "safetensors": (
        lambda o: safetensors.numpy.save_file(
            {"a": np.zeros(2)}, o / "a.safetensors", {"fitted": "on muster_02"}
        ),
        "a.safetensors",
        "safetensors metadata 'fitted': names case 'muster_02'",
    ),
    # what nobody can look into
    "unknown kind": (
        lambda o: (o / "a.bin").write_bytes(bytes(range(256)) * 4),
        "a.bin",
        "content: of a kind that is not known here",
    ),
    "dicom": (
        lambda o: (o / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20)),
        "a.dcm",
        "content: a DICOM file",
    ),
    "damaged": (
        lambda o: (o / "a.nii.gz").write_bytes(volume()[:200]),
        "a.nii.gz",
        "content: cannot be looked into as gzip",
    ),
    "pickled": (
        lambda o: np.save(o / "a.npy", np.array([{}], object), allow_pickle=True),
        "a.npy",
        "content: cannot be looked into as npy",
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_and_nothing_else(found, out, leak):
    plant, file, says = LEAKS[leak]
    plant(out)
    (line,) = found(forget=leak not in ("link", "relative link"))
    assert line.startswith(f"{file}: ")
    assert says in line


def test_this_machine_and_its_user_are_found(found, out, monkeypatch):
    monkeypatch.setenv("LOGNAME", "dr_beate_wolf")
    monkeypatch.setattr(platform, "node", lambda: "radiologie17")
    (out / "a.txt").write_text("by dr_beate_wolf\non radiologie17.klinik.example\n")
    assert found() == (
        "a.txt: line 1: names user 'dr_beate_wolf'",
        "a.txt: line 2: names machine 'radiologie17'",
    )


def test_the_hash_of_a_case_is_as_good_as_its_name(found, out, source):
    (out / "a.json").write_text(json.dumps({"seen": source.lineage().cases[0].sha256}))
    (line,) = found()
    assert "names content hash of a case" in line


def test_held_out_cases_are_looked_for_too(out, home):
    split = [{"train": list(CASES[:2]), "val": list(CASES[2:])}]
    (out.parent / "splits.json").write_text(json.dumps(split))
    read = {"splits": str(out.parent / "splits.json")}
    source = open_nifti(replace(write_source(home), fold="0", read=read))
    assert "beispiel_02" in source.held_out_ids
    (out / "a.txt").write_text("beispiel_02")
    (line,) = audit_export(out, source.lineage(), sources=source).findings
    assert "names case 'beispiel_02'" in line


def test_what_was_deleted_from_an_hdf5_file_is_still_in_it(found, out):
    write_h5(out / "a.h5", texts={"ids": "of muster_02"})
    with h5py.File(out / "a.h5", "a") as file:
        del file["ids"]
    assert found() == ("a.h5: HDF5 file, unused bytes: names case 'muster_02'",)


def test_times_of_zip_entries_are_found(found, out):
    with zipfile.ZipFile(out / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x.txt", (2020, 1, 2, 3, 4, 6)), "x")
    assert found() == ("a.zip: zip entries: have times, expected none (1980-01-01)",)


# -- compared with the source ----------------------------------------------------------------------


def stored(home: Path, name: str = SCAN) -> Any:
    return nib.load(home / name)


def test_a_real_file_among_them_is_found_by_its_bytes(found, out, home):
    (out / "sample-0099.nii.gz").write_bytes((home / SCAN).read_bytes())
    (line,) = found()
    said = "is the source's muster_02.nii.gz, byte for byte: a real case"
    assert line == f"sample-0099.nii.gz: content: {said}"


def test_a_hard_link_is_found(found, out, home):
    try:
        os.link(home / SCAN, out / "sample-0099.nii.gz")
    except OSError:
        pytest.skip("no hard links between these folders")
    lines = found(forget=False)
    assert "is the source's muster_02.nii.gz itself, by another name (a hard link)" in lines[0]
    assert sum("byte for byte" in line for line in lines) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: a.transpose(2, 0, 1)[::-1],
        lambda a: ((a - 70.5) / 13).astype(np.float32),
    ],
    ids=["saved anew", "turned and mirrored", "rescaled"],
)
@pytest.mark.parametrize("kind", ["nii.gz", "npy", "h5"])
def test_a_real_image_is_found_however_it_is_written(found, out, home, change, kind):
    image = np.ascontiguousarray(change(np.asarray(stored(home).dataobj)))
    if kind == "h5":
        write_h5(out / "a.h5", image=np.stack([made_up(shape=image.shape), image]))
    elif kind == "npy":
        np.save(out / "a.npy", image)
    else:
        (out / "a.nii.gz").write_bytes(volume(image))
    (line,) = found()
    assert line.startswith(f"a.{kind}: ")
    assert line.endswith("the image of case 'muster_02': a real case, not a synthetic one")


def test_a_slice_of_a_real_image_is_found_in_a_picture(found, out, home):
    plane = np.asarray(stored(home).dataobj)[:, :, 3]
    Image.fromarray(plane.astype(np.uint8)).save(out / "a.png")
    (line,) = found()
    assert "pixels: show the image of case 'muster_02'" in line


def test_images_are_compared_with_files_where_no_source_is_open(found, out, home, source):
    (out / "a.nii.gz").write_bytes(volume(np.asarray(stored(home).dataobj)))
    (line,) = found(sources=None, request=source.request)
    assert "show the image of the source's muster_02.nii.gz" in line


def test_label_maps_are_not_compared(found, out, home):
    labels = np.asarray(stored(home, "labels/muster_01.nii.gz").dataobj)
    (out / "a.nii.gz").write_bytes(volume(labels))
    assert found() == ()


def test_the_position_of_a_scan_is_found_to_the_bit(found, out, home):
    affine = np.eye(4)
    affine[:3, 3] = stored(home).affine[:3, 3]
    (out / "a.nii.gz").write_bytes(volume(affine=affine))
    (line,) = found()
    assert "has the origin of the source's muster_02.nii.gz, to the bit" in line


def test_the_orientation_of_a_scan_is_found_too(found, out, home):
    affine = stored(home).affine.copy()
    affine[:3, 3] = 0
    (out / "a.nii.gz").write_bytes(volume(affine=affine))
    (line,) = found()
    assert "has the orientation of the source's muster_02.nii.gz" in line


def test_a_position_that_is_nobodys_is_no_finding(found, out):
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    affine[:3, 3] = (90, 126, -72)
    (out / "a.nii.gz").write_bytes(volume(affine=affine))
    assert found() == ()


def test_a_position_that_all_scans_have_tells_nothing(tmp_path, out):
    request, affine = write_source(tmp_path / "template"), np.eye(4)
    affine[:3, 3] = (-90, -126, -72)
    for path in Path(request.where).rglob("*.nii.gz"):
        image: Any = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    source = open_nifti(request)
    (out / "a.nii.gz").write_bytes(volume(affine=affine))
    forget_times(out)
    assert audit_export(out, source.lineage(), sources=source).findings == ()


# -- times -----------------------------------------------------------------------------------------


def test_the_time_of_a_scan_is_found(found, out, home):
    forget_times(out)
    when = (home / SCAN).stat().st_mtime_ns
    os.utime(out / "readme.txt", ns=(when, when))
    (line,) = found(forget=False)
    assert line.startswith("readme.txt: file time: is that of the source's muster_02.nii.gz")


def test_times_in_another_order_than_names_are_found(found, out):
    forget_times(out)
    for place, number in enumerate((2, 0, 3, 1)):
        os.utime(out / "images" / f"sample-{number:04d}.png", (0, 10**9 + place))
    (line,) = found(forget=False)
    assert line.startswith("images/sample-0000.png: file times: 4 files like it in 'images'")


def test_files_written_one_after_the_other_tell_nothing(found, out):
    forget_times(out)
    for place in range(4):
        os.utime(out / "images" / f"sample-{place:04d}.png", (0, 10**9 + place))
    assert found(forget=False) == ()


# -- words, short ones and harmless ones -----------------------------------------------------------

KNOWN = [
    Name(text, "case") for text in ("1", "004", "p1", "p1_left", "123456", "ab7", "sample-0003")
]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("image 1 of 004, p1", []),
        ("sample-0004 sample-0003 1.004", []),
        ("see p1_left_0000.nii.gz", ["p1_left"]),
        ("P1-LEFT", ["p1_left"]),
        ("p1_lefty xp1_left p1left p1__left", []),
        ("value 0.123456 and 123456.5", []),
        ("no 123456, then", ["123456"]),
        ("ab7 ab70 xab7", ["ab7"]),
    ],
)
def test_names_are_whole_words(text, wanted):
    assert [name.text for name in Names(KNOWN).within(text)] == wanted


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("case", "004", ["004"]),
        ("patientID", "p1", ["p1"]),
        ("subjects", "1", ["1"]),
        ("index", "1", []),
        ("id", "004", []),
        ("case", "0040", []),
    ],
)
def test_short_names_count_as_the_value_of_a_key_that_says_so(key, value, wanted):
    assert [name.text for name in Names(KNOWN).valued(key, value)] == wanted


@pytest.mark.parametrize("file", ["a.json", "a.csv", "a.yaml"])
def test_short_names_are_found_in_files_by_their_keys(out, file):
    lineage = Lineage("x", "0", (CaseRecord("004", "4", "0" * 64),))
    said = {"a.json": '{"case": "004"}', "a.csv": "case,n\n004,1\n", "a.yaml": "case: '004'\n"}
    (out / file).write_text(said[file])
    (line,) = audit_export(out, lineage).findings
    assert line.endswith("names case '004'")


def test_folders_need_longer_names_than_patients():
    names = Names([Name("roi", "folder"), Name("roy", "subject")])
    assert [name.text for name in names.within("roi and roy")] == ["roy"]


def test_words_of_the_schema_and_of_exports_name_nobody():
    names = Names([Name("organ", "folder"), Name("images", "folder")], harmless=["Organ"])
    assert names.within("organ images") == []


def test_longer_names_hide_shorter_ones_in_them():
    names = Names([Name("muster", "subject"), Name("muster_01", "case")])
    assert [str(name) for name in names.within("muster_01 muster")] == [
        *("case 'muster_01'", "subject 'muster'")
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("1/2/3", "and/or/else", "https://example.org/a/b", "</b></i>", "image/png", "12:30/a"),
        *("1.2.3", "2.10.0+cpu", "0.5%:99.5%", "#/definitions/x", "images/synth/a.png", "~ 5"),
    ],
)
def test_what_only_looks_like_a_path_or_an_identifier_is_none(text):
    assert marks(text) == []


def test_what_is_blanked_keeps_the_rest():
    names = Names(KNOWN)
    told = {"edits": ["transplant:donor=p1_left,from=/home/x/y.csv"], "n": 1}
    assert names.blanked(told) == {"edits": ["transplant:donor=?,from=?"], "n": 1}


# -- telling, and opening what is needed -----------------------------------------------------------


def test_many_findings_are_told_in_few_lines(found, out):
    (out / "a.txt").write_text("muster_01\n" * 50)
    lines = found()
    assert len(lines) == 21
    assert lines[-1] == "30 more findings like the last one, 1 file(s) in all"


def test_each_finding_is_one_line(found, out):
    (out / "a.png").write_bytes(png(pnginfo=meta(Comment="two\nlines")))
    (line,) = found()
    assert "\n" not in line


def test_a_folder_without_files_is_refused(tmp_path):
    lineage = Lineage("x", "0", ())
    with pytest.raises(DataFault, match="no such folder"):
        audit_export(tmp_path / "gone", lineage)
    with pytest.raises(UsageFault, match="holds no files"):
        audit_export(tmp_path, lineage)


def test_either_a_run_or_a_bank_is_needed(out):
    with pytest.raises(UsageFault, match="expected either a run or a bank"):
        audit_exported(out)


def test_a_banks_lineage_is_looked_up(source, out, tmp_path):
    from gansynth.bank import BankSpec, BankWriter

    spec = BankSpec(source.schema, source.lineage(), "toy", "0" * 64, frozen=False, capacity=4)
    BankWriter.create(tmp_path / "bank", spec).close()
    assert audit_exported(out, bank=tmp_path / "bank").findings == ()
    (out / "a.txt").write_text("muster_02")
    forget_times(out)
    assert audit_exported(out, bank=tmp_path / "bank").findings == (
        "a.txt: line 1: names case 'muster_02'",
    )
    own = audit_exported(tmp_path / "bank", bank=tmp_path / "bank").findings
    assert any("names case 'muster_01'" in line for line in own)


def test_pictures_are_read_from_memory_too(found, out):
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "GIF", comment=b"muster_01")
    (out / "a.zip").write_bytes(zipped({"a.gif": stream.getvalue()}))
    (line,) = found()
    assert line.startswith("a.zip: GIF comment of 'a.gif' in it: is there")
