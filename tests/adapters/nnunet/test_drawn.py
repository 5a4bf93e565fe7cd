"""Generators that draw their label maps themselves, or none, and nnU-Net 2d."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.producer_main import ProducerConfig, produce
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.schema import OUTSIDE
from gansynth.runtime.errors import TrainingFault
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.class_locations import decode
from gansynth_nnunet.source import open_nnunet
from tests.conftest import Toy

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = tuple(f"--set={o}" for o in ("steps=0", "width=4", "latent=8", "batch_size=4"))
BRIEF = tuple(f"--set={o}" for o in ("steps=400", "objective=gan", "width=16", "batch_size=16"))


def flat(toy: Toy) -> list[str]:
    """The toy data set's options, for 2d."""
    return ["2d" if option == "3d_fullres" else option for option in toy.options]


def fitted(toy: Toy, run: Path, *more: str) -> Path:
    from gansynth_cli.main import cli

    command = ["fit", "dcgan", *flat(toy), "-o", str(run), "-q", "--device", "cpu", *more]
    cli.main(command, standalone_mode=False)
    return run


@pytest.fixture(scope="module")
def bare(toy_nnunet, tmp_path_factory) -> Path:
    """A run that draws images alone. Do not change it."""
    return fitted(toy_nnunet, tmp_path_factory.mktemp("bare") / "run", *TINY)


@pytest.fixture(scope="module")
def untrained(toy_nnunet, tmp_path_factory) -> Path:
    """A run that draws label maps, such as no training case has. Do not change it."""
    folder = tmp_path_factory.mktemp("untrained") / "run"
    return fitted(toy_nnunet, folder, "--with-mask", *TINY)


