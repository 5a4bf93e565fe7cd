"""Serving a session on this machine until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gansynth.evaluation.turing.raters import Rater, read_raters
from gansynth.evaluation.turing.session import StudySession, read_access, remember_port
from gansynth.runtime.errors import EnvironmentFault, UsageFault, extra_hint
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import Interrupted, StopRequest, stop_request
from gansynth.sampling.run import locked

if TYPE_CHECKING:
    from aiohttp import web

ADDRESS = "127.0.0.1"  # the only address: other machines connect through `ssh -L`
POLL_SECONDS = 0.1
Ready = Callable[[str, Callable[[], None]], object]
"""Called with the link once pages are served, and with a thread-safe stop callback."""


def check_server() -> None:
    """Check the server's dependencies before a long preparation."""
    if importlib.util.find_spec("aiohttp") is None:
        raise EnvironmentFault(f"turing-test: aiohttp is not installed; {extra_hint('study')}")


def serve(
    session: StudySession,
    *,
    port: int | None = None,
    ready: Ready = lambda link, stop: None,
    reporter: Reporter | None = None,
) -> None:
    """Serve a session's pages until Ctrl-C, SIGTERM, or the stop callback.

    Args:
        port: of the loopback address; None takes the previous one, or a free one.

    Raises:
        EnvironmentFault: the port is taken, another process serves this session, or aiohttp is not
            installed.
        IntegrityFault: damaged answers.
        Interrupted: SIGTERM, after everything is closed. Ctrl-C is the normal end, and returns.
    """
    check_server()
    reporter = reporter or NullReporter()
    with locked(session.folder, "open the link that it has printed"), stop_request() as stopping:
        raters = read_raters(session.folder, len(session.images), mend=True)
        for rater in raters:
            if rater.torn:
                reporter.warn(
                    f"{rater.path}: ended within a line, which was no answer yet; left out"
                )
        token, before = read_access(session.folder)
        with contextlib.closing(_listen(port, before)) as listening:
            port = listening.getsockname()[1]
            remember_port(session.folder, port)
            link = f"http://{ADDRESS}:{port}/?token={token}"
            app = _app(session, token, raters)
            with stopping.deferred():
                asyncio.run(_until(app, listening, stopping, link, ready))
    if stopping.number == signal.SIGTERM:
        raise Interrupted(stopping.number)


def _app(session: StudySession, token: str, raters: list[Rater]) -> web.Application:
    from gansynth.evaluation.turing.pages import make_app

    def own(rater: Rater) -> Mapping[str, Any]:
        from gansynth.evaluation.turing.report import table_of_rater

        return table_of_rater(session.folder, rater)

    show_table = bool(session.document["asked"]["show_results"])
    return make_app(session, token, raters, own if show_table else None)


async def _until(
    app: web.Application,
    listening: socket.socket,
    stop_request: StopRequest,
    link: str,
    ready: Ready,
) -> None:
    """Serve until a stop request."""
    from aiohttp import web

    stopped = threading.Event()
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        ready(link, stopped.set)
        while not stop_request() and not stopped.is_set():
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await runner.cleanup()


def _listen(port: int | None, before: int) -> socket.socket:
    """A socket on the loopback address, at the given or the previous port."""
    if port is not None and not 1 <= port <= 65535:
        raise UsageFault(f"--port {port}: expected 1 to 65535")
    for candidate in [port] if port is not None else [before, 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Leftover connections of a killed server do not block the port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((ADDRESS, candidate))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            if port is None and candidate:
                continue
            why = "is taken" if error.errno == errno.EADDRINUSE else f"refused: {error.strerror}"
            raise EnvironmentFault(
                f"--port {candidate}: {why}, expected a free port of {ADDRESS}; choose another, or "
                "leave --port out"
            ) from error
    raise AssertionError("unreachable: port 0 is bound or refused")
