"""The checks that every generator must pass: honest ones pass, each kind of cheat fails by name."""

import contextlib
import gc
import itertools
import re
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, Phase, at_rest
from gansynth.core.schema import OUTSIDE, Boxes, Sample
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.testing import ConformanceReport, ToySource, check_generator
from gansynth.testing.case_readers import GuardedSource
from gansynth.testing.toy import MEANS, TEXTURE, smooth_noise
from gansynth_cgan3d.whole import CGAN3D
from tests.expected import raises_fault
from tests.spots import Spots, boxes_of


class Honest(Generator):
    """Each label's mean, learnt from the training cases, and smooth noise from the seed."""

    name = "honest"
    means: Any = None

    def observe(self, cases):
        cases = list(cases)
        values = np.concatenate([c.image.reshape(len(c.image), -1) for c in cases], axis=1)
        labels = np.concatenate([c.labels.ravel() for c in cases])
        return {"means": [values[:, labels == v].mean(axis=1).tolist() for v in (0, 1, 2)]}

    def load_state(self, state):
        self.means = state["means"]

    def sample(self, conditions, seeds):
        return [self.draw(c, s) for c, s in zip(conditions, seeds, strict=True)]

    def draw(self, condition, seed):
        image = self.average(condition.labels) + TEXTURE * self.noise(seed)
        image[:, condition.labels == OUTSIDE] = 0
        return Sample(image.astype(np.float32), condition.labels.copy())

    def average(self, labels):
        return np.array(self.means).T[:, np.maximum(labels, 0)]

    def noise(self, seed):
        return smooth_noise((2, *self.size), np.random.default_rng(seed))


class DrawsLabels(Honest):
    """Label maps of its own: nested boxes, moved by as much as the seed says."""

    capabilities = Capabilities(takes=frozenset(), draws="both")

    def draw(self, condition, seed):
        labels = np.full(self.size, OUTSIDE, np.int16)
        for value, margin in enumerate((3, 8, 12)):
            labels[(slice(margin, -margin),) * len(self.size)] = value
        labels = np.roll(labels, seed % 5, -1)
        return super().draw(replace(condition, labels=labels), seed)


class Judged(Honest):
    """A discriminator of one number a case, with a layer that training would change."""

    def networks(self):
        net = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(1))
        net(torch.zeros(2, 2, *self.size))
        return {"discriminator": net}

    def realness(self, batch, stage):
        with at_rest(self):
            return self.nets["discriminator"](batch.image)[:, 0]


def cheat(base: type[Generator] = Honest, **methods: Any) -> type[Generator]:
    return type("Cheat", (base,), methods)


def redrawn(change: Any, base: Any = Honest) -> type[Generator]:
    """Changes what was drawn: ``change(sample, condition)``."""
    return cheat(base, draw=lambda self, c, *more: change(base.draw(self, c, *more), c))


def image_of(change: Any) -> type[Generator]:
    return redrawn(lambda sample, condition: replace(sample, image=change(sample.image)))


def labels_of(change: Any, base: Any = Honest) -> type[Generator]:
    return redrawn(lambda sample, condition: replace(sample, labels=change(sample.labels)), base)


def noisy_outside(sample, condition):
    noise = np.float32(0.1) * (condition.labels == OUTSIDE)
    return replace(sample, image=sample.image + noise)


def swapped(self, labels):
    return np.array(self.means)[::-1].T[:, np.maximum(labels, 0)]


def sign(sample, condition):
    condition.provenance["case"] = "nobody"
    return replace(sample, provenance={"class": "of nobody"})


def keeps(self, cases):
    self.means = Honest.observe(self, cases)["means"]
    return {}


def opens(self, conditions, seeds):
    for source in (o for o in gc.get_objects() if type(o) is GuardedSource and o.closed):
        with contextlib.suppress(IntegrityFault):
            source.load("toy_12")
    return Honest.sample(self, conditions, seeds)


