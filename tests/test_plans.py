"""Plans of papers' tables: what they ask of generators exists, and the numbers are the papers'."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from gansynth.ratio import Ratio
from gansynth.supply import BankSize
from gansynth_cgan3d.options import CGANOptions

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PLANS = sorted((BENCHMARKS / "plans").glob("*.yaml"))
PAPERS = Path(__file__).parents[1] / "../shared/seeds"
OF_FIT = {"batch_size", "steps"}
"""Settings of every fit, beside the generator's own."""


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module("bench_doncenco")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def plan(bench: Any) -> Any:
    return bench.read_plan(bench.PLANS / "doncenco2022.yaml")


@pytest.mark.parametrize("scale", [None, "tiny"])
def test_every_setting_is_one_of_the_generator(plan: Any, scale: str | None) -> None:
    more = plan.scales[scale].set if scale else {}
    for settings in plan.generators.values():
        asked = {**plan.set, **settings, **more}
        CGANOptions(**{key: value for key, value in asked.items() if key not in OF_FIT})
        assert set(asked) >= OF_FIT
    on, off = (CGANOptions(**plan.generators[name]) for name in ("SN", "plain"))
    assert (on.spectral_norm, on.g_spectral_norm) == (True, True)
    assert (off.spectral_norm, off.g_spectral_norm) == (False, False)


def test_the_arms_are_the_papers(plan: Any) -> None:
    real, *others = plan.arms
    assert (real.ratio, real.generator) == ("1:0", None)
    assert [Ratio.parse(arm.ratio).p for arm in others] == [0.5] * 2 + [1.0] * 6
    assert [BankSize.parse(arm.bank).times for arm in others] == [1, 1, 1, 1, 2, 2, 3, 3]
    assert [arm.generator for arm in others] == ["SN", "plain"] * 4


def test_the_papers_dice_are_the_tables(plan: Any) -> None:
    paper = next(PAPERS.glob("002_*.txt"), None) if PAPERS.is_dir() else None
    if paper is None:
        pytest.skip("the thesis is not at hand: ../shared/seeds")
    table = paper.read_text(encoding="utf-8").partition("Class Dataset")[2]
    rows = dict(re.findall(r"^(\w[\w +]*?)\t([\d.\t]+)$", table, re.MULTILINE))
    for arm in plan.arms:
        assert [float(v) for v in rows[arm.name].split("\t")] == arm.paper, arm.name


def test_an_unknown_key_is_refused(bench: Any, tmp_path: Path) -> None:
    doc = yaml.safe_load((bench.PLANS / "doncenco2022.yaml").read_text("utf-8"))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**doc, "armz": []}))
    with pytest.raises(ValueError, match="armz"):
        bench.read_plan(tmp_path / "plan.yaml")


def test_the_table_stands_beside_the_papers(bench: Any, plan: Any) -> None:
    results = [
        {
            "arm": "Real",
            "drawn_real": 4,
            "drawn_synthetic": 0,
            "metrics_on_real_cases": {"dice": {"WT": dice, "TC": 0.5, "ET": None}},
        }
        for dice in (0.2, 0.4)
    ]
    head, row = bench.rows(plan, results)
    assert head[3:] == ("WT", "TC", "ET", "paper WT", "paper TC", "paper ET")
    assert row == ("Real", 8, 0, "0.300", "0.500", "-", "0.611", "0.716", "0.756")
