from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.configs import (
    MOST_BYTES,
    ListedCase,
    TrainConfig,
    case_ids,
    read_model_config,
    read_train_config,
    read_values,
)
from tests.deepmedic_sets import MODEL_VALUES, Toy, toy_deepmedic, write_config

ON_SAMPLES = "performValidationOnSamplesThroughoutTraining"
ON_VOLUMES = "performFullInferenceOnValidationImagesEveryFewEpochs"
SHARES, SAMPLING = "proportionOfSamplesToExtractPerCategoryTraining", "typeOfSamplingForTraining"
SWAPPED = ["./validation_t1c.cfg", "./validation_flair.cfg"]


@pytest.fixture
def toy(tmp_path) -> Toy:
    """Lists of small volumes."""
    return toy_deepmedic(tmp_path / "toy", train=3, val=2, shape=(9, 9, 9))


def read(toy: Toy, **values: Any) -> TrainConfig:
    """Read the training's configuration with other values; None leaves a key out."""
    values = read_values(toy.train) | values
    return read_train_config(write_config(toy.folder / "changed.cfg", values))


def fault(reader: Callable[..., object], *given: Any, **values: Any) -> str:
    with pytest.raises(DataFault) as caught:
        reader(*given, **values)
    message = str(caught.value)
    assert message.isprintable()
    return message


def lines(toy: Toy, name: str, *entries: str) -> Path:
    path = toy.folder / name
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


VALUE = "expected KEY = a number, a text, True, False, None, or a list, tuple or dict of these"
# Text of a configuration -> what is said of it.
CODE = {
    "import os": "line 1: import os: code (Import); expected KEY = ",
    "a = 1\nkey = open('x', 'w')": f"line 2: key = open('x', 'w'): code (Call); {VALUE}",
    "key = {open('x', 'w'): 1}": "code (Call)",
    "a, b = 1, 2": "line 1: a, b = 1, 2: code",
    "key = {[1]: 1}": "unhashable type: 'list'",
    "key = 'x' * 10 ** 9": "calculated from what is no number",
    "key = 1 / 0": "division by zero",
    "key = 1e999": "no finite number",
    "key = 9 ** 9 ** 9": "a power of more than 64",
    "key = 2 ** 63": "no finite number, or a whole one of more than 63 bits",
    "key = " + "9" * 5000: "Exceeds the limit",
    "key = [[[0] * 300] * 300] * 300": "a list that is repeated too often",
    "key = = 1": "line 1: invalid syntax; expected KEY = ",
    "a = 1\nkey = '\0'": "null bytes",
    "key = '\x1b[31m' + x": "'?[31m' + x: code (Name)",
    "key = " + "[" * 3000 + "]" * 3000: "too many nested parentheses",
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


def test_what_the_file_does_not_say_is_deepmedics_default(toy):
    wanted = ("channelsTraining", "gtLabelsTraining", "batchsize_train")
    values = {key: read_values(toy.train)[key] for key in wanted}
    found = read_train_config(write_config(toy.folder / "least.cfg", values))
    assert (found.epochs, found.subepochs, found.cases, found.segments) == (35, 20, 50, 1000)
    assert (found.batch, found.processes, found.sampling, found.sampling_validation) == (5, 0, 3, 1)
    assert (found.shares, found.weighted, any(found.normalised)) == (None, False, False)
    assert found.validation == ()
    assert (found.pad, [case.roi for case in found.train]) == (True, [None] * 3)
    # Lists to validate on count only if something is validated.
    off = {ON_SAMPLES: None, ON_VOLUMES: False}
    assert read(toy, **off, channelsValidation=["nowhere.cfg"]).validation == ()
    model = read_model_config(toy.model)
    assert model.unpredicted == (6, 6, 6)
    out = {"segmentsDimVal": None, "segmentsDimInference": None}
    model = read_model_config(write_config(toy.folder / "model.cfg", {**MODEL_VALUES, **out}))
    assert [*model.segments.values()] == [(13,) * 3, (7,) * 3, (13,) * 3]


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
def test_a_key_that_data_depend_on_is_checked(toy, values, says):
    said = fault(read, toy, **values)
    assert said.startswith(f"{toy.folder / 'changed.cfg'}: ")
    assert says in said


def test_entries_are_relative_to_their_list_and_comments_are_passed_over(toy):
    (toy.folder / "lists").mkdir()
    text = "# first\n\n  ../data/./x/../pat_00/flair.nii.gz  \r\n/abs/b.nii.gz\n#\n../c.nii.gz"
    (toy.folder / "lists/flair.cfg").write_text(text)
    found = read(toy, channelsTraining=["lists/flair.cfg", "training_t1c.cfg"])
    first = toy.folder / "data/pat_00/flair.nii.gz"
    wanted = [first, Path("/abs/b.nii.gz"), toy.folder / "c.nii.gz"]
    assert [case.channels[0] for case in found.train] == wanted
    assert found.channels == ("flair", "training_t1c")


def test_a_channel_may_be_missing_but_not_the_first_and_no_label_map(toy):
    lines(toy, "training_t1c.cfg", "data/pat_00/t1c.nii.gz", "-", " - ")
    assert [case.channels[1] is None for case in read(toy).train] == [False, True, True]
    for name in ("labels", "roi", "flair"):
        path = lines(toy, f"training_{name}.cfg", "a.nii.gz", "b.nii.gz", "-")
        assert fault(read, toy).startswith(f"{path}: entry 3 is '-', expected a path (only furt")
        lines(toy, path.name, "a.nii.gz", "b.nii.gz", "c.nii.gz")


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("training_t1c", "training_flair", 3),
        ("training_roi", "training_flair", 3),
        ("validation_labels", "validation_flair", 2),
        ("names", "validation_flair", 2),
    ],
)
def test_lists_of_unequal_length_are_refused(toy, name, first, count):
    """DeepMedic cuts them to the shortest, so that the rest is silently never seen."""
    path = lines(toy, f"{name}.cfg", "a.nii.gz")
    says = f"{path}: lists 1 case(s), but {toy.folder / first}.cfg lists {count}; expected as many"
    assert fault(read, toy).startswith(says)


