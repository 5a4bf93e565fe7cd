from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.configs import (
    MOST_BYTES,
    ON_SAMPLES,
    ON_VOLUMES,
    ListedCase,
    TrainConfig,
    case_ids,
    read_model_config,
    read_train_config,
    read_values,
)
from tests.deepmedic_sets import MODEL_VALUES, Toy, write_config


def read(mine: Toy, **values: Any) -> TrainConfig:
    """Read the training's configuration with other values; None leaves a key out."""
    values = read_values(mine.train) | values
    return read_train_config(write_config(mine.folder / "changed.cfg", values))


def fault(reader: Callable[..., object], *given: Any, **values: Any) -> str:
    with pytest.raises(DataFault) as caught:
        reader(*given, **values)
    message = str(caught.value)
    assert message.isprintable()
    return message


def lines(mine: Toy, name: str, *entries: str) -> Path:
    path = mine.folder / name
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return path


TEXT = r"""# a comment
b = 1
'''a text'''
a = c = [1, -2, +3, 0.5, 1e30]; d = {'a': True, 1: ('x' 'y',), 'b': [None]} # d
e = (10**(-4), 1 + 2 * 3, 7 / 2, 7 // 2, 7 % 4)
f = [[3, 3, 3]] * 2 + 2 * [[1, 1, 1]]
g = '.\data'
b = []
"""


def test_literals_have_the_values_and_the_order_that_python_gives_them(tmp_path):
    path = tmp_path / "some.cfg"
    path.write_text(TEXT)
    executed: dict[str, Any] = {}
    with pytest.warns(match="invalid escape sequence"):
        exec(TEXT, executed)
    del executed["__builtins__"]
    assert repr(read_values(path)) == repr(executed)


CODE = {  # text of a configuration -> what is said of it
    "import os": "line 1: import os: code (Import); expected KEY = ",
    "a = 1\nkey = open('x', 'w')": "line 2: key = open('x', 'w'): code (Call); expected KEY = a ",
    "a, b = 1, 2": "line 1: a, b = 1, 2: code",
    "key = {[1]: 1}": "unhashable type: 'list'",
    "key = 'x' * 10 ** 9": "calculated from what is no number",
    "key = 1 / 0": "division by zero",
    "key = 1e999": "no finite number",
    "key = 9 ** 9 ** 9": "a power of more than 64",
    "key = 2 ** 63": "no finite number, or a whole one of more than 63 bits",
    "key = [[[0] * 300] * 300] * 300": "a list that is repeated too often",
    "key = = 1": "line 1: invalid syntax; expected KEY = ",
    "key = '\x1b[31m' + x": "'?[31m' + x: code (Name)",
    "key = " + "1+" * 30_000 + "1": "recursion",
    "a = 1\nb = '\udcff'\n": "can't decode byte 0xff in position 11",
    " " * (MOST_BYTES + 1): f"more than {MOST_BYTES} bytes, expected a small text file",
}


@pytest.mark.fault(20)
@pytest.mark.parametrize("text", CODE, ids=lambda text: text[:20])
def test_code_is_refused_by_line_and_never_executed(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.cfg"
    path.write_bytes(text.encode(errors="surrogateescape"))
    for reader in (read_train_config, read_model_config):
        said = fault(reader, path)
        assert said.startswith(f"{path}: ")
        assert CODE[text] in said
        assert len(said) < 500
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_file_does_not_say_is_deepmedics_default(mine):
    wanted = ("channelsTraining", "gtLabelsTraining", "batchsize_train")
    values = {key: read_values(mine.train)[key] for key in wanted}
    found = read_train_config(write_config(mine.folder / "least.cfg", values))
    assert (found.epochs, found.subepochs, found.cases, found.segments) == (35, 20, 50, 1000)
    assert (found.batch, found.processes, found.sampling, found.sampling_validation) == (5, 0, 3, 1)
    assert (found.shares, found.weighted, any(found.normalised)) == (None, False, False)
    assert (found.pad, found.validation, found.train[0].roi) == (True, (), None)
    # Lists to validate on count only if something is validated.
    off = {ON_SAMPLES: None, ON_VOLUMES: False}
    assert read(mine, **off, channelsValidation=["nowhere.cfg"]).validation == ()
    assert read_model_config(mine.model).unpredicted == (6, 6, 6)
    out = {"segmentsDimVal": None, "segmentsDimInference": None}
    model = read_model_config(write_config(mine.folder / "model.cfg", {**MODEL_VALUES, **out}))
    assert [*model.segments.values()] == [(13,) * 3, (7,) * 3, (13,) * 3]


SWAPPED = ["./validation_t1c.cfg", "./validation_flair.cfg"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"batchsize_train": 2.5}, "batchsize_train is 2.5: expected a valid integer; correct it"),
        ({"batchsize_train": None, "batchsize_trian": 5}, "it. Did you mean 'batchsize_trian'?"),
        ({ON_SAMPLES: "yes"}, f"{ON_SAMPLES} is 'yes': expected a valid boolean"),
        ({"channelsTraining": None}, "no channelsTraining, expected one"),
        ({"channelsValidation": SWAPPED}, "in the same order: flair, t1c; correct it"),
        ({"sessionName": "a\nb"}, "a text that prints on one line"),
        ({"norm_zscore_prms": [1]}, "norm_zscore_prms is [1]: expected a valid dictionary"),
    ],
)
def test_a_key_that_data_depend_on_is_checked(mine, values, says):
    said = fault(read, mine, **values)
    assert said.startswith(f"{mine.folder / 'changed.cfg'}: ")
    assert says in said


