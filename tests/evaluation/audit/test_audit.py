"""The audit of exports: it finds each kind of leak and nothing else, and nothing where none is."""

import gzip
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.data.nifti import open_nifti
from gansynth.evaluation.audit import audit_export, audit_exported
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.sampling.identifiers import Name, Names, marks
from tests.evaluation.audit.exported import CASES, picture, png, volume, write_clean, write_source


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
    """Findings in ``out``."""
    return lambda: audit_export(out, source.lineage(), sources=source).findings


def test_nothing_is_found_in_files_of_every_kind(source, out):
    audit = audit_export(out, source.lineage(), sources=source)
    assert audit.findings == ()
    files = sum(path.is_file() for path in out.rglob("*"))
    assert audit.to_json() == {"folder": "exported", "files": files, "findings": []}


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


def named_gzip(name: str) -> bytes:
    plain = volume()
    return plain[:3] + bytes([8]) + plain[4:10] + name.encode() + b"\0" + plain[10:]


def turned() -> Any:
    affine = np.eye(4)
    affine[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    return affine


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
    # links
    "link": (
        lambda o: (o / "x.png").symlink_to("/srv/x.png"),
        "x.png",
        "link: leads to '/srv/x.png', expected a file: not read; holds a path, '/srv/x.png'",
    ),
    "link to a folder": (
        lambda o: (o / "more").symlink_to("images"),
        "more",
        "link: leads to 'images', expected a file: not read",
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
        "NIfTI header extension: holds 'of muster_01 ', expected none; names case 'muster_01'",
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
    "origin": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(affine=np.eye(4) + np.eye(4, k=3))),
        "a.nii.gz",
        "NIfTI header, sform: is a scan's: an origin or turned axes, expected none",
    ),
    "turned axes": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(affine=turned())),
        "a.nii.gz",
        "NIfTI header, sform: is a scan's",
    ),
    "gzip name": (
        lambda o: (o / "a.nii.gz").write_bytes(named_gzip("muster_01.nii")),
        "a.nii.gz",
        "has a time or a name, 'muster_01.nii', expected neither; names case 'muster_01'",
    ),
    "gzip time": (
        lambda o: (o / "a.nii.gz").write_bytes(volume(mtime=1_600_000_000)),
        "a.nii.gz",
        "gzip header: has a time or a name",
    ),
    # PNG
    "png text": (
        lambda o: saved(o / "a.png", pnginfo=meta(Comment="muster_01")),
        "a.png",
        "PNG metadata 'Comment': holds 'muster_01', expected none; names case 'muster_01'",
    ),
    "png text behind the pixels": (
        lambda o: (o / "a.png").write_bytes(chunk(b"tEXt", b"Comment\0muster_01")),
        "a.png",
        "PNG metadata 'Comment': holds 'muster_01', expected none; names case 'muster_01'",
    ),
    "png exif": (lambda o: saved(o / "a.png", exif=EXIF), "a.png", "PNG metadata 'exif': holds "),
    "png chunk of its own": (
        lambda o: (o / "a.png").write_bytes(chunk(b"scAn", b"muster_01")),
        "a.png",
        "PNG metadata 'scAn': holds 'muster_01', expected none; names case 'muster_01'",
    ),
    # what nobody has read
    "another kind": (
        lambda o: (o / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20)),
        "a.dcm",
        "not read: gansynth exports no files of this kind",
    ),
    "packed": (
        lambda o: (o / "a.json.gz").write_bytes(gzip.compress(b"{}", mtime=0)),
        "a.json.gz",
        "not read: gansynth exports no files of this kind",
    ),
    "without an ending": (
        lambda o: text_file(o / ".notes", "x"),
        ".notes",
        "not read: gansynth exports no files of this kind",
    ),
    "no file": (lambda o: os.mkfifo(o / "a.json"), "a.json", "not read: "),
    "damaged volume": (
        lambda o: (o / "a.nii.gz").write_bytes(volume()[:200]),
        "a.nii.gz",
        "not read: damaged, or no NIfTI file",
    ),
    "damaged picture": (
        lambda o: (o / "a.png").write_bytes(png()[:200]),
        "a.png",
        "not read: damaged, or no PNG file",
    ),
    "damaged document": (
        lambda o: text_file(o / "a.json", "{"),
        "a.json",
        "not read: damaged, or no JSON file",
    ),
    "text in other letters": (
        lambda o: (o / "a.txt").write_bytes("of muster_01".encode("utf-16")),
        "a.txt",
        "not read: damaged, or no text file",
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_and_nothing_else(found, out, leak):
    plant, file, says = LEAKS[leak]
    plant(out)
    (line,) = found()
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


def test_an_export_in_the_sources_own_folder_does_not_name_itself(tmp_path):
    source = open_nifti(write_source(tmp_path / "klinik"))
    out = write_clean(tmp_path / "klinik" / "to_hand_on")
    (out / "synth_brain_7.png").write_bytes(png())
    assert audit_export(out, source.lineage(), sources=source).findings == ()


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
    from gansynth.bank.reader import BankSpec, BankWriter

    spec = BankSpec(source.schema, source.lineage(), "toy", "0" * 64, frozen=False, capacity=4)
    BankWriter.create(tmp_path / "bank", spec).close()
    assert audit_exported(out, bank=tmp_path / "bank").findings == ()
    (out / "a.txt").write_text("muster_02")
    assert audit_exported(out, bank=tmp_path / "bank").findings == (
        "a.txt: line 1: names case 'muster_02'",
    )
    own = audit_exported(tmp_path / "bank", bank=tmp_path / "bank").findings
    assert any("names case 'muster_01'" in line for line in own)
