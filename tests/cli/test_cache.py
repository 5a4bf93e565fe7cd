import pytest


@pytest.fixture
def cached(toys, run_json, tmp_path):
    """A cache of ``toy:3``, and what was reported."""
    return tmp_path / "toy.h5", run_json("cache", "toy:3", "-o", tmp_path / "toy.h5")


def test_a_source_is_cached_in_one_file_whose_size_a_dry_run_estimates(cached, run_json, refuse):
    path, report = cached
    assert report["bytes"] == path.stat().st_size
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    dry = run_json("cache", "toy:3", "-o", path.with_name("other.h5"), "--dry-run")
    assert dry["bytes"] == pytest.approx(report["bytes"], rel=0.3)
    assert [p.name for p in path.parent.iterdir()] == ["toy.h5"]
    says = ["toy.h5", "exists already", "compression none, not lzf"]
    other = ("--compression", "lzf")
    refuse("cache", "toy:3", "-o", path, *other, code=2, says=says, keep=[path.parent])