def test_entries_are_relative_to_their_list_and_further_channels_may_be_missing(mine):
    (mine.folder / "lists").mkdir()
    text = "# first\n\n  ../data/./x/../pat_00/flair.nii.gz  \r\n/abs/b.nii.gz\n#\n../c.nii.gz"
    (mine.folder / "lists/flair.cfg").write_text(text)
    lines(mine, "training_t1c.cfg", "data/pat_00/t1c.nii.gz", "-", " - ")
    found = read(mine, channelsTraining=["lists/flair.cfg", "training_t1c.cfg"])
    first = mine.folder / "data/pat_00/flair.nii.gz"
    wanted = [first, Path("/abs/b.nii.gz"), mine.folder / "c.nii.gz"]
    assert [case.channels[0] for case in found.train] == wanted
    assert [case.channels[1] is None for case in found.train] == [False, True, True]
    assert found.channels == ("flair", "training_t1c")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        # DeepMedic cuts lists to the shortest, so that the rest is silently never seen.
        ("training_roi", "a\n", "lists 1 case(s), but FOLDER/training_flair.cfg lists 3; expected"),
        ("names", "a\n", "lists 1 case(s), but FOLDER/validation_flair.cfg lists 2; expected as"),
        ("training_flair", "# nothing\n", "lists 0 case(s)"),
        ("training_flair", "a\nb\n-\n", "entry 3 is '-', expected a path (only further"),
        ("training_labels", "a\nb\n-\n", "entry 3 is '-', expected a path (only further"),
        ("training_flair", "\ufeffa\nb\nc\n", "entry 1 is '?a', expected a path"),
        ("training_flair", "# c\na\rb\nb\nc\n", "entry 1 is 'a b', expected a path"),
        ("training_flair", "\udce9\n", "'utf-8' codec can't decode byte 0xe9"),
        ("training_flair", "", "no such file"),
    ],
)
def test_lists_that_cannot_be_read_are_refused(mine, name, text, says):
    path = mine.folder / f"{name}.cfg"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if not text:
        path.unlink()
    assert f"{path}: {says.replace('FOLDER', str(mine.folder))}" in fault(read, mine)


HEADER, ROW = "channel_t1c,age,ground_truth,channel_flair", 't.nii.gz,4, /g.nii.gz,"../f,.nii.gz"'


def test_a_table_goes_before_the_lists_and_its_channels_are_sorted(mine):
    lines(mine, "train.csv", f"roi_mask, {HEADER}", f"r.nii.gz,{ROW}", "")
    lists = {"channelsTraining": None, "gtLabelsTraining": None}
    found = read(mine, dataframe_train="train.csv", **lists)
    assert found.channels == ("flair", "t1c")
    (case,) = found.train
    assert case.channels == (mine.folder.parent / "f,.nii.gz", mine.folder / "t.nii.gz")
    assert (case.labels, case.roi) == (Path("/g.nii.gz"), mine.folder / "r.nii.gz")
    assert len(found.validation) == 2
    lines(mine, "val.csv", HEADER, ROW)
    found = read(mine, dataframe_val="val.csv", namesForPredictionsPerCaseVal=None)
    assert found.validation[0].roi is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("channel_a,channel_a\na,b", "columns are ['channel_a', 'channel_a'], expected"),
        ("channel_a,ground_truth", "columns are ['channel_a', 'ground_truth'], expected channel_"),
        ("channel_a,ground_truth\na,g\na", "columns are ['channel_a', 'ground_truth'], expected"),
        ("channel_a,ground_truth\na,g\n,g", "entry 2 of channel_a is '', expected a path"),
    ],
)
def test_a_table_that_deepmedic_would_stop_at_is_refused(mine, text, says):
    path = lines(mine, "train.csv", text)
    assert fault(read, mine, dataframe_train="./train.csv").startswith(f"{path}: {says}")


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["p1/flair.nii.gz", "p2/flair.nii.gz"], ("p1", "p2")),
        (["all/p1.nii.gz gt/p1/l.nii", "all/p2.nii.gz gt/p2/l.nii"], ("p1", "p2")),
        (["img/p1_flair.nii.gz", "img/p2_Flair.nii"], ("p1", "p2")),
        (["p1/a/x.nii.gz", "p1/b/x.nii.gz", "p2/a/y.nii.gz"], ("a_x", "b_x", "a_y")),
        (["p1/t0/x.nii", "p1/t1/x.nii", "p2/t0/x.nii"], ("p1_t0_x", "p1_t1_x", "p2_t0_x")),
        (["P/f.nii", "p/f.nii"], ("case_0000", "case_0001")),  # unlike in case only
    ],
)
def test_cases_have_the_shortest_name_that_tells_them_apart(texts, names):
    cases = []
    for text in texts:
        image, _, labels = text.partition(" ")
        drawn = Path("/data") / (labels or str(Path(image).with_name("labels.nii.gz")))
        cases.append(ListedCase("", (Path("/data") / image,), drawn))
    assert case_ids(cases, "flair") == names
