import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest, case_record
from gansynth.fitting.fit import fit
from gansynth.fitting.warm_start import copy_weights, named_axes
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource
from tests.expected import raises_fault
from tests.recorder import Recorder
from tests.training.zoo.members import newest

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "batch_size": 1, "precision": "fp32"}
LABELS = {"background": 0, "organ": 1}


class Small(Generator):
    """Two convolutions whose channels have names; the second is spectrally normalised."""

    name = "small"

    def networks(self) -> dict[str, nn.Module]:
        told = len(self.schema.label_values) + len(self.schema.channels)
        second = nn.Conv2d(4, len(self.schema.channels), 1)
        return {
            "net": nn.ModuleDict({"first": nn.Conv2d(told, 4, 3), "second": spectral_norm(second)})
        }

    def channel_axes(self) -> dict[str, tuple[int, Sequence[str]]]:
        labels = [f"label:{value}" for value in self.schema.label_values]
        channels = [f"image:{name}" for name in self.schema.channels]
        return {
            "net/first.weight": (1, (*labels, *channels)),
            "net/second.weight": (0, channels),
            "net/second.bias": (0, channels),
        }

    def sample(self, conditions, seeds):
        raise NotImplementedError


def small(*channels: str, labels: Mapping[str, int] = LABELS, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    schema = Schema(channels, labels, (1.0, 1.0), "HW")
    return Small(schema, (8, 8), GeneratorOptions())


def tensors(generator: Generator) -> dict[str, Tensor]:
    nets = generator.nets.items()
    return {f"{n}/{k}": v.clone() for n, net in nets for k, v in net.state_dict().items()}


ORIGINAL = ".parametrizations.weight.original"
FIRST, SECOND = "net/first.weight", f"net/second{ORIGINAL}"


OLD = ("T1", "T2")


@pytest.mark.parametrize(
    ("new", "places", "channels"),
    [
        (small(*OLD), [0, 1, 2, 3], [0, 1]),
        (small("T2", "T1"), [0, 1, 3, 2], [1, 0]),
        # Channels the ancestor does not have stay fresh.
        (small("FLAIR", "T1"), [0, 1, None, 2], [None, 0]),
        # Label 1 is an organ there, a lesion here: the same number and the same shape.
        (small(*OLD, labels={"background": 0, "lesion": 1}), [0, None, 2, 3], [0, 1]),
    ],
    ids=["the same", "another order", "another channel", "another meaning"],
)
def test_channels_are_taken_over_by_name(new, places, channels):
    old, fresh = small(*OLD, seed=0), tensors(new)
    had, taken = tensors(old), copy_weights(new, named_axes(old), tensors(old))
    found = tensors(new)
    for key, axis, at in ((FIRST, 1, places), (SECOND, 0, channels)):
        for place, where in enumerate(at):
            wanted = (
                fresh[key].select(axis, place) if where is None else had[key].select(axis, where)
            )
            assert torch.equal(found[key].select(axis, place), wanted)
    names = [
        ["label:background", "label:organ", "image:T1", "image:T2"][i]
        for i in places
        if i is not None
    ]
    if None in places:
        assert taken.partial[FIRST.replace(ORIGINAL, ".weight")] == names
        assert 0.5 < taken.share < 1
    elif places[2] == 2:
        assert (len(taken.whole), taken.partial, taken.fresh, taken.share) == (4, {}, [], 1.0)


def test_what_is_of_another_shape_or_missing_stays_fresh():
    old, new = small("T1", seed=0), small("T1")
    given = {k: v[:2] if k == FIRST else v for k, v in tensors(old).items()}
    del given["net/second.bias"]
    fresh = copy_weights(new, old.channel_axes(), given).fresh
    assert fresh == [FIRST, "net/second.bias"]


@pytest.mark.parametrize("channels", [("T1",), ("T1", "FLAIR")], ids=["whole", "partial"])
def test_a_normalised_weight_has_norm_one_at_once(channels):
    """Singular vectors of another weight would make its norm seem smaller than it is."""
    old, new = small("T1", seed=0), small(*channels)
    with torch.no_grad():
        old.nets["net"].second.parametrizations.weight.original.mul_(100)
    copy_weights(new, named_axes(old), tensors(old))
    normalised = new.nets["net"].eval().second.weight.flatten(1)
    assert torch.linalg.matrix_norm(normalised, 2).item() == pytest.approx(1, abs=1e-4)


def start(out: Path, **changes: Any) -> Recorder:
    """Fit for two steps; what was said."""
    passed = {k: changes.pop(k) for k in ("init_from", "dry_run") if k in changes}
    settings = {k: str(v) for k, v in {"steps": 2, **TINY, **changes}.items()}
    where, reporter = SourceRequest("toy", "2"), Recorder()
    asked: dict[str, Any] = {"settings": settings, "edits": ("flip",), "device": "cpu"}
    fit("cgan3d", where, out, **asked, reporter=reporter, **passed)
    return reporter


@pytest.fixture(scope="module")
def parent_run(toy_source, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("ancestor") / "run"
    start(out)
    return out


@pytest.fixture(scope="module")
def heir(parent_run: Path, tmp_path_factory: Any) -> tuple[Path, Recorder]:
    """Started from the ancestor, not yet trained."""
    out: Path = tmp_path_factory.mktemp("heir") / "run"
    return out, start(out, steps=0, init_from=parent_run)


def test_a_run_starts_from_the_ancestors_averages_and_discriminator_and_says_so(parent_run, heir):
    found, live = newest(heir[0]), newest(parent_run)
    averages = load_file(parent_run / "checkpoints" / "step-00000002" / "ema.safetensors")
    assert all(torch.equal(found[f"net/{k}"], v) for k, v in averages.items())
    assert all(torch.equal(found[f"ema/{k}"], v) for k, v in averages.items())
    judge = [k for k in live if k.startswith("net/discriminator/") and k[-2:] not in ("_u", "_v")]
    assert len(judge) > 2
    assert all(torch.equal(found[k], live[k]) for k in judge)
    told = [text for text in heir[1].said if text.startswith("--init-from")]
    assert "0 fresh: 100% of all weights" in told[0]
    old, new = read_manifest(parent_run), read_manifest(heir[0])
    record = new["init_from"]
    assert (record["run_id"], old["init_from"]) == (old["run_id"], None)
    assert (record["partial"], record["fresh"], record["share"]) == ({}, 0, 1.0)
    assert "ancestors" not in new["lineage"]  # of the same fold: not told twice


def test_resuming_does_not_inherit_again_but_where_there_is_no_checkpoint(
    parent_run, heir, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(heir[0], run)
    shutil.rmtree(run / "checkpoints")  # killed before the first one
    start(run, steps=0, init_from=parent_run)
    assert read_manifest(run)["weights"] == read_manifest(heir[0])["weights"]
    said = start(run, init_from=parent_run).said
    trained = read_manifest(run)["weights"]["sha256"]
    said += start(run, init_from=parent_run).said
    assert read_manifest(run)["weights"]["sha256"] == trained
    assert not any("weights" in text for text in said if "--init-from" in text)
    with raises_fault("fitting.folder-holds-other-run"):
        start(heir[0])  # without its ancestor it is another run


def test_other_options_are_said_and_nothing_that_fits_is_refused(parent_run, tmp_path):
    recorder = start(tmp_path / "run", steps=0, width=8, init_from=parent_run, dry_run=True)
    assert any("options differ: width is 8, was 4" in text for text in recorder.warned)
    assert any(text.startswith("--init-from") for text in recorder.said)
    with raises_fault("fitting.init-from-weights-differ"):
        start(tmp_path / "new", width=8, d_width=8, init_from=parent_run)
    assert list(tmp_path.rglob("manifest.json")) == []
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(3)
def test_damaged_weights_are_refused(parent_run, tmp_path):
    shutil.copytree(parent_run, tmp_path / "old")
    (tmp_path / "old" / read_manifest(parent_run)["weights"]["path"]).write_bytes(b"damaged")
    with raises_fault("files.checksum-differs"):
        start(tmp_path / "run", init_from=tmp_path / "old")


def change_lineage(run: Path, **entries: Any) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["lineage"].update(entries)
    write_manifest(run, manifest)


@pytest.fixture
def elsewhere(parent_run: Path, tmp_path: Path) -> Path:
    """An ancestor that has seen the same cases in another data set, under other names."""
    shutil.copytree(parent_run, tmp_path / "elsewhere")
    cases = read_manifest(parent_run)["lineage"]["cases"]
    renamed = [{**case, "id": f"x{i}", "subject": f"x{i}"} for i, case in enumerate(cases)]
    change_lineage(tmp_path / "elsewhere", dataset="msd:Other", cases=renamed)
    return tmp_path / "elsewhere"


def test_what_the_ancestor_has_seen_counts_as_seen(elsewhere, tmp_path):
    start(tmp_path / "run", steps=0, init_from=elsewhere)
    lineage = load_run(tmp_path / "run", "cpu").lineage
    assert [one.dataset for one in lineage.everyone()] == ["toy:2", "msd:Other"]
    assert len(lineage.ancestors[0].cases) == 12


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_ancestor_that_has_seen_a_held_out_case_is_refused(elsewhere, tmp_path, dry_run):
    leak = case_record(ToySource(2), ToySource(2).held_out_ids[1])
    change_lineage(elsewhere, cases=[{"id": "y", "subject": "y", "sha256": leak.sha256}])
    with raises_fault("lineage.held-out-case-seen"):
        start(tmp_path / "run", init_from=elsewhere, dry_run=dry_run)
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize("command", ["augment", "fit"])
def test_the_commands_refuse_what_an_ancestor_has_seen(
    toy_nnunet, fitted, refuse, tmp_path, command
):
    """Exit 6, also where the run itself has seen nothing but its own training cases."""
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    source = open_source(toy_nnunet.request())
    leak = case_record(source, source.held_out_ids[0])
    seen = {"id": "x", "subject": "x", "sha256": leak.sha256}
    parent = {"dataset": "msd:Other", "fold": "0", "cases": [seen], "host": {}}
    change_lineage(run, ancestors=[parent])
    words = {
        "augment": ("--target", "nnunet", "--generator", run, "--ratio", "1:1", "--dry-run"),
        "fit": ("cgan3d", "--init-from", run, "-o", tmp_path / "new", "--dry-run"),
    }[command]
    says = ("leakage", "ancestor of msd:Other", f"{leak.id} (same content as x)")
    refuse(command, *words, *toy_nnunet.options, "--device", "cpu", code=6, says=says, keep=[run])
