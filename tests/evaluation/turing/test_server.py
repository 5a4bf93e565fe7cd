"""The pages without a browser: who gets in, what is taken, and that nothing tells the truth."""

import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from gansynth.evaluation.turing import open_session, results
from gansynth.evaluation.turing.pages import FILES, HEADERS, _Pages
from gansynth.evaluation.turing.session import read_access
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault
from tests.evaluation.turing.serving import Visitor, change, raters_of, served

pytest.importorskip("aiohttp")


@pytest.fixture
def site(flat_session):
    """A session of slices, served, and a visitor who has not come in yet."""
    with served(flat_session) as visitor:
        yield visitor


@pytest.fixture
def seated(site):
    """A visitor who has begun, and what the page knows then."""
    return site, site.join("Dr. Ito", years=12)


# -- who gets in -----------------------------------------------------------------------------------


def test_it_listens_on_this_machines_own_address_only(site):
    found = psutil.Process().net_connections(kind="inet")
    addresses = {c.laddr.ip for c in found if c.status == "LISTEN" and c.laddr.port == site.port}
    assert addresses == {"127.0.0.1"}


def test_without_the_link_there_is_nothing(site):
    for path in ("/", "/state", "/?token=", "/?token=guessed", f"/?token={site.token}x"):
        assert site.get(path).status == 403
    for path in ("/join", "/answer", "/leave"):
        assert site.post(path, {"name": "x", "image": "x", "answer": "real"}).status == 403
    assert site.cookies == {}


def test_the_link_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site):
    found = site.enter()
    cookie = found.header("Set-Cookie") or ""
    assert found.status == 200
    for word in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in cookie.split("; ")
    assert b'http-equiv="refresh" content="0;url=/"' in found.body
    assert site.token.encode() not in found.body
    assert site.get("/").status == 200


def test_sessions_on_one_machine_do_not_share_cookies(site, deep_session):
    site.enter()
    with served(deep_session) as other:
        other.cookies = site.cookies
        assert other.get("/").status == 403
        other.enter()
        assert len(other.cookies) == 2
        assert other.get("/").status == site.get("/").status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "-"])
def test_another_name_of_this_machine_is_refused(site, host):
    """As a page elsewhere would come here by DNS rebinding."""
    site.enter()
    for path in ("/", "/state", "/style.css", f"/?token={site.token}"):
        assert site.get(path, Host=host).status == 403


def test_a_tunnel_may_have_another_port(site):
    site.enter()
    assert site.get("/", Host="localhost:9999").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_answers_from_other_pages_are_refused(seated, headers, flat_session):
    site, state = seated
    document = {"image": state["image"], "answer": "real"}
    assert site.post("/answer", document, **headers).status == 403
    assert raters_of(flat_session)[0].done == 0


def test_a_form_of_another_page_is_refused(seated):
    site, _ = seated
    assert site.post("/answer", {}, Content_Type="text/plain").status == 415


@pytest.mark.parametrize(
    "path",
    [
        "/key.json",
        "/../key.json",
        "/%2e%2e/key.json",
        "/image/..%2fkey.json",
        "/image/%2e%2e%2fimages.npy",
        "/image//etc/passwd",
        "/templates/page.html",
        "/raters",
        "//etc/passwd",
        "/style.css/../key.json",
    ],
)
def test_no_path_leads_to_a_file(seated, path):
    site, _ = seated
    found = site.get(path)
    assert found.status == 404
    assert b"truth" not in found.body


def test_large_requests_are_refused(seated):
    site, _ = seated
    assert site.post("/answer", {"image": "x" * 20_000, "answer": "real"}).status == 413


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 9000, b"null"])
def test_what_is_no_object_is_refused(seated, body):
    site, _ = seated
    headers = {"Origin": f"http://{site.host}", "Content_Type": "application/json"}
    assert site.ask("POST", "/answer", body, **headers).status == 400


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(seated, method):
    site, _ = seated
    headers = {"Origin": f"http://{site.host}", "Content_Type": "application/json"}
    assert site.ask(method, "/state", **headers).status == 405


