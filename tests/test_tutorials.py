"""Tutorials and the notebook show what they print, on phantoms: their outputs are made again.

``python tests/test_tutorials.py`` rewrites them. A block of commands is run if one of outputs
follows it. Numbers may differ.
"""

import ast
import base64
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gansynth

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "docs").glob("tutorial_*.md") if "```text" in path.read_text()]
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"
SHOWN = re.compile(r"^```\n([^`]*)^```\n+```text\n([^`]*)^```$", re.MULTILINE)
WIDTH = 88
NUMBER = re.compile(r"\d[\d.:]*")


def printed(commands: str, folder: Path) -> str:
    """What commands print on stdout, and their errors, which end them."""
    scripts = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    lines = []
    for line in commands.replace("\\\n", "").splitlines():
        done = subprocess.run(
            shlex.split(line, comments=True),
            cwd=folder,
            env={**os.environ, "PATH": scripts},
            capture_output=True,
            text=True,
        )
        errors = re.findall(r"^error: .*", done.stderr, re.MULTILINE)
        assert bool(errors) == bool(done.returncode), done.stderr
        lines += [*done.stdout.splitlines(), *errors]
    fold = textwrap.TextWrapper(WIDTH, break_on_hyphens=False, break_long_words=False)
    return "".join(f"{fold.fill(line)}\n" for line in lines)


def outputs(code: str, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a cell shows: the value of an expression at its end."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(ast.unparse(last), names) if last else None
    if value is not None:
        shown = {"text/plain": repr(value)}
        if html := getattr(value, "_repr_html_", None):
            shown["text/html"] = html()
        if png := getattr(value, "_repr_png_", None):
            shown["image/png"] = base64.b64encode(png()).decode()
        yield {"output_type": "display_data", "metadata": {}, "data": shown}


def notebook() -> Any:
    """The notebook with the outputs of today, made in the working directory."""
    document = json.loads(NOTEBOOK.read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [*outputs("".join(cell["source"]), names)]
    return document


def form(text: str) -> list[str]:
    """Its words, without the numbers."""
    return NUMBER.sub("#", text).split()


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_what_it_shows(page, tmp_path):
    for commands, shown in SHOWN.findall(page.read_text("utf-8")):
        assert form(printed(commands, tmp_path)) == form(shown), commands


def test_the_notebook_uses_what_there_is_and_shows_it():
    """What its cells show today, ``slow`` tests compare."""
    cells = [c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if "outputs" in c]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    ast.parse(code)
    used = set(re.findall(r"\bgansynth\.(\w+)", code))
    assert used >= {"fit", "load", "fill_bank", "mix"}
    assert used <= set(gansynth.__all__)
    assert sum("image/png" in json.dumps(cell) for cell in cells) == 1


@pytest.mark.ci
@pytest.mark.slow
def test_the_notebook_shows_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    for cell, again in zip(shown, notebook()["cells"], strict=True):
        for output, fresh in zip(cell.get("outputs", ()), again.get("outputs", ()), strict=True):
            assert output["data"].keys() == fresh["data"].keys()
            plain, today = (form(one["data"]["text/plain"]) for one in (output, fresh))
            assert plain == today, "run: python tests/test_tutorials.py"


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            for commands, shown in SHOWN.findall(text):
                block = "```text\n{}```".format
                text = text.replace(block(shown), block(printed(commands, Path(folder))), 1)
        page.write_text(text, "utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        text = json.dumps(notebook(), indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(f"{text}\n", "utf-8")
