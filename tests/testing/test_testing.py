"""The checks that every plugin must pass: honest ones pass, each kind of cheat fails by name."""
# mypy: disallow-untyped-calls=False

import shutil
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Adapter, HostArrays, Injection, Outcome
from gansynth.core.generator import Generator, GeneratorOptions, Phase
from gansynth.core.ratio import Ratio
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.hosts.checks import check_mixing
from gansynth.hosts.mixer import Mixer
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.testing import CheckReport, ToySource, check_adapter, check_generator
from gansynth.testing.toy import MEANS, TEXTURE, label_share, smooth_noise


class Honest(Generator):
    """Each label's mean, learnt from the training cases, and smooth noise from the seed."""

    name = "honest"
    means: Any = None

    def networks(self):
        return {}

    def phases(self):
        return []

    def observe(self, cases):
        cases = list(cases)
        values = np.concatenate([c.image.reshape(len(c.image), -1) for c in cases], axis=1)
        labels = np.concatenate([c.labels.ravel() for c in cases])
        self.means = [values[:, labels == v].mean(axis=1).tolist() for v in (0, 1, 2)]

    def state(self):
        return {"means": self.means}

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
    """Label maps of its own: a training case's, moved by as much as the seed and the walk say."""

    labelling = "drawn"
    known: Any = None

    def observe(self, cases):
        cases = list(cases)
        super().observe(cases)
        self.known = cases[0].labels

    def state(self):
        return {**super().state(), "known": self.known.tolist()}

    def load_state(self, state):
        super().load_state(state)
        self.known = np.array(state["known"], np.int16)

    def draw(self, condition, seed, way=0):
        return super().draw(
            replace(condition, labels=np.roll(self.known, seed % 5 + way, -1)), seed
        )

    def interpolate(self, condition, ends, steps):
        middle = [self.draw(condition, ends[0], i) for i in range(1, steps - 1)]
        return [self.draw(condition, ends[0]), *middle, self.draw(condition, ends[1])]


class DrawsOtherLabels(DrawsLabels):
    """Not those of its image."""

    def draw(self, condition, seed, way=0):
        drawn = super().draw(condition, seed, way)
        return replace(drawn, labels=np.roll(drawn.labels, 9, axis=-1))


class DrawsNone(DrawsLabels):
    """No labels, in spite of what it says."""

    def draw(self, condition, seed, way=0):
        return replace(super().draw(condition, seed, way), labels=None)


class WalksElsewhere(DrawsLabels):
    def interpolate(self, condition, ends, steps):
        return super().interpolate(condition, ends[::-1], steps)


class Junk(Honest):
    """Noise of the right size, inside the right outline."""

    def average(self, labels):
        return np.zeros((2, *labels.shape))


class Constant(Honest):
    def draw(self, condition, seed):
        return Sample(np.zeros((2, *self.size), np.float32), condition.labels.copy())


class NotANumber(Honest):
    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        drawn.image[0].flat[7] = np.nan
        return drawn


class Transposed(Honest):
    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        return replace(drawn, image=np.moveaxis(drawn.image, 0, -1))


class Double(Honest):
    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        return replace(drawn, image=drawn.image.astype(np.float64))


class WithoutOutside(Honest):
    """Forgets the -1 that it was asked for."""

    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        return replace(drawn, labels=np.maximum(condition.labels, 0))


class UnknownLabel(Honest):
    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        return replace(drawn, labels=np.where(drawn.labels == 2, np.int16(9), drawn.labels))


class NoisyOutside(Honest):
    def draw(self, condition, seed):
        image = self.average(condition.labels) + TEXTURE * self.noise(seed)
        return Sample(image.astype(np.float32), condition.labels.copy())


class IgnoresSeed(Honest):
    def noise(self, seed):
        return super().noise(0)


class IgnoresLabels(Honest):
    """Always draws the first label map it was ever shown."""

    first: Any = None

    def draw(self, condition, seed):
        if self.first is None:
            self.first = np.roll(condition.labels, 9, axis=-1)
        return replace(
            super().draw(replace(condition, labels=self.first), seed),
            labels=condition.labels.copy(),
        )


class SwapsLabels(Honest):
    """Distinct intensities for each label, but not the real ones."""

    def average(self, labels):
        return np.array(self.means)[::-1].T[:, np.maximum(labels, 0)]


