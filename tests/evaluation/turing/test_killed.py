import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.turing.serving import Visitor, raters_of

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def started(run, folder, *more):
    """``gansynth turing-test RUN`` in a process of its own; ``--resume`` unless told otherwise."""
    words = ["turing-test", str(run), "-o", str(folder), *(more or ["--resume"])]
    line, pipe = [sys.executable, "-m", "gansynth_cli", *words], subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            said = ""
            while not (found := re.search(r"link for raters: (\S+)\n", said)):
                text = process.stderr.readline() if process.stderr else ""
                assert text, said
                said += text
            yield process, Visitor(found[1], said=said)
        finally:
            process.kill()


def ended(process, how=signal.SIGINT):
    """Exit code, and what it said after the link."""
    process.send_signal(how)
    return process.communicate(timeout=120), process.returncode


@pytest.mark.fault(29)
def test_kill_9_loses_no_answer_that_was_acknowledged(made, flat_session):
    with started(made.flat, flat_session) as (process, site):
        state = site.join("Dr. Ito")
        given = []
        for said in ("real", "synthetic", "synthetic", "real", "real"):
            given.append((state["image"], said))
            state = site.answer(state["image"], said).json
        process.kill()
        process.wait(120)
    (rater,) = raters_of(flat_session)
    assert [(rater.names[i], a["answer"]) for i, a in enumerate(rater.answers)] == given
    with open(rater.path, "ab") as stream:  # the sixth was being written
        stream.write(b'{"position": 5, "image"')
    with started(made.flat, flat_session) as (process, again):
        assert again.link == site.link
        assert "ended within a line, which was no answer yet; left out" in again.said
        again.cookies = site.cookies
        assert again.get("/state").json == state
        again.finish(state)
        (out, complaint), code = ended(process)
    assert (code, complaint) == (0, f"next: gansynth evaluate {made.flat}\n")
    (rater,) = raters_of(flat_session)
    assert rater.finished
    assert [a["answer"] for a in rater.answers[:5]] == [said for _, said in given]
    assert re.search(r"^Dr\. Ito +[\d.]+ ", out, re.MULTILINE)
    assert json.loads((flat_session / "results.json").read_text())["raters"][0]["finished"]


def test_sigterm_ends_it_with_its_own_code(made, flat_session):
    with started(made.flat, flat_session) as (process, site):
        site.join("x")
        (out, complaint), code = ended(process, signal.SIGTERM)
    assert (code, out, "Traceback" in complaint) == (143, "", False)


def test_ctrl_c_with_json_prints_one_document(made, flat_session):
    with started(made.flat, flat_session, "--resume", "--json", "-q") as (process, site):
        assert site.said.count("\n") == 1  # quiet: the link alone
        site.answer(site.join("x")["image"])
        (out, complaint), code = ended(process)
    assert (code, complaint) == (0, "")
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
        (out, _), code = ended(process)
    assert (code, "Accuracy (%)" in out.splitlines()[0]) == (0, True)
