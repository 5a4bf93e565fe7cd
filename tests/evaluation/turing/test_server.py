import json
import os
import socket
from collections import Counter
from typing import Any

import psutil
import pytest

from gansynth.evaluation.turing import open_session, results
from gansynth.evaluation.turing.session import read_access
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault
from tests.evaluation.turing.serving import Visitor, change, raters_of, served

pages = pytest.importorskip(
    "gansynth.evaluation.turing.pages", reason="needs the extra study", exc_type=ImportError
)


@pytest.fixture
def site(flat_session):
    """A session of slices, served, and a visitor who has not come in yet."""
    with served(flat_session) as visitor:
        yield visitor


@pytest.fixture
def seated(site):
    return site, site.join("Dr. Ito", years=12)


@pytest.mark.slow
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
    cookie = (found.header("Set-Cookie") or "").split("; ")
    assert found.status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie)
    assert b'http-equiv="refresh" content="0;url=/"' in found.body
    assert site.token.encode() not in found.body
    assert site.get("/").status == site.get("/", Host="localhost:9999").status == 200  # a tunnel


def test_sessions_on_one_machine_do_not_share_cookies(site, deep_session):
    site.enter()
    with served(deep_session) as other:
        other.cookies = site.cookies
        assert other.get("/").status == 403
        other.enter()
        assert len(other.cookies) == 2
        assert other.get("/").status == site.get("/").status == 200


def test_another_name_of_this_machine_is_refused(site):
    """As a page elsewhere would come here by DNS rebinding."""
    site.enter()
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "-"):
        for path in ("/", "/state", "/style.css", f"/?token={site.token}"):
            assert site.get(path, Host=host).status == 403


def test_answers_from_other_pages_are_refused(seated, flat_session):
    site, state = seated
    for name, value in (
        *[("Origin", o) for o in ("http://evil.example", "null", "", "http://127.0.0.1:1")],
        *[("Sec_Fetch_Site", fetched) for fetched in ("cross-site", "same-site")],
    ):
        told = {"image": state["image"], "answer": "real"}
        assert site.post("/answer", told, **{name: value}).status == 403, value
    assert site.post("/answer", {}, Content_Type="text/plain").status == 415
    assert raters_of(flat_session)[0].done == 0


@pytest.mark.fault(19)
def test_no_path_leads_to_a_file(seated):
    site, _ = seated
    for path in (
        *("/key.json", "/../key.json", "/%2e%2e/key.json", "/image/..%2fkey.json", "/raters"),
        *("/image/%2e%2e%2fimages.npy", "/image//etc/passwd", "/templates/page.html"),
        *("//etc/passwd", "/style.css/../key.json"),
    ):
        found = site.get(path)
        assert (found.status, b"truth" in found.body) == (404, False), path


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        *[("POST", "/answer", b, 400) for b in (b"", b"[]", b"{", b"\xff", b"[" * 9000, b"null")],
        ("POST", "/answer", json.dumps({"image": "x" * 20_000}).encode(), 413),
        *[(m, "/state", b"", 405) for m in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")],
    ],
)
def test_what_is_no_request_of_the_page_is_refused(seated, method, path, body, status):
    site, _ = seated
    headers = {"Origin": f"http://{site.host}", "Content_Type": "application/json"}
    assert site.ask(method, path, body, **headers).status == status


def test_every_answer_has_the_guarding_headers(seated):
    site, state = seated
    paths = ("/", "/state", "/main.js", f"/image/{state['image']}", "/nowhere")
    every = [site.get(path) for path in paths]
    for found in (*every, site.get("/", Host="evil.example"), site.post("/answer", {})):
        assert {name: found.header(name) for name in pages.HEADERS} == pages.HEADERS
    policy = pages.HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_name_that_is_none_is_refused(site, flat_session):
    site.enter()
    for name in ("<script>alert(1)</script>", "", "a\nb<", 7, None):
        found = site.post("/join", {"name": name})
        assert (found.status, "1 to 40 letters" in found.json["error"]) == (400, True)
    assert raters_of(flat_session) == []


def test_a_name_is_taken_by_the_first_and_a_wrong_code_does_not_lead_on(seated):
    site, _ = seated
    other = Visitor(site.link)
    other.enter()
    found = other.post("/join", {"name": "dr. ito"})
    assert (found.status, "choose another name" in found.json["error"]) == (409, True)
    for name in ("Dr. Ito", "Nobody"):
        assert other.post("/join", {"name": name, "code": "AAAAAAAAAA"}).status == 409
    assert other.get("/state").json["rater"] is None


def test_with_the_code_one_goes_on_in_another_browser(seated):
    site, state = seated
    site.answer(state["image"])
    again = Visitor(site.link).join("Dr. Ito", code=state["rater"]["code"].lower())
    assert (again["done"], again["image"]) == (1, site.get("/state").json["image"])


def test_a_made_up_cookie_is_nobodys_and_the_next_rater_begins_in_the_same_browser(seated):
    site, _ = seated
    (seat,) = [name for name in site.cookies if name.endswith("-rater")]
    kept, site.cookies[seat] = site.cookies[seat], "0" * 64
    assert site.get("/state").json["rater"] is None
    site.cookies[seat] = kept
    assert site.post("/leave", {}).json["rater"] is None
    assert site.join("B")["done"] == 0


