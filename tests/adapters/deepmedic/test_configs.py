import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth_deepmedic.cases import case_ids
from gansynth_deepmedic.configs import (
    MOST_BYTES,
    ListedCase,
    TrainConfig,
    read_literals,
    read_model_config,
    read_train_config,
    told_apart,
)
from tests.deepmedic_sets import MODEL_VALUES, Toy, toy_deepmedic, write_config

NEVER = "configurations are never executed here"
UNVALIDATED = {
    "performValidationOnSamplesThroughoutTraining": None,
    "performFullInferenceOnValidationImagesEveryFewEpochs": False,
}
Reader = Callable[[Path], object]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """A data set that nobody changes; configurations of other values are written beside its own."""
    return toy_deepmedic(tmp_path_factory.mktemp("sets") / "toy", train=2, val=1, shape=(9, 9, 9))


def cfg(folder: Path, text: str) -> Path:
    path = folder / "some.cfg"
    path.write_text(text, encoding="utf-8")
    return path


def changed(toy: Toy, **values: Any) -> Path:
    """The training's configuration with other values; None leaves a key out."""
    return write_config(toy.folder / "changed.cfg", read_literals(toy.train) | values)


def refused(path: Path, kind: type[GansynthError] = DataFault, read: Reader = read_literals) -> str:
    """What reading says, without the path it begins with."""
    with pytest.raises(kind) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


