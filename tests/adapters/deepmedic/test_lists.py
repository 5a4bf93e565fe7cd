"""List files and tables: cases as DeepMedic pairs them up, and what it would pair up wrongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.cases import case_ids
from gansynth_deepmedic.configs import Listed, TrainConfig, read_literals, read_train_config
from gansynth_deepmedic.lists import told_apart
from tests.deepmedic_sets import Toy, toy_deepmedic, write_config


@pytest.fixture
def toy(tmp_path) -> Toy:
    return toy_deepmedic(tmp_path / "toy", train=3, val=2, shape=(9, 9, 9))


def changed(toy: Toy, **values: Any) -> TrainConfig:
    """The training's configuration with other values; None leaves a key out."""
    path = toy.folder / "changed.cfg"
    return read_train_config(write_config(path, read_literals(toy.train) | values))


def fault(toy: Toy, **values: Any) -> str:
    with pytest.raises(DataFault) as caught:
        changed(toy, **values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def lines(toy: Toy, name: str, *entries: str) -> Path:
    path = toy.folder / name
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return path


# -- list files ------------------------------------------------------------------------------------


def test_entries_are_relative_to_their_list_and_comments_are_passed_over(toy):
    (toy.folder / "lists").mkdir()
    text = "# first\n\n  ../data/./x/../pat_00/flair.nii.gz  \r\n/abs/b.nii.gz\n#\n../c.nii.gz"
    (toy.folder / "lists/flair.cfg").write_text(text)
    found = changed(toy, channelsTraining=["lists/flair.cfg", "training_t1c.cfg"])
    assert [case.channels[0] for case in found.train] == [
        toy.folder / "data/pat_00/flair.nii.gz",
        Path("/abs/b.nii.gz"),
        toy.folder / "c.nii.gz",
    ]
    assert found.channels == ("flair", "training_t1c")


def test_a_channel_may_be_missing_but_not_the_first(toy):
    lines(toy, "training_t1c.cfg", "data/pat_00/t1c.nii.gz", "-", " - ")
    assert [case.channels[1] is None for case in changed(toy).train] == [False, True, True]
    first = lines(toy, "training_flair.cfg", "a.nii.gz", "-", "c.nii.gz")
    assert fault(toy) == (
        f"{first}: entry 2 is '-', a missing first channel, which DeepMedic cannot do without; "
        "expected a path; add the file, or remove the case from every list"
    )


@pytest.mark.parametrize("name", ["labels", "roi"])
def test_labels_and_regions_may_not_be_missing(toy, name):
    path = lines(toy, f"training_{name}.cfg", "a.nii.gz", "b.nii.gz", "-")
    assert fault(toy).startswith(f"{path}: entry 3 is '-', a missing label map or region of")


@pytest.mark.parametrize("name", ["t1c", "labels", "roi"])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_lists_of_unequal_length_are_refused(toy, part, name):
    """DeepMedic cuts them to the shortest, so that the rest is silently never seen."""
    path, first = toy.folder / f"{part}_{name}.cfg", toy.folder / f"{part}_flair.cfg"
    entries = path.read_text().splitlines()
    path.write_text("\n".join(entries[:-1]))
    count = len(entries) - 1  # a comment
    assert fault(toy) == (
        f"{path}: lists {count - 1} case(s), but {first} lists {count}; expected as many, line i "
        "of every list is case i (DeepMedic cuts the longer one silently); complete it"
    )


def test_as_many_names_as_cases_to_validate_on(toy):
    path = lines(toy, "names.cfg", "one.nii.gz")
    assert fault(toy).startswith(f"{path}: lists 1 case(s), but ")


def test_lists_that_cannot_be_read_are_refused(toy):
    path = toy.folder / "training_flair.cfg"
    path.write_bytes("\ufeffa.nii.gz\n".encode())
    assert "byte order mark, which DeepMedic takes for a part of the first path" in fault(toy)
    path.write_bytes(b"\xe9.nii.gz\n")
    assert fault(toy).startswith(f"{path}: line 1: holds byte 0xe9, expected UTF-8 text")
    path.write_text("# c\na\rb.nii.gz\n", newline="")
    assert fault(toy).startswith(f"{path}: line 2: 'a b.nii.gz' holds unprintable characters")
    path.write_text("# nothing\n")
    lines(toy, "training_t1c.cfg")
    lines(toy, "training_labels.cfg")
    lines(toy, "training_roi.cfg")
    assert fault(toy) == f"{path}: lists no case, expected a path on each line; add some"
    path.unlink()
    assert fault(toy).startswith(f"{path}: no such file")
    path.mkdir()
    assert fault(toy) == f"{path}: is no file, expected a text file; correct the path"


def test_a_case_that_is_listed_again_counts_once(toy):
    for name in ("flair", "t1c", "labels", "roi"):
        entry = f"data/pat_00/{name}.nii.gz"
        lines(toy, f"training_{name}.cfg", entry, f"data/pat_01/{name}.nii.gz", f"./{entry}")
        entry = f"data/pat_03/{name}.nii.gz"
        lines(toy, f"validation_{name}.cfg", entry, entry, f"data/pat_04/{name}.nii.gz")
    lines(toy, "names.cfg", "a", "b", "c")
    found = changed(toy)
    assert [case.line for case in found.train] == [1, 2]
    assert [case.line for case in found.repeated] == [3, 2]
    assert [case.line for case in found.validation] == [1, 3]
    assert found.predictions == ("a", "c")


def test_both_sides_have_the_same_channels_in_the_same_order(toy):
    swapped = ["./validation_t1c.cfg", "./validation_flair.cfg"]
    said = fault(toy, channelsValidation=swapped)
    assert "channels to validate on are t1c, flair, but to train on flair, t1c; expected" in said
    said = fault(toy, channelsValidation=swapped[:1])
    assert "1 channel(s) to validate on" in said
    assert "but 2 to train on" in said


# -- tables ----------------------------------------------------------------------------------------


def table(toy: Toy, name: str, header: Sequence[str], *rows: Sequence[str]) -> Path:
    return lines(toy, name, *(",".join(row) for row in (header, *rows)))


HEADER = ("roi_mask", "channel_t1c", "age", "ground_truth", "channel_flair")
ROW = ("r.nii.gz", "t.nii.gz", "4", "/g.nii.gz", "../f.nii.gz")


def test_a_table_goes_before_the_lists_and_its_channels_are_sorted(toy):
    table(toy, "train.csv", HEADER, ROW)
    found = changed(toy, dataframe_train="train.csv", channelsTraining=None, gtLabelsTraining=None)
    assert found.channels == ("flair", "t1c")
    home = toy.folder
    channels = (home.parent / "f.nii.gz", home / "t.nii.gz")
    assert found.train == (Listed(channels, Path("/g.nii.gz"), home / "r.nii.gz", 1),)
    assert len(found.validation) == 2


def test_a_table_of_cases_to_validate_on_may_name_their_predictions(toy):
    table(toy, "val.csv", [*HEADER[1:], "prediction_filename"], [*ROW[1:], "p.nii.gz"])
    found = changed(toy, dataframe_val="val.csv", namesForPredictionsPerCaseVal=None)
    assert found.predictions == ("p.nii.gz",)
    assert found.validation[0].roi is None


def test_quotes_and_blanks_are_read_as_pandas_reads_them(toy):
    text = 'channel_a, ground_truth\n"a,1.nii.gz", g.nii.gz\n\n'
    (toy.folder / "train.csv").write_text(text)
    found = changed(
        toy,
        dataframe_train="train.csv",
        performValidationOnSamplesThroughoutTraining=None,
        performFullInferenceOnValidationImagesEveryFewEpochs=None,
    )
    home = toy.folder
    assert found.train == (Listed((home / "a,1.nii.gz",), home / "g.nii.gz", None, 1),)
    assert found.channels == ("a",)


TABLES = {
    "no channels": (
        "ground_truth\ng\n",
        "columns are ['ground_truth'], expected one called channe",
    ),
    "no labels": ("channel_a\na\n", "columns are ['channel_a'], expected one called ground_truth"),
    "no rows": ("channel_a,ground_truth\n", "has no rows, expected one for each case; add some"),
    "nothing": ("", "columns are [], expected one called channel_NAME"),
    "a column twice": ("channel_a,channel_a\n", "column 'channel_a' occurs twice, expected once"),
    "an empty cell": (
        "channel_a,ground_truth\na,g\n,g\n",
        "line 3: channel_a is '', expected a path (a table cannot leave a channel out); complete "
        "it, or use list files",
    ),
    "a missing channel": ("channel_a,ground_truth\n-,g\n", "line 2: channel_a is '-', expected a"),
    "an empty region": ("channel_a,ground_truth,roi_mask\na,g,\n", "line 2: roi_mask is '', exp"),
    "a cell too many": ("channel_a,ground_truth\na,g,h\n", "line 2: 3 cell(s), expected 2 as in"),
    "an open quote": ('channel_a,ground_truth\n"a,g\n', "line 2: 1 cell(s), expected 2"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_deepmedic_would_stop_at_is_refused(toy, name):
    text, says = TABLES[name]
    path = toy.folder / "train.csv"
    path.write_text(text)
    assert fault(toy, dataframe_train="./train.csv").startswith(f"{path}: {says}")


# -- names -----------------------------------------------------------------------------------------

CHANNELS = {
    "an ending": (["trainChannels_flair.cfg", "trainChannels_t1c.cfg"], ("flair", "t1c")),
    "a start": (["flair-train.txt", "t1c-train.txt"], ("flair", "t1c")),
    "in the middle": (["x_t1_pre_list", "x_t1_post_list"], ("pre", "post")),
    "one of them longer": (["c_t1.cfg", "c_t1_gd.cfg"], ("t1", "t1_gd")),
    "folders": (["flair/list.cfg", "t1c/list.cfg"], ("flair", "t1c")),
    "nothing": (["a/b/x.cfg", "c/b/x.cfg"], ("channel 0", "channel 1")),
    "one alone": (["trainChannels_flair.cfg"], ("channel 0",)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_are_called_what_tells_their_lists_apart(name):
    paths, expected = CHANNELS[name]
    assert told_apart([Path("/data") / path for path in paths]) == expected


CASES = {
    "folders": (["p1/flair.nii.gz", "p2/flair.nii.gz"], ("p1", "p2")),
    "folders of labels": (["all/p1.nii.gz gt/p1/l.nii", "all/p2.nii.gz gt/p2/l.nii"], ("p1", "p2")),
    "files": (["img/p1_flair.nii.gz", "img/p2_Flair.nii"], ("p1", "p2")),
    "both": (["p1/a/x.nii.gz", "p1/b/x.nii.gz", "p2/a/y.nii.gz"], ("a_x", "b_x", "a_y")),
    "folders above": (
        ["p1/t0/x.nii", "p1/t1/x.nii", "p2/t0/x.nii"],
        ("p1_t0_x", "p1_t1_x", "p2_t0_x"),
    ),
    "unlike in case only": (["P/f.nii", "p/f.nii"], None),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_have_the_shortest_name_that_tells_them_apart(name):
    texts, expected = CASES[name]
    cases = []
    for number, text in enumerate(texts, start=1):
        image, _, labels = text.partition(" ")
        drawn = Path("/data") / (labels or str(Path(image).with_name("labels.nii.gz")))
        cases.append(Listed((Path("/data") / image,), drawn, None, number))
    found = case_ids(cases, "flair")
    if expected is None:
        assert len({case.casefold() for case in found}) == len(cases)
    else:
        assert found == expected
