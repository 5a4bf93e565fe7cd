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

import pytest

from gansynth.hosts.deciding import dry_run

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


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.txt")))
def test_a_command_prints_its_transcript(name, world, toys, run_cli, tmp_path, monkeypatch):
    for part in ("ill", "toy"):
        shutil.copytree(world / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})  # figures of a machine
    file, printed = FOLDER / f"{name}.txt", ""
    expected = file.read_text("utf-8")
    for line in re.findall(rf"^{re.escape(PROMPT)}(.*)$", expected, re.MULTILINE):
        result = run_cli(*shlex.split(line))
        code = f"[exit {result.exit_code}]\n" if result.exit_code else ""
        printed += f"{PROMPT}{line}\n{shown(result.output, tmp_path)}{code}"
    if WRITES:
        file.write_text(printed, "utf-8")
    assert printed == expected or WRITES