VALUES: dict[str, tuple[str, Any]] = {
    "numbers": ("[1, -2, +3, 0.5, 1e-3]", [1, -2, 3, 0.5, 1e-3]),
    "arithmetic": ("(10**(-4), 1 + 2 * 3, 7 / 2, 7 // 2, 7 % 4)", (10**-4, 7, 3.5, 3, 3)),
    "words": ("{'a': True, 1: ('x' 'y',), 'b': [None]}", {"a": True, 1: ("xy",), "b": [None]}),
    "repeated lists": ("[[3, 3, 3]] * 2 + [[1, 1, 1]]", [[3, 3, 3], [3, 3, 3], [1, 1, 1]]),
    "an odd backslash": (r"'.\data'", ".\\data"),
    "nothing": ("[]", []),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_literal_has_the_value_that_python_gives_it(tmp_path, name):
    text, value = VALUES[name]
    found = read_literals(cfg(tmp_path, f"key = {text}\n"))
    assert repr(found) == repr({"key": value})


def test_assignments_keep_their_order_and_the_last_one_counts(tmp_path):
    text = "# comment\n'''a text'''\nb = 1\na = c = 2; d = 'x' # d\nb = 3\n\n"
    found = list(read_literals(cfg(tmp_path, text)).items())
    assert found == [("b", 3), ("a", 2), ("c", 2), ("d", "x")]


CODE = {
    "import": ("import os", "line 1: import os, an import; expected KEY = VALUE"),
    "call": (
        "a = 1\nkey = open('x').read()",
        "line 2: key is open('x').read(), a call; expected a number, a text, True, False, None, "
        f"or a list, tuple or dict of these; write the value itself: {NEVER}",
    ),
    "key of a dict": ("key = {print(): 1}", "a call"),
    "name": ("a = 1\nkey = a", "line 2: key is a, another key's name"),
    "f-string": ("key = f'{1}'", "a text with expressions in it"),
    "if": ("if True:\n    key = 1", "line 1: if True: key = 1, a condition"),
    "augmented": ("key = 1\nkey += 1", "line 2: key += 1, a change of an earlier value"),
    "deleted": ("key = 1\ndel key", "line 2: del key, code"),
    "unpacked": ("a, b = 1, 2", "line 1: a, b = 1, 2, code; expected KEY = VALUE"),
    "bare call": ("print('x')", "line 1: print('x'), code; expected KEY = VALUE"),
    "dict in dict": ("key = {**{}}", "a dict with another one in it"),
    "list as key": ("key = {(1,): 1}", "a dict with a tuple for a key"),
    "bytes": ("key = b'x'", "of type bytes"),
    "text times": ("key = 'x' * 9", "calculated from what is no number"),
    "bits": ("key = 1 << 9", "code"),
    "by zero": ("key = 1 / 0", "no number: division by zero"),
    "a negative root": ("key = (-8) ** 0.5", "no finite number"),
    "infinite": ("key = 1e999", "no finite number"),
    "a tower": ("key = 9 ** 9 ** 9", "a power of more than 64"),
    "a huge number": ("key = 2 ** 63", "no finite number, or a whole one of more than 63 bits"),
    "a huge product": ("key = 10 ** 18 * 10", "of more than 63 bits"),
    "a huge list": ("key = [0] * 10 ** 9", "a list that is repeated too often"),
    "huge lists": ("key = [[[0] * 300] * 300] * 300", "a list that is repeated too often"),
    "many lists": ("key = [0] * 40000\n" * 3, "line 3: key is [0] * 40000, with it the file has"),
    "a difference of lists": ("key = [1] - [1]", "no sum of lists"),
    "no Python": ("key = = 1", "line 1: no Python: invalid syntax; expected lines KEY = VALUE"),
    "a NUL byte": ("a = 1\nkey = '\0'", "line 2: holds a NUL byte, expected text; write it again"),
    "a byte order mark": ("\ufeffkey = 1", "line 1: no Python: invalid non-printable character"),
    "control characters": ("key = '\x1b[31m' + x", "'?[31m' + x, another key's name"),
    "deep brackets": ("key = " + "[" * 70 + "]" * 70, "nested too deeply"),
    "deeper brackets": ("key = " + "[" * 5000 + "]" * 5000, "too many nested parentheses"),
    "a longer sum": ("key = " + "1+" * 100_000 + "1", "nested too deeply"),
    "many signs": ("key = " + "-" * 100_000 + "1", "nested too deeply"),
    "another byte": ("a = 1\nb = '\udcff'\n", "line 2: holds byte 0xff, expected UTF-8 text; save"),
    "a book": (" " * (MOST_BYTES + 1), f"expected a text file of at most {MOST_BYTES}"),
}


@pytest.mark.fault(20)
@pytest.mark.parametrize("name", CODE)
def test_code_is_refused_by_line_and_key(tmp_path, name):
    text, says = CODE[name]
    path = tmp_path / "some.cfg"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert says in refused(path)
    assert len(refused(path)) < 400
    with pytest.raises(DataFault, match=f"^{re.escape(str(path))}: "):
        read_train_config(path)


@pytest.mark.fault(20)
def test_nothing_is_executed(tmp_path):
    touched = tmp_path / "touched"
    for text in (
        f"key = __import__('pathlib').Path({str(touched)!r}).touch()",
        f"import pathlib; pathlib.Path({str(touched)!r}).touch()",
        f"key = [p for p in [open({str(touched)!r}, 'w')]]",
        f"@print\nclass A:\n    open({str(touched)!r}, 'w')",
    ):
        refused(cfg(tmp_path, text))
    assert not touched.exists()


def test_what_is_no_file_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "none.cfg")
    assert "is a folder" in refused(tmp_path, UsageFault)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_configuration_is_read_or_a_typed_fault(toy, data):
    """One value of the real thing is replaced, or some characters are; or it is any bytes."""
    text, path = toy.train.read_text(), toy.folder / "some.cfg"
    how = data.draw(st.sampled_from(["value", "characters", "bytes"]))
    if how == "value":
        values = read_literals(toy.train)
        key = data.draw(st.sampled_from(sorted(values)))
        odd: list[Any] = [None, True, -1, 0, 2.5, "", "x", "\n", [], [[]], {}, [None], ("a",)]
        values[key] = data.draw(st.sampled_from(odd))
        text = "".join(f"{k} = {v!r}\n" for k, v in values.items())
    elif how == "characters":
        at = data.draw(st.integers(0, len(text) - 1))
        end = at + data.draw(st.integers(0, 4))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[end:]
    path.write_bytes(data.draw(st.binary(max_size=60)) if how == "bytes" else text.encode())
    said = ""
    try:
        read_train_config(path)
    except GansynthError as typed:
        said = str(typed)
    assert "\n" not in said


