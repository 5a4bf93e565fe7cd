"""A server that is killed in the middle of a session, started again, and ended with Ctrl-C."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.evaluation.turing.serving import Visitor, raters_of


@contextlib.contextmanager
def started(run: Path, folder: Path, *more: str) -> Iterator[tuple[Any, Visitor]]:
    """``gansynth turing-test RUN`` in a process of its own; ``--resume`` unless told otherwise."""
    words = ["turing-test", str(run), "-o", str(folder), *(more or ["--resume"])]
    line = [sys.executable, "-m", "gansynth_cli", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            said = []
            for text in process.stderr or ():
                said.append(text)
                found = re.search(r"link for raters: (\S+)", text)
                if found:
                    break
            else:
                raise AssertionError("".join(said))
            yield process, Visitor(found[1], said="".join(said))
        finally:
            process.kill()


def test_kill_9_loses_no_answer_that_was_acknowledged(made, flat_session):
    with started(made.flat, flat_session) as (process, site):
        state = site.join("Dr. Ito")
        given = []
        for said in ("real", "synthetic", "synthetic", "real", "real"):
            given.append((state["image"], said))
            state = site.answer(state["image"], said).json
        process.kill()
        process.wait(60)
    (rater,) = raters_of(flat_session)
    assert [(rater.names[i], a["answer"]) for i, a in enumerate(rater.answers)] == given
    with open(rater.path, "ab") as stream:  # the sixth was being written
        stream.write(b'{"position": 5, "image"')
    with started(made.flat, flat_session) as (process, again):
        assert (again.link, again.token) == (site.link, site.token)
        assert "ended within a line, which was no answer yet; left out" in again.said
        again.cookies = site.cookies
        resumed = again.get("/state").json
        assert resumed == state
        again.finish(resumed)
        process.send_signal(signal.SIGINT)
        out, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, "")
    (rater,) = raters_of(flat_session)
    assert rater.finished
    assert [a["answer"] for a in rater.answers[:5]] == [said for _, said in given]
    assert re.search(r"^Dr\. Ito +[\d.]+ ", out, re.MULTILINE)
    assert json.loads((flat_session / "results.json").read_text())["raters"][0]["finished"]


def test_sigterm_ends_it_with_its_own_code(made, flat_session):
    with started(made.flat, flat_session) as (process, site):
        site.join("x")
        process.terminate()
        out, complaint = process.communicate(timeout=60)
    assert process.returncode == 143
    assert (out, "Traceback" in complaint) == ("", False)


def test_ctrl_c_with_json_prints_one_document(made, flat_session):
    with started(made.flat, flat_session, "--resume", "--json", "-q") as (process, site):
        assert site.said.count("\n") == 1  # quiet: the link alone
        site.answer(site.join("x")["image"])
        process.send_signal(signal.SIGINT)
        out, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, "")
    document = json.loads(out)
    assert document["raters"][0]["answered"] == 1
    assert Path(document["files"]["answers"]).read_text().count("\n") == 2


def test_the_same_command_prepares_serves_and_goes_on(made, tmp_path):
    words = ("-n", "3", "--from", "all", "--show-results", "--device", "cpu")
    with started(made.flat, tmp_path / "new", *words) as (process, site):
        state = site.join("x")
        assert state["of"] == 6
        state = site.answer(state["image"]).json
        process.kill()
    with started(made.flat, tmp_path / "new", *words) as (process, again):
        again.cookies = site.cookies
        assert again.get("/state").json == state
        assert again.finish(state)["results"]["answers"] == 6
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Accuracy (%)" in out.splitlines()[0]
