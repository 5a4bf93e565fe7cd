"""What has made a file is told by version and commit, where there is one, without calling git."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gansynth.runtime import version


def output_of(*words: str, at: Path) -> str:
    done = subprocess.run(words, cwd=at, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def git(*words: str, at: Path) -> str:
    return output_of("git", "-c", "user.name=a", "-c", "user.email=a@b", *words, at=at)


def told_at(home: Path) -> str:
    """What a copy of the module says that lies in a folder as it does in a checkout."""
    file = home / "gansynth/runtime/version.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(version.__file__, file)
    code = f"import runpy; print(runpy.run_path({str(file)!r})['build']())"
    return output_of(sys.executable, "-c", code, at=home)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_the_commit_of_a_checkout_is_told_however_git_keeps_it(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    git("init", at=home)
    git("commit", "--allow-empty", "-m", "one", at=home)
    expected = f"{version.__version__}, commit {git('rev-parse', 'HEAD', at=home)[:10]}"
    assert told_at(home) == expected
    git("worktree", "add", "-b", "more", str(other), at=home)
    assert told_at(other) == expected
    git("pack-refs", "--all", at=home)
    assert told_at(home) == told_at(other) == expected
    git("checkout", "--detach", at=home)
    assert told_at(home) == expected


@pytest.mark.parametrize("kept", ["nothing", "file", "folder"])
def test_without_a_commit_the_version_is_told(tmp_path, kept):
    if kept == "file":
        (tmp_path / ".git").write_text("gitdir: nowhere")
    elif kept == "folder":
        (tmp_path / ".git").mkdir()
    assert told_at(tmp_path) == version.__version__