def test_what_the_file_does_not_say_is_deepmedics_default(toy):
    wanted = ("channelsTraining", "gtLabelsTraining", "batchsize_train")
    values = {key: read_literals(toy.train)[key] for key in wanted}
    values["typeOfLearningRateSchedule"] = "poly"
    found = read_train_config(write_config(toy.folder / "least.cfg", values))
    assert (found.epochs, found.subepochs, found.cases, found.segments) == (35, 20, 50, 1000)
    assert (found.batch, found.processes, found.sampling, found.sampling_validation) == (5, 0, 3, 1)
    assert (found.proportions, found.weighted, found.normalise) == (None, False, False)
    assert found.pad
    assert (found.validation, found.predictions, found.validation_list) == ((), (), None)
    assert [case.roi for case in found.train] == [None, None]
    # Lists to validate on count only if something is validated.
    off = {**UNVALIDATED, "channelsValidation": ["nowhere.cfg"]}
    assert read_train_config(changed(toy, **off)).validation == ()


SCHEDULE, NAMES = "typeOfLearningRateSchedule", "namesForPredictionsPerCaseVal"
ON_SAMPLES = "performValidationOnSamplesThroughoutTraining"
SHARES, SAMPLING = "proportionOfSamplesToExtractPerCategoryTraining", "typeOfSamplingForTraining"
Cases = Mapping[str, tuple[dict[str, Any], str]]
TRAIN: Cases = {
    "no schedule": ({SCHEDULE: None}, f"no {SCHEDULE}, expected one of stable, predef, poly, auto"),
    "no epochs of a schedule": ({SCHEDULE: "predef"}, "no predefinedSchedule, expected a list"),
    "a schedule that needs validation": (
        {SCHEDULE: "auto", ON_SAMPLES: None},
        f"{SCHEDULE} is 'auto', expected {ON_SAMPLES} = True with it; set it, or choose another",
    ),
    "half a batch": ({"batchsize_train": 2.5}, "batchsize_train is 2.5, expected a whole number"),
    "a flag for a number": ({"numberOfEpochs": True}, "numberOfEpochs is True, expected a whole"),
    "a text for a flag": ({ON_SAMPLES: "yes"}, f"{ON_SAMPLES} is 'yes', expected True or False"),
    "no channels": ({"channelsTraining": None}, "no channelsTraining, expected a list of files"),
    "a text for channels": ({"channelsTraining": "./x"}, "channelsTraining is './x', expected a"),
    "no labels to validate on": ({"gtLabelsValidation": None}, "no gtLabelsValidation, expected"),
    "no names": ({NAMES: None}, f"no {NAMES}, expected a file that lists a name for each"),
    "another sampling": ({SAMPLING: 4}, "is 4, expected one of 0, 1, 2, 3"),
    "shares of nothing": ({SHARES: [0, 0, 0]}, f"{SHARES} is [0, 0, 0], expected numbers from 0"),
    "three shares": (
        {SHARES: [1, 1, 1], SAMPLING: 0},
        f"{SHARES} is [1, 1, 1], expected two numbers, for foreground and background",
    ),
    "a name of two lines": ({"sessionName": "a\nb"}, "expected a text that prints on one line"),
    "another z-score": ({"norm_zscore_prms": [1]}, "norm_zscore_prms is [1], expected a dict"),
    "a z-score of one": (
        {"norm_zscore_prms": {"apply_per_channel": [True]}},
        "apply_per_channel has to be True or False for each of 2 channel(s)",
    ),
    "a misspelt key": (
        {"batchsize_train": None, "batchsize_trian": 5}, "add it. Did you mean 'batchsize_trian'?",
    ),
    "channels in another order": (
        {"channelsValidation": ["./validation_t1c.cfg", "./validation_flair.cfg"]},
        "channels to validate on are t1c, flair, but to train on flair, t1c; expected",
    ),
    "a channel too few": (
        {"channelsValidation": ["./validation_t1c.cfg"]}, "1 channel(s) to validate on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAIN)
def test_a_key_that_deepmedic_would_stop_at_is_refused(toy, name):
    values, says = TRAIN[name]
    assert says in refused(changed(toy, **values), read=read_train_config)


def network(folder: Path, **values: Any) -> Path:
    return write_config(folder / "model.cfg", {**MODEL_VALUES, **values})


def test_the_toy_network(tmp_path):
    found = read_model_config(network(tmp_path))
    assert (found.classes, found.channels, found.receptive) == (3, 2, (7, 7, 7))
    assert found.unpredicted == (6, 6, 6)
    assert (found.low, found.factors) == (((4, 5, 6),), ((3, 3, 3),))
    assert (found.fc, found.fc_kernels) == ((8,), ((1, 1, 1), (1, 1, 1)))
    assert found.dropout == (0.0, 0.5)
    assert (found.activation, found.rolling, found.initial) == ("prelu", 60, ("fanIn", 2.0))
    out = dict.fromkeys(("segmentsDimVal", "segmentsDimInference", "numberFMsPerLayerFC"))
    found = read_model_config(network(tmp_path, **out, useSubsampledPathway=None))
    assert (found.segment_validation, found.segment_inference) == ((7, 7, 7), (13, 13, 13))
    assert (found.low, found.low_kernels, found.factors) == ((), (), ())
    assert (found.fc, found.dropout) == ((), (0.5,))


FC = {"kernelDimPerLayerFC": [[3, 3, 3], [1, 1, 1]]}
MODEL: Cases = {
    "no classes": ({"numberOfOutputClasses": None}, "no numberOfOutputClasses, expected a whole"),
    "no layers": ({"numberFMsPerLayerNormal": []}, "numberFMsPerLayerNormal is [], expected a"),
    "a kernel too few": (
        {"kernelDimPerLayerNormal": [[3, 3, 3]]},
        "kernelDimPerLayerNormal is [[3, 3, 3]], expected one kernel for each of 3 layer(s)",
    ),
    "a flat kernel": ({"kernelDimPerLayerNormal": [[3, 3]] * 3}, "expected a list of threes"),
    "a residual too early": ({"layersWithResidualConnNormal": [1]}, "layers from 2 to 3"),
    "a small segment": (
        {"segmentsDimTrain": [6, 13, 13]},
        "segmentsDimTrain is [6, 13, 13], expected at least [7, 7, 7], what the network needs to "
        "predict a voxel; enlarge it",
    ),
    "a segment that FC layers use up": (
        {**FC, "segmentsDimVal": [8, 8, 8]},
        "segmentsDimVal is [8, 8, 8], expected at least [9, 9, 9]",
    ),
    "another receptive field below": (
        {"kernelDimPerLayerSubsampled": [[3, 3, 3], [3, 3, 3], [5, 5, 5]]},
        "expected the normal path's receptive field, [7, 7, 7]",
    ),
    "a flat factor": ({"subsampleFactor": [[3, 3]]}, "subsampleFactor is [[3, 3]], expected three"),
    "unlike paths": (
        {"numberFMsPerLayerSubsampled": [[4], [4, 5]]}, "expected as many layers in each path",
    ),
    "padding that DeepMedic miscounts": (
        {**FC, "padTypePerLayerFC": [None, None]},
        "expected 'VALID' or 'mirror' for a kernel of [3, 3, 3]",
    ),
    "another padding": ({"padTypePerLayerFC": ["full", None]}, "expected 'VALID', 'mirror'"),
    "dropout of all": ({"dropoutRatesFc": [0.5, 1.0]}, "expected a rate from 0 to below 1 for"),
    "another activation": ({"activationFunction": "gelu"}, "is 'gelu', expected one of linear"),
    "another start": ({"convWeightsInit": ["xavier", 1]}, "convWeightsInit is ['xavier', 1]"),
    "an old key": ({"relu0orPrelu1": 1}, "relu0orPrelu1 is no longer read by DeepMedic, expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL)
def test_a_network_that_deepmedic_could_not_build_is_refused(tmp_path, name):
    values, says = MODEL[name]
    assert says in refused(network(tmp_path, **values), read=read_model_config)


@pytest.fixture
def mine(tmp_path) -> Toy:
    """Lists that a test may change; of no volumes, for reading them needs none."""
    return toy_deepmedic(tmp_path / "toy", train=3, val=2, shape=(9, 9, 9))


def read(toy: Toy, **values: Any) -> TrainConfig:
    return read_train_config(changed(toy, **values))


def fault(toy: Toy, **values: Any) -> str:
    with pytest.raises(DataFault) as caught:
        read(toy, **values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def lines(toy: Toy, name: str, *entries: str) -> Path:
    path = toy.folder / name
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return path


def test_entries_are_relative_to_their_list_and_comments_are_passed_over(mine):
    (mine.folder / "lists").mkdir()
    text = "# first\n\n  ../data/./x/../pat_00/flair.nii.gz  \r\n/abs/b.nii.gz\n#\n../c.nii.gz"
    (mine.folder / "lists/flair.cfg").write_text(text)
    found = read(mine, channelsTraining=["lists/flair.cfg", "training_t1c.cfg"])
    first = mine.folder / "data/pat_00/flair.nii.gz"
    wanted = [first, Path("/abs/b.nii.gz"), mine.folder / "c.nii.gz"]
    assert [case.channels[0] for case in found.train] == wanted
    assert found.channels == ("flair", "training_t1c")


def test_a_channel_may_be_missing_but_not_the_first_and_no_label_map(mine):
    lines(mine, "training_t1c.cfg", "data/pat_00/t1c.nii.gz", "-", " - ")
    assert [case.channels[1] is None for case in read(mine).train] == [False, True, True]
    for name in ("labels", "roi"):
        path = mine.folder / f"training_{name}.cfg"
        before = path.read_text()
        lines(mine, path.name, "a.nii.gz", "b.nii.gz", "-")
        assert fault(mine).startswith(f"{path}: entry 3 is '-', a missing label map or region of")
        path.write_text(before)
    first = lines(mine, "training_flair.cfg", "a.nii.gz", "-", "c.nii.gz")
    assert fault(mine) == (
        f"{first}: entry 2 is '-', a missing first channel, which DeepMedic needs, "
        "expected a path; add the file, or remove the case from every list"
    )


@pytest.mark.parametrize("name", ["t1c", "labels", "roi"])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_lists_of_unequal_length_are_refused(mine, part, name):
    """DeepMedic cuts them to the shortest, so that the rest is silently never seen."""
    path, first = mine.folder / f"{part}_{name}.cfg", mine.folder / f"{part}_flair.cfg"
    entries = path.read_text().splitlines()
    path.write_text("\n".join(entries[:-1]))
    count = len(entries) - 1  # a comment
    assert fault(mine) == (
        f"{path}: lists {count - 1} case(s), but {first} lists {count}; expected as many, because "
        "line i is case i (DeepMedic silently cuts the longer list). Complete it"
    )
    path.write_text("\n".join(entries))
    names = lines(mine, "names.cfg", "one.nii.gz")
    assert fault(mine).startswith(f"{names}: lists 1 case(s), but ")


def test_lists_that_cannot_be_read_are_refused(mine):
    path = mine.folder / "training_flair.cfg"
    for data, says in (
        ("\ufeffa.nii.gz\n".encode(), "byte order mark, which DeepMedic reads as part of the"),
        (b"\xe9.nii.gz\n", f"{path}: line 1: holds byte 0xe9, expected UTF-8 text"),
        (b"# c\na\rb.nii.gz\n", f"{path}: line 2: 'a b.nii.gz' holds unprintable characters"),
    ):
        path.write_bytes(data)
        assert says in fault(mine)
    for name in ("flair", "t1c", "labels", "roi"):
        lines(mine, f"training_{name}.cfg", "# nothing")
    assert fault(mine) == f"{path}: lists no case, expected a path on each line; add some"
    path.unlink()
    assert fault(mine).startswith(f"{path}: no such file")
    path.mkdir()
    assert fault(mine) == f"{path}: is no file, expected a text file; correct the path"


def test_a_case_that_is_listed_again_counts_once(mine):
    for name in ("flair", "t1c", "labels", "roi"):
        entry = f"data/pat_00/{name}.nii.gz"
        lines(mine, f"training_{name}.cfg", entry, f"data/pat_01/{name}.nii.gz", f"./{entry}")
        entry = f"data/pat_03/{name}.nii.gz"
        lines(mine, f"validation_{name}.cfg", entry, entry, f"data/pat_04/{name}.nii.gz")
    lines(mine, "names.cfg", "a", "b", "c")
    found = read(mine)
    parts = (found.train, found.repeated, found.validation)
    assert [[case.line for case in part] for part in parts] == [[1, 2], [3, 2], [1, 3]]
    assert found.predictions == ("a", "c")


HEADER, ROW = "channel_t1c,age,ground_truth,channel_flair", "t.nii.gz,4,/g.nii.gz,../f.nii.gz"


def test_a_table_goes_before_the_lists_and_its_channels_are_sorted(mine):
    lines(mine, "train.csv", f"roi_mask,{HEADER}", f"r.nii.gz,{ROW}")
    lists = {"channelsTraining": None, "gtLabelsTraining": None}
    found = read(mine, dataframe_train="train.csv", **lists)
    assert found.channels == ("flair", "t1c")
    home = mine.folder
    channels = (home.parent / "f.nii.gz", home / "t.nii.gz")
    assert found.train == (ListedCase(channels, Path("/g.nii.gz"), home / "r.nii.gz", 1),)
    assert len(found.validation) == 2
    lines(mine, "val.csv", f"{HEADER},prediction_filename", f"{ROW},p.nii.gz")
    found = read(mine, dataframe_val="val.csv", namesForPredictionsPerCaseVal=None)
    assert found.predictions == ("p.nii.gz",)
    assert found.validation[0].roi is None


def test_quotes_and_blanks_are_read_as_pandas_reads_them(mine):
    lines(mine, "train.csv", "channel_a, ground_truth", '"a,1.nii.gz", g.nii.gz', "")
    found = read(mine, dataframe_train="train.csv", **UNVALIDATED)
    home = mine.folder
    assert found.train == (ListedCase((home / "a,1.nii.gz",), home / "g.nii.gz", None, 1),)
    assert found.channels == ("a",)


TABLES = {
    "no channels": ("ground_truth\ng\n", "columns are ['ground_truth'], expected one called chann"),
    "no rows": ("channel_a,ground_truth\n", "has no rows, expected one for each case; add some"),
    "a column twice": ("channel_a,channel_a\n", "column 'channel_a' occurs twice, expected once"),
    "an empty cell": (
        "channel_a,ground_truth\na,g\n,g\n",
        "line 3: channel_a is '', expected a path (a table cannot leave a channel out); complete "
        "it, or use list files",
    ),
    "an empty region": ("channel_a,ground_truth,roi_mask\na,g,\n", "line 2: roi_mask is '', exp"),
    "a cell too many": ("channel_a,ground_truth\na,g,h\n", "line 2: 3 cell(s), expected 2 as in"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_deepmedic_would_stop_at_is_refused(toy, name):
    text, says = TABLES[name]
    path = toy.folder / "train.csv"
    path.write_text(text)
    assert fault(toy, dataframe_train="./train.csv").startswith(f"{path}: {says}")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ("trainChannels_flair.cfg trainChannels_t1c.cfg", ("flair", "t1c")),
        ("x_t1_pre_list x_t1_post_list", ("pre", "post")),
        ("flair/list.cfg t1c/list.cfg", ("flair", "t1c")),
        ("a/b/x.cfg c/b/x.cfg", ("channel 0", "channel 1")),
    ],
)
def test_channels_are_called_what_tells_their_lists_apart(paths, names):
    assert told_apart([Path("/data") / path for path in paths.split()]) == names


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["p1/flair.nii.gz", "p2/flair.nii.gz"], ("p1", "p2")),
        (["all/p1.nii.gz gt/p1/l.nii", "all/p2.nii.gz gt/p2/l.nii"], ("p1", "p2")),
        (["img/p1_flair.nii.gz", "img/p2_Flair.nii"], ("p1", "p2")),
        (["p1/a/x.nii.gz", "p1/b/x.nii.gz", "p2/a/y.nii.gz"], ("a_x", "b_x", "a_y")),
        (["p1/t0/x.nii", "p1/t1/x.nii", "p2/t0/x.nii"], ("p1_t0_x", "p1_t1_x", "p2_t0_x")),
        (["P/f.nii", "p/f.nii"], None),  # unlike in case only
    ],
)
def test_cases_have_the_shortest_name_that_tells_them_apart(texts, names):
    cases = []
    for number, text in enumerate(texts, start=1):
        image, _, labels = text.partition(" ")
        drawn = Path("/data") / (labels or str(Path(image).with_name("labels.nii.gz")))
        cases.append(ListedCase((Path("/data") / image,), drawn, None, number))
    found = case_ids(cases, "flair")
    assert len({case.casefold() for case in found}) == len(cases)
    assert names is None or found == names