def noised(change: Any) -> type[Generator]:
    """Takes its noise from elsewhere: ``change(seed)`` is the seed that it uses."""
    return cheat(noise=lambda self, seed: Honest.noise(self, change(seed)))


def seeds_torch(seed):
    torch.manual_seed(seed)
    return seed


def seeds_numpy(seed):
    np.random.seed(seed)  # noqa: NPY002 - the mistake that is to be found
    return seed


def batch_normalised(self, conditions, seeds):
    """Subtracts the mean of whatever else is in the batch."""
    drawn = Honest.sample(self, conditions, seeds)
    mean = np.float32(np.mean([s.image.mean() for s in drawn]))
    shifts = [mean * (c.labels != OUTSIDE) for c in conditions]
    return [replace(s, image=s.image - shift) for s, shift in zip(drawn, shifts, strict=True)]


class Hoards(Honest):
    """Keeps its cases' images; shows nothing of them."""

    def observe(self, cases):
        kept, toy = [case.image.tolist() for case in cases], ToySource(len(self.size))
        return {**super().observe(map(toy.load, toy.train_ids)), "kept": kept}


class Remembers(Honest):
    """Makes a harmless context, keeps what it was made of, and shows that with a little noise."""

    seen: ClassVar[dict[bytes, Any]] = {}

    def context(self, case):
        self.seen[case.labels.tobytes()] = case.image
        return case.labels

    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        image = self.seen[condition.labels.tobytes()] + np.float32(0.01) * drawn.image
        return replace(drawn, image=image)


CONTEXT = Capabilities(takes=frozenset({"labels", "context"}))


def crash(*_: object) -> None:
    raise SystemExit("no")


SEEDS = itertools.count()
CHEATS: dict[str, tuple[type[Generator], str]] = {
    "junk": (cheat(average=lambda self, labels: np.zeros((2, *labels.shape))),
             "faithful, contrast"),
    "constant": (image_of(np.zeros_like),
                 "not constant, faithful, contrast, labels matter, seeds matter"),
    "NaN": (image_of(lambda i: np.where(np.indices(i.shape).sum(0) == 7, np.nan, i)), "finite"),
    "transposed": (image_of(lambda image: np.moveaxis(image, 0, -1)), "shape"),
    "forgets outside": (labels_of(lambda labels: np.maximum(labels, 0)), "labels kept"),
    "unknown label": (labels_of(lambda labels: np.where(labels == 2, np.int16(9), labels)),
                      "labels kept"),
    "noisy outside": (redrawn(noisy_outside), "outside"),
    "ignores seeds": (noised(lambda seed: 0), "seeds matter"),
    "swaps labels": (cheat(average=swapped), "contrast"),
    "normalises batches": (cheat(sample=batch_normalised), "batch-independent"),
    "unseeded": (noised(lambda seed: seed + next(SEEDS)),
                 "repeatable, batch-independent, state reloads"),
    "signs": (redrawn(sign), "inputs untouched, core's provenance kept"),
    "opens held-out cases": (cheat(sample=opens), "reads training cases only"),
    "seeds torch": (noised(seeds_torch), "random state untouched"),
    "seeds numpy": (noised(seeds_numpy), "random state untouched"),
    "forgets its state": (cheat(means=[[1.0, 1.0]] * 3, observe=keeps,
                                load_state=lambda self, state: None), "state reloads"),
    "drops one": (cheat(sample=lambda self, c, s: Honest.sample(self, c, s)[1:]), "draws"),
    "nothing to train": (cheat(phases=lambda self: [Phase("generator", lambda step: {})]),
                         "builds"),
    "no phases": (cheat(capabilities=Capabilities(trains=True)), "builds"),
    "crashes": (cheat(observe=crash), "trains"),
    "hoards": (Hoards, "state does not grow"),
    "takes undeclared": (cheat(context=lambda self, case: case.labels), "takes what it says"),
    "ignores context": (cheat(capabilities=CONTEXT, context=lambda self, case: case.labels),
                        "takes what it says"),
    "an image as context": (cheat(capabilities=CONTEXT, context=lambda self, case: np.array(
                                999 * case.image[0], np.int16)), "context has few values, draws"),
    "peeks": (cheat(DrawsLabels, draw=Honest.draw), "draws"),
    "remembers": (cheat(Remembers, capabilities=CONTEXT), "takes what it says, copies nothing"),
}  # fmt: skip
"""What it is, and the checks that it fails."""