def test_several_rate_at_once_in_orders_of_their_own(seated, flat_session):
    site, state = seated
    other = Visitor(site.link)
    states = [state, other.join("B")]
    for _ in range(8):
        states = [
            one.answer(told["image"], said).json
            for one, told, said in zip((site, other), states, ("real", "synthetic"), strict=True)
        ]
    assert [told["image"] for told in states] == [None, None]
    b, ito = raters_of(flat_session)
    assert (b.finished, ito.finished, b.order != ito.order) == (True, True, True)
    assert (b.years, ito.name, ito.years) == (None, "Dr. Ito", 12)
    assert {one["answer"] for one in b.answers} == {"synthetic"}


def test_an_answer_is_on_the_disk_once_acknowledged_counts_once_and_stays(seated, flat_session):
    site, state = seated
    first = site.answer(state["image"], "synthetic", hidden_ms=12.0)
    again = site.answer(state["image"], "synthetic")
    other = site.answer(state["image"], "real")
    assert (first.status, again.status, other.status) == (200, 200, 409)
    assert first.json == again.json
    assert (first.json["done"], first.json["image"]) == (1, state["next"])
    ((kept,),) = [rater.answers for rater in raters_of(flat_session)]
    assert (kept["answer"], kept["ms"], kept["hidden_ms"]) == ("synthetic", 1500.0, 12.0)
    assert 0 <= kept["server_ms"] < 60_000


def test_only_the_current_image_is_answered_and_there_are_two_answers(seated, flat_session):
    site, state = seated
    for image, status in ((state["next"], 409), ("nosuch", 409), (None, 400)):
        assert site.answer(image).status == status
    sayings: list[Any] = ["maybe", "", None, 1, ["real"], {}]
    for said in sayings:
        assert site.post("/answer", {"image": state["image"], "answer": said}).status == 400
    assert raters_of(flat_session)[0].done == 0


def test_a_full_disk_is_told_the_answer_sent_again_and_times_that_cannot_be_are_left_out(
    seated, flat_session, monkeypatch
):
    site, state = seated

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused = site.answer(state["image"])
    assert refused.status == 507
    assert str(flat_session) not in refused.json["error"]
    times: list[Any] = [-1, "9", None, [], 1e300]
    for done, ms in enumerate(times, 1):
        state = site.answer(state["image"], ms=ms).json
        assert (state["done"], raters_of(flat_session)[0].answers[-1]["ms"]) == (done, None)


def walk(site, state):
    """A whole session: each state of it and the image's answer."""
    seen = []
    while state["image"] is not None:
        seen.append((state, site.get(f"/image/{state['image']}")))
        state = site.answer(state["image"]).json
    return seen


def test_every_image_is_sent_alike_to_the_byte_under_a_name_by_chance(seated, flat_session):
    site, state = seated
    seen = walk(site, state)
    told = Counter(tuple((k, v) for k, v in i.headers if k != "Date") for _, i in seen)
    assert (len(seen), len(told)) == (8, 1)
    headers = dict(seen[0][1].headers)
    assert headers["Content-Type"] == "application/octet-stream"
    assert {"ETag", "Last-Modified", "Content-Encoding"} & headers.keys() == set()
    images = open_session(flat_session).images
    wanted = [images[number].tobytes() for number in raters_of(flat_session)[0].order]
    assert [image.body for _, image in seen] == wanted
    names = [told["image"] for told, _ in seen]
    for told, _ in seen:
        assert told.keys() == {"session", "rater", "done", "of", "image", "next", "results"}
        assert (told["session"], told["rater"]) == (state["session"], state["rater"])
    assert (len(set(names)), {len(name) for name in names}) == (8, {24})
    assert [told["next"] for told, _ in seen] == [*names[1:], None]
    lengths = {len(json.dumps(told)) - len(str(told["done"])) for told, _ in seen[:-1]}
    assert len(lengths) == 1


def test_two_raters_cannot_tell_images_by_their_names(seated):
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
    paths = ("/", *(f"/{name}" for name in pages.FILES))
    before = [site.get(path) for path in paths]
    assert {found.status for found in before} == {200}
    site.answer(state["image"])
    assert [site.get(path).body for path in paths] == [found.body for found in before]


def test_results_are_shown_after_the_last_answer_and_only_if_they_are_to_be(flat_session):
    with served(flat_session) as site:
        assert site.finish(site.join("a"))["results"] is None
    change(flat_session, show_results=True)
    with served(flat_session) as site:
        state = site.join("b")
        while state["image"] is not None:
            assert state["results"] is None
            state = site.answer(state["image"], "synthetic").json
    table = state["results"]
    assert (table["synthetic_as_synthetic"], table["real_as_synthetic"]) == (4, 4)
    assert "image" not in json.dumps(table)
    (flat_session / "key.json").write_text("{}")  # which does not trouble raters
    with served(flat_session) as site:
        state = site.finish(site.join("c"))
    assert (state["done"], state["results"]) == (8, None)


def test_the_link_is_the_same_after_a_restart(flat_session):
    with served(flat_session) as site:
        site.answer(site.join("x")["image"])
        assert results(flat_session)["raters"][0]["answered"] == 1
    with served(flat_session) as again:
        assert again.link == site.link
        again.cookies = site.cookies
        assert again.get("/state").json["done"] == 1


@pytest.mark.parametrize("asked", [True, False])
def test_a_port_that_is_taken_is_told_if_asked_for_and_else_given_up(flat_session, asked):
    port = 0
    if not asked:
        with served(flat_session) as site:
            port = site.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        port = other.getsockname()[1]
        if asked:
            said = rf"--port {port}: is taken, .*choose another"
            with pytest.raises(EnvironmentFault, match=said), served(flat_session, port=port):
                pass
            assert read_access(flat_session)[1] == 0
        else:
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
