"""Sample banks of users: fill one, keep one fresh, and compare one with training cases.

Samples stay in the space of the run's own source.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gansynth.bank.placement import place_bank
from gansynth.bank.producer import ProducerConfig
from gansynth.bank.reader import BankReader
from gansynth.bank.supervisor import ProducerSupervisor
from gansynth.bank.training_bank import FILL_SECONDS, LIVE_FILL
from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest, absolute_boxes
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.runtime.devices import producer_device
from gansynth.runtime.errors import DataFault, UsageFault, describe_error
from gansynth.runtime.progress import Reporter
from gansynth.sampling.evaluation_data import check_alike, compare_with_training

logger = logging.getLogger("gansynth")
STORED = 64  # samples of a bank that are compared with training cases


@with_checked_arguments
def fill_bank(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    samples: PositiveInt = 64,
    *,
    request: SampleRequest | None = None,
    device: str = "auto",
    dtype: Literal["float16", "float32"] = "float16",
    sample_timeout: PositiveFloat = FILL_SECONDS,
) -> Path:
    """Fill a frozen bank for offline augmentation, or complete an interrupted one.

    Args:
        run: a run, or its folder.
        folder: of the bank; a new one, or that of an interrupted bank.
        samples: number of samples.
        request: conditions and filters of the samples; None for the defaults. The same request
            fills a bank with the same samples.
        device: device of the generator.
        dtype: storage type of images.
        sample_timeout: time limit in seconds.

    Returns:
        The bank's folder.

    Raises:
        GansynthError: the producer failed, there is no run, or the bank has other options.
        TrainingFault: the time limit is exceeded.
    """
    folder = Path(folder).absolute()
    generator = RunFolder(Path(run).absolute())
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UsageFault(
            "bank.folder-is-file", f"{there}: is a file, expected a folder; name another one"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    where = producer_device(device, ())
    with (
        describe_error("capacity", "samples"),
        tempfile.TemporaryDirectory(prefix="gansynth-log-") as logs,
    ):
        config = _config(generator, folder, samples, request, where, dtype)
        fill(config, Path(logs) / "producer.log", sample_timeout=sample_timeout)
    return folder


def fill(
    config: ProducerConfig,
    log: Path,
    *,
    restarts: int = 0,
    sample_timeout: float = math.inf,
    progress: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = logger.warning,
) -> BankReader:
    """Start a producer for a frozen bank and wait until it ends.

    Args:
        restarts: consecutive restarts of a producer that died, at most.
        sample_timeout: time limit in seconds.
        progress: called with the number of samples whenever it changes.
        say: receives messages about restarts.
    """
    supervisor = ProducerSupervisor(config, log, restarts=restarts)
    try:
        supervisor.wait(config.capacity, sample_timeout, progress)
    finally:
        supervisor.stop()
        for line in supervisor.messages():
            say(line)
    if supervisor.ended is not None:
        raise supervisor.ended
    return BankReader(config.bank)


@with_checked_arguments
@contextlib.contextmanager
def live_bank(
    run: str | os.PathLike[str],
    samples: PositiveInt = 64,
    *,
    request: SampleRequest | None = None,
    device: str = "auto",
    dtype: Literal["float16", "float32"] = "float16",
    duty: Annotated[float, Field(gt=0, le=1)] = 0.25,
    refresh: PositiveFloat | None = None,
    scratch: Path | str | None = None,
    restarts: NonNegativeInt = 5,
    sample_timeout: PositiveFloat = FILL_SECONDS,
) -> Iterator[Path]:
    """Keep a bank fresh by a separate process: ``with live_bank(run) as bank: train()``.

    The bank lies in shared memory if there is room. The process ends with the block, or with this
    process.

    Args:
        run: a run, or its folder.
        samples: size of the bank.
        request: conditions and filters of the samples; None for the defaults.
        dtype: storage type of images.
        device: device of the generator; ``auto`` is a second GPU, the first one, or the CPU.
        duty: share of the time the producer works once the bank is full, above 0 and at most 1.
        refresh: shortest time in seconds in which the whole bank is replaced; overrides ``duty``.
        scratch: folder for the bank, instead of shared memory.
        restarts: consecutive restarts of a producer that died, at most.
        sample_timeout: time limit in seconds for the first samples.

    Yields:
        The bank's folder, with its first samples in it.

    Raises:
        GansynthError: the producer failed, there is no run, or there is no room.
        TrainingFault: the first samples exceed the time limit.
    """
    generator = RunFolder(Path(run).absolute())
    voxels, channels = math.prod(generator.space.size), len(generator.schema.channels)
    needed = samples * voxels * (channels * np.dtype(dtype).itemsize + np.dtype(np.int16).itemsize)
    where = producer_device(device, (0,))  # the first GPU is the training's
    with describe_error("--bank-dir", "scratch"), describe_error("--bank-size", "samples"):
        place, notice = place_bank(generator.run_id, needed, scratch)
    if notice:
        logger.warning("gansynth: %s", notice)
    with tempfile.TemporaryDirectory(prefix="gansynth-log-") as logs:
        try:
            with describe_error("capacity", "samples"):
                frozen = _config(generator, place, samples, request, where, dtype)
            config = replace(frozen, frozen=False, temporary=True, duty=duty, refresh=refresh)
            log = Path(logs) / "producer.log"
            with ProducerSupervisor(config, log, restarts=restarts) as supervisor:
                supervisor.wait(min(samples, LIVE_FILL), sample_timeout)
                try:
                    yield place
                finally:
                    for line in supervisor.messages():
                        logger.warning("gansynth: %s", line)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _config(
    run: RunFolder,
    folder: Path,
    samples: int,
    request: SampleRequest | None,
    device: str,
    dtype: Literal["float16", "float32"],
) -> ProducerConfig:
    """Return the configuration of a frozen bank; what its filters need is learnt here."""
    asked = request or SampleRequest()
    if asked.filters:  # a producer on the CPU has one thread
        from gansynth.sampling.filters.fitted import learn_ahead
        from gansynth.sampling.run_source import open_source

        learn_ahead(run, asked.filters, open_source(run.request), device=device)
    return ProducerConfig(
        run=str(run),
        request=run.request.to_json(),
        target="",
        bank=str(folder),
        frozen=True,
        capacity=samples,
        samples=replace(asked, boxes=absolute_boxes(asked.boxes)),
        device=device,
        dtype=dtype,
    )


def check_bank(folder: Path, source: CaseSource, reporter: Reporter) -> dict[str, Any]:
    """Compare samples of a bank with training cases; see ``compare_with_training``."""
    reader = BankReader(folder)
    with describe_error("--real-read", "--read"), describe_error("--real ", ""):
        check_alike(source, reader.spec.schema, str(folder))
    samples, space = read_stored(reader, source, STORED, reporter)
    return compare_with_training(folder, samples, source, space, reader.spec.lineage, reporter)


def read_stored(
    reader: BankReader, source: CaseSource, number: int, reporter: Reporter
) -> tuple[list[Sample], Space]:
    """Read samples, evenly over a bank, and return them with the space of crops like them."""
    ids = reader.ids()
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int))
    samples = []
    with reporter.task(len(chosen), "samples") as bar:
        for index in chosen.tolist():
            held = reader.read(ids[index])
            image = held.image.astype(np.float32)
            samples.append(Sample(image, held.labels, held.boxes, held.provenance))
            bar.advance(1)
    if not samples:
        raise DataFault(
            "bank.no-sample",
            f"{reader.folder}: holds no sample, expected some; wait for its producer",
        )
    pad = OUTSIDE if source.schema.has_outside else source.space.pad_label
    size = tuple(samples[0].image.shape[1:])
    return samples, Space("crop", size, host=source.space.host, pad_label=pad)
