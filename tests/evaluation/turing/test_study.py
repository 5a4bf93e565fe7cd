import json
import os
import re
import stat
from base64 import b64decode

import numpy as np
import pytest

from gansynth_evaluate.turing import TuringOptions, make_study, open_study
from gansynth_evaluate.turing.study import default_folder
from tests.expected import raises_fault

EIGHT = TuringOptions(n=4, origin="all")
EMBEDDED = re.compile(r'<script type="text/plain" class="image">(.*)</script>')


def page_of(study, rater):
    return (study.folder / "pages" / f"rater-{rater}.html").read_text()


def about_of(page):
    (text,) = re.findall(r'<script id="about".*?>(.*)</script>', page)
    return json.loads(text)


def test_a_study_lies_in_its_run_and_nobody_but_its_owner_may_read_it(made):
    folder = default_folder(made)
    assert folder == made / "turing" / "study"
    assert {path.name for path in folder.iterdir()} == {"study.json", "images.npy", "pages"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_same_options_add_raters_to_the_byte_and_others_are_refused_with_a_way_out(
    made, flat_study
):
    before = (flat_study.folder / "study.json").read_bytes(), page_of(flat_study, 1)
    (flat_study.folder / "pages" / "rater-1.html").unlink()
    study, pages = make_study(made, flat_study.folder, EIGHT, raters=3)
    assert [path.name for path in pages] == [f"rater-{n}.html" for n in (1, 2, 3)]
    assert ((study.folder / "study.json").read_bytes(), page_of(study, 1)) == before
    with raises_fault("turing-test.study-settings-differ"):
        make_study(made, flat_study.folder, TuringOptions(n=7, origin="all"))
    with raises_fault("turing-test.raters-out-of-range"):
        make_study(made, flat_study.folder, EIGHT, raters=101)


def test_a_page_has_every_image_alike_under_a_code_of_its_rater(made, flat_study):
    study, _ = make_study(made, flat_study.folder, EIGHT, raters=2)
    images = np.load(study.folder / "images.npy")
    orders, codes = [], []
    for rater in (1, 2):
        page = page_of(study, rater)
        shown = [b64decode(text) for text in EMBEDDED.findall(page)]
        order = [*study.codes(rater).values()]
        assert shown == [images[number].tobytes() for number in order]
        assert about_of(page)["codes"] == [*study.codes(rater)]
        orders.append(order)
        codes += about_of(page)["codes"]
    assert orders[0] != orders[1]
    assert len(set(codes)) == 16
    assert {len(code) for code in codes} == {24}


def test_a_page_tells_nothing_of_what_its_images_are_and_needs_nothing_but_itself(flat_study):
    page = page_of(flat_study, 1)
    rest = EMBEDDED.sub("", page)
    assert about_of(page).keys() == {"study", "rater", "codes", "channels", "size", "spacing"}
    names = {told[part] for told in flat_study.key for part in ("case", "subject") if part in told}
    assert names
    hidden = [*names, flat_study.document["secret"], flat_study.document["run"]["id"]]
    assert [name for name in hidden if name in rest] == []
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', rest)
    assert policy.startswith("default-src &#39;none&#39;;")
    assert "unsafe" not in policy
    assert re.findall(r"https?:|(?:src|href)=\"(?!data:)", rest) == []


def test_instructions_are_text(made, tmp_path):
    options = TuringOptions(n=1, origin="all", instructions="<b onclick=x>Look</b> <!-- images -->")
    study, _ = make_study(made, tmp_path / "new", options, device="cpu")
    assert "&lt;b onclick=x&gt;Look&lt;/b&gt; &lt;!-- images --&gt;" in page_of(study, 1)
    assert len(EMBEDDED.findall(page_of(study, 1))) == 2


def test_a_folder_that_holds_something_else_stays_as_it_is(made, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with raises_fault("turing-test.folder-without-study-exists"):
        make_study(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_preparation_left_is_removed_and_one_that_fails_leaves_nothing(
    made, tmp_path
):
    with raises_fault("turing-test.too-few-images"):
        make_study(made, tmp_path / "new", TuringOptions(n=999), device="cpu")
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / f".new.tmp-{2**22 + 1}"  # beyond the largest process number there is
    left.mkdir()
    (left / "images.npy").write_bytes(b"patients")
    other = tmp_path / f".new.tmp-{os.getppid()}"
    other.mkdir()
    make_study(made, tmp_path / "new", TuringOptions(n=2, origin="all"), device="cpu")
    assert (left.exists(), other.exists()) == (False, True)


def test_changed_images_are_noticed(made, flat_study):
    path = flat_study.folder / "images.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with raises_fault("files.checksum-differs"):
        make_study(made, flat_study.folder, EIGHT, raters=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "files.own-document-unreadable"),
        ('{"version": 1}', "version.format-differs"),
        ('{"version": 4}', "turing-test.study-changed"),
        (None, "turing-test.study-changed"),
    ],
)
def test_a_damaged_study_and_a_changed_truth_are_noticed(text, expected, flat_study):
    path = flat_study.folder / "study.json"
    changed = path.read_text().replace('"truth": "real"', '"truth": "synthetic"', 1)
    path.write_text(text or changed)
    with raises_fault(expected, names=path):
        open_study(flat_study.folder)