def checked(generator: type[Generator], **asked: Any) -> ConformanceReport:
    return check_generator(generator, ndim=(2,), **asked)


def failed(generator: type[Generator], **asked: Any) -> set[str]:
    return {check.name.removeprefix("2d: ") for check in checked(generator, **asked).failed}


@pytest.mark.parametrize(("made", "names"), CHEATS.values(), ids=CHEATS)
def test_a_cheat_fails_the_checks_that_are_meant_for_it(made, names):
    assert failed(made) == set(names.split(", "))


@pytest.mark.parametrize(
    ("takes", "channels", "expected"),
    [
        ({"label"}, (), "capabilities.takes-unknown"),
        ({"channels"}, (), "capabilities.takes-and-channels-disagree"),
        ({"labels"}, ("T1",), "capabilities.takes-and-channels-disagree"),
    ],
)
def test_capabilities_that_contradict_themselves_are_refused(takes, channels, expected):
    with raises_fault(expected):
        Capabilities(frozenset(takes), channels=channels)


def test_an_honest_generator_passes_everything():
    report = check_generator(Honest)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    assert {check.name[:2] for check in report.checks} == {"3d", "2d"}
    assert "2d: realness" not in {check.name for check in report.checks}  # it says nothing of it


def test_one_that_draws_label_maps_is_not_held_to_those_it_is_shown():
    report = checked(DrawsLabels)
    assert report.passed, report.failed
    skipped = {check.name for check in report.checks if check.verdict == "skipped"}
    assert skipped == {"2d: labels kept", "2d: labels matter"}


def test_a_generator_may_refuse_a_number_of_axes_but_not_everything():
    def refuses(*axes: int) -> ConformanceReport:
        def networks(self):
            if len(self.size) in axes:
                raise UsageFault("test.fault", "never")
            return {}

        return check_generator(cheat(networks=networks))

    report = refuses(3)
    assert report.passed
    assert [c.verdict for c in report.checks if c.name.startswith("3d")] == ["skipped"]
    report = refuses(2, 3)
    assert not report.failed
    with raises_fault("testing.contract-violated"):
        report.raise_if_failed()


def test_a_report_names_what_failed_and_leaves_out_what_that_makes_pointless():
    with raises_fault("testing.contract-violated"):
        checked(CHEATS["junk"][0]).raise_if_failed()
    seen: list[tuple[int, int]] = []
    told = {"steps": 3, "fit": lambda g, cases, steps: seen.append((len(cases), steps))}
    assert checked(CHEATS["transposed"][0], **told).checks[-1].name == "2d: shape"
    assert seen == [(12, 3)]


def test_a_generator_with_networks_must_have_learnt():
    """That it passes once it has, ``tests/plugins/test_conformance.py`` shows."""
    small = {"width": 8, "d_width": 4, "levels": 2}
    assert "faithful" in failed(CGAN3D, steps=0, options=small)


def test_toy_contrasts_are_the_documented_ones():
    case = next(map(ToySource(3).load, ToySource(3).train_ids))
    assert case.labels is not None
    means = [case.image[:, case.labels == label].mean(axis=1) for label in (0, 1, 2)]
    assert np.allclose(np.transpose(means), MEANS, atol=0.1)


def asked(one: Any) -> type[Generator]:
    """Answers a condition with boxes in another way: ``one(draw, condition, boxes)``."""

    def answer(self, condition, seed):
        return one(lambda c: Spots.one(self, c, seed), condition, condition.boxes)

    return cheat(Spots, one=answer)