class BatchNormalised(Honest):
    """Subtracts the mean of whatever else is in the batch."""

    def sample(self, conditions, seeds):
        drawn = super().sample(conditions, seeds)
        mean = np.mean([s.image.mean() for s in drawn])
        return [
            replace(s, image=np.where(c.labels == OUTSIDE, s.image, s.image - np.float32(mean)))
            for s, c in zip(drawn, conditions, strict=True)
        ]


class SeededByPlace(Honest):
    """The first of a batch gets its own seed, the others the ones before them."""

    def sample(self, conditions, seeds):
        return [self.draw(c, s + i) for i, (c, s) in enumerate(zip(conditions, seeds, strict=True))]


class Unseeded(Honest):
    calls = 0

    def noise(self, seed):
        self.calls += 1
        return super().noise(seed + self.calls)


class Tampers(Honest):
    def draw(self, condition, seed):
        drawn = super().draw(condition, seed)
        condition.labels[condition.labels == 1] = 2
        return drawn


class SeedsGlobally(Honest):
    def noise(self, seed):
        torch.manual_seed(seed)
        return super().noise(seed)


class SeedsNumpyGlobally(Honest):
    def noise(self, seed):
        np.random.seed(seed)  # noqa: NPY002 - the mistake that is to be found
        return super().noise(seed)


class ForgetsState(Honest):
    means: Any = [[1.0, 1.0]] * 3

    def load_state(self, state):
        pass


class DropsOne(Honest):
    def sample(self, conditions, seeds):
        return super().sample(conditions, seeds)[1:]


class NothingToTrain(Honest):
    def phases(self):
        return [Phase("generator", lambda step: {})]


class Crashes(Honest):
    def observe(self, cases):
        raise SystemExit("no")


CHEATS: list[tuple[type[Honest], str]] = [
    (Junk, "faithful"),
    (Constant, "not constant"),
    (NotANumber, "finite"),
    (Transposed, "shape"),
    (Double, "shape"),
    (WithoutOutside, "labels kept"),
    (UnknownLabel, "labels kept"),
    (NoisyOutside, "outside"),
    (IgnoresSeed, "seeds matter"),
    (IgnoresLabels, "labels matter"),
    (IgnoresLabels, "faithful"),
    (SwapsLabels, "contrast"),
    (BatchNormalised, "batch-independent"),
    (SeededByPlace, "batch-independent"),
    (Unseeded, "repeatable"),
    (Tampers, "inputs untouched"),
    (SeedsGlobally, "random state untouched"),
    (SeedsNumpyGlobally, "random state untouched"),
    (ForgetsState, "state reloads"),
    (DropsOne, "draws"),
    (NothingToTrain, "builds"),
    (Crashes, "trains"),
    (DrawsOtherLabels, "faithful"),
    (DrawsNone, "labels drawn"),
    (WalksElsewhere, "interpolates"),
]


def failed(report: CheckReport) -> set[str]:
    return {check.name for check in report.failed}


def test_an_honest_generator_passes_everything():
    report = check_generator(Honest)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    assert {check.name[:2] for check in report.checks} == {"3d", "2d"}


def test_one_that_draws_label_maps_is_not_held_to_those_it_is_shown():
    report = check_generator(DrawsLabels, ndim=(2,))
    assert report.passed, report.failed
    skipped = {check.name for check in report.checks if check.verdict == "skipped"}
    assert skipped == {"2d: labels kept", "2d: labels matter"}


@pytest.mark.parametrize(("cheat", "name"), CHEATS, ids=lambda v: getattr(v, "__name__", v))
def test_a_cheat_fails_the_check_that_is_meant_for_it(cheat, name):
    assert f"2d: {name}" in failed(check_generator(cheat, ndim=(2,)))


@pytest.mark.parametrize("cheat", [IgnoresSeed, SwapsLabels, Tampers, SeedsGlobally, ForgetsState])
def test_a_single_mistake_fails_a_single_check(cheat):
    assert len(failed(check_generator(cheat, ndim=(2,)))) == 1


def test_what_a_failure_makes_pointless_is_left_out():
    assert check_generator(Transposed, ndim=(2,)).checks[-1].name == "2d: shape"


def test_the_fit_that_is_given_is_used():
    seen: list[tuple[int, int]] = []
    check_generator(
        Honest, ndim=(2,), steps=3, fit=lambda g, cases, steps: seen.append((len(cases), steps))
    )
    assert seen == [(12, 3)]


def test_a_generator_may_refuse_a_number_of_axes():
    class Flat(Honest):
        def networks(self):
            if len(self.size) == 3:
                raise UsageFault("2D only")
            return {}

    report = check_generator(Flat)
    assert report.passed
    assert [c.verdict for c in report.checks if c.name.startswith("3d")] == ["skipped"]


