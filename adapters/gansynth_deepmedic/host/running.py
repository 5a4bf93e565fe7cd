"""Runs DeepMedic by an order in this process, and reports its true outcome.

DeepMedic always exits with 0: it catches and prints every exception, and ignores the number that
its training returns. Here a training has succeeded if that number is 0 and the final checkpoint
exists.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gansynth.runtime.child import FAULT, obey
from gansynth.runtime.errors import (
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
    UsageFault,
)
from gansynth_deepmedic.host.bridge import bridge
from gansynth_deepmedic.host.patches import patch
from gansynth_deepmedic.host.serving import Serving, refuse_test
from gansynth_deepmedic.host.watching import OutputListener, listen
from gansynth_deepmedic.training_order import TrainingOrder

SCRIPT = "deepMedicRun"
_MODEL, _TRAIN = "-model", "-train"


def run(path: Path) -> int:
    """Train by an order and return the exit code; a line on stderr explains a failure."""
    obey()
    os.register_at_fork(after_in_child=end_when_told)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # DeepMedic would catch a KeyboardInterrupt, and wait for its sampling to end first.
        signal.signal(signal.SIGINT, _interrupt)
    try:
        train(TrainingOrder.read(path))
    except GansynthError as fault:
        sys.stderr.write(f"{FAULT}{' '.join(str(fault).split())}\n")
        return fault.exit_code
    except SystemExit as ended:
        _leave(ended.code if isinstance(ended.code, int) else 1)
    return 0


def end_when_told() -> None:
    """Restore the default SIGTERM in a forked process, as in stock DeepMedic.

    A process that was forked beside TensorFlow's threads may be stuck before it runs any Python. A
    Python handler would then never be called. DeepMedic ends its pool by that signal, and would
    wait forever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def train(order: TrainingOrder) -> None:
    """Train the user's DeepMedic.

    Raises:
        GansynthError: the cause of a failure.
        SystemExit: a signal ended it.
    """
    if order.checkout is None:
        raise UsageFault("the order names no checkout of DeepMedic; use --deepmedic FOLDER")
    refuse_test(order.arguments)
    order.output.mkdir(parents=True, exist_ok=True)
    began, heard = time.time(), listen()
    serving = _prepare(order, order.checkout, heard)
    sys.argv = [str(order.checkout / SCRIPT), *_arguments(order)]
    ended = None
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit:
        if exit.code in (EXIT_SIGTERM, EXIT_SIGINT):
            raise
        ended = exit
    _judge(serving, heard, ended, began)
    serving.progress.tell(end={"dice": serving.metrics} if serving.metrics else {})


def _prepare(order: TrainingOrder, checkout: Path, heard: OutputListener) -> Serving:
    """Import DeepMedic, add missing functions, and hook in ``Serving``."""
    with contextlib.suppress(ValueError):  # where the system cannot fork
        # Its processes inherit what is patched; newer Pythons start them otherwise.
        multiprocessing.set_start_method("fork", force=True)
    sys.path.insert(0, str(checkout))
    serving = Serving(order, heard)
    try:
        bridged = bridge()
        patch(serving)
    except GansynthError:
        raise
    except Exception as error:  # whatever an import may raise
        raise EnvironmentFault(
            f"{checkout}: DeepMedic cannot be imported by {sys.executable}: "
            f"{type(error).__name__}: {error}; gansynth doctor says what is missing"
        ) from error
    if bridged:
        print(f"gansynth: bridged for newer packages: {', '.join(bridged)}", flush=True)
    return serving


def _arguments(order: TrainingOrder) -> list[str]:
    """Return DeepMedic's command line."""
    model: tuple[str, ...] = ()
    if order.model_config is not None and _MODEL not in order.arguments:
        model = (_MODEL, str(order.model_config))
    return [*model, *order.arguments, _TRAIN, str(order.train_config)]


def _judge(serving: Serving, heard: OutputListener, ended: SystemExit | None, began: float) -> None:
    """Raise the cause of a failed training."""
    if serving.fault is not None:
        raise serving.fault
    if not serving.began:
        if ended is not None and ended.code == 2:  # argparse, which says why on stderr
            raise UsageFault(
                f"{SCRIPT} {' '.join(sys.argv[1:])}: invalid arguments, see its message above"
            )
        raise UsageFault(f"DeepMedic rejects its configuration: {heard.reason()}")
    if ended is not None or serving.code != 0:
        raise TrainingFault(f"DeepMedic failed: {heard.reason()}; its log says more")
    if not _is_new(f"{serving.final}.index", began):
        raise TrainingFault(
            f"DeepMedic ended without its final checkpoint ({serving.final or 'none was written'}),"
            " expected one in saved_models; its log says more"
        )


def _is_new(path: str, began: float) -> bool:
    # File systems may round times down.
    return os.path.isfile(path) and os.path.getmtime(path) >= began - 2


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_SIGINT)


def _leave(code: int) -> NoReturn:
    """Kill forked processes and exit at once, without waiting for threads."""
    for process in multiprocessing.active_children():
        process.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
