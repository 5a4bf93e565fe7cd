"""A session served in a thread, and a rater without a browser."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gansynth.evaluation.turing import open_session, serve
from gansynth.evaluation.turing.raters import Rater, read_raters


@dataclass
class Answered:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)


@dataclass
class Visitor:
    """Sends requests as a browser would, with the cookies it was given."""

    link: str
    cookies: dict[str, str] = field(default_factory=dict)
    said: str = ""

    @property
    def port(self) -> int:
        return int(urlsplit(self.link).port or 0)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            own = {"Host": self.host, "Cookie": self._cookie()}
            own |= {} if body is None else {"Content-Length": str(len(body))}
            for name, value in {**own, **headers}.items():
                if value:
                    connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            reply = connection.getresponse()
            found = Answered(reply.status, reply.getheaders(), reply.read())
        for name, value in found.headers:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return found

    def _cookie(self) -> str:
        return "; ".join(f"{k}={v}" for k, v in self.cookies.items() if v)

    def get(self, path: str, **headers: str) -> Answered:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, document: Any, **headers: str) -> Answered:
        usual = {"Origin": f"http://{self.host}", "Content_Type": "application/json"}
        return self.ask("POST", path, json.dumps(document).encode(), **{**usual, **headers})

    def join(self, name: str, **more: Any) -> Any:
        """Open the link and begin under a name; where the rater stands."""
        self.enter()
        found = self.post("/join", {"name": name, **more})
        assert found.status == 200, found.body
        return found.json

    def enter(self) -> Answered:
        return self.get(f"/?token={self.token}")

    def answer(self, image: str, said: str = "real", **more: Any) -> Answered:
        return self.post("/answer", {"image": image, "answer": said, "ms": 1500.04, **more})

    def finish(self, state: Any, said: str = "real") -> Any:
        while state["image"] is not None:
            state = self.answer(state["image"], said).json
        return state


@contextlib.contextmanager
def served(folder: Path, **options: Any) -> Iterator[Visitor]:
    """Serve a session; a visitor who has not come in yet."""
    ready: Queue[Any] = Queue()
    session = open_session(folder)

    def run() -> None:
        try:
            serve(session, ready=lambda link, stop: ready.put((link, stop)), **options)
        except BaseException as error:
            ready.put(error)  # raised below, in the thread that waits

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    found = ready.get(timeout=60)
    if isinstance(found, BaseException):
        raise found
    link, stop = found
    try:
        yield Visitor(link)
    finally:
        stop()
        thread.join(60)
        assert not thread.is_alive()


def raters_of(folder: Path) -> list[Rater]:
    return read_raters(folder, len(open_session(folder).images))


def change(folder: Path, **asked: Any) -> None:
    path = folder / "session.json"
    document = json.loads(path.read_text())
    document["asked"] |= asked
    path.write_text(json.dumps(document))
