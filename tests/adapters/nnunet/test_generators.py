"""Generators that draw their label maps themselves, or none."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, produce
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.run_folder import write_manifest
from gansynth.core.schema import OUTSIDE
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.mixed import decode
from gansynth_nnunet.source import NnunetSource
from tests.banks import Pairs, write_bank
from tests.conftest import Toy

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = tuple(f"--set={o}" for o in ("steps=0", "width=4", "latent=8", "batch_size=4"))


def flat(toy: Toy) -> list[str]:
    """The toy data set's options, for 2d."""
    return ["2d" if option == "3d_fullres" else option for option in toy.options]


@pytest.fixture(scope="module")
def runs(toy_nnunet, tmp_path_factory) -> dict[str, Path]:
    """A run that draws images alone, and one of such label maps as no training case has."""
    from gansynth_cli.main import cli

    made = {name: tmp_path_factory.mktemp(name) / "run" for name in ("bare", "untrained")}
    for name, run in made.items():
        command = ["fit", "dcgan", *flat(toy_nnunet), "-o", str(run), "-q", "--device", "cpu"]
        masks = ["--set=with_mask=yes"] * (name == "untrained")
        cli.main([*command, *masks, *TINY], standalone_mode=False)
    return made


def fill(toy: Toy, run: Path, bank: Path, capacity: int = 6) -> BankReader:
    """What a producer does, in this process."""
    adapter: Any = NnunetAdapter(NnunetSource(toy.request(configuration="2d")))
    opened = load_run(run, "cpu")
    drawer = Sampler(opened, adapter.source)
    told: dict[str, Any] = {"frozen": True, "capacity": capacity}
    spec = BankSpec(adapter.schema, opened.lineage, opened.run_id, opened.manifest_sha256, **told)
    request = adapter.source.request.to_json()
    config = ProducerConfig(str(run), request, "nnunet", str(bank), **told)
    limits = {"stop": lambda: False, "min_size": adapter.sample_size}
    with BankWriter.create(bank, spec) as writer:
        produce(writer, drawer.draw, adapter.finalise, config, **limits)
    return BankReader(bank)


BARE = ("dcgan draws images without label maps", "learns from labels", "--set with_mask=yes")


@pytest.mark.parametrize(
    ("name", "more", "code", "says"),
    [
        ("bare", ["--dry-run"], 2, BARE),
        ("bare", [], 2, BARE),
        ("bare", ["--export", "Dataset510_Plus"], 2, BARE),
        ("untrained", ["--edit", "elastic", "--dry-run"], 2, ("--edit elastic", "own label maps")),
        ("untrained", ["--fold", "1", "--dry-run"], 6, ("leakage", "has seen")),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_way_out(
    runs, toy_nnunet, refuse, name, more, code, says
):
    words = ("augment", "--target", "nnunet", *flat(toy_nnunet), "--generator", runs[name])
    refuse(*words, "--ratio", "1:1", *more, code=code, says=says)


def test_a_bank_of_images_alone_is_refused_with_the_way_out(runs, toy_nnunet, tmp_path, refuse):
    adapter: Any = NnunetAdapter(NnunetSource(toy_nnunet.request(configuration="2d")))
    opened = load_run(runs["bare"], "cpu")
    pairs: Pairs = [(sample, {}) for sample in Sampler(opened, adapter.source).draw(0, 2)]
    write_bank(tmp_path / "bank", adapter.schema, opened.lineage, pairs)
    words = ("augment", "--target", "nnunet", *flat(toy_nnunet), "--bank", tmp_path / "bank")
    says = ("000000: sample: no labels", "learns from labels")
    refuse(*words, "--ratio", "1:1", "--dry-run", code=3, says=says)


def test_samples_are_as_nnunet_wants_them(runs, toy_nnunet, tmp_path):
    run = Path(shutil.copytree(runs["untrained"], tmp_path / "run"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["state"]["labels"] = None  # knows nothing of label maps, so that none has a flaw
    write_manifest(run, manifest)
    reader, seen = fill(toy_nnunet, run, tmp_path / "bank"), set[int]()
    schema = reader.spec.schema
    assert schema.outside_fill is not None
    for sample in map(reader.read, reader.ids()):
        labels, boxes = sample.labels, sample.boxes
        assert labels is not None
        assert boxes is not None
        assert sample.image.shape == (2, *labels.shape)
        assert labels.shape[0] == 1
        seen |= set(np.unique(labels).tolist())
        outside = sample.image[:, labels == OUTSIDE]
        assert (outside == np.array(schema.outside_fill, np.float16)[:, None]).all()
        assert boxes.coords.shape == (len(boxes.labels), 6)
        assert (boxes.coords[:, [0, 3]] == [0, 1]).all()
        for label, voxels in decode(sample.extras, (1, 2)).items():
            assert (labels[tuple(voxels[:, 1:].T)] == label).all()
            assert len(voxels) == (labels == label).sum()
    assert {OUTSIDE, 1} <= seen <= set(schema.label_values)
