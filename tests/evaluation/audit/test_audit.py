import os
import platform
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.source import lineage_of
from gansynth.data.nifti import open_volumes
from gansynth.report.png import png_bytes
from gansynth.sampling.deidentify import Identifier, Identifiers, marks
from gansynth_evaluate.audit import audit_export, audit_exported
from tests.evaluation.audit.exported import CASES, png, volume, write_clean, write_source
from tests.expected import raises_fault


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Four scans, those of one person held out."""
    request = write_source(tmp_path_factory.mktemp("data") / "klinik_nord" / "gehirne")
    found = open_volumes(replace(request, fold="0", read={"folds": "2"}))
    assert found.held_out_ids == tuple(sorted(CASES[2:]))
    return found


@pytest.fixture
def out(tmp_path):
    return write_clean(tmp_path / "exported")


@pytest.fixture
def found(source, out, monkeypatch):
    monkeypatch.setenv("LOGNAME", "dr_beate_wolf")
    monkeypatch.setattr(platform, "node", lambda: "radiologie17")
    return lambda: audit_export(out, lineage_of(source), sources=source).findings


def test_nothing_is_found_in_files_of_every_kind(source, out):
    audit = audit_export(out, lineage_of(source), sources=source)
    files = sum(path.is_file() for path in out.rglob("*"))
    assert audit.to_json() == {"folder": "exported", "files": files, "findings": []}


def comment(text):
    info = PngInfo()
    info.add_text("Comment", text)
    return png(pnginfo=info)


def chunk(kind, body):
    """The picture with a chunk before its end."""
    data = png()
    new = len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    return data[:-12] + new + data[-12:]


def named_gzip(name):
    plain = volume()
    return plain[:3] + bytes([8]) + plain[4:10] + name.encode() + b"\0" + plain[10:]


EXIF = Image.Exif()
EXIF[0x010E] = "a head"
TURNED = np.eye(4)
TURNED[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
UID = "1.2.840.113619.2.5.1762583153.215519"
MUSTER = "names case 'muster_01'"
HELD = f"holds 'muster_01', expected none; {MUSTER}"
PATH = "/klinik_nord/gehirne/muster_01.nii.gz"
OF_A_PATH = f"names data set 'gehirne'; {MUSTER}; holds a path, '{PATH}'"
BIRTH = '{"PatientBirthDate": "x"}'
NII = "NIfTI header"
DAMAGED = "not read: damaged, or no"
MUSTERED: Any = {field: {field: b"muster_01"} for field in ("aux_file", "db_name", "intent_name")}
LEAKS = {
    # texts
    "json value": ("a.json", '{"samples": [{"of": "muster_01"}]}', f"'samples[0].of': {MUSTER}"),
    "json key": ("a.json", '{"beispiel_01": 3}', "key 'beispiel_01': names case 'beispiel_01'"),
    "subject": ("a.txt", "first\nby Beispiel, alone\n", "line 2: names subject 'beispiel'"),
    "table": ("a.csv", "of,n\nx,1\nmuster_01,2\n", f"line 3, column 1: {MUSTER}"),
    "yaml": ("a.yaml", "from:\n  - muster_01_0000.nii.gz\n", f"line 2: {MUSTER}"),
    "folder": ("a.txt", "scans of Klinik Nord", "line 1: names folder 'klinik_nord'"),
    "user": ("a.txt", "by dr_beate_wolf", "line 1: names user 'dr_beate_wolf'"),
    "machine": ("a.txt", "on radiologie17.klinik.example", "names machine 'radiologie17'"),
    "path": ("a.json", '{"file": "/srv/7/x.nii"}', "'file': holds a path, '/srv/7/x.nii'"),
    "path to a case": ("a.txt", f"at {PATH}", OF_A_PATH),
    "windows path": ("a.txt", r"from D:\pacs\x.nii", "holds a path"),
    "dicom identifier": ("a.txt", f"uid {UID}", f"holds a DICOM identifier, '{UID}'"),
    "dicom field": ("a.json", BIRTH, "holds a DICOM field, 'PatientBirthDate'"),
    # names and links
    "file name": ("muster_01_0000.nii.gz", volume(), f"name: {MUSTER}"),
    "folder name": ("images/beispiel", Path.mkdir, "name: names subject 'beispiel'"),
    "link": ("x.png", lambda at: at.symlink_to("/srv/x.png"), "expected a file: not read; holds"),
    # NIfTI
    "descrip": ("a.nii.gz", volume(descrip=b"TE=2.9;T=12"), f"{NII}, descrip: holds 'TE=2.9;T=12'"),
    **{
        field: ("a.nii.gz", volume(**text), f"{NII}, {field}: {HELD}")
        for field, text in MUSTERED.items()
    },
    "extension": ("a.nii.gz", volume(extension=b"of muster_01 "), f"{NII} extension: holds 'of "),
    "slice time": ("a.nii.gz", volume(slice_duration=0.083), "slice_duration: is 0.083, expected"),
    "range": ("a.nii.gz", volume(cal_max=1234), f"{NII}, cal_max: is 1234"),
    "origin": ("a.nii.gz", volume(affine=np.eye(4) + np.eye(4, k=3)), f"{NII}, sform: is a scan's"),
    "turned axes": ("a.nii.gz", volume(affine=TURNED), f"{NII}, sform: is a scan's"),
    "gzip name": ("a.nii.gz", named_gzip("muster_01.nii"), f"expected neither; {MUSTER}"),
    "gzip time": ("a.nii.gz", volume(mtime=1_600_000_000), "gzip header: has a time or a name"),
    # PNG
    "png text": ("a.png", comment("muster_01"), f"PNG metadata 'Comment': {HELD}"),
    "png text of two lines": ("a.png", comment("a\nb"), r"'Comment': holds 'a\nb'"),
    "png text at the end": ("a.png", chunk(b"tEXt", b"Comment\0muster_01"), f"'Comment': {HELD}"),
    "png exif": ("a.png", png(exif=EXIF), "PNG metadata 'exif': holds "),
    "png chunk of its own": ("a.png", chunk(b"scAn", b"muster_01"), f"metadata 'scAn': {HELD}"),
    "grid": ("any.png", png_bytes(np.zeros((9, 9), np.uint8), grid=True), "holds 'gansynth grid"),
    "grid without mark": ("images/sheet.png", png(), "name: is that of gansynth's grids"),
    # what nobody has read
    "another kind": ("a.dcm", b"DICM", "not read: gansynth exports no files of this kind"),
    "no file": ("a.json", os.mkfifo, "not read: "),
    "damaged volume": ("a.nii.gz", volume()[:200], f"{DAMAGED} NIfTI file"),
    "damaged document": ("a.json", "{", f"{DAMAGED} JSON file"),
    "damaged picture": ("a.png", png()[:200], f"{DAMAGED} PNG file"),
    "other letters": ("a.txt", "of muster_01".encode("utf-16"), f"{DAMAGED} text file"),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_and_nothing_else(found, out, leak):
    file, plant, says = LEAKS[leak]
    if callable(plant):
        plant(out / file)
    else:
        (out / file).write_bytes(plant.encode() if isinstance(plant, str) else plant)
    (line,) = found()
    assert line.startswith(f"{file}: ")
    assert says in line


def test_an_export_in_the_sources_own_folder_does_not_name_itself(tmp_path):
    source = open_volumes(write_source(tmp_path / "klinik"))
    out = write_clean(tmp_path / "klinik" / "to_hand_on")
    (out / "synth_brain_7.png").write_bytes(png())
    assert audit_export(out, lineage_of(source), sources=source).findings == ()


IDS = {
    "case": ("1", "004", "p1", "p1_left", "123456", "ab7", "sample-0003", "muster_01"),
    "subject": ("muster", "roy"),
    "folder": ("roi", "organ", "images"),
}
KNOWN = Identifiers(
    [Identifier(text, what) for what, texts in IDS.items() for text in texts], harmless=["Organ"]
)


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
        # Folders need longer names than patients, and words of the schema or of exports are none.
        ("roi and roy", ["roy"]),
        ("organ images", []),
        ("muster_01 muster", ["muster_01", "muster"]),  # the longer hide the shorter
    ],
)
def test_names_are_whole_words_that_say_something(text, wanted):
    assert [name.text for name in KNOWN.within(text)] == wanted


@pytest.mark.parametrize(
    ("file", "text"),
    [*(("a.json", '{"case": "004"}'), ("a.csv", "case,n\n004,1\n")), ("a.yaml", "case: '004'\n")],
)
def test_short_names_are_found_in_files_by_their_keys(out, file, text):
    (out / file).write_text(text)
    (line,) = audit_export(out, Lineage("x", "0", (CaseRecord("004", "4", "0" * 64),))).findings
    assert line.endswith("names case '004'")
    keys = {"patientID": ("p1", 1), "subjects": ("1", 1), "id": ("004", 0), "case": ("0040", 0)}
    assert {key: (value, len(KNOWN.valued(key, value))) for key, (value, _) in keys.items()} == keys
    told = {"edits": ["transplant:donor=p1_left,from=/home/x/y.csv"], "n": 1}
    assert KNOWN.blanked(told) == {"edits": ["transplant:donor=?,from=?"], "n": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("1/2/3", "and/or/else", "https://example.org/a/b", "</b></i>", "image/png", "12:30/a"),
        *("1.2.3", "2.10.0+cpu", "0.5%:99.5%", "#/definitions/x", "images/synth/a.png", "~ 5"),
    ],
)
def test_what_only_looks_like_a_path_or_an_identifier_is_none(text):
    assert marks(text) == []


def test_many_findings_are_told_in_few(found, out):
    (out / "a.txt").write_text("muster_01\n" * 50)
    lines = found()
    assert len(lines) == 21
    assert lines[-1] == "30 more findings like the last one, 1 file(s) in all"


def test_a_folder_without_files_and_one_of_neither_a_run_nor_a_bank_is_refused(tmp_path):
    lineage = Lineage("x", "0", ())
    with raises_fault("evaluate.shared-folder-missing"):
        audit_export(tmp_path / "gone", lineage)
    with raises_fault("evaluate.export-without-files"):
        audit_export(tmp_path, lineage)
    with raises_fault("evaluate.not-one-of-run-bank"):
        audit_exported(tmp_path)


def test_a_banks_lineage_is_looked_up_and_the_hash_of_a_case_is_found(source, out, tmp_path):
    bank = tmp_path / "bank"
    spec = BankSpec(source.schema, lineage_of(source), "toy", "0" * 64, frozen=False, capacity=4)
    BankWriter.create(bank, spec).close()
    (out / "a.txt").write_text(lineage_of(source).cases[0].sha256)
    (line,) = audit_exported(out, bank=bank).findings
    assert line.startswith("a.txt: line 1: names content hash of a case '")
    assert any(MUSTER in line for line in audit_exported(bank, bank=bank).findings)
