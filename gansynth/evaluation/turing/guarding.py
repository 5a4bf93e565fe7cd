"""What keeps a session's pages among those who were given the link: host, origin, link, headers."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOSTS = ("127.0.0.1", "localhost")
"""What a browser may think this machine is called: another name leads here by DNS rebinding."""
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
"""Of every answer, whatever it is."""
COOKIE_DAYS = 30


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put ``HEADERS`` on an answer."""
    response.headers.update(HEADERS)


def refused(status: int, text: str) -> web.Response:
    """An answer that says why there is none, as JSON."""
    return web.json_response({"error": text}, status=status)


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other names of this machine, and requests that other pages make."""
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
    except web.HTTPException as error:  # no such page, too large
        return refused(error.status, error.reason)


def same_secret(one: str, other: str) -> bool:
    """Whether two secrets are equal; it takes as long whichever sign differs."""
    return hmac.compare_digest(*(text.encode("utf-8", "replace") for text in (one, other)))


def set_cookie(response: web.Response, name: str, value: str) -> None:
    """A cookie that scripts cannot read and other sites' pages do not send."""
    response.set_cookie(
        name, value, httponly=True, samesite="Strict", path="/", max_age=COOKIE_DAYS * 86400
    )


MIDDLEWARES: tuple[Middleware, ...] = (guarded,)
