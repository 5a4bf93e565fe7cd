"""``check_host``: conformance checks of a host on data of its framework."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gansynth.core.conformance import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.core.intake import HostArrays
from gansynth.core.lineage import Lineage
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schedule import Mix
from gansynth.core.schema import Case, FloatArray, LabelArray, Sample
from gansynth.core.source import CaseSource, case_content, case_record, case_records
from gansynth.core.space import Placement, Space
from gansynth.hosts.contract.crop_host import CropHost
from gansynth.hosts.contract.host import Framework
from gansynth.hosts.contract.job import Job
from gansynth.hosts.contract.session import Session
from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.signals import Interrupted
from gansynth.runtime.system import send_self

STEPS = 4  # of the trainings of a ``CropHost``


def check_host(
    host: type[Framework],
    source: CaseSource,
    *,
    workspace: Path,
    settings: Mapping[str, str] | None = None,
) -> ConformanceReport:
    """Check a host on (small) real data of its framework; nothing is raised.

    Args:
        source: with at least one training case.
        workspace: an empty folder for sample banks and trainings.
        settings: of the trainings of a ``CropHost``, as after ``--set``.
    """
    report = ConformanceReport(host.name)
    trial = _IntakeTrial(host, source, workspace)
    report.run("validates", trial.validates)
    report.run("split by id", trial.split_by_id)
    report.run("split by subject", trial.split_by_subject)
    if not report.run("loads", trial.loads):
        return report
    report.run("round trip", trial.round_trip)
    report.run("sample size", trial.sample_size)
    if not report.run("finalise", trial.finalise):
        return report
    report.run("refuses a leak", trial.leak)
    if issubclass(host, CropHost):
        crops = _CropHostTrial(host, trial, settings or {})
        if report.run("trains", crops.trains):
            report.run("predicts", crops.predicts)
            report.run("resumes", crops.resumes)
    return report


class _IntakeTrial:
    """The cases and the samples of a host under test, and their checks, one method each."""

    def __init__(self, host: type[Framework], source: CaseSource, workspace: Path) -> None:
        self.host, self.source, self.workspace = host, source, workspace
        self.intake = host.Intake(source, host.name)
        self.case: Case

    def validates(self) -> None:
        self.host(self.source, AugmentRequest(target=self.host.name, ratio="1:0")).validate()

    # -- the source ------------------------------------------------------------------------------

    def split_by_id(self) -> None:
        train, held_out = self.source.train_ids, self.source.held_out_ids
        both = sorted(set(train) & set(held_out))
        if both:
            raise CheckFailed(f"{both[:4]} are both training and held-out cases")
        if not train:
            raise CheckFailed("there is no training case")
        if list(train) != sorted(train) or list(held_out) != sorted(held_out):
            raise CheckFailed("train_ids and held_out_ids must be sorted")

    def split_by_subject(self) -> None:
        train = {self.source.header(case).subject for case in self.source.train_ids}
        both = sorted(
            train & {self.source.header(case).subject for case in self.source.held_out_ids}
        )
        if both:
            raise CheckFailed(f"subjects {both[:4]} have both training and held-out cases")

    def loads(self) -> None:
        case = self.source.load(self.source.train_ids[0])
        case.validate(self.source.schema)
        if case_content(self.source, case.id) != case_record(self.source, case.id).sha256:
            raise CheckFailed(f"case {case.id!r}: its content differs from its record")
        if getattr(case, self.intake.needs) is None:
            raise CheckFailed(f"case {case.id!r} has no {self.intake.needs}")
        labels = np.dtype(np.int16) if case.labels is None else case.labels.dtype
        if case.image.dtype != np.float32 or labels != np.int16:
            raise CheckFailed(
                f"case {case.id!r} is {case.image.dtype} and {labels}, expected float32 and int16"
            )
        self.case = case

    # -- its space -------------------------------------------------------------------------------

    def placed(self) -> tuple[Placement, Sample]:
        """Return a random placement, and the first case mapped there and back."""
        space = self.source.space
        placement = space.place(self.case, np.random.default_rng(0))
        inside = space.to_generator(self.case, placement)
        return placement, space.to_host(
            Sample(inside.image, inside.labels, inside.boxes), self.case.image.shape[1:]
        )

    def round_trip(self) -> None:
        placement, sample = self.placed()
        space = self.source.space
        image, labels = cut(self.case, space, placement)
        if (sample.labels is None) != (labels is None):
            raise CheckFailed("labels get lost or appear on the way back")
        if sample.image.shape != image.shape:
            raise CheckFailed(f"image comes back as {sample.image.shape}, expected {image.shape}")
        sample.validate(self.source.schema)
        if space.grid == "resample":
            return  # its values are interpolated
        tolerance = 0.0
        if space.window is not None:
            edges = np.array(space.window).T.reshape(2, -1, *[1] * (image.ndim - 1))
            low, high = edges
            image, tolerance = np.clip(image, low, high), 1e-4 * float((high - low).max())
        same = labels is None or sample.labels is None or np.array_equal(sample.labels, labels)
        if not same:
            raise CheckFailed("labels come back changed")
        self._boxes_come_back(sample, placement)
        if np.abs(sample.image - image).max() > tolerance:
            raise CheckFailed(
                f"intensities come back off by {np.abs(sample.image - image).max():.3g}"
            )

    def _boxes_come_back(self, sample: Sample, placement: Placement) -> None:
        """In 2D, boxes inside the image come back exactly; others are cropped or left out."""
        boxes = self.case.boxes
        if boxes is None or boxes.coords.shape[1] != 4:
            return
        actual = [] if sample.boxes is None else sample.boxes.coords.tolist()
        cut = self.source.space.grid == "crop"
        corner = np.tile(placement.corner if cut else (0, 0), 2)
        size = np.tile(sample.image.shape[1:], 2)
        moved = np.clip(boxes.coords - corner, 0, size)
        expected = moved[(moved[:, :2] < moved[:, 2:]).all(axis=1)].tolist()
        if sample.boxes is None or not np.allclose(sorted(actual), sorted(expected), atol=1e-3):
            raise CheckFailed(f"boxes come back as {actual[:3]}, expected {expected[:3]}")

    def sample_size(self) -> None:
        _, sample = self.placed()
        size, least = sample.image.shape[1:], self.intake.sample_size
        if len(size) != len(least) or any(s < n for s, n in zip(size, least, strict=True)):
            raise CheckFailed(f"samples have {size} voxels, expected at least {least} for the host")

    # -- the host --------------------------------------------------------------------------------

    def finalise(self) -> None:
        _, sample = self.placed()
        first, again = self.intake.finalise(sample), self.intake.finalise(sample)
        for name, array in first.items():
            if not isinstance(array, np.ndarray) or array.dtype == object:
                raise CheckFailed(
                    f"{name!r} is {type(array).__name__}, expected a plain numpy array"
                )
        same = first.keys() == again.keys()
        if not same or any(not np.array_equal(first[name], again[name]) for name in first):
            raise CheckFailed("the same sample gives different arrays the second time")

    def leak(self) -> None:
        """A sample bank of a generator that has seen a held-out case must be refused."""
        if not self.source.held_out_ids:
            raise CheckSkipped("the source has no held-out case")
        bank = self.bank("leak", 1, seen_case=self.source.held_out_ids[0])
        try:
            request = AugmentRequest(target=self.host.name, ratio="1:1", bank=bank)
            Session(self.host(self.source, request)).check()
        except GansynthError:
            return
        raise CheckFailed("a bank that has seen a held-out case is accepted")

    # -- tools -----------------------------------------------------------------------------------

    def bank(self, name: str, samples: int, seen_case: str = "") -> Path:
        """Write a bank of the first case, brighter each time; its lineage has one case."""
        from gansynth.bank.reader import BankSpec, BankWriter

        folder = self.workspace / f"bank-{name}"
        spec = BankSpec(
            schema=self.source.schema,
            lineage=Lineage(
                self.source.name,
                self.source.request.fold,
                case_records(self.source, [seen_case or self.case.id]),
                dict(self.source.space.host),
            ),
            run_id="check",
            generator="0" * 64,
            frozen=True,
            capacity=max(1, samples),
            dtype="float32",
        )
        writer = BankWriter.create(folder, spec)
        if samples:
            for number in range(samples):
                writer.publish(*self._brighter(number))
            writer.finish()
        return folder

    def _brighter(self, number: int) -> tuple[Sample, HostArrays]:
        placement, sample = self.placed()
        provenance = {"n": number, "case": self.case.id, "placement": placement.to_json()}
        marked = Sample(
            sample.image + np.float32(number),
            sample.labels,
            sample.boxes,
            provenance,
        )
        return marked, self.intake.finalise(marked)


class _CropHostTrial:
    """Trainings of a few steps of a ``CropHost``, half of them on samples of a strict bank."""

    def __init__(
        self, host: type[CropHost], trial: _IntakeTrial, settings: Mapping[str, str]
    ) -> None:
        self.host, self.source, self.workspace = host, trial.source, trial.workspace
        self.settings = settings
        self.bank = trial.bank("training", STEPS)

    def session(self, name: str, host: type[CropHost] | None = None) -> Session:
        own = {"device": "cpu", "checkpoint_every": "2", "output": str(self.workspace / name)}
        mixes, cases = [Mix.parse("1:1")], len(self.source.train_ids)
        (length,) = trials_of(self.host).settings_for_steps(
            self.source, STEPS, mixes, self.settings, cases
        )
        settings = dict(self.settings) | own | dict(length)
        request = AugmentRequest(
            target=self.host.name,
            ratio="1:1",
            bank=self.bank,
            strict=True,
            set=settings,
        )
        return Session((host or self.host)(self.source, request))

    def trains(self) -> None:
        session = self.session("whole")
        session.check()
        if session.total != STEPS:
            raise CheckFailed(f"a training of {STEPS} steps has a length of {session.total}")
        result = session.start()
        done = session.host.done(result.folder)
        if done != STEPS:
            raise CheckFailed(
                f"the last checkpoint is of step {done}, expected {STEPS}; call job.checkpoint "
                "after every step"
            )
        drawn, samples = result.drawn_synthetic, STEPS * session.batch_size
        if drawn != samples // 2 or drawn + result.drawn_real != samples:
            raise CheckFailed(
                f"{drawn} of {drawn + result.drawn_real} items are synthetic at 1:1, expected "
                f"{samples // 2} of {samples}: every item of job.data once, in order"
            )

    def predicts(self) -> None:
        """The evaluation has predicted whole cases; now a host that has not trained does."""
        first, again = self.predicted("whole"), self.predicted("whole")
        if not np.array_equal(first, again):
            raise CheckFailed("predict gives another label map the second time")
        known = {*self.source.schema.label_values}
        unknown = sorted(set(np.unique(first).tolist()) - known)
        if unknown:
            raise CheckFailed(f"predict gives labels {unknown}, which the schema lacks")

    def predicted(self, name: str) -> LabelArray:
        host = self.session(name).opened
        assert isinstance(host, CropHost)
        image, folder = self.source.load(self.source.held_out_ids[0]).image, host.output

        def look(placed: FloatArray) -> list[LabelArray]:
            return [host.predict(placed, folder)]

        return host.space.on_own_grid(self.source.schema, image, look)[0]

    def resumes(self) -> None:
        """Interrupted and started again, a training has the weights of an undisturbed one."""
        cut = self.session("cut", _cut_after(self.host, STEPS // 2))
        folder = self.workspace / "cut"
        try:
            cut.start()
        except Interrupted:
            done = cut.host.done(folder)
            if not 0 < done < STEPS:
                raise CheckFailed(
                    f"asked to stop after step {STEPS // 2}, it has a checkpoint of step {done}; "
                    "call job.step and job.checkpoint after every step"
                ) from None
        else:
            raise CheckFailed("asked to stop, it trains to the end; call job.step")
        again = self.session("cut")
        again.start()
        host = again.host
        assert isinstance(host, CropHost)
        files = [host.checkpoint(self.workspace / name) for name in ("whole", "cut")]
        contents = [file.read_bytes() for file in files if file is not None]
        same = np.array_equal(self.predicted("whole"), self.predicted("cut"))
        if not same or contents[:1] != contents[1:]:
            raise CheckFailed(
                "the weights differ from those of an undisturbed training: save everything that "
                "later steps depend on, and key random numbers by job.seed and the step"
            )


def _cut_after(host: type[CropHost], steps: int) -> type[CropHost]:
    """Return the same host, which gets SIGTERM after a number of steps."""

    class Cut(host):  # type: ignore[misc,valid-type]
        def train(self, job: Job) -> None:
            step, done = job.step, 0

            def stepping(**values: float) -> None:
                nonlocal done
                step(**values)
                done += 1
                if done == steps:
                    send_self(signal.SIGTERM)

            job.step = stepping  # type: ignore[method-assign]
            super().train(job)

    return Cut


def cut(case: Case, space: Space, placement: Placement) -> tuple[FloatArray, LabelArray | None]:
    """Cut a placement voxel by voxel, in the host's axes; independent of ``Space``.

    Returns:
        Image (C, D, H, W) or (C, H, W) and labels, padded with 0 and ``Space.pad_label``; None
        for a case without labels.
    """
    if not space.cuts and not space.frame:
        return case.image, case.labels
    corner, size = placement.corner, space.frame or space.size
    if space.grid == "slice":
        assert placement.slice_index is not None
        corner, size = (placement.slice_index, *corner), (1, *size)
    at = [np.arange(first, first + n) for first, n in zip(corner, size, strict=True)]
    shape = case.image.shape[1:]
    there = [(i >= 0) & (i < n) for i, n in zip(at, shape, strict=True)]
    inside = np.logical_and.reduce(np.meshgrid(*there, indexing="ij"))
    grid = np.ix_(*(np.clip(i, 0, n - 1) for i, n in zip(at, shape, strict=True)))
    image = np.stack([np.where(inside, channel[grid], np.float32(0)) for channel in case.image])
    if case.labels is None:
        return image, None
    return image, np.where(inside, case.labels[grid], np.int16(space.pad_label))