def test_a_generator_that_refuses_everything_does_not_pass():
    class Refuses(Honest):
        def networks(self):
            raise UsageFault("never")

    report = check_generator(Refuses)
    assert not report.failed
    with pytest.raises(IntegrityFault, match="no check passed"):
        report.raise_if_failed()


def test_options_reach_the_generator():
    class Dull(GeneratorOptions):
        dull: bool = False

    class Optional(Honest):
        Options: ClassVar[type[GeneratorOptions]] = Dull

        def average(self, labels):
            return super().average(labels) * (not self.options.model_dump()["dull"])

    assert check_generator(Optional, ndim=(2,)).passed
    assert "2d: faithful" in failed(check_generator(Optional, ndim=(2,), options={"dull": True}))


def test_a_report_names_what_failed_and_what_was_found():
    with pytest.raises(IntegrityFault, match=r"honest .* 2d: faithful: labels explain 0\.0"):
        check_generator(Junk, ndim=(2,)).raise_if_failed()


def test_a_generator_with_networks_goes_through_the_real_training_loop():
    model = pytest.importorskip("gansynth_cgan3d.model", reason="cgan3d is not installed")
    report = check_generator(
        model.CGAN3D, ndim=(2,), steps=80, options={"width": 8, "d_width": 4, "levels": 3}
    )
    assert report.passed, report.failed


def test_an_untrained_network_is_not_faithful():
    model = pytest.importorskip("gansynth_cgan3d.model", reason="cgan3d is not installed")
    report = check_generator(model.CGAN3D, ndim=(2,), steps=0, options={"width": 4})
    assert "2d: faithful" in failed(report)


def test_toy_contrasts_are_the_documented_ones():
    case = next(ToySource(3).cases())
    assert case.labels is not None
    for label in (0, 1, 2):
        assert np.allclose(
            case.image[:, case.labels == label].mean(axis=1), MEANS[:, label], atol=0.1
        )


def test_label_share_is_one_for_flat_labels_and_zero_for_noise():
    labels = [np.array([[0, 0], [1, 1]], np.int16)]
    flat = [np.array([[[1, 1], [3, 3]]], np.float32)]
    noise = [np.array([[[1, 3], [1, 3]]], np.float32)]
    assert label_share(flat, labels) == pytest.approx(1)
    assert label_share(noise, labels) == pytest.approx(0)


# -- adapters ------------------------------------------------------------------------------------


class Mixed:
    """A data set of arrays with samples of a bank at a ratio."""

    def __init__(self, real, plan, batch_size):
        self.real, self.mixer, self.batch_size = real, Mixer(plan), batch_size
        self.reader = BankReader(plan.bank, rescan_seconds=0)

    def __getitem__(self, index):
        slot = self.mixer.slot(index, self.batch_size)
        if slot.sample is not None:
            return slot.sample.image, slot.sample.labels
        return self.real[index % len(self.real)]


class ToyAdapter(Adapter):
    name = "toy"
    mixed: ClassVar[type[Mixed]] = Mixed

    @property
    def sample_size(self):
        return (12, 12)

    def finalise(self, sample: Sample) -> HostArrays:
        assert sample.labels is not None
        return {"volume": np.array([np.count_nonzero(sample.labels)])}

    def validate(self):
        pass

    def check(self, injection, settings, options):
        check_mixing(self, injection)

    def inject(self, dataset, plan, *, batch_size):
        return self.mixed(dataset, plan, batch_size)

    def start(self, injection: Injection, settings, options) -> Outcome:
        raise NotImplementedError


def try_adapter(folder, cls=ToyAdapter, source=None) -> CheckReport:
    source = source or ToySource(2)
    cases = [source.load(i) for i in ToySource(2).train_ids]
    return check_adapter(
        cls(source),
        workspace=folder,
        dataset=lambda: [(c.image.copy(), c.labels.copy()) for c in cases],
        draw=lambda data, slot: data[slot],
    )


def test_an_honest_adapter_passes_everything(tmp_path):
    report = try_adapter(tmp_path)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}


def test_without_a_data_set_the_injection_is_skipped_and_said_so(tmp_path):
    report = check_adapter(ToyAdapter(ToySource(2)), workspace=tmp_path)
    assert report.passed
    skipped = [check.name for check in report.checks if check.verdict == "skipped"]
    assert len(skipped) == 5
    assert all(name.startswith("inject: ") for name in skipped)


