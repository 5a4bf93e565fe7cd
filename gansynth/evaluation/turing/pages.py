"""The web pages of a session: raters, images and answers.

This module cannot tell real from synthetic images. Every image is sent by the same steps, from
memory. All have the same number of bytes, the same headers, and random names for every rater. Only
the current image and the next one are available.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any

from aiohttp import web

from gansynth.evaluation.turing.raters import (
    ANSWERS,
    Rater,
    check_room,
    clean_ms,
    clean_name,
    clean_years,
    new_rater,
    same_code,
    same_name,
    seat_of,
)
from gansynth.evaluation.turing.session import StudySession
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault

FILES = {
    "style.css": "text/css",
    "main.js": "text/javascript",
    "viewer.js": "text/javascript",
    "clock.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
BODY = 16 << 10  # most bytes of a request
CLOSED = "Open the link that you were given. Every browser needs it once."
NOT_SAVED = "The computer that runs this test could not save that. Tell whoever runs it."
TAKEN = (
    "Somebody has begun under this name. If that was you, continue in the same browser, or "
    "with your code below. Otherwise choose another name."
)
Own = Callable[[Rater], Mapping[str, Any]]  # a rater's own table, once all images have an answer


def make_app(
    session: StudySession, token: str, raters: list[Rater], own_table: Own | None
) -> web.Application:
    """Create the web application of a session.

    Args:
        own_table: results shown to a rater after the last answer; None shows nothing.
    """
    pages = _Pages(session, token, raters, own_table)
    app = web.Application(middlewares=(guarded,), client_max_size=BODY)
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            web.get("/", pages.enter, allow_head=False),
            web.get("/state", pages.state, allow_head=False),
            web.get("/image/{name}", pages.image, allow_head=False),
            web.post("/join", pages.join),
            web.post("/answer", pages.answer),
            web.post("/leave", pages.leave),
            *(web.get(f"/{name}", pages.file, allow_head=False) for name in FILES),
        ]
    )
    return app


class _Pages:
    """Request handlers; one process, one thread."""

    def __init__(
        self, session: StudySession, token: str, raters: list[Rater], own_table: Own | None
    ) -> None:
        self.session, self.token, self.raters, self.own_table = session, token, raters, own_table
        self._link, self._seat = (f"gansynth-{session.id}-{role}" for role in ("link", "rater"))
        self._given: dict[str, tuple[int, float]] = {}
        self._files = {name: _file(name) for name in (*FILES, "page.html", "enter.html")}

    # -- pages -----------------------------------------------------------------------------------

    async def enter(self, request: web.Request) -> web.Response:
        """Turn the link's token into a cookie, so that the address no longer has it, then show the
        page.

        It leads on by a page, not a redirect. A redirect of a link followed from another site
        (webmail, say) would lose the cookie.
        """
        typed = request.query.get("token")
        if typed is not None and same_secret(typed, self.token):
            response = web.Response(body=self._files["enter.html"], content_type="text/html")
            set_cookie(response, self._link, self.token)
            return response
        if typed is not None or not self._invited(request):
            return web.Response(status=403, text=CLOSED)
        return web.Response(
            body=self._files["page.html"], content_type="text/html", charset="utf-8"
        )

    async def file(self, request: web.Request) -> web.Response:
        """Style and scripts: the same for every session."""
        name = request.path.removeprefix("/")
        return web.Response(body=self._files[name], content_type=FILES[name], charset="utf-8")

    # -- raters ----------------------------------------------------------------------------------

    async def state(self, request: web.Request) -> web.Response:
        """The state of a rater."""
        if not self._invited(request):
            return refused(403, CLOSED)
        return self._told(self._rater(request))

    async def join(self, request: web.Request) -> web.Response:
        """Begin under a name, or continue with the code."""
        typed = await self._typed(request)
        name, years = clean_name(typed.get("name")), clean_years(typed.get("years"))
        rater = next(
            (candidate for candidate in self.raters if same_name(candidate.name, name)), None
        )
        if rater is not None and not same_code(rater, typed.get("code", "")):
            return refused(409, TAKEN)
        if rater is None and typed.get("code"):
            return refused(409, "Nobody has begun under this name.")
        if rater is None:
            check_room(len(self.raters))
            rater = new_rater(self.session.folder, name, years, len(self.session.images))
            self.raters.append(rater)
        response = self._told(rater)
        set_cookie(response, self._seat, seat_of(rater, self.token))
        return response

    async def answer(self, request: web.Request) -> web.Response:
        """Save an answer; it is on disk before it is acknowledged."""
        typed = await self._typed(request)
        rater, name, choice = self._rater(request), typed.get("image"), typed.get("answer")
        if rater is None:
            return refused(403, "Begin under a name first.")
        if choice not in ANSWERS or not isinstance(name, str):
            return refused(400, "Expected an image and an answer, real or synthetic.")
        last = rater.answers[-1] if rater.answers else None
        if last is not None and name == rater.names[rater.done - 1]:
            # Sent again, because the acknowledgement was lost.
            return self._told(rater, 200 if last["answer"] == choice else 409)
        if rater.finished or name != rater.names[rater.done]:
            return self._told(rater, 409)
        times = {"ms": clean_ms(typed.get("ms")), "hidden_ms": clean_ms(typed.get("hidden_ms"))}
        rater.answer(name, choice, {**times, "server_ms": self._since_given(rater)})
        return self._told(rater)

    async def leave(self, request: web.Request) -> web.Response:
        """Forget the rater in this browser."""
        if not self._invited(request):
            return refused(403, CLOSED)
        response = self._told(None)
        response.del_cookie(self._seat, path="/")
        return response

    # -- images ----------------------------------------------------------------------------------

    async def image(self, request: web.Request) -> web.Response:
        """The bytes of the current image, or of the next one."""
        rater = self._rater(request) if self._invited(request) else None
        at_hand = {} if rater is None else rater.at_hand()
        number = at_hand.get(request.match_info["name"])
        if number is None:
            return refused(404, "There is no such image.")
        return web.Response(
            body=self.session.images[number].tobytes(), content_type="application/octet-stream"
        )

    # -- helpers ---------------------------------------------------------------------------------

    def _invited(self, request: web.Request) -> bool:
        return same_secret(request.cookies.get(self._link, ""), self.token)

    def _rater(self, request: web.Request) -> Rater | None:
        held = request.cookies.get(self._seat, "")
        seats = ((rater, seat_of(rater, self.token)) for rater in self.raters)
        return next((rater for rater, seat in seats if same_secret(seat, held)), None)

    async def _typed(self, request: web.Request) -> dict[str, Any]:
        """The JSON object of a request. Raises HTTPException: not invited, or other content."""
        if not self._invited(request):
            raise web.HTTPForbidden(reason=CLOSED)
        try:
            typed = await request.json()
        except (ValueError, RecursionError):
            typed = None
        if not isinstance(typed, dict):
            raise web.HTTPBadRequest(reason="Expected a JSON object.")
        return typed

    def _told(self, rater: Rater | None, status: int = 200) -> web.Response:
        """State for the page; of images, two names only."""
        document: dict[str, Any] = {"session": self._public(), "rater": None}
        if rater is not None:
            if not rater.finished and self._given.get(rater.name, (-1,))[0] != rater.done:
                self._given[rater.name] = rater.done, time.monotonic()
            names = [*rater.at_hand(), None, None]
            document |= {
                "rater": {"name": rater.name, "code": rater.code},
                "done": rater.done,
                "of": len(rater.order),
                "image": names[0],
                "next": names[1],
                "results": None,
            }
            if rater.finished and self.own_table is not None:
                # A damaged key concerns whoever runs the test, not raters.
                with contextlib.suppress(GansynthError):
                    document["results"] = dict(self.own_table(rater))
        return web.json_response(document, status=status)

    def _public(self) -> dict[str, Any]:
        about, options = self.session.document["images"], self.session.document["asked"]
        spacing = about["spacing"]
        return {
            "id": self.session.id,
            "images": about["count"],
            "channels": about["channels"],
            "size": about["size"],
            "spacing": [*[1.0] * (3 - len(spacing)), *spacing],
            "instructions": options["instructions"],
        }

    def _since_given(self, rater: Rater) -> float | None:
        """Milliseconds since the image was first announced, in this server's life."""
        position, began = self._given.get(rater.name, (-1, 0.0))
        return round(1000 * (time.monotonic() - began), 1) if position == rater.done else None