def test_lists_that_cannot_be_read_are_refused(toy):
    path = toy.folder / "training_flair.cfg"
    for data, says in (
        ("\ufeffa.nii.gz\nb\nc\n".encode(), f"{path}: entry 1 is '?a.nii.gz', expected a path"),
        (b"\xe9.nii.gz\n", f"{path}: 'utf-8' codec can't decode byte 0xe9"),
        (b"# c\na\rb.nii.gz\nb\nc\n", f"{path}: entry 1 is 'a b.nii.gz', expected a path"),
        (b"# nothing\n", f"{path}: lists 0 case(s)"),
    ):
        path.write_bytes(data)
        assert says in fault(read, toy)
    path.unlink()
    assert fault(read, toy).startswith(f"{path}: no such file")
    lines(toy, path.name, "a", "b", "c")


def test_a_case_that_is_listed_again_counts_once(toy):
    for name in ("flair", "t1c", "labels", "roi"):
        entry = f"data/pat_00/{name}.nii.gz"
        lines(toy, f"training_{name}.cfg", entry, f"data/pat_01/{name}.nii.gz", f"./{entry}")
        entry = f"data/pat_03/{name}.nii.gz"
        lines(toy, f"validation_{name}.cfg", entry, entry, f"data/pat_04/{name}.nii.gz")
    lines(toy, "names.cfg", "a", "b", "c")
    found = read(toy)
    cases = [case.labels.parent.name for case in (*found.train, *found.validation)]
    assert cases == ["pat_00", "pat_01", "pat_03", "pat_04"]
    assert found.repeated == 2


HEADER, ROW = "channel_t1c,age,ground_truth,channel_flair", 't.nii.gz,4, /g.nii.gz,"../f,.nii.gz"'


def test_a_table_goes_before_the_lists_and_its_channels_are_sorted(toy):
    lines(toy, "train.csv", f"roi_mask, {HEADER}", f"r.nii.gz,{ROW}", "")
    lists = {"channelsTraining": None, "gtLabelsTraining": None}
    found = read(toy, dataframe_train="train.csv", **lists)
    assert found.channels == ("flair", "t1c")
    (case,) = found.train
    assert case.channels == (toy.folder.parent / "f,.nii.gz", toy.folder / "t.nii.gz")
    assert (case.labels, case.roi) == (Path("/g.nii.gz"), toy.folder / "r.nii.gz")
    assert len(found.validation) == 2
    lines(toy, "val.csv", HEADER, ROW)
    found = read(toy, dataframe_val="val.csv", namesForPredictionsPerCaseVal=None)
    assert found.validation[0].roi is None


COLUMNS = "channel_a,ground_truth"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("channel_a,channel_a\na,b", "columns are ['channel_a', 'channel_a'], expected"),
        (COLUMNS, "columns are ['channel_a', 'ground_truth'], expected channel_NAME"),
        (f"{COLUMNS}\na,g\n,g", "entry 2 of channel_a is '', expected a path"),
        (f"{COLUMNS}\na,g\na", "columns are ['channel_a', 'ground_truth'], expected"),
    ],
)
def test_a_table_that_deepmedic_would_stop_at_is_refused(toy, text, says):
    path = lines(toy, "train.csv", text)
    assert fault(read, toy, dataframe_train="./train.csv").startswith(f"{path}: {says}")


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
