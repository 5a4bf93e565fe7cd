"""Trains the user's DeepMedic with synthetic cases. It runs in DeepMedic's own Python.

DeepMedic loads a number of cases for each subepoch and takes equal numbers of segments from them.
So R:S is set by cases. Subepoch k has its table (``gansynth.hosts.mixing.epoch_plan``), the same
in every process. A sample that cannot be inserted is not used, e.g. one without training case or
labels, or outside the region of interest. Others are drawn. Then the real stand-in is taken and
counted, as with an empty bank.

Three functions of DeepMedic 0.8 are replaced in memory. Forked processes inherit them.

- ``get_samples_for_subepoch`` gets lists with the R + S cases of the subepoch only, each once, so
  DeepMedic opens these and no others. Validation keeps its own lists.
- ``load_imgs_of_subject`` inserts the sample of a synthetic case. Its region of interest is the
  wholly synthetic part, so DeepMedic itself centres its segments there.
- ``constrain_sampling_maps_near_edges`` takes the whole case if no segment fits in that part.

What is loaded is written to DeepMedic's log, from which gansynth counts (``training``). DeepMedic
was written for numpy 1 and nibabel 4; ``bridge`` replaces what newer ones lack.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import multiprocessing.pool  # its end is registered before ours, so that ours comes first
import os
import random
import re
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from gansynth.hosts.mixing.epoch_plan import EpochPlan
from gansynth.hosts.mixing.mixer import Mixer, MixerConfig
from gansynth.runtime.child import NAME, obey
from gansynth.runtime.serialise import Document
from gansynth.runtime.system import at_fork, end_own_group, fork_workers
from gansynth_deepmedic.insertion import HostCase, LoadedCase, insert, misfit, position_of

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample

SCRIPT = "deepMedicRun"
_LISTS = ("paths_per_chan_per_subj", "paths_to_lbls_per_subj", "paths_to_masks_per_subj")
_TRAIN, _VALIDATION = range(2)
NIBABEL = 5  # first release of nibabel without the functions that DeepMedic calls
Function = Callable[..., Any]
Pool = multiprocessing.pool.Pool
_DRAW = 20


@dataclass(frozen=True)
class TrainingOrder(Document, strict=True):
    """One training, or its remaining epochs, for DeepMedic's process."""

    checkout: Path  # folder of the user's DeepMedic
    arguments: tuple[str, ...]  # of ``deepMedicRun``
    plan: MixerConfig[int]  # the mix of real and synthetic cases
    cases: tuple[HostCase, ...]  # real training cases, in the order of the lists
    count: int  # cases of a subepoch
    first: int  # subepochs of earlier sessions
    total: int  # subepochs of the whole training
    seed: int  # of the centres of segments and their augmentation
    augment_synthetic: bool  # whether synthetic cases are augmented as real ones are


class Subepochs:
    """The cases of every subepoch; can be inherited through fork or pickled."""

    def __init__(self, plan: MixerConfig[int], cases: Sequence[HostCase], count: int) -> None:
        self.cases = tuple(cases)
        self.plan = EpochPlan(plan, len(self.cases), count)
        self._mixer = Mixer(plan, self._refuse)
        self._index = {case.id: case for case in self.cases}

    def load(self, subepoch: int, place: int, read: Callable[[HostCase], LoadedCase]) -> LoadedCase:
        """Return the case of a place, counted in the plan's log; without a sample a real one."""
        table = self.plan.table(subepoch)
        item = self._mixer.fill(
            int(table.real[place]),
            table.mix,
            synthetic=bool(table.synthetic[place]),
            rng=self.plan.rng(_DRAW, subepoch, place),
            place=(subepoch, place),
            turn=table.turn(place),
            wish=lambda sample: not self._refuse(sample),
        )
        if item.sample is None:
            return read(self.cases[item.real])
        position = position_of(item.sample.provenance)
        assert position is not None, "refused by the mixer"
        around = self._index[position.case]
        return insert(around, read(around), item.sample)

    def _refuse(self, sample: BankSample) -> str:
        """Return why a sample is not used, or "", from the sample alone."""
        why = misfit(self._index, sample)
        return why and f"a sample cannot be inserted: {why}"


