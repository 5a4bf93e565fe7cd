"""What is asked of nnU-Net before anything of it runs: its version, the trainer, its own words."""

import os
import shlex

import pytest

from gansynth.runtime.files import read_json, write_json_atomic

pytestmark = pytest.mark.filterwarnings("ignore")
COMMANDS = {
    "check": "check {data}",
    "prepare": "prepare {data}",
    "splits": "splits {data} --force",
    "import": "import nnunet-raw:501 nnunet:7 --root {root}",
    "fit": "fit parametric --data {data} -o {home}/run",
    "augment": "augment --target nnunet --data {data} --ratio 1:0 --dry-run",
    "augment alone": "augment {data} --dry-run",
    "predict": "predict {home}/out {home} -o {home}/predicted",
    "doctor": "doctor --quick",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_version_of_nnunet_is_refused_by_every_command(
    name, toy_nnunet, run_cli, tmp_path, monkeypatch
):
    metadata = tmp_path / "site/nnunetv2-2.6.2.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.6.2\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "out").mkdir()
    session = {"epochs": [0, 1], "of_epochs": 1, "target": "nnunet"}
    write_json_atomic(tmp_path / "out/gansynth_session.json", {"sessions": [session]})
    monkeypatch.setenv("nnUNet_raw", str(toy_nnunet.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(toy_nnunet.preprocessed.parent))
    words = COMMANDS[name].format(data="nnunet:501", root=toy_nnunet.root, home=tmp_path)
    refused = run_cli(*shlex.split(words))
    assert refused.exit_code == 4, refused.output
    for said in ("2.6.2, gansynth needs <3,>=2.8", "pip install 'nnunetv2<3,>=2.8'"):
        assert said in refused.output


TRAINERS = '''
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class Mine(nnUNetTrainer):
    """Its own network, say."""

class Old(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, unpack_dataset=True, device=None):
        super().__init__(plans, configuration, fold, dataset_json, device=device)
'''


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("Nobody", "nnunet.trainer-unknown"),
        ("Old", "its __init__ takes unpack_dataset"),  # nnU-Net's reason: KeyError
        ("Mine", ""),
    ],
)
def test_the_trainer_is_looked_up_before_data_are_prepared_for_it(
    trainer, expected, toy_copy, run_cli, tmp_path, monkeypatch
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text(TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "own"))
    os.rename(toy_copy.preprocessed, tmp_path / "elsewhere")
    planned = run_cli(
        *("augment", "nnunet:501", "--root", toy_copy.root, "--trainer", trainer, "--dry-run")
    )
    last = planned.stderr.splitlines()[-1]
    assert planned.exit_code == (2 if expected else 0), planned.stderr
    assert expected in last
    if not expected:  # which another shell needs
        assert last.startswith(f"next: nnUNet_extTrainer={tmp_path}/own gansynth augment ")


def test_a_region_that_a_later_one_covers_is_told_with_an_order_that_works(toy_copy, run_cli):
    """nnU-Net paints the regions one after the other."""
    path = toy_copy.raw / "dataset.json"
    named = {"background": 0, "core": 2, "whole": [1, 2]}
    doc = read_json(path) | {"labels": named, "regions_class_order": [2, 1]}
    write_json_atomic(path, doc)
    asked = ("check", "nnunet:501", "--root", toy_copy.root)
    told = run_cli(*asked).stdout
    assert "label 2 becomes 1 in what nnU-Net predicts" in told
    assert "from the largest to the smallest, whole, core, and regions_class_order [1, 2]" in told
    named = {"background": 0, "whole": [1, 2], "core": 2}
    write_json_atomic(path, doc | {"labels": named, "regions_class_order": [1, 2]})
    assert "becomes" not in run_cli(*asked).stdout
