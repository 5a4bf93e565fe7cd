import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from gansynth.evaluation.turing import TuringOptions, open_session, prepare_session
from gansynth.evaluation.turing.session import default_folder, read_key, read_session, remember_port
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault

FILES = {"session.json", "images.npy", "key.json", "access.json", "raters"}


def test_a_session_lies_in_its_run_and_nobody_but_its_owner_may_read_it(made):
    folder = default_folder(made.flat)
    assert folder == made.flat / "turing" / "session"
    assert {path.name for path in folder.iterdir()} == FILES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.*")}
    assert modes == dict.fromkeys(FILES - {"raters"}, 0o600)


def test_the_same_options_open_the_same_session_and_others_are_refused_with_ways_out(made):
    key = default_folder(made.flat) / "key.json"
    before = key.read_bytes()
    session = prepare_session(made.flat, options=TuringOptions(n=4, origin="all"))
    assert key.read_bytes() == before
    assert session.images.shape == (8, 1, 1, 32, 32)
    says = "holds a session made with n 4, asked for 7.*--resume.*--name"
    with pytest.raises(UsageFault, match=says):
        prepare_session(made.flat, options=TuringOptions(n=7, origin="all"))


def test_a_folder_that_holds_something_else_stays_as_it_is(made, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageFault, match="exists already and holds no session"):
        prepare_session(made.flat, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_without_a_session_is_refused(tmp_path):
    with pytest.raises(DataFault, match=r"no session.json here.*gansynth turing-test RUN"):
        open_session(tmp_path)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b"])
def test_a_name_is_one_folder(name, tmp_path):
    with pytest.raises(UsageFault, match="--name"):
        default_folder(tmp_path, name)


def test_what_a_killed_preparation_left_is_removed_and_one_that_fails_leaves_nothing(
    made, tmp_path
):
    with pytest.raises(UsageFault, match="-n 999"):
        prepare_session(made.flat, tmp_path / "new", TuringOptions(n=999), device="cpu")
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / f".new.tmp-{2**22 + 1}"  # beyond the largest process number there is
    left.mkdir()
    (left / "images.npy").write_bytes(b"patients")
    other = tmp_path / f".new.tmp-{os.getppid()}"
    other.mkdir()
    prepare_session(made.flat, tmp_path / "new", TuringOptions(n=2, origin="all"), device="cpu")
    assert (left.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("name", ["images.npy", "key.json"])
def test_a_changed_file_is_noticed(name, flat_session):
    path = flat_session / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityFault, match=rf"{name}: SHA-256 is .* (R|r)estore it"):
        open_session(flat_session).key()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 9}'])
def test_a_damaged_session_file_is_noticed(text, flat_session):
    (flat_session / "session.json").write_text(text)
    with pytest.raises(IntegrityFault, match=r"session\.json"):
        open_session(flat_session)


def test_a_session_without_its_key_is_opened_and_says_nothing(flat_session):
    (flat_session / "key.json").unlink()
    assert len(open_session(flat_session).images) == 8
    with pytest.raises(IntegrityFault, match="without its key"):
        read_key(flat_session, read_session(flat_session))


@pytest.mark.fault(20)
def test_an_array_that_would_run_code_is_not_read(flat_session):
    np.save(flat_session / "images.npy", np.array([{}], object), allow_pickle=True)
    document = json.loads((flat_session / "session.json").read_text())
    data = (flat_session / "images.npy").read_bytes()
    document["images"]["sha256"] = hashlib.sha256(data).hexdigest()
    (flat_session / "session.json").write_text(json.dumps(document))
    with pytest.raises(IntegrityFault, match="damaged"):
        open_session(flat_session)


def test_only_the_key_names_cases_and_a_session_can_be_moved(flat_session: Path):
    moved = flat_session.with_name("moved")
    flat_session.rename(moved)
    key = open_session(moved).key()
    assert len(key) == 8
    real = [told for told in key if told["truth"] == "real"]
    names = {told[part] for told in real for part in ("case", "subject")}
    others = [moved / name for name in ("session.json", "access.json", "images.npy")]
    text = b"".join(path.read_bytes() for path in others)
    assert [name for name in names if name.encode() in text] == []


def test_the_port_is_remembered_and_the_link_stays(flat_session):
    access = flat_session / "access.json"
    before = json.loads(access.read_text())
    remember_port(flat_session, 4711)
    assert json.loads(access.read_text()) == {**before, "port": 4711}
    assert stat.S_IMODE(access.stat().st_mode) == 0o600


def test_the_wheel_has_the_pages():
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[3]
    packed = {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}
    templates = [path for path in root.glob("gansynth/**/templates/*") if path.is_file()]
    assert len({path.parent for path in templates}) == 4
    assert {path.relative_to(root).as_posix() for path in templates} <= packed