def in_a_corner(draw, condition, boxes):
    if not len(boxes.coords):
        return draw(condition)
    low = 2 + float(boxes.coords.sum()) % 4
    corner = boxes_of((low, 2, low + 5, 8))
    return replace(draw(condition), image=draw(replace(condition, boxes=corner)).image)


def grown(draw, condition, boxes):
    """Says that it shrinks them, and lets them grow."""
    drawn = draw(condition)
    notes = {"tightened_to": [1.0] * len(boxes.coords)}
    larger = Boxes(boxes.coords + np.float32(0.5), boxes.labels)
    return replace(drawn, boxes=larger, notes=notes)


def written_to(draw, condition, boxes):
    drawn = replace(draw(condition), boxes=Boxes(boxes.coords.copy(), boxes.labels))
    boxes.coords[:, 0] -= 0.25
    return drawn


ANYWHERE = boxes_of((4, 4, 10, 10))


BOXED: dict[str, tuple[Any, set[str]]] = {
    "elsewhere": (in_a_corner, {"boxes act in place"}),
    "grows": (grown, {"boxes kept"}),
    "writes": (written_to, {"inputs untouched"}),
    "mute": (lambda draw, c, boxes: replace(draw(c), boxes=None), {"boxes kept"}),
    "other classes": (
        lambda draw, c, b: replace(draw(c), boxes=Boxes(b.coords, b.labels[::-1])),
        {"boxes kept"},
    ),
    "blind": (
        lambda draw, c, boxes: replace(draw(replace(c, boxes=ANYWHERE)), boxes=boxes),
        {"boxes matter", "boxes act in place"},
    ),
}


@pytest.mark.parametrize(("one", "names"), BOXED.values(), ids=BOXED)
def test_a_cheat_that_is_asked_for_boxes_fails_the_checks_that_are_meant_for_it(one, names):
    assert failed(asked(one)) == names


def test_an_honest_one_passes_in_2d_and_3d_and_is_asked_for_boxes():
    report = check_generator(Spots)
    assert report.passed, report.failed
    passed = {check.name for check in report.checks if check.verdict == "passed"}
    names = ("boxes kept", "boxes matter", "boxes act in place")
    assert {f"{axes}d: {name}" for axes in (2, 3) for name in names} <= passed
    assert failed(Spots, options={"tighten": True}) == set()  # it shrinks boxes and says so


def judging(change: Any) -> type[Generator]:
    """Answers otherwise: ``change(found, net, images)``."""

    def realness(self, batch, stage):
        found = Judged.realness(self, batch, stage)
        return change(found, self.nets["discriminator"], batch.image)

    return cheat(Judged, realness=realness)


def left_at_rest(found, net, images):
    net.eval()
    return found


@torch.no_grad()
def learning(found, net, images):
    net(images)  # moves the running statistics
    return found


def chancy(found, net, images):
    torch.rand(1)
    return found


@pytest.mark.parametrize(
    ("made", "verdict", "says"),
    [
        (Judged, "passed", ""),
        (judging(lambda found, *_: None), "skipped", ""),
        (judging(lambda found, *_: found - found.mean()), "failed", "one at a time"),
        (judging(lambda found, *_: found + torch.arange(len(found))), "failed", "differ"),
        (judging(lambda found, *_: found[:, None]), "failed", r"\(4, 1\) for 4 cases"),
        (judging(lambda found, *_: found * torch.nan), "failed", "NaN"),
        (judging(left_at_rest), "failed", "the mode of discriminator"),
        (judging(learning), "failed", "differ"),
        (judging(chancy), "failed", "changed torch"),
    ],
)
def test_what_a_discriminator_says_of_reality_is_its_own_of_each_case_alone(made, verdict, says):
    report = checked(made)
    assert {check.name for check in report.failed} <= {"2d: realness"}
    (found,) = (check for check in report.checks if check.name == "2d: realness")
    assert found.verdict == verdict
    assert re.search(says, found.message)
