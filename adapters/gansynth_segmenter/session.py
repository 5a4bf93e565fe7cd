"""One segmenter's training: sample bank, producer, training loop, record and evaluation.

The network trains in this process, the producer runs in another. SIGTERM and SIGINT end it between
two steps, after a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.training_bank import BankRequirements
from gansynth.core.mix_config import MixerConfig
from gansynth.hosts.session import HostSession
from gansynth.metrics.segmentation.evaluation import headline
from gansynth.runtime.child import WARNING
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import ProgressTask, Reporter
from gansynth.runtime.signals import StopRequest, stop_request
from gansynth_segmenter.mixed import SegmenterBatches, TrainingCrops
from gansynth_segmenter.record import COMPARED, METRICS, SegmenterJob, describe, newest_step

if TYPE_CHECKING:
    import torch

    from gansynth.core.generator import Generator
    from gansynth_segmenter.inference import Segmenter


class SegmenterSession(HostSession[str]):
    """Trains, evaluates and records; ``run`` does it all."""

    unit = "step"
    compared = COMPARED

    def __init__(self, job: SegmenterJob, reporter: Reporter) -> None:
        self.job = job
        first = newest_step(job.output)
        super().__init__(job.mix_config, job.output, first, job.steps, reporter)
        self._metrics: dict[str, Any] = {}

    def run(self) -> None:
        """Train and evaluate. However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: no room for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, a required sample is missing, or losses are not
                finite.
            Interrupted: asked to stop.
        """
        self.open()
        complete = False
        with stop_request() as stop, _threads(self.job.options.device):
            try:
                self.start()
                self.steer()
                segmenter = self._train(stop)
                self.training_bank.close()  # no producer during the evaluation
                self._judge(segmenter)
                complete = True
            finally:
                self.close(complete)

    # -- what it says of itself ------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """See ``HostSession.describe``."""
        return describe(self.job)

    def demand(self) -> BankRequirements:
        """See ``HostSession.demand``."""
        job = self.job
        return BankRequirements(
            mix_config=job.mix_config,
            target="segmenter",
            request=job.source.request.to_json(),
            run_id=None if job.sample_source is None else job.sample_source.run_id,
            cases=len(job.source.train_ids),
            sample_bytes=job.sample_bytes,
            batch_size=job.options.batch_size,
            samples=job.steps * job.options.batch_size,
            output=job.output,
            say=self.say,
            progress=self.now(),
            gpus=_gpus(job.options.device),
        )

    def make_plan(self) -> MixerConfig[str]:
        """See ``HostSession.make_plan``."""
        job, source = self.job, self.job.source
        plan: MixerConfig[str] = job.mix_config.plan(
            self.bank,
            self.log,
            batches=job.steps,
            subjects={case: source.header(case).subject for case in source.train_ids},
            done=self.first,
        )
        return replace(plan, seed=job.seed, patience=job.patience)

    def more(self) -> dict[str, Any]:
        """See ``HostSession.more``."""
        return {"metrics_on_real_cases": self._metrics}

    # -- while training --------------------------------------------------------------------------

    def _train(self, stop: StopRequest) -> Segmenter:
        """Train the remaining steps."""
        from gansynth.runtime.devices import pick_device, seeded
        from gansynth.training.checkpoint_manager import TrainingCallbacks
        from gansynth.training.loop import FitOptions, train
        from gansynth_segmenter.augmentation import AugmentationWarp
        from gansynth_segmenter.inference import Segmenter, describe, remember
        from gansynth_segmenter.networks import build

        job, options = self.job, self.job.options
        cutter = TrainingCrops(job.source, job.space)
        with seeded(job.seed):
            generator = build(options, cutter.schema, job.space.size)
        segmenter = Segmenter(generator, job.source.schema, job.space, job.regions, options)
        document = {**describe(segmenter), "trained_on": list(job.source.train_ids)}
        self._say_what(generator, pick_device(options.device))
        usual = job.mix_config.usual_augmentation
        warp = AugmentationWarp.of(options, cutter.schema.spacing, cutter.fill, job.space.pad_label)
        batches = SegmenterBatches(
            cutter,
            self.plan,
            job.source.train_ids,
            batch_size=options.batch_size,
            warp=warp if usual else None,
            augment_synthetic=job.mix_config.augment_synthetic,
            foreground=options.foreground,
        )

        def checkpointed(path: Path, step: int) -> None:
            remember(job.output, document, path, step)
            self.done = step
            self.pause()
            self.write()

        loop = FitOptions(
            steps=job.steps,
            **{key: getattr(options, key) for key in _LOOP},
            seed=job.seed,
            diversity=0,
        )
        schedule = job.mix_config.schedule
        train(
            generator,
            batches,
            loop,
            rate=lambda step: loop.rate(schedule.restarted(step, job.steps)),
            device=pick_device(options.device),
            folder=job.output,
            resume=self.first > 0,
            callbacks=TrainingCallbacks(
                checkpoint=checkpointed,
                metrics=lambda step, values: self.report(),
                reporter=_StepListener(self),
                stop=stop,
            ),
        )
        return segmenter

    def _say_what(self, generator: Generator, device: torch.device) -> None:
        count = sum(p.numel() for p in generator.nets["generator"].parameters())
        job = self.job
        self.say(
            f"{job.options.network} of {count} parameters on {device}; steps {self.first} to "
            f"{job.steps} of {job.options.batch_size} samples of "
            f"{' x '.join(map(str, job.space.size))} voxels"
        )
        if note := job.mix_config.schedule.tuning_note(job.steps, "step", ours=True):
            self.say(note)

    # -- the end ---------------------------------------------------------------------------------

    def _judge(self, segmenter: Segmenter) -> None:
        from gansynth_segmenter.evaluation import LEVELS, PREDICTIONS, evaluate_held_out

        job = self.job
        self.say(f"evaluating on {len(job.source.held_out_ids)} real held-out cases")
        folder = job.output / PREDICTIONS if job.options.save_predictions else None
        levels = job.output / LEVELS if job.options.save_levels else None
        metrics = evaluate_held_out(segmenter, job.source, folder, self.say, levels=levels)
        write_json_atomic(job.output / METRICS, {"steps": job.steps, **metrics})
        self._metrics = headline(metrics)


_LOOP = ("batch_size", "precision", "decay", "checkpoint_every", "log_every")
"""Settings that are passed on to the loop."""


class _StepListener:
    """Shows the steps of the loop, and records each with the time that it waited for its batch."""

    def __init__(self, session: SegmenterSession) -> None:
        self._session, self.say = session, session.say

    def warn(self, text: str) -> None:
        self.say(f"{WARNING}{text}")

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        self._done, self._last = done, time.monotonic()
        yield self

    def advance(self, n: float = 1, **figures: Any) -> None:
        self._session.step(self._last, time.monotonic())
        self._done += n
        self._session.show_progress(self._done - self._session.done, **figures)
        self._last = time.monotonic()


@contextmanager
def _threads(device: str) -> Iterator[None]:
    """Leave the producer one core; see ``gansynth.runtime.child.limit_threads``."""
    import torch

    from gansynth.runtime.child import limit_threads
    from gansynth.runtime.devices import pick_device

    before = torch.get_num_threads()
    limit_threads(pick_device(device).type)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _gpus(device: str) -> tuple[int, ...]:
    """Return the CUDA devices that the training occupies."""
    from gansynth.runtime.devices import pick_device

    picked = pick_device(device)
    return (picked.index or 0,) if picked.type == "cuda" else ()
