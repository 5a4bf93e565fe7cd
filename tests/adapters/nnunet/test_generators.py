from pathlib import Path

import pytest

from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
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


BARE = ("dcgan draws images without label maps", "learns from labels", "--set with_mask=yes")


@pytest.mark.parametrize(
    ("name", "more", "code", "says"),
    [
        ("bare", [], 2, BARE),
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
    source = NnunetSource(toy_nnunet.request(configuration="2d"))
    opened = load_run(runs["bare"], "cpu")
    pairs: Pairs = [(sample, {}) for sample in Sampler(opened, source).draw(0, 2)]
    write_bank(tmp_path / "bank", source.schema, opened.lineage, pairs)
    words = ("augment", "--target", "nnunet", *flat(toy_nnunet), "--bank", tmp_path / "bank")
    says = ("000000: sample: no labels", "learns from labels")
    refuse(*words, "--ratio", "1:1", "--dry-run", code=3, says=says)


def test_samples_of_slices_of_volumes_are_written(runs, succeed, tmp_path):
    words = ("sample", runs["untrained"], "-n", 1, "-o", tmp_path / "out", "--device", "cpu")
    succeed(*words, "--filter", "none")
    assert len([*tmp_path.glob("out/images/*.nii.gz")]) == 2  # a file for each channel