class Hook:
    """The cases of one training. DeepMedic samples one subepoch after the other."""

    def __init__(self, order: TrainingOrder) -> None:
        self.order = order
        self.subepochs = Subepochs(order.plan, order.cases, order.count)
        self.sampled = [order.first, 0]  # subepochs of training and of validation
        self.subepoch, self.table = order.first, self.subepochs.plan.table(order.first)
        self.listed: list[Any] = []  # the user's lists: channels, labels, regions of interest
        self.shares: Any = ()  # of the categories of segments
        self.synthetic = False  # whether segments are cut from a synthetic case now
        self.say: Callable[[str], None] = print

    def patch(self) -> None:
        """Replace the functions; modules that validate keep the originals, imported by name."""
        training: Any = import_module("deepmedic.routines.training")
        sampling: Any = import_module("deepmedic.dataManagement.sampling")
        import_module("deepmedic.dataManagement.samplingType").exit = _no_exit  # type: ignore[attr-defined]
        _replace(training, "get_samples_for_subepoch", self.sample)
        _replace(sampling, "load_imgs_of_subject", self.load)
        _replace(sampling, "constrain_sampling_maps_near_edges", self.constrain)
        if not self.order.augment_synthetic:
            _replace(sampling, "augment_imgs_of_case", self.augment)
            _replace(sampling, "augment_sample", self.augment)

    def sample(self, original: Function, *arguments: Any) -> Any:
        """Sample a subepoch; the unused one that DeepMedic samples beside the last is skipped."""
        named = inspect.signature(original).bind(*arguments).arguments
        kind = _TRAIN if named["train_val_or_test"] == "train" else _VALIDATION
        number = self.sampled[kind]
        self.sampled[kind] += 1
        self._seed(kind, number)
        if kind == _VALIDATION:
            return original(**named)
        if number >= self.order.total:
            return [], []
        self.subepoch, self.table = number, self.subepochs.plan.table(number)
        self.listed = [named[name] for name in _LISTS]
        self.shares = named["sampling_type"].get_perc_to_sample_per_cat()
        for name, paths in zip(_LISTS, self.listed, strict=True):
            named[name] = paths and [paths[case] for case in self.table.real]
        return original(**named)

    def load(self, original: Function, log: Any, job: str, entry: int, *lists: Any) -> Any:
        """Return channels (C, X, Y, Z), labels, region of interest and no sampling maps."""
        self.synthetic = False
        if not job.startswith("[TRA|"):
            self._seed(_VALIDATION, self.sampled[_VALIDATION], entry)
            return original(log, job, entry, *lists)
        self._seed(_TRAIN, self.subepoch, entry)
        self.say = lambda text: log.print3(f"{job} {NAME}{text}")
        channels, labels, masks = self.listed
        synthetic = self.table.synthetic[entry]

        def read(case: HostCase) -> LoadedCase:
            number = self.order.cases.index(case)
            image, target, roi, _ = original(log, job, number, channels, labels, None, masks)
            whole = target.astype(np.int16) if synthetic else target
            return LoadedCase(image, whole, roi, None, case.id)

        loaded = self.subepochs.load(self.subepoch, entry, read)
        self.synthetic = bool(loaded.sample)
        kind = "synthetic" if loaded.sample else "fallback" if synthetic else "real"
        self.say(f"subepoch {self.subepoch}: {kind} {loaded.sample or loaded.case}")
        roi = loaded.roi if loaded.core is None else loaded.core.astype(np.int16)
        return loaded.image, loaded.labels, roi, None

    def constrain(self, original: Function, maps: Any, segment: Any) -> Any:
        """Return maps of the centres around which a whole segment fits."""
        found = original(maps, segment)
        drawn = zip(self.shares, found, strict=False)
        if not self.synthetic or any(share > 0 and centres.any() for share, centres in drawn):
            return found
        self.say("no segment fits where it is synthetic: taken from the whole case")
        return original([np.ones_like(centres) for centres in maps], segment)

    def augment(self, original: Function, *arguments: Any) -> Any:
        """Augment a real case or segment; a synthetic one stays as it is."""
        return original(*arguments[:-1], None if self.synthetic else arguments[-1])

    def _seed(self, *key: int) -> None:
        """Seed DeepMedic's generators; forked processes would all draw the same centres."""
        words = np.random.SeedSequence(self.order.seed, spawn_key=key).generate_state(5)
        np.random.seed(words[:4])  # noqa: NPY002 - DeepMedic's own
        random.seed(int(words[4]))


