import pytest

from gansynth.core.registry import installed
from gansynth.runtime.option_kinds import option_rows
from gansynth.training.loop import FitOptions

KINDS = ("generators", "hosts", "sources", "edits", "filters", "metrics")
NAMED = [(kind, name) for kind in KINDS for name in installed().names(kind)]


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_whatever_is_registered_has_its_options_printed(run_json, kind, name):
    loaded = installed().load(kind, name)
    model = getattr(loaded, "Options", None) or getattr(loaded, "read_options", None)
    rows = [] if model is None else option_rows(model)
    tables = [table["options"] for table in run_json("options", name)["tables"]]
    assert rows in [[tuple(option.values()) for option in table] for table in tables]
    assert all(option["meaning"] for table in tables for option in table)


@pytest.mark.parametrize(
    ("name", "keys"), [("dcgan", FitOptions.model_fields), ("means", ["seed"])]
)
def test_of_a_generator_the_options_of_its_loop_are_printed_too(toys, run_json, name, keys):
    own, loop = run_json("options", name)["tables"]
    assert [option["key"] for option in loop["options"]] == list(keys)
    assert {option["key"] for option in own["options"]} & {"objective", "grain"}


def test_of_a_recipe_what_it_sets_is_printed(run_cli):
    shown = run_cli("options", "lesion")
    assert "recipe lesion: gansynth fit cgan3d --recipe lesion; lesions drawn" in shown.stdout
    assert "  insert            lesion  lesion: draw another case's lesion" in shown.stdout
    assert "--recipe lesion --scale tiny" in shown.stdout
    assert shown.stderr.startswith("next: gansynth fit cgan3d --recipe lesion --data KIND:WHERE")


def test_of_a_host_all_its_commands_are_printed(run_cli):
    shown = run_cli("options", "nnunet").stdout
    for words in ("augment --target nnunet --KEY", "prepare nnunet:WHERE --set", "nnunet:WHERE"):
        assert words in shown
    assert "  num_epochs " in shown
    assert "epochs to train (nnU-Net: 1000)" in shown
    assert run_cli("options", "spectrum").stdout == "metric spectrum: has no options\n"


@pytest.mark.parametrize("name", ["lesions", "boxes", "hard-cases"])
def test_what_is_not_registered_and_has_options_is_printed(run_json, name):
    assert run_json("options", name)["tables"][-1]["options"]