def lenient(run: Path, folder: Path) -> Path:
    """A copy without what the run has learnt of label maps, so that no sample has a flaw."""
    shutil.copytree(run, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state"]["labels"] = None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def fill(toy: Toy, run: Path, bank: Path, capacity: int = 6) -> BankReader:
    """What a producer does, in this process."""
    adapter: Any = NnunetAdapter(open_nnunet(toy.request(configuration="2d")))
    opened = load_run(run, "cpu")
    drawer = SampleDrawer(opened, adapter.source)
    told: dict[str, Any] = {"frozen": True, "capacity": capacity, "segment_samples": 3}
    spec = BankSpec(adapter.schema, opened.lineage, opened.run_id, opened.manifest_sha256, **told)
    request = adapter.source.request.to_json()
    with BankWriter.create(bank, spec) as writer:
        produce(
            *(writer, drawer.draw, adapter.finalise),
            ProducerConfig(str(run), request, "nnunet", str(bank), **told),
            stop=lambda: False,
            schema=adapter.schema,
            min_size=adapter.sample_size,
        )
    return BankReader(bank)


# -- without label maps ----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [["--dry-run"], [], ["--export", "Dataset510_Plus"]])
def test_images_alone_are_refused_with_the_way_out(bare, toy_nnunet, refuse, more):
    refuse(
        *("augment", "--target", "nnunet", *flat(toy_nnunet), "--generator", bare),
        *("--ratio", "1:1", *more),
        code=2,
        says=("dcgan draws images without label maps", "nnU-Net learns from labels", "--with-mask"),
    )


def test_a_bank_of_images_alone_is_refused_with_the_way_out(bare, toy_nnunet, tmp_path, refuse):
    adapter: Any = NnunetAdapter(open_nnunet(toy_nnunet.request(configuration="2d")))
    opened = load_run(bare, "cpu")
    spec = BankSpec(adapter.schema, opened.lineage, "toy", "0" * 64, frozen=True, capacity=2)
    with BankWriter.create(tmp_path / "bank", spec) as writer:
        writer.publish([(s, {}) for s in SampleDrawer(opened, adapter.source).draw(0, 2)])
        writer.finish()
    refuse(
        *("augment", "--target", "nnunet", *flat(toy_nnunet), "--bank", tmp_path / "bank"),
        *("--ratio", "1:1", "--dry-run"),
        code=2,
        says=("000000-00: no labels", "--with-mask"),
    )


# -- with label maps -------------------------------------------------------------------------------


def test_samples_are_as_nnunet_wants_them(untrained, toy_nnunet, tmp_path):
    reader = fill(toy_nnunet, lenient(untrained, tmp_path / "run"), tmp_path / "bank")
    schema, seen = reader.spec.schema, set[int]()
    assert schema.outside_fill is not None
    for sample in map(reader.read, reader.ids()):
        assert sample.labels is not None
        assert sample.boxes is not None
        assert sample.image.shape == (2, *sample.labels.shape)
        assert sample.labels.shape[0] == 1
        seen |= set(np.unique(sample.labels).tolist())
        outside = sample.image[:, sample.labels == OUTSIDE]
        assert (outside == np.array(schema.outside_fill, np.float16)[:, None]).all()
        assert sample.boxes.coords.shape == (len(sample.boxes.labels), 6)
        assert (sample.boxes.coords[:, [0, 3]] == [0, 1]).all()
        for label, voxels in decode(sample.extras, (1, 2)).items():
            assert (sample.labels[tuple(voxels[:, 1:].T)] == label).all()
            assert len(voxels) == (sample.labels == label).sum()
    assert {OUTSIDE, 1} <= seen <= set(schema.label_values)


def test_one_that_draws_no_likely_label_map_ends_with_the_reasons(untrained, toy_nnunet, tmp_path):
    with pytest.raises(TrainingFault, match=r"33 of the last 33 .* times label .*train it longer"):
        fill(toy_nnunet, untrained, tmp_path / "bank")


def test_a_generator_that_has_seen_held_out_cases_is_refused(untrained, toy_nnunet, refuse):
    refuse(
        *("augment", "--target", "nnunet", *flat(toy_nnunet), "--fold", "1"),
        *("--generator", untrained, "--ratio", "1:1", "--dry-run"),
        code=6,
        says=("leakage", "has seen"),
    )


def test_edits_have_nothing_to_edit(untrained, toy_nnunet, refuse):
    refuse(
        *("augment", "--target", "nnunet", *flat(toy_nnunet), "--generator", untrained),
        *("--ratio", "1:1", "--edit", "elastic", "--dry-run"),
        code=2,
        says=("--edit elastic", "its own label maps"),
    )


@pytest.mark.slow
def test_nnunet_trains_at_one_to_one_and_a_stock_trainer_on_the_export(
    toy_copy, tmp_path, run_cli, monkeypatch
):
    run = fitted(toy_copy, tmp_path / "run", "--with-mask", *BRIEF)
    command = ["augment", "--target", "nnunet", *flat(toy_copy), "--generator", run]
    # How good so brief a generator is differs by machine; nothing here depends on it.
    command += ["--device", "cpu", "--json", "-q", "--filter", "none"]
    quick = ("num_epochs=1", "num_iterations_per_epoch=4", "num_val_iterations_per_epoch=1")
    settings = [f"--set={setting}" for setting in quick]
    monkeypatch.setenv("nnUNet_compile", "f")
    more = ["--ratio", "1:1", "--bank-size", "16", *settings, "--", "-device", "cpu"]
    done = run_cli(*command, *more)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["drawn_real"] == found["drawn_synthetic"] > 0
    assert found["fell_back"] == 0
    assert 0 <= found["metrics_on_real_cases"]["dice"]["foreground"] <= 1

    done = run_cli(*command, "--ratio", "1:1", "--export", "Dataset510_Plus")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["synthetic_cases"] == 4
    assert np.isfinite(stock_losses(toy_copy, monkeypatch)).all()


def stock_losses(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of one short epoch of nnU-Net's own trainer on the export."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(toy.root / f"nnUNet_{name}"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    place = ("510", "2d", 0, "nnUNetTrainer", toy.plans)
    trainer: Any = get_trainer_from_args(*place, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 4
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    losses: list[float] = trainer.logger.get_value("train_losses", None)
    return losses
