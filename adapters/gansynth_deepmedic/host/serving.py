"""Serves the cases that DeepMedic opens for training; one object per process.

DeepMedic samples every subepoch anew: it chooses cases, opens them and cuts segments. It does so in
this process, in a thread beside the training, or in processes forked for each subepoch.
``Subepochs`` determines the cases. Random numbers are keyed by subepoch and case, and so are the
same in all modes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import (
    EXIT_SIGINT,
    EXIT_SIGTERM,
    GansynthError,
    IntegrityFault,
    TrainingFault,
    UsageFault,
)
from gansynth_deepmedic.host.watching import (
    Mask,
    OutputListener,
    SyntheticCentres,
    core_as_weights,
    dice_of,
)
from gansynth_deepmedic.insertion import LoadedCase
from gansynth_deepmedic.subepochs import Read, SegmentJob, SubepochCase, Subepochs
from gansynth_deepmedic.training_order import PROGRESS, ProgressWriter, TrainingOrder

PATIENCE = 45.0  # seconds to wait for a case in a forked process; after 60 DeepMedic restarts it
_TRAIN, _VALIDATION, _SHUFFLE = range(3)
_WHOLE = 1 << 20


class Serving:
    """The cases of one training, and its state.

    Attributes:
        fault: the error of gansynth that ended it, if any.
        code: the number that DeepMedic's training returned; None before.
        final: path of the final checkpoint, or "".
        began: whether DeepMedic has read its configuration and begun.
        metrics: mean Dice on whole validation cases.
    """

    def __init__(self, order: TrainingOrder, heard: OutputListener) -> None:
        self.order, self._heard = order, heard
        self.progress = ProgressWriter(order.output / PROGRESS)
        self.subepochs: Subepochs = order.made()
        self.fault: GansynthError | None = None
        self.code: int | None = None
        self.final, self.began = "", False
        self.metrics: dict[str, float] = {}
        self._cases = len(order.cases)
        self._epoch = order.done
        self._first, self._ends = order.done * order.subepochs, -1
        self._drawn = self._trained = self._validated = 0
        self._training, self._subepoch, self._places = False, 0, list[SubepochCase]()
        self._losses: list[float] = []
        self._job = threading.local()

    # -- the training as a whole -------------------------------------------------------------------

    def begin(self, epochs: int, subepochs: int, trained: int) -> None:
        """Check the training's length, and note its beginning."""
        if subepochs != self.order.subepochs:
            raise IntegrityFault(
                f"{self.order.train_config}: numberOfSubepochs = {subepochs}, expected "
                f"{self.order.subepochs} as ordered"
            )
        if trained != self.order.done:
            self._heard.write(
                f"gansynth: the network has been trained for {trained} epochs, the record says "
                f"{self.order.done}; resuming from epoch {trained}\n"
            )
        self._epoch, self._first = trained, trained * subepochs
        self._ends = epochs * subepochs

    def check_lists(self, training: Sequence[Sequence[str]], others: Sequence[str]) -> None:
        """Compare DeepMedic's lists of cases with the order."""
        expected = [case.channels[0] for case in self.order.cases] + list(self.order.slots)
        paths = [channels[0] for channels in training]
        if [_real(path) for path in paths] != [_real(path) for path in expected]:
            odd = next((p for p in paths if _real(p) not in map(_real, expected)), "another order")
            raise IntegrityFault(
                f"{self.order.train_config}: {len(paths)} training cases with {odd}, expected the "
                f"{self._cases} real ones and {len(self.order.slots)} slots as ordered"
            )
        folders = {_real(str(Path(slot).parent)) for slot in self.order.slots}
        for path in others:
            if _real(str(Path(path).parent)) in folders:
                raise IntegrityFault(
                    f"{path}: a synthetic slot among the validation cases, expected real cases "
                    "only; remove it from the validation lists"
                )

    def saved(self, path: str, prefix: str) -> None:
        """Note a written checkpoint."""
        if path.startswith(f"{prefix}.final."):
            self.final = path
            return
        self._epoch += 1
        metrics = {"loss": float(np.mean(self._losses))} if self._losses else {}
        self._losses = []
        self.progress.tell(epoch=self._epoch, metrics=metrics)

    def validated(self, means: Any) -> None:
        """Report the metrics of whole validation cases for the epoch."""
        self.metrics = dice_of(means)
        if self.metrics:
            self.progress.tell(epoch=self._epoch, metrics={"dice": self.metrics})

    def step(self, begin: float, end: float, loss: float) -> None:
        """Report a training step."""
        self._losses.append(loss)
        self.progress.tell(step=[round(begin, 6), round(end, 6)])

    def trained(self) -> None:
        """Report the end of a subepoch; subepochs are trained in the order of drawing."""
        self.progress.tell(trained=self._first + self._trained)
        self._trained += 1

    # -- one subepoch ------------------------------------------------------------------------------

    def draw(self, original: Callable[[], Any], *, training: bool, processes: int) -> Any:
        """Sample a subepoch.

        DeepMedic samples an unused subepoch beside the last one, which is skipped here.
        """
        subepoch = self._first + self._drawn
        if training and 0 <= self._ends <= subepoch:
            return [], []
        self._training = training
        if training:
            self._drawn += 1
            self._limit_patience(processes)
            self._subepoch, self._places = subepoch, self.subepochs.order(subepoch)
        else:
            self._validated += 1
        with self.remembering():
            self._seed(_TRAIN if training else _VALIDATION, self._number, _WHOLE)
            return original()

    @property
    def _number(self) -> int:
        """Number of the subepoch that is being sampled."""
        return self._subepoch if self._training else self._validated

    def choose(self, original: Callable[[], list[int]], total: int) -> list[int]:
        """Return the list entries that a subepoch opens (IntegrityFault: too few slots)."""
        if not self._training:
            return original()
        chosen: list[int] = []
        slots = iter(range(self._cases, total))
        for place in self._places:
            entry = next(slots, -1) if place.synthetic else place.real
            if entry < 0:
                raise IntegrityFault(
                    f"subepoch {self._subepoch}: more synthetic cases than the training lists have "
                    f"slots ({total - self._cases}), expected a slot for each"
                )
            chosen.append(entry)
        return chosen

    def share(self, counts: Any, segments: int) -> Any:
        """Check that all cases give the same number of segments, as the ratio requires."""
        meet = len({place.synthetic for place in self._places}) > 1
        if self._training and meet and len({int(count) for count in counts}) > 1:
            raise IntegrityFault(
                f"{self.order.train_config}: numberTrainingSegmentsLoadedOnGpuPerSubep = "
                f"{segments}, expected a multiple of the {len(counts)} cases of a subepoch"
            )
        return counts

    def shuffle(self, original: Callable[[], Any]) -> Any:
        """Shuffle the segments of a subepoch."""
        self._seed(_SHUFFLE, self._number, int(self._training))
        return original()

    # -- one case ----------------------------------------------------------------------------------

    def sample(
        self, original: Callable[..., Any], arguments: dict[str, Any], read: Read, mask: Mask
    ) -> Any:
        """Open a case and cut segments."""
        training, job = arguments["train_val_or_test"] == "train", int(arguments["job_idx"])
        kind = _TRAIN if training else _VALIDATION
        with self._no_exit():
            if not training:
                self._seed(kind, self._number, job)
                return original(**arguments)
            place = self._places[job]
            loaded = self.subepochs.load(place, read)
            prefix = f"synthetic sample {loaded.sample} in " if loaded.sample else ""
            self._log(arguments, f"{prefix}case {loaded.case}, subepoch {self._subepoch}")
            arguments = self._told(arguments, loaded, mask, self._seed(kind, self._number, job))
            self._job.case = (place, loaded, read)
            try:
                result = original(**arguments)
            finally:
                del self._job.case
            spread = (
                isinstance(arguments["sampling_type"], SyntheticCentres)
                and arguments["sampling_type"].spread
            )
            if spread:
                self._log(
                    arguments, "no segment fits where it is synthetic: taken from the whole case"
                )
            done = SegmentJob.of(place, loaded, len(result[1]), spread=spread)
            self.progress.tell(job=done.to_json())
            return result

    def open(
        self, original: Callable[[], Any], weights: Sequence[Sequence[str]] | None
    ) -> tuple[Any, Any, Any, Any]:
        """Return a case's channels (C, X, Y, Z), labels, region of interest and weight maps."""
        case: tuple[SubepochCase, LoadedCase, Read] | None = getattr(self._job, "case", None)
        if case is None:
            return original()  # type: ignore[no-any-return]
        place, loaded, read = case
        maps: npt.NDArray[Any] | None = None
        if loaded.core is not None:
            maps = core_as_weights(loaded.core)
        elif weights is not None and not loaded.sample:
            maps = np.stack([read(of[place.real]) for of in weights]).astype(np.float32)
        # float64 as in DeepMedic, for an identical normalisation.
        return loaded.image.astype(np.float64), loaded.labels, loaded.roi, maps

    def _told(
        self, arguments: dict[str, Any], loaded: LoadedCase, mask: Mask, seed: int
    ) -> dict[str, Any]:
        """Return the arguments of DeepMedic's own function for this case."""
        changed: dict[str, Any] = {}
        if loaded.core is not None:
            segment = arguments["inp_shapes_per_path"][0]
            changed["sampling_type"] = SyntheticCentres(arguments["sampling_type"], mask, segment)
        if loaded.sample and not self.order.augment_synthetic:
            changed |= {"augm_img_prms": None, "augm_sample_prms": None}
        elif (
            arguments["augm_img_prms"] is not None
            and arguments["augm_img_prms"]["affine"] is not None
        ):
            # Its own generator, seeded by the operating system where no seed is given.
            affine = copy.deepcopy(arguments["augm_img_prms"]["affine"])
            if affine["seed"] is None:
                affine["seed"] = seed
            changed["augm_img_prms"] = {**arguments["augm_img_prms"], "affine": affine}
        return {**arguments, **changed}

    def _log(self, arguments: dict[str, Any], text: str) -> None:
        arguments["log"].print3(
            f"[TRA|JOB:{arguments['job_idx']}|PID:{os.getpid()}] gansynth: {text}"
        )

    # -- small things ------------------------------------------------------------------------------

    def _seed(self, *key: int) -> int:
        """Seed the generators that DeepMedic uses, and return a further seed of this key."""
        state = np.random.SeedSequence(self.order.seed, spawn_key=key).generate_state(9)
        random.seed(state[:4].tobytes())
        np.random.seed(state[4:8])  # noqa: NPY002 - DeepMedic's own
        return int(state[8])

    def _limit_patience(self, processes: int) -> None:
        """Let a forked process give up before DeepMedic restarts it repeatedly."""
        if processes > 0 and self.order.plan.patience > PATIENCE:
            plan = dataclasses.replace(self.order.plan, patience=PATIENCE)
            self.order = dataclasses.replace(self.order, plan=plan)
            self.subepochs = self.order.made()

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep an error of gansynth that DeepMedic may catch."""
        try:
            with self._no_exit():
                yield
        except GansynthError as fault:
            self.fault = self.fault or fault
            raise

    @contextlib.contextmanager
    def _no_exit(self) -> Iterator[None]:
        """Convert DeepMedic's ``exit(1)`` to an exception; in a thread or fork it would hang."""
        try:
            yield
        except SystemExit as ended:
            if ended.code in (EXIT_SIGTERM, EXIT_SIGINT):
                raise
            raise TrainingFault(
                f"DeepMedic ended itself (exit {ended.code}): {self._heard.reason()}"
            ) from None


def refuse_test(arguments: Sequence[str]) -> None:
    """Reject arguments that do not train (UsageFault)."""
    for option in ("-test", "-train"):
        if option in arguments:
            raise UsageFault(
                f"{option}: not valid with synthetic cases, which serve one training only; "
                "leave it out"
            )


def _real(path: str) -> str:
    return os.path.realpath(path)
