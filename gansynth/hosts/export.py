"""What exports of every host have in common: a hidden folder to build in, and a bank filled there.

A killed export leaves that folder; the same order goes on there, sample by sample.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.reader import BankReader
from gansynth.bank.spec import read_heartbeat
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import (
    disk_errors,
    publish_dir,
    read_json,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.progress import Reporter

if TYPE_CHECKING:
    from gansynth.bank.producer_main import ProducerConfig
    from gansynth.core.adapter import Injection
    from gansynth.core.source import CaseSource

SEGMENT = 16
"""Samples of a segment at most."""


@contextlib.contextmanager
def building(build: Path, reporter: Reporter) -> Iterator[Path]:
    """Hold a hidden folder; samples in it stay only if a fault may be put right.

    Args:
        build: the folder; its samples lie in ``bank``.
        reporter: told of samples that are kept.

    Yields:
        ``build / "dataset"``, where there is nothing yet.

    Raises:
        EnvironmentFault: another process builds there.
    """
    from gansynth.sampling.run import locked

    dataset = build / "dataset"
    with disk_errors(build):
        build.parent.mkdir(parents=True, exist_ok=True)
    with locked(build, "export under another name"):
        keep = False
        try:
            shutil.rmtree(dataset, ignore_errors=True)
            yield dataset
        except GansynthError:
            keep = any((build / "bank").glob("segment-*.h5"))
            if keep:
                reporter.say(f"{build}: keeps the samples so far; the same command goes on")
            raise
        finally:
            shutil.rmtree(dataset if keep else build, ignore_errors=True)


@contextlib.contextmanager
def exporting(
    injection: Injection,
    source: CaseSource,
    target: str,
    samples: int,
    generator: str,
    *,
    build: Path,
    folder: Path,
    rejected: Path | None = None,
    reporter: Reporter,
) -> Iterator[tuple[Path, BankReader, dict[str, Any]]]:
    """Draw samples for a data set, have it written, and give it its name.

    Args:
        injection, source, target, samples, generator, rejected: see ``samples_of``.
        build: see ``building``.
        folder: of the data set.
        reporter: shows progress.

    Yields:
        Where the data set is to be written, its samples, and how many were rejected and why.

    Raises:
        EnvironmentFault: another process builds there.
        GansynthError: the producer's last fault.
    """
    with building(build, reporter) as dataset:
        reader = samples_of(
            injection, source, target, build, samples, generator,
            rejected=rejected, reporter=reporter,
        )  # fmt: skip
        yield dataset, reader, dict(read_heartbeat(reader.folder).get("rejected", {}))
        if injection.bank is None:
            shutil.rmtree(reader.folder, ignore_errors=True)
        publish_dir(dataset, folder)


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there; of a link, of what it leads to."""
    files = (Path(here, name) for here, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(files)}


def samples_of(
    injection: Injection,
    source: CaseSource,
    target: str,
    build: Path,
    samples: int,
    generator: str,
    *,
    rejected: Path | None = None,
    reporter: Reporter,
) -> BankReader:
    """A bank with the samples of an export: the one that was named, or one that is filled now.

    Args:
        injection: where they come from.
        source: the host's cases.
        target: the host's name.
        build: the folder that ``building`` holds.
        samples: how many.
        generator: SHA-256 of the run's manifest.
        rejected: folder for pictures of rejected samples; None keeps none.
        reporter: shows progress.

    Raises:
        GansynthError: the producer's last fault.
    """
    if injection.bank is not None:
        return BankReader(injection.bank)
    from gansynth.sampling.filters.ahead import learn_ahead

    learn_ahead(
        injection.run,
        injection.samples.filters,
        source,
        target=target,
        device=injection.device,
        reporter=reporter,
    )
    config = order_of(injection, source, target, build, samples, rejected)
    return filled_bank(config, generator, restarts=injection.restarts, reporter=reporter)


def order_of(
    injection: Injection,
    source: CaseSource,
    target: str,
    build: Path,
    samples: int,
    rejected: Path | None = None,
) -> ProducerConfig:
    """What the producer of an export is told; see ``samples_of``."""
    from gansynth.bank.producer_main import ProducerConfig

    return ProducerConfig(
        run=str(injection.run),
        request=source.request.to_json(),
        target=target,
        bank=str(build / "bank"),
        frozen=True,
        capacity=samples,
        segment_samples=min(SEGMENT, samples),
        samples=injection.samples,
        rejected=None if rejected is None else str(rejected),
        device=injection.device,
        parent=os.getpid(),
        dtype="float32",
    )


def filled_bank(
    config: ProducerConfig, generator: str, *, restarts: int, reporter: Reporter
) -> BankReader:
    """Let a producer draw, check and store samples, as for any bank.

    Args:
        config: what it is told: a frozen bank, in the folder that ``building`` holds.
        generator: SHA-256 of the run's manifest.
        restarts: how often in a row a producer that died is started again.
        reporter: shows progress.

    Raises:
        GansynthError: the producer's last fault.
    """
    from gansynth.bank.supervisor import Keeper

    take_up(config, generator)
    shown = 0
    with reporter.task(config.capacity, "sample") as bar:

        def progress(count: int) -> None:
            nonlocal shown
            bar.advance(count - shown)
            shown = count

        log = Path(config.bank).parent / "producer.log"
        keeper = Keeper.start(config, log, restarts=restarts)
        try:
            keeper.wait(config.capacity, float("inf"), progress)
        finally:
            keeper.stop()
            for said in keeper.messages():
                reporter.say(said)
    return BankReader(config.bank)


def take_up(config: ProducerConfig, generator: str) -> None:
    """Throw away what a killed export left, unless it had the same order.

    Args:
        config: of the producer.
        generator: SHA-256 of the run's manifest.
    """
    order = {k: v for k, v in config.to_json().items() if k not in ("parent", "device")}
    order = json.loads(json.dumps({**order, "generator": generator}))
    file = Path(config.bank).parent / "order.json"
    with contextlib.suppress(DataFault):
        if read_json(file) == order:
            return
    shutil.rmtree(config.bank, ignore_errors=True)
    write_json_atomic(file, order)