def test_every_answer_has_the_guarding_headers(seated):
    site, state = seated
    for found in (
        site.get("/"),
        site.get("/state"),
        site.get("/main.js"),
        site.get(f"/image/{state['image']}"),
        site.get("/nowhere"),
        site.get("/", Host="evil.example"),
        site.post("/answer", {}),
    ):
        assert {name: found.header(name) for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


# -- raters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "", "a\nb<", 7, None])
def test_a_name_that_is_none_is_refused(site, name, flat_session):
    site.enter()
    found = site.post("/join", {"name": name})
    assert (found.status, "1 to 40 letters" in found.json["error"]) == (400, True)
    assert raters_of(flat_session) == []


def test_a_name_is_taken_by_the_first(seated):
    site, _ = seated
    other = Visitor(site.link)
    other.enter()
    found = other.post("/join", {"name": "dr. ito"})
    assert (found.status, "choose another name" in found.json["error"]) == (409, True)
    assert other.get("/state").json["rater"] is None


def test_with_the_code_one_goes_on_in_another_browser(seated):
    site, state = seated
    site.answer(state["image"])
    other = Visitor(site.link)
    again = other.join("Dr. Ito", code=state["rater"]["code"].lower())
    assert (again["done"], again["image"]) == (1, site.get("/state").json["image"])


@pytest.mark.parametrize(("name", "code"), [("Dr. Ito", "AAAAAAAAAA"), ("Nobody", "AAAAAAAAAA")])
def test_a_wrong_code_does_not_lead_on(seated, name, code):
    site, _ = seated
    other = Visitor(site.link)
    other.enter()
    assert other.post("/join", {"name": name, "code": code}).status == 409


def test_a_made_up_cookie_is_nobodys(seated):
    site, _ = seated
    (seat,) = [name for name in site.cookies if name.endswith("-rater")]
    site.cookies[seat] = "0" * 64
    assert site.get("/state").json["rater"] is None


def test_years_are_kept(seated, flat_session):
    assert [(one.name, one.years) for one in raters_of(flat_session)] == [("Dr. Ito", 12)]


def test_several_rate_at_once_in_orders_of_their_own(seated, flat_session):
    site, state = seated
    other = Visitor(site.link)
    states = [state, other.join("B")]
    for _ in range(len(open_session(flat_session).images)):
        states = [
            one.answer(told["image"], said).json
            for one, told, said in zip((site, other), states, ("real", "synthetic"), strict=True)
        ]
    assert [told["image"] for told in states] == [None, None]
    b, ito = raters_of(flat_session)
    assert (b.finished, ito.finished) == (True, True)
    assert b.order != ito.order
    assert {one["answer"] for one in b.answers} == {"synthetic"}


def test_the_next_rater_begins_in_the_same_browser(seated):
    site, _ = seated
    assert site.post("/leave", {}).json["rater"] is None
    assert site.join("B")["done"] == 0


# -- answers ---------------------------------------------------------------------------------------


def test_an_answer_is_on_the_disk_once_it_is_acknowledged(seated, flat_session):
    site, state = seated
    after = site.answer(state["image"], "synthetic", hidden_ms=12.0).json
    (rater,) = raters_of(flat_session)
    (kept,) = rater.answers
    assert (after["done"], after["image"]) == (1, state["next"])
    assert (kept["answer"], kept["ms"], kept["hidden_ms"]) == ("synthetic", 1500.0, 12.0)
    assert 0 <= kept["server_ms"] < 60_000


def test_an_answer_that_is_sent_again_counts_once(seated, flat_session):
    site, state = seated
    first, again = site.answer(state["image"]), site.answer(state["image"])
    assert (first.status, again.status) == (200, 200)
    assert first.json == again.json
    assert raters_of(flat_session)[0].done == 1


def test_an_answer_cannot_be_taken_back(seated, flat_session):
    site, state = seated
    site.answer(state["image"], "real")
    found = site.answer(state["image"], "synthetic")
    assert (found.status, found.json["done"]) == (409, 1)
    assert raters_of(flat_session)[0].answers[0]["answer"] == "real"


@pytest.mark.parametrize(("which", "status"), [("next", 409), ("nosuch", 409), (None, 400)])
def test_only_the_current_image_is_answered(seated, flat_session, which, status):
    site, state = seated
    found = site.answer(state.get(which, which), "real")
    assert found.status == status
    assert raters_of(flat_session)[0].done == 0


@pytest.mark.parametrize("said", ["maybe", "", None, 1, ["real"], {}])
def test_there_are_two_answers(seated, said):
    site, state = seated
    assert site.post("/answer", {"image": state["image"], "answer": said}).status == 400


@pytest.mark.parametrize("ms", [-1, "9", None, [], 1e300])
def test_times_that_cannot_be_are_left_out(seated, flat_session, ms):
    site, state = seated
    assert site.answer(state["image"], ms=ms).status == 200
    assert raters_of(flat_session)[0].answers[0]["ms"] is None


def test_a_full_disk_is_told_and_the_answer_can_be_sent_again(seated, flat_session, monkeypatch):
    site, state = seated

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused = site.answer(state["image"])
    assert refused.status == 507
    assert str(flat_session) not in refused.json["error"]
    assert site.answer(state["image"]).json["done"] == 1


# -- the truth -------------------------------------------------------------------------------------


def walk(site: Visitor, state: Any) -> list[tuple[Any, Any]]:
    """A whole session: each state of it and the image's answer."""
    seen = []
    while state["image"] is not None:
        seen.append((state, site.get(f"/image/{state['image']}")))
        state = site.answer(state["image"]).json
    return seen


def test_every_image_is_sent_alike(seated, flat_session):
    site, state = seated
    seen = walk(site, state)
    told = Counter(tuple((k, v) for k, v in i.headers if k != "Date") for _, i in seen)
    assert len(seen) == 8
    assert len(told) == 1
    assert {len(image.body) for _, image in seen} == {32 * 32}
    names = dict(seen[0][1].headers)
    assert names["Content-Type"] == "application/octet-stream"
    assert {"ETag", "Last-Modified", "Content-Encoding"} & names.keys() == set()


def test_what_is_sent_is_the_image_to_the_byte(seated, flat_session):
    site, state = seated
    seen = walk(site, state)
    (rater,) = raters_of(flat_session)
    session = open_session(flat_session)
    for (_, image), number in zip(seen, rater.order, strict=True):
        assert image.body == session.images[number].tobytes()


def test_all_that_is_told_of_an_image_is_a_name_by_chance(seated):
    site, state = seated
    keys = {"session", "rater", "done", "of", "image", "next", "results"}
    seen = walk(site, state)
    names = [told["image"] for told, _ in seen]
    for told, _ in seen:
        assert told.keys() == keys
        assert told["session"] == state["session"]
        assert told["rater"] == state["rater"]
    assert len(set(names)) == 8
    assert {len(name) for name in names} == {24}
    assert [told["next"] for told, _ in seen] == [*names[1:], None]


def test_all_states_of_a_session_are_as_long_but_for_the_count(seated):
    site, state = seated
    lengths = set()
    while state["next"] is not None:
        found = site.answer(state["image"])
        state = found.json
        if state["next"] is not None:
            lengths.add(len(found.body) - len(str(state["done"])))
    assert len(lengths) == 1


def test_two_raters_cannot_tell_images_by_their_names(seated, flat_session):
    site, state = seated
    other = Visitor(site.link)
    own = {told["image"] for told, _ in walk(site, state)}
    others = {told["image"] for told, _ in walk(other, other.join("B"))}
    assert own & others == set()
    assert other.get(f"/image/{state['image']}").status == 404


def test_only_the_current_image_and_the_next_are_given(seated, flat_session):
    site, state = seated
    (rater,) = raters_of(flat_session)
    found = [site.get(f"/image/{name}").status for name in rater.names]
    assert found == [200, 200, *[404] * 6]
    site.answer(state["image"])
    found = [site.get(f"/image/{name}").status for name in rater.names]
    assert found == [404, 200, 200, *[404] * 5]


def test_a_whole_session_is_served_without_the_key(flat_session):
    """What is not there cannot be given away, nor change how long anything takes."""
    key = flat_session / "key.json"
    kept = key.read_bytes()
    key.unlink()
    with served(flat_session) as site:
        seen = walk(site, site.join("x"))
        assert {image.status for _, image in seen} == {200}
    key.write_bytes(kept)
    assert results(flat_session)["raters"][0]["finished"]


def test_the_pages_source_says_nothing_of_any_image(seated):
    site, state = seated
    sources = [site.get(path) for path in ("/", *(f"/{name}" for name in FILES))]
    assert {found.status for found in sources} == {200}
    before = [found.body for found in sources]
    site.answer(state["image"])
    assert [site.get(path).body for path in ("/", *(f"/{name}" for name in FILES))] == before


def test_every_image_costs_the_same_steps(flat_session):
    """Handlers are run by hand, their calls counted: time itself is too noisy to be compared."""
    import asyncio

    from aiohttp.test_utils import make_mocked_request

    from gansynth.evaluation.turing.raters import new_rater, seat_of

    session = open_session(flat_session)
    token, _ = read_access(flat_session)
    rater = new_rater(flat_session, "x", None, len(session.images))
    pages = _Pages(session, token, [rater], None)
    seat = f"gansynth-{session.id}-rater={seat_of(rater, token)}"
    cookie = f"gansynth-{session.id}-link={token}; {seat}"
    loop, counts = asyncio.new_event_loop(), []
    for name in rater.names:
        request = make_mocked_request(
            "GET", f"/image/{name}", {"Cookie": cookie}, match_info={"name": name}
        )
        calls = Counter[str]()

        def count(frame: FrameType, event: str, _: Any, calls: Counter[str] = calls) -> None:
            calls[f"{event} {frame.f_code.co_name}"] += 1

        sys.setprofile(count)
        try:
            found = loop.run_until_complete(pages.image(request))
        finally:
            sys.setprofile(None)
        assert found.status == 200
        counts.append(calls)
        rater.answers.append({"answer": "real"})
    loop.close()
    # The last image alone has no other at hand after it.
    assert all(one == counts[1] for one in counts[1:-1])


# -- what a rater sees in the end ------------------------------------------------------------------


def test_nobody_sees_results_unless_they_are_to_be_shown(seated):
    site, state = seated
    assert site.finish(state)["results"] is None


def test_results_are_shown_after_the_last_answer_and_not_before(flat_session):
    change(flat_session, show_results=True)
    with served(flat_session) as site:
        state = site.join("x")
        while state["image"] is not None:
            assert state["results"] is None
            state = site.answer(state["image"], "synthetic").json
    table = state["results"]
    assert (table["synthetic_as_synthetic"], table["real_as_synthetic"]) == (4, 4)
    assert "image" not in json.dumps(table)


def test_a_damaged_key_does_not_trouble_raters(flat_session):
    change(flat_session, show_results=True)
    (flat_session / "key.json").write_text("{}")
    with served(flat_session) as site:
        state = site.finish(site.join("x"))
    assert (state["done"], state["results"]) == (8, None)


# -- serving ---------------------------------------------------------------------------------------


def test_the_link_is_the_same_after_a_restart(flat_session):
    with served(flat_session) as site:
        first = site.link
        cookies = site.cookies
        state = site.join("x")
        state = site.answer(state["image"]).json
    with served(flat_session) as again:
        assert again.link == first
        again.cookies = cookies
        assert again.get("/state").json["done"] == 1


def test_a_port_that_is_taken_is_told(flat_session):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = rf"--port {port}: is taken, .*choose another"
        with pytest.raises(EnvironmentFault, match=said), served(flat_session, port=port):
            pass
        assert read_access(flat_session)[1] == 0


def test_a_port_that_was_taken_meanwhile_is_given_up(flat_session):
    with served(flat_session) as site:
        port = site.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with served(flat_session) as again:
            assert again.port != port


def test_a_session_is_served_once(site, flat_session):
    said = r"locked by pid .* open the link"
    with pytest.raises(EnvironmentFault, match=said), served(flat_session):
        pass


def test_damaged_answers_are_not_served(flat_session):
    with served(flat_session) as site:
        site.answer(site.join("x")["image"])
    (path,) = (flat_session / "raters").glob("*.jsonl")
    path.write_text(path.read_text().replace('"answer"', '"anwser"'))
    with pytest.raises(IntegrityFault, match="line 2 is damaged"), served(flat_session):
        pass


def test_results_can_be_counted_while_it_is_served(seated, flat_session: Path):
    site, state = seated
    site.answer(state["image"])
    assert results(flat_session)["raters"][0]["answered"] == 1
