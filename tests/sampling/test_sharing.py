from typing import Any

import numpy as np
import pytest

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator
from gansynth.core.schema import Sample
from tests.evaluation.audit.exported import PEOPLE, write_source
from tests.offered import offered

EDGE = 12  # of the crop that a small state has room for
CONTEXT = Capabilities(takes=frozenset({"labels", "context"}))


class Honest(Generator):
    """A plugin without networks that draws noise; others show what ``shown`` returns."""

    name = "stranger"
    kept: Any = None

    def sample(self, conditions, seeds):
        pairs = zip(conditions, seeds, strict=True)
        return [Sample(self.shown(c, seed), c.labels.copy()) for c, seed in pairs]

    def shown(self, condition, seed):
        size = (len(self.schema.channels), *self.size)
        return np.random.default_rng(seed).normal(0, 1, size).astype(np.float32)


class TakesChannels(Honest):
    capabilities = Capabilities(takes=frozenset({"labels", "channels"}), channels=("channel 0",))

    def shown(self, condition, seed):
        return condition.given


class ImageAsContext(Honest):
    capabilities = CONTEXT

    def context(self, case):
        return (1000 * case.image[0]).astype(np.int16)

    def shown(self, condition, seed):
        return condition.context[None].astype(np.float32)


class GreysAsContext(ImageAsContext):
    """Sixty levels of grey: few values, and an image all the same."""

    def context(self, case):
        return (10 * case.image[0]).clip(-30, 29).astype(np.int16)


class Remembers(Honest):
    """Its context is harmless; what it was made of stays in the object."""

    capabilities = CONTEXT

    def context(self, case):
        self.kept = 2 * case.image + 1
        return case.labels

    def shown(self, condition, seed):
        return self.kept


class KeepsCases(Honest):
    def observe(self, cases):
        return {"kept": [case.image.tolist() for case in cases]}


class KeepsCrop(Honest):
    """The crop of one patient that a small state has room for, again and again in each image."""

    def observe(self, cases):
        crop = next(iter(cases)).image[:, 2 : 2 + EDGE, 3 : 3 + EDGE, 2 : 2 + EDGE]
        return {"kept": crop.round(3).tolist()}

    def load_state(self, state):
        self.kept = np.array(state["kept"], np.float32)

    def shown(self, condition, seed):
        more = [(0, 0), *((0, size - EDGE) for size in self.size)]
        return np.pad(self.kept, more, mode="wrap")


class KeepsMirroredCrop(KeepsCrop):
    def shown(self, condition, seed):
        return super().shown(condition, seed)[:, :, ::-1, ::-1]


class KeepsNoisyCrop(KeepsCrop):
    """No longer voxel for voxel."""

    def shown(self, condition, seed):
        crop = super().shown(condition, seed)
        return crop + np.random.default_rng(seed).normal(0, 0.05, crop.shape).astype(np.float32)


class KeepsOne(KeepsCrop):
    """One patient in 8 bits, seen from the other side."""

    def observe(self, cases):
        image = next(iter(cases)).image[0]
        levels = 255 * (image - image.min()) / np.ptp(image)
        return {"kept": levels.astype(int).tolist()}

    def shown(self, condition, seed):
        return self.kept[None, ::-1, :, ::-1]


class KeepsNegative(KeepsOne):
    """In other grey values, too."""

    def shown(self, condition, seed):
        return -(super().shown(condition, seed) ** 1.5)


def run_of(run_cli: Any, folder: Any, name: str = "stranger", kind: str = "nifti") -> Any:
    source = write_source(folder / "patients")
    read = ("--data", f"{kind}:{source.where}", "--fold", "all", "--subjects", PEOPLE)
    return run_cli("fit", name, *read, "-o", folder / "run", "--device", "cpu", "-q")


@pytest.mark.parametrize(
    ("hostile", "code", "says"),
    [
        (Honest, 0, ""),
        (TakesChannels, 2, "is given channels of real cases"),
        (GreysAsContext, 6, "of the textured blocks of a patient's image"),
        (Remembers, 6, "repeats 100% of the textured blocks of a patient's image"),
        (KeepsOne, 6, "is training case"),
        (KeepsNegative, 6, "is training case"),
        (KeepsCrop, 6, "of 7 parts searched for of training case"),
        (KeepsMirroredCrop, 6, "2 of 2 samples searched for are such copies"),
        (KeepsNoisyCrop, 0, "2 of 2 samples searched for resemble a place of a training case"),
    ],
)
def test_no_samples_for_sharing_show_a_patient(run_cli, tmp_path, hostile, code, says):
    with offered("strangers", generators={"stranger": hostile}):
        done = run_of(run_cli, tmp_path)
        assert done.exit_code == 0, done.stderr
        out = tmp_path / "out"
        done = run_cli("sample", tmp_path / "run", "-n", 2, "--deidentify", "-o", out, "-q")
    assert (done.exit_code, out.exists()) == (code, code == 0), done.stderr
    assert says in done.stderr
    assert ("resemble" in done.stderr) == ("resemble" in says)


@pytest.mark.parametrize(
    ("hostile", "says"),
    [
        (KeepsCases, "observe() of stranger has returned"),
        (ImageAsContext, "distinct values of int16, expected integers and at most 64"),
    ],
)
def test_a_fit_refuses_images_among_statistics_and_context(
    run_cli, tmp_path, whole_fits, hostile, says
):
    with offered("strangers", generators={"stranger": hostile}):
        done = run_of(run_cli, tmp_path)
    assert done.exit_code == 6
    assert says in done.stderr


@pytest.mark.parametrize("name", ["copypaste", "elastic"])
def test_generators_that_take_real_images_are_refused_at_once(run_cli, tmp_path, name):
    done = run_of(run_cli, tmp_path, name, "slices:nifti")
    assert done.exit_code == 0, done.stderr
    for how in (("--deidentify",), ("--format", "png")):
        done = run_cli("sample", tmp_path / "run", "-n", 2, *how, "-o", tmp_path / "out")
        assert (done.exit_code, (tmp_path / "out").exists()) == (2, False), done.stderr
        assert "so its samples hold real images" in done.stderr
