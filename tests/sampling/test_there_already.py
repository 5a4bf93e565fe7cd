"""Samples and caches that are asked for again are found where they are."""

from pathlib import Path

import pytest

COMMANDS = {
    "samples": ("sample", "{run}", "-n", "2", "-o", "{out}", "--device", "cpu"),
    "pictures": ("sample", "{run}", "-n", "2", "-o", "{out}", "--device", "cpu", "--format=png"),
    "shared": ("sample", "{run}", "-n", "2", "-o", "{out}", "--device", "cpu", "--deidentify"),
    "label maps": ("sample", "{maps}", "-n", "2", "-o", "{out}", "--device", "cpu"),
    "cache": ("cache", "toy:2", "-o", "{out}"),
}
OTHER = {"label maps": ("--format=hdf5",), "cache": ("--dtype=float16",)}


def damage(out: Path) -> None:
    """Cut one file short."""
    files = [out] if out.is_file() else sorted(out.rglob("*.nii.gz")) or sorted(out.rglob("*.png"))
    files[-1].write_bytes(files[-1].read_bytes()[:-20])


@pytest.mark.parametrize("asked", COMMANDS)
def test_the_same_command_finds_it_another_is_refused_and_so_is_what_was_damaged(
    toy_fit, succeed, refuse, tmp_path, asked
):
    out = tmp_path / "out"
    places = {"run": tmp_path / "run", "maps": tmp_path / "maps", "out": out}
    if asked == "label maps":
        toy_fit(places["maps"], generator="cgan3d-labels", steps=1, edits=())
    elif asked != "cache":
        toy_fit(places["run"], steps=1)
    words = [word.format(**places) for word in COMMANDS[asked]]
    first, before = succeed(*words), out.stat().st_mtime_ns
    again = succeed(*words)
    assert "already: the same" not in first.stdout
    assert again.stdout.splitlines()[0].endswith("are there")
    assert out.stat().st_mtime_ns == before
    other = OTHER.get(asked, ("--seed=1",))
    says = [str(out), other[0].strip("-").partition("=")[0], "-o"]
    refuse(*words, *other, code=2, says=says, keep=[tmp_path])
    damage(out)
    code = 2 if asked == "cache" else 6
    refuse(*words, code=code, says=[str(out), "remove", "-o"], keep=[tmp_path])