class OtherBatches(Mixed):
    """Right on average, but by batches of its own."""

    def __init__(self, real, plan, batch_size):
        super().__init__(real, plan, batch_size + 1)


class TooMany(Mixed):
    def __init__(self, real, plan, batch_size):
        super().__init__(real, replace(plan, ratio=Ratio(0, 1)), batch_size)


class RaisesWhenEmpty(Mixed):
    def __getitem__(self, index):
        if self.reader.count() == 0:
            raise RuntimeError("empty")
        return super().__getitem__(index)


class RaisesWhenDamaged(Mixed):
    def __getitem__(self, index):
        self.reader.draw(np.random.default_rng(0))
        return super().__getitem__(index)


class GivesViews(Mixed):
    kept: Any = None

    def __getitem__(self, index):
        if self.kept is None:
            self.kept = super().__getitem__(index)
        return self.kept


MISMIXED = [
    (OtherBatches, "ratio"),
    (TooMany, "ratio"),
    (RaisesWhenEmpty, "empty bank"),
    (RaisesWhenEmpty, "vanished bank"),
    (RaisesWhenDamaged, "damaged bank"),
    (GivesViews, "copies"),
]


@pytest.mark.parametrize(("kind", "name"), MISMIXED, ids=lambda v: getattr(v, "__name__", v))
def test_a_wrong_injection_fails_the_check_that_is_meant_for_it(kind, name, tmp_path):
    class Wrong(ToyAdapter):
        mixed = kind

    assert f"inject: {name}" in failed(try_adapter(tmp_path, Wrong))


class SharesCase(ToySource):
    @property
    def held_out_ids(self):
        return self.train_ids[:1]


class SharesSubject(ToySource):
    def subject(self, case_id):
        return "one and the same"


class WithNaN(ToySource):
    def load(self, case_id):
        case = super().load(case_id)
        image = case.image.copy()
        image[0, 0, 0] = np.nan
        return replace(case, image=image)


@pytest.mark.parametrize(
    ("source", "name"),
    [(SharesCase, "split by id"), (SharesSubject, "split by subject"), (WithNaN, "loads")],
)
def test_a_wrong_source_fails_the_check_that_is_meant_for_it(source, name, tmp_path):
    assert name in failed(try_adapter(tmp_path, source=source(2)))


def test_a_space_that_moves_voxels_fails(tmp_path):
    class Shifted(ToySource):
        @property
        def space(self):
            space = super().space
            object.__setattr__(
                space, "to_host", lambda s, shape: replace(s, image=s.image[:, ::-1])
            )
            return space

    assert failed(try_adapter(tmp_path, source=Shifted(2))) == {"round trip"}


def test_a_window_may_clip_and_still_comes_back(tmp_path):
    class Windowed(ToySource):
        @property
        def space(self):
            return super().space.with_window(self.cases(), 5, 95)

    assert try_adapter(tmp_path, source=Windowed(2)).passed


def test_too_small_samples_fail(tmp_path):
    class Hungry(ToyAdapter):
        @property
        def sample_size(self):
            return (40, 40)

    assert failed(try_adapter(tmp_path, Hungry)) == {"sample size"}


def test_arrays_that_are_none_fail(tmp_path):
    class Lists(ToyAdapter):
        def finalise(self, sample):
            return {"volume": [1, 2]}

    assert failed(try_adapter(tmp_path, Lists)) == {"finalise"}


def test_a_host_that_lets_held_out_cases_in_fails(tmp_path):
    class Trusts(ToyAdapter):
        def check(self, injection, settings, options):
            pass

    assert failed(try_adapter(tmp_path, Trusts)) == {"refuses a leak"}


def test_random_extras_fail(tmp_path):
    class Random(ToyAdapter):
        def finalise(self, sample):
            return {"volume": np.random.default_rng().random(3)}

    assert failed(try_adapter(tmp_path, Random)) == {"finalise"}


def test_a_host_that_refuses_is_reported(tmp_path):
    class Refuses(ToyAdapter):
        def validate(self):
            raise UsageFault("no such configuration")

    report = try_adapter(tmp_path, Refuses)
    assert report.failed[0].message == "raised UsageFault: no such configuration"


def test_banks_are_made_in_the_workspace_only(tmp_path):
    try_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"bank-{name}" for name in ("leak", "ratio", "empty", "damaged", "vanished", "copies")
    }
    shutil.rmtree(tmp_path)
