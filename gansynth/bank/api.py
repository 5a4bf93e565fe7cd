"""Banks for training that no adapter starts: ``gansynth.fill_bank`` and ``gansynth.live_bank``.

Samples stay as the run's own source has them: they are brought into no host's space.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from gansynth.bank.placement import place_bank
from gansynth.bank.producer_main import ProducerConfig
from gansynth.bank.reader import BankReader
from gansynth.bank.supervisor import Keeper
from gansynth.conditions.boxes import anywhere
from gansynth.core.null_adapter import NoHost
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import TrainingFault

logger = logging.getLogger("gansynth")
FILL_SECONDS = 1800.0
BEGIN_WITH = 16
"""Samples with which training may begin; a live bank fills up while it goes on."""
_POLL_SECONDS = 0.1


def fill_bank(
    run: Path | str,
    folder: Path | str,
    samples: int = 64,
    *,
    request: SampleRequest | None = None,
    device: str = "auto",
    dtype: Literal["float16", "float32"] = "float16",
    patience: float = FILL_SECONDS,
) -> Path:
    """Fill a frozen bank: offline augmentation. One that was interrupted is filled up.

    Args:
        run: folder of a generator's run.
        folder: of the bank.
        samples: how many.
        request: what samples are asked to be, and which are let in; None for the usual. The same
            request fills a bank with the same samples.
        device: where samples are drawn.
        dtype: how images are stored.
        patience: seconds that it may take.

    Returns:
        The folder.

    Raises:
        GansynthError: what the producer ended with; no run there; a bank made with other options.
        TrainingFault: it takes longer.
    """
    from gansynth.runtime.devices import producer_device

    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    generator = RunFolder(Path(run).absolute())
    config = _config(generator, folder, samples, request, producer_device(device, ()), dtype)
    _learn_filters(generator, config)
    with tempfile.TemporaryDirectory(prefix="gansynth-log-") as logs:
        fill(config, Path(logs) / "producer.log", patience=patience)
    return folder


def fill(
    config: ProducerConfig,
    log: Path,
    *,
    restarts: int = 0,
    patience: float = math.inf,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] = logger.warning,
) -> BankReader:
    """Have a producer fill a frozen bank, and wait for its end: for exports and ``fill_bank``.

    Args:
        config: what the producer is told.
        log: file for what it says.
        restarts: how often in a row a producer that died is started again.
        patience: seconds that it may take.
        progress: called with the number of samples each time it has changed.
        say: is told of restarts.

    Raises:
        GansynthError: what the producer ended with.
        TrainingFault: it takes longer.
    """
    end = time.monotonic() + patience
    keeper = Keeper.start(config, log, restarts=restarts)
    try:
        keeper.wait(config.capacity, patience, progress)
        while keeper.alive() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
    finally:
        keeper.stop()
        for line in keeper.messages():
            say(line)
    if keeper.ended is not None:
        raise keeper.ended
    reader = BankReader(Path(config.bank))
    if reader.sha256 is None:
        raise TrainingFault(f"{config.bank}: not complete after {patience:g} s; call it again")
    return reader


@contextlib.contextmanager
def live_bank(
    run: Path | str,
    samples: int = 64,
    *,
    request: SampleRequest | None = None,
    device: str = "auto",
    dtype: Literal["float16", "float32"] = "float16",
    duty: float = 0.25,
    refresh: float | None = None,
    scratch: Path | str | None = None,
    restarts: int = 5,
    patience: float = FILL_SECONDS,
) -> Iterator[Path]:
    """A bank that a process of its own keeps fresh: ``with live_bank(run) as bank: train()``.

    In shared memory if there is room. The process ends with the block, or with this process.

    Args:
        run, samples, request, dtype: see ``fill_bank``; the bank holds so many samples.
        device: where samples are drawn; ``auto`` is a second GPU, the first one, or the CPU.
        duty: share of the time in which it works once the bank is full, above 0 and at most 1.
        refresh: seconds in which the whole bank is replaced once, at most; with it, ``duty`` does
            not count.
        scratch: folder for the bank, instead of shared memory.
        restarts: how often in a row a producer that died is started again.
        patience: seconds that the first samples may take.

    Yields:
        The bank's folder, with its first samples in it.

    Raises:
        GansynthError: what the producer ended with; no run there; no room.
        TrainingFault: the first samples take longer.
    """
    from gansynth.runtime.devices import producer_device

    generator = RunFolder(Path(run).absolute())
    needed = samples * _bytes(generator, dtype)
    where = producer_device(device, (0,))  # the first GPU is the training's
    place, notice = place_bank(generator.run_id, needed, scratch)
    if notice:
        logger.warning("gansynth: %s", notice)
    with tempfile.TemporaryDirectory(prefix="gansynth-log-") as logs:
        try:
            frozen = _config(generator, place, samples, request, where, dtype)
            config = replace(frozen, frozen=False, temporary=True, duty=duty, refresh=refresh)
            _learn_filters(generator, config)
            log = Path(logs) / "producer.log"
            with Keeper.start(config, log, restarts=restarts) as keeper:
                keeper.wait(min(samples, BEGIN_WITH), patience)
                try:
                    yield place
                finally:
                    for line in keeper.messages():
                        logger.warning("gansynth: %s", line)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _learn_filters(run: RunFolder, config: ProducerConfig) -> None:
    """Have filters learn now: a producer on the CPU has one thread, and low priority."""
    if config.samples.filters:
        from gansynth.sampling.filters.ahead import learn_ahead
        from gansynth.sampling.opening import open_source

        source = open_source(SourceRequest(**config.request))
        learn_ahead(run, config.samples.filters, source, device=config.device)


def _config(
    run: RunFolder,
    folder: Path,
    samples: int,
    request: SampleRequest | None,
    device: str,
    dtype: Literal["float16", "float32"],
) -> ProducerConfig:
    """Of a frozen bank."""
    return ProducerConfig(
        run=str(run),
        request=run.request.to_json(),
        target=NoHost.name,
        bank=str(folder),
        frozen=True,
        capacity=samples,
        segment_samples=max(1, min(16, samples // 4)),
        samples=_anywhere(request or SampleRequest()),
        device=device,
        dtype=dtype,
    )


def _anywhere(request: SampleRequest) -> SampleRequest:
    """As a process in another folder can read it."""
    return replace(request, boxes=anywhere(request.boxes))


def _bytes(run: RunFolder, dtype: str) -> int:
    """What a sample takes, about."""
    voxels = math.prod(run.space.size)
    channels = len(run.schema.channels)
    return voxels * (channels * np.dtype(dtype).itemsize + np.dtype(np.int16).itemsize)