def _replace(module: Any, name: str, by: Function) -> None:
    original = getattr(module, name)
    setattr(module, name, functools.wraps(original)(functools.partial(by, original)))


def _no_exit(code: object) -> NoReturn:
    """Stand in for ``exit``, after which a thread or forked process would never be heard of."""
    raise RuntimeError("DeepMedic ends itself, for the reason in its line before this")


def _terminate(pool: Pool, original: Callable[[Pool], None] = Pool.terminate) -> None:
    """Stand in for ``Pool.terminate``: after a failure, ``_end`` ends the forked processes.

    Python's own may wait forever: for a lock, which a process keeps that is ended while it returns
    its segments.
    """
    failure = sys.exc_info()[1]
    if isinstance(failure, Exception) and not isinstance(pool, multiprocessing.pool.ThreadPool):
        raise failure
    original(pool)


def _leave(number: int, frame: object) -> NoReturn:
    """On a signal: DeepMedic would catch an exception, and wait."""
    _end(128 + number)


def _end(code: int) -> NoReturn:
    """End this process and all that it forked; Python's own end may wait for them forever."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A pool's thread would replace processes that end: from here on it waits instead of forking.
    at_fork(before=threading.Event().wait)
    for child in multiprocessing.active_children():
        child.kill()  # one that is stuck runs no handler
    end_own_group()
    os._exit(code)


def _finish() -> None:
    """End in order; DeepMedic's own exit code, always 0, says nothing.

    After any other code, ``gansynth.runtime.processes.run`` kills what is left of the group.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _end(1)


# -- newer packages --------------------------------------------------------------------------------


def bridge() -> tuple[str, ...]:
    """Install functions that newer packages lack, and return their names.

    ``np.lib.pad`` is missing in numpy 2, the method ``get_data`` in nibabel 5, which by default
    also refuses 64-bit integers, the type of segmentations by ``argmax``.
    """
    bridged = []
    if not hasattr(np.lib, "pad"):
        np.lib.pad = np.pad  # type: ignore[attr-defined]
        bridged.append("np.lib.pad")
    if int(re.findall(r"\d+", import_module("nibabel").__version__)[0]) >= NIBABEL:
        bridged += ["load_volume", "saveImgToNiiWithOriginalHdr"]
        files: Any = import_module("deepmedic.dataManagement.io")
        sampling: Any = import_module("deepmedic.dataManagement.sampling")
        files.load_volume = sampling.load_volume = load_volume  # imported by name there
        _replace(files, "saveImgToNiiWithOriginalHdr", save_volume)
    return tuple(bridged)


def load_volume(filepath: str) -> npt.NDArray[Any]:
    """Load a volume (X, Y, Z), scaled by its header, in its stored type."""
    array: npt.NDArray[Any] = np.asanyarray(import_module("nibabel").load(filepath).dataobj)
    return array.reshape((*array.shape, 1)[:3])  # ValueError: it holds more than one volume


def save_volume(original: Function, image: npt.NDArray[Any], *more: Any, **named: Any) -> Any:
    """Save a volume in a type that nibabel 5 writes."""
    if image.dtype in (np.int64, np.uint64, np.bool_):
        image = image.astype(np.int32)
    return original(image, *more, **named)


def main(path: str) -> None:
    """Run ``deepMedicRun`` by the order in a file."""
    order = TrainingOrder.from_json(json.loads(Path(path).read_text("utf-8")))
    obey()  # a forked process that is stuck runs no handler of Python's, and gets none
    atexit.register(_finish)
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)
    Pool.terminate = _terminate  # type: ignore[method-assign, assignment]
    fork_workers()
    _find(order.checkout)
    Hook(order).patch()
    _run(order.checkout, order.arguments)


def predict(checkout: str, arguments: Sequence[str]) -> None:
    """Run ``deepMedicRun`` as it is, with the arguments of a test."""
    obey()
    _find(Path(checkout))
    _run(Path(checkout), arguments)


def _find(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    bridged = bridge()
    if bridged:
        print(f"{NAME}bridged for newer packages: {', '.join(bridged)}", flush=True)


def _run(checkout: Path, arguments: Sequence[str]) -> None:
    sys.argv = [str(checkout / SCRIPT), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