def _file(name: str) -> bytes:
    return resources.files("gansynth.evaluation.turing").joinpath("templates", name).read_bytes()


# -- access control --------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOSTS = ("127.0.0.1", "localhost")  # allowed host names of this machine, against DNS rebinding
POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
HEADERS = {
    "Content-Security-Policy": "; ".join(POLICY),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "gansynth",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response."""
COOKIE_DAYS = 30


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add ``HEADERS`` to a response."""
    response.headers.update(HEADERS)


def refused(status: int, text: str) -> web.Response:
    """An error response as JSON."""
    return web.json_response({"error": text}, status=status)


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other host names of this machine, and requests from other pages."""
    host = request.headers.get("Host", "")
    if host.partition(":")[0].lower() not in HOSTS:
        return refused(403, f"This page is at {HOSTS[0]} only.")
    if request.method not in ("GET", "HEAD"):
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.headers.get("Origin") != f"http://{host}" or site != "same-origin":
            return refused(403, "Answers are taken from this page only.")
        if request.content_type != "application/json":
            return refused(415, "Expected JSON.")
    try:
        return await handler(request)
    except web.HTTPException as error:  # not invited, no such page, too large
        return refused(error.status, error.reason)
    except UsageFault as fault:
        return refused(400, str(fault))
    except EnvironmentFault:
        return refused(507, NOT_SAVED)


def same_secret(first: str, second: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(*(text.encode("utf-8", "replace") for text in (first, second)))


def set_cookie(response: web.Response, name: str, value: str) -> None:
    """Set a cookie that scripts cannot read and other sites' pages do not send."""
    response.set_cookie(
        name, value, httponly=True, samesite="Strict", path="/", max_age=COOKIE_DAYS * 86400
    )
