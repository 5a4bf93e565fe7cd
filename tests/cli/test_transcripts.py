"""What a terminal shows of each command, to the letter: ``transcripts/COMMAND.txt``.

A transcript begins with lines ``$ gansynth ...``, which are typed one after the other in a folder
with the scans ``ill`` and the run ``toy``; the rest is what they print. To add one, write such
lines; to change what is printed, or to renew it after a change:

    GANSYNTH_TRANSCRIPTS=write pytest tests/cli/test_transcripts.py
"""

import os
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from gansynth.hosts.deciding import dry_run
from gansynth_cli.main import cli
from tests.cli.test_next import EVALUATE

WRITES = os.environ.get("GANSYNTH_TRANSCRIPTS") == "write"
FOLDER = Path(__file__).parent / "transcripts"
PROMPT = "$ gansynth "
VARIES = {
    r"\d+:\d\d(:\d\d)?": "0:00",
    r"\b[0-9a-f]{8,64}\b": "HASH",
    r"\d[\d.,]*(?= ?(s|ms|MB|GB|MiB|GiB)\b)": "0",
    r"\d+\.\d{3,}": "0.000",
    r"(?<=\nbytes) +\d+": " 0",
    r"20\d\d-\d\d-\d\d": "DATE",
}
"""What differs between machines and days."""


def shown(text: str, home: Path) -> str:
    """What was printed, without what varies; ends of lines have no spaces."""
    text = text.replace(str(home), "HOME")
    for pattern, instead in VARIES.items():
        text = re.sub(pattern, instead, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.fixture
def home(world, toys, tmp_path, monkeypatch):
    """The folder in which a transcript is typed."""
    for part in ("ill", "toy"):
        shutil.copytree(world / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})  # figures of a machine
    return tmp_path


TRANSCRIPTS = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.txt"))}


def typed_in(text: str) -> list[str]:
    return re.findall(rf"^{re.escape(PROMPT)}(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_command_prints_its_transcript(name, home, run_cli):
    file, expected, printed = FOLDER / f"{name}.txt", TRANSCRIPTS[name], ""
    for line in typed_in(expected):
        result = run_cli(*shlex.split(line))
        code = f"[exit {result.exit_code}]\n" if result.exit_code else ""
        printed += f"{PROMPT}{line}\n{shown(result.output, home)}{code}"
    if WRITES:
        file.write_text(printed, "utf-8")
    assert printed == expected or WRITES


NEXT = {
    (name, found[1]): text[: found.start()]
    for name, text in TRANSCRIPTS.items()
    for found in re.finditer("^next: (.*)$", text, re.MULTILINE)
}
"""Transcript and what it says to type next -> all that is printed before."""


@pytest.mark.parametrize(("name", "line"), NEXT)
def test_what_a_transcript_says_to_type_next_works(name, line, home, run_cli, cheap_nnunet):
    for before in typed_in(NEXT[name, line]):
        run_cli(*shlex.split(before))
    program, *words = shlex.split(line)
    if program == "pip":  # install -e FOLDER
        assert (home / words[-1] / "pyproject.toml").is_file()
        return
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    dry = any("--dry-run" in option.opts for option in command.params)  # it checks the same
    shorter = shlex.split(EVALUATE)[1:] if words[0] == "evaluate" else ["--dry-run"] * dry
    result = run_cli(*words, *shorter)
    assert (program, result.exit_code) == ("gansynth", 0), result.stderr
