"""Plans of papers' tables: they ask for what exists, their arms and figures are the papers'."""

import json
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from gansynth.benchmark.papers import running as tables
from gansynth.benchmark.papers.commands import said
from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.core.schedule import choose_cases
from gansynth.runtime.errors import GansynthError, UsageFault
from gansynth_cli.main import cli
from gansynth_deepmedic.shares import share_on_the_fly
from gansynth_segmenter.options import SegmenterOptions
from tests.deepmedic_sets import toy_deepmedic
from tests.yolo_sets import toy_yolo

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PAPERS = Path(__file__).parents[3] / "../shared/seeds"
SEGMENTERS = ("doncenco2022", "mmgan2020", "mmgan2020-liver", "shin2018")
NAMES = ("han2019-cpggan", *SEGMENTERS)
TABLES = Path(__file__).parents[3] / "plugins"


@pytest.fixture(scope="module")
def plans() -> Any:
    return import_module("gansynth.benchmark.papers.plan")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """KIND:WHERE for each plan: BraTS's folders, and DeepMedic's lists."""
    base = tmp_path_factory.mktemp("data")
    brats = f"nifti:{write_brats(base / 'brats')}"
    odd = {"numberTrainingSegmentsLoadedOnGpuPerSubep": 50}  # mixed, six cases take 60
    toy = toy_deepmedic(base / "toy", values=odd)
    slices = f"yolo:{toy_yolo(base / 'slices')}"
    own = {"doncenco2022": f"deepmedic:{toy.train}", "han2019-cpggan": slices}
    return {**dict.fromkeys(NAMES, brats), **own}


def write_brats(folder: Path) -> Path:
    """Six tiny cases of four sequences and labels 1, 2 and 4."""
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"case_{number}"
        (folder / name).mkdir(parents=True)
        labels = np.zeros((12, 12, 10), np.int16)
        labels[3:9, 3:9, 3:8], labels[4:8, 4:8, 4:7], labels[5:7, 5:7, 5] = 2, 4, 1
        for ending in ("flair", "t1", "t1ce", "t2"):
            image = rng.normal(5, 1, labels.shape).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), folder / name / f"{name}_{ending}.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / name / f"{name}_seg.nii.gz")
    return folder


# -- what they ask for exists ----------------------------------------------------------------------


def test_each_table_has_a_plan():
    assert {path.stem for path in TABLES.glob("*/recipes/tables/*.yaml")} == set(NAMES)


def test_a_recipe_without_a_table_of_trainings_names_those_that_have_one(plans):
    with pytest.raises(UsageFault, match=r"han2018-wgan: .*no table.*han2019-cpggan, .*shin2018"):
        plans.find_plan("han2018-wgan")


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_names_what_there_is(plans, name):
    plan = plans.find_plan(name)  # reads it, with its recipe and that recipe's sets
    assert plan.name == name
    assert set(plan.scales) <= set(plan.spec.spec.scale)
    for host, told in plan.hosts.items():
        if told.code == "ours":
            known = installed().adapter(told.target).Options.model_fields
            assert told.set.keys() <= known.keys()
            for scale in plan.scales.values():
                assert scale.hosts.get(host, {}).keys() <= known.keys()


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_segmenters_are_accepted(plans, name):
    plan = plans.find_plan(name)
    for host, told in plan.hosts.items():
        if told.target == "segmenter":
            assert SegmenterOptions.read(told.set).epochs is not None
            tiny = {k: v for k, v in told.set.items() if k != "epochs"}
            assert SegmenterOptions.read({**tiny, **plan.scales["tiny"].hosts[host]}).steps


@pytest.mark.parametrize("name", NAMES)
def test_no_arm_has_a_length_of_its_own(plans, name):
    assert "set" not in plans.Arm.model_fields
    lengths = {"steps", "epochs"}
    for told in plans.find_plan(name).hosts.values():
        if told.target == "segmenter":
            assert len(lengths & told.set.keys()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_others_code_says_what_to_run_instead(plans, name):
    plan = plans.find_plan(name)
    others = [plan.hosts[host] for host in plan.others()]
    assert all("--target nnunet" in host.instead and host.why for host in others)
    titles = {"shin2018": ["Wang et al. 2017"], "mmgan2020": ["Triple-Cascaded-Net"]}
    assert [host.title for host in others] == titles.get(name, [])


# -- arms and figures are the papers' --------------------------------------------------------------


def arms_of(plans: Any, name: str) -> list[tuple[float, float | None, str]]:
    """Share of synthetic samples, samples a case in the bank, and the schedule."""
    return [
        (
            float(Ratio.parse(arm.ratio).p),
            BankSize.parse(arm.bank).times if arm.generator else None,
            arm.schedule,
        )
        for arm in plans.find_plan(name).arms
    ]


def test_shins_arms_are_the_columns_of_table_1(plans):
    assert arms_of(plans, "shin2018") == [
        (0.0, None, "constant"),
        (0.5, 1, "constant"),
        (1.0, 1, "constant"),
        (1.0, 5, "finetune:10%@50%"),
    ]
    hosts = plans.find_plan("shin2018").hosts
    assert [hosts[name].usual_augmentation for name in ("gan-no-aug", "gan-aug")] == [False, True]
    assert {hosts[name].set["network"] for name in ("gan-no-aug", "gan-aug")} == {"pix2pix"}


def test_mmgans_arms_are_the_rows_of_tables_1_and_2_and_figure_10(plans):
    rows = [
        (0.0, None, "constant"),
        (1.0, 1, "constant"),
        (1 / 2, 1, "constant"),
        (3 / 4, 3, "constant"),
        (5 / 6, 5, "constant"),
    ]
    assert arms_of(plans, "mmgan2020") == [*rows, (1.0, 1, "finetune:10%@50%")]
    assert arms_of(plans, "mmgan2020-liver") == rows
    subjects = {str(number): str(number) for number in range(210 + 75)}
    assert len(choose_cases(subjects, 0.1, 0)) == 29


def test_doncencos_arms_are_the_rows_of_table_1(plans):
    plan = plans.find_plan("doncenco2022")
    shares = [(0.0, None), *[(0.5, 1)] * 2, *[(1.0, n) for n in (1, 1, 2, 2, 3, 3)]]
    assert arms_of(plans, plan.name) == [(*one, "constant") for one in shares]
    assert [arm.generator for arm in plan.arms] == [None, *["SN", "plain"] * 4]
    runs = {run.name: run.set for run in plan.spec.spec.runs}
    assert runs[plan.generators["SN"]]["spectral_norm"] is True
    assert runs[plan.generators["plain"]]["spectral_norm"] is False
    assert plan.hosts["deepmedic"].real_in_generator_space


REGIONS = {
    "shin2018": {"WT": "all"},
    "mmgan2020-liver": {"tumour": "all"},
    "mmgan2020": {"WT": "1+2+4", "TC": "1+4", "ET": "4"},
    "doncenco2022": {"WT": "1+2+4", "TC": "1+4", "ET": "4"},
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_regions_are_the_papers(plans, name):
    assert plans.find_plan(name).regions == REGIONS[name]


def paper(number: str) -> str:
    found = next(PAPERS.glob(f"{number}_*.txt"), None) if PAPERS.is_dir() else None
    if found is None:
        pytest.skip("the papers are not at hand: ../shared/seeds")
    return found.read_text(encoding="utf-8")


def figures_of(plan: Any, host: str) -> list[list[tuple[float, float | None]]]:
    """Every arm's figures that the paper has."""
    rows = []
    for arm in plan.arms:
        found = [plan.figure(host, arm, measure) for measure in plan.measures]
        if None not in found:
            rows.append([(one.mean, one.deviation) for one in found])
    return rows


def numbers(row: str, between: str) -> list[tuple[float, float | None]]:
    """The cells of a table's row, each a mean and a deviation."""
    cells = (cell.split(between) for cell in row.split("\t")[1:])
    return [(float(mean), float(deviation)) for mean, deviation in cells]


def test_shins_figures_are_the_papers(plans):
    plan, text = plans.find_plan("shin2018"), paper("000")
    rows = re.findall(r"^(?:GAN-based|Wang).*\t\d.*$", text, re.MULTILINE)
    for host, row in zip(("gan-no-aug", "gan-aug", "wang2017"), rows, strict=True):
        assert [one[0] for one in figures_of(plan, host)] == numbers(row, "/")


def test_mmgans_figures_are_the_papers(plans):
    rows = re.findall(r"^\d00% .*\t\d.*$", paper("004"), re.MULTILINE)
    plan, liver = plans.find_plan("mmgan2020"), plans.find_plan("mmgan2020-liver")
    assert [len(rows), len(plan.arms), len(liver.arms)] == [15, 6, 5]
    for at, host in enumerate(("unet", "cascade")):
        assert figures_of(plan, host) == [numbers(row, "±") for row in rows[5 * at :][:5]]
    assert figures_of(liver, "unet") == [numbers(row, "±") for row in rows[10:]]
    names = [row.split("\t")[0] for row in rows]
    assert [arm.name for arm in liver.arms] == names[10:]
    assert [arm.name for arm in plan.arms[:5]] == names[:5] == names[5:10]


def test_doncencos_figures_are_the_theses(plans):
    plan, text = plans.find_plan("doncenco2022"), paper("002").partition("Class Dataset")[2]
    rows = re.findall(r"^(\w[\w +]*?)\t([\d.\t]+)$", text, re.MULTILINE)
    assert [arm.name for arm in plan.arms] == [name for name, _ in rows]
    told = [[(float(v), None) for v in row.split("\t")] for _, row in rows]
    assert figures_of(plan, "deepmedic") == told
    assert figures_of(plan, "unet") == []  # the thesis has no such host


# -- what is wrong with a plan ---------------------------------------------------------------------


def changed(**other: Any) -> dict[str, Any]:
    doc = yaml.safe_load(
        (TABLES / "gansynth_cgan3d/recipes/tables/mmgan2020.yaml").read_text("utf-8")
    )
    return {**doc, **other}


REAL = {"name": "R", "ratio": "1:0"}
UNET = {"title": "x", "target": "segmenter"}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"armz": []}, "armz"),
        ({"arms": [{**REAL, "steps": 5}]}, "arms.0.steps"),
        ({"arms": [{**REAL, "ratio": "0:1", "generator": "GAN"}]}, "'GAN', expected one of MM-GAN"),
        ({"arms": [{**REAL, "ratio": "0:1"}]}, "R: 0:1 and generator None"),
        ({"arms": [REAL, REAL]}, "two arms of one name"),
        ({"arms": [{**REAL, "schedule": "later"}]}, "later"),
        ({"regions": {"WT": "1-2"}}, "regions.WT"),
        ({"generators": {"MM-GAN": "pond"}}, "'pond', expected a set of the recipe"),
        ({"recipe": "sun2020"}, "sun2020"),
        ({"hosts": {"x": {**UNET, "code": "others"}}}, "others has why and instead"),
        ({"hosts": {"x": {"title": "x"}}}, "a host of ours has a target"),
        ({"hosts": {"x": {**UNET, "target": "vnet"}}}, "hosts.x.target"),
        ({"scales": {"tiny": {"hosts": {"y": {}}}}}, "host 'y', expected one of"),
    ],
)
def test_a_wrong_plan_is_refused(plans, tmp_path, other, told):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(changed(**other)))
    with pytest.raises(GansynthError, match=re.escape(told)):
        plans.read_plan(tmp_path / "plan.yaml")


# -- the commands ----------------------------------------------------------------------------------


def typed(*words: str) -> Any:
    """What ``gansynth papers`` comes to."""
    return CliRunner().invoke(cli, ["papers", *words])


def dry(*words: str) -> list[list[str]]:
    """The commands a dry run prints, split into words."""
    result = typed(*words, "--dry-run")
    assert result.exit_code == 0, result.output
    return [
        shlex.split(line) for line in result.stdout.splitlines() if line.startswith("gansynth ")
    ]


def words_for(data: dict[str, str], name: str) -> list[str]:
    words = [name, "--data", data[name]]
    if name == "doncenco2022":
        words += ["--regions", "WT:1+2,TC:2,ET:2"]
    return [*words, "--with", "tissues=nifti:tissues"] if name == "shin2018" else words


def after(words: list[str], option: str) -> list[str]:
    return [value for key, value in pairwise(words) if key == option]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [(), ("--scale", "tiny")])
def test_a_dry_run_prints_the_commands(plans, data, name, scale):
    plan = plans.find_plan(name)
    fit, *augments = dry(*words_for(data, name), *scale, "--seed", "3", "--seed", "4")
    assert fit[:5] == ["gansynth", "fit", plan.spec.spec.generator, "--recipe", name]
    assert after(fit, "--scale") == list(scale[1:])
    kind = data[name].partition(":")[0]
    hosts, arms = plan.hosts_for(kind), [arm for arm in plan.arms if not arm.optional]
    assert len(augments) == len(hosts) * len(arms) * 2
    assert len({words[-1] for words in augments}) == len(augments)  # their folders
    ratios = [arm.ratio for _ in hosts for arm in arms for _ in range(2)]
    assert [after(words, "--ratio")[0] for words in augments] == ratios
    recipe = plan.spec.spec
    read = {**plan.spec.read_of(kind), **(recipe.scale["tiny"].read if scale else {})}
    for words in augments:
        assert words[:3] == ["gansynth", "augment", "--target"]
        assert {f"{k}={v}" for k, v in read.items()} <= set(after(words, "--read"))
        assert ("--frozen" in words) == (after(words, "--ratio") != ["1:0"])


def test_a_dry_run_of_real_cases_is_one_that_gansynth_understands(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ("--scale", "tiny", "--only", "100% R")
    (words,) = dry(*words_for(data, "mmgan2020"), *tiny)  # nothing to fit
    result = CliRunner().invoke(cli, [*words[1:], "--dry-run"])
    assert result.exit_code == 0, result.output


def test_deepmedics_arms_have_as_many_segments(plans, data):
    lines = dry(*words_for(data, "doncenco2022"), "--scale", "tiny")
    told = [after(words, "--set") for words in lines[1:]]
    assert all(one == told[0] for one in told)
    segments = next(s.removeprefix("segments=") for s in told[0] if s.startswith("segments="))
    for arm in plans.find_plan("doncenco2022").arms:
        share = share_on_the_fly(Ratio.parse(arm.ratio), 6, int(segments), 5, real=4, constant=True)
        assert share.segments == int(segments)
        assert share.segments % 5 == 0


def test_real_cases_go_through_the_space_unless_told_otherwise(data):
    words = [*words_for(data, "doncenco2022"), "--only", "Real"]
    brought = dry(*words)
    assert all("--real-in-generator-space" in line for line in brought[1:])
    (stored,) = dry(*words, "--as-stored")  # and needs no generator then
    assert "--real-in-generator-space" not in stored
    assert "--generator" not in stored


def test_steps_are_given_to_every_arm(data):
    lines = dry(*words_for(data, "mmgan2020"), "--scale", "tiny", "--steps", "7")
    assert all("steps=7" in after(words, "--set") for words in lines[1:])
    lines = dry(*words_for(data, "mmgan2020"), "--epochs", "3")
    lengths = {s for words in lines[1:] for s in after(words, "--set") if "e" in s.split("=")[0]}
    assert {s for s in lengths if s.startswith(("steps", "epochs"))} == {"epochs=3"}


def test_data_that_are_no_lists_get_the_stand_in(data):
    words = ["doncenco2022", "--data", data["shin2018"], "--only", "Real"]
    (line,) = dry(*words)
    assert after(line, "--target") == ["segmenter"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--only", "Unreal"], "--only Unreal: expected among: Real"),
        (["--host", "unet", "--host", "vnet"], "--host vnet"),
        (["--scale", "huge"], "--scale huge: expected one of tiny"),
        (["--regions", "XX:1"], "--regions XX:1"),
        (["--regions", "WT:1+4"], "has the labels 1, 2, and WT is 1+4"),
        (["--steps", "1", "--epochs", "1"], "expected one of them"),
        (["--fit-set", "steps"], "expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_fitted(data, more, told):
    result = typed(*words_for(data, "doncenco2022"), *more, "--dry-run")
    assert result.exit_code == 2
    assert told in result.output


def test_folders_of_this_machine_are_not_written_down():
    told = said(
        ["--data", "nifti:/home/me/brats", "-o", "/tmp/x/run", "--set", "a=b"], Path("/tmp/x")
    )
    assert told == "gansynth --data nifti:brats -o run --set a=b"


# -- the tables ------------------------------------------------------------------------------------


def result(host: str, arm: str, dice: list[dict[str, float | None]], steps: int = 9) -> Any:
    return {
        "host": host,
        "arm": arm,
        "steps": steps,
        "drawn_real": 4,
        "drawn_synthetic": 2,
        "metrics_on_real_cases": {"dice": dice[0]},
        "per_case": {str(number): one for number, one in enumerate(dice)},
    }


def test_the_table_stands_beside_the_papers(plans):
    plan = plans.find_plan("mmgan2020")
    one = {"WT": 0.2, "TC": 0.5, "ET": None}
    results = [result("unet", "100% R", [one, {**one, "WT": 0.4}]) for _ in range(2)]
    head, row, *others = tables.rows(plan, results, plan.regions)
    assert head[4:] == ("WT", "TC", "ET", "paper WT", "paper TC", "paper ET")
    assert row[:4] == ("3D U-Net", "100% R", 8, 4)
    assert row[4:7] == ("0.300 ± 0.10", "0.500 ± 0.00", "-")
    assert list(map(str, row[7:])) == ["0.8722 ± 0.14", "0.7525 ± 0.24", "0.6638 ± 0.33"]
    assert len(others) == len(plan.arms)  # of the host that is others' code
    assert {line[4] for line in others} == {"not run: others' code"}
    assert str(others[-2][7]) == "0.899 ± 0.08"
    assert others[-1][7] == "-"  # figure 10 has no numbers
    assert "--target nnunet" in tables.notes(plan)[0]


def test_a_region_of_all_labels_is_the_foreground(plans):
    plan = plans.find_plan("shin2018")
    results = [result("gan-aug", "Real", [{"foreground": 0.25, "1": 0.5}])]
    row = tables.rows(plan, results, plan.regions, plan.arms[:1])[1]
    assert row[4] == "0.250"
    assert str(row[5]) == "0.810 ± 0.13"


def test_arms_of_other_lengths_are_said():
    same = [result("unet", arm, [{}]) for arm in "ab"]
    assert tables.steps_of(same) == []
    assert tables.steps_of([*same, result("unet", "c", [{}], 8)]) == [
        "unet: its arms had 8, 9 steps, not as many"
    ]


@pytest.mark.slow
def test_a_table_is_made_and_what_is_done_is_taken_up(data, tmp_path):
    words = ["mmgan2020-liver", "--data", data["mmgan2020-liver"], "--read", "frame=16x16x16"]
    words += ["--scale", "tiny", "--steps", "2", "--fit-set", "steps=2", "-o", f"{tmp_path}/all"]
    more = ("--only", "300% F + 100% R", "--name", "both")
    said = [typed(*words, "--only", "100% R", *rest) for rest in ((), more)]
    assert [one.exit_code for one in said] == [0, 0], said
    ran = [line for one in said for line in one.stderr.splitlines() if line.startswith("$ ")]
    assert [line.split()[2] for line in ran] == ["augment", "fit", "augment"]
    doc = json.loads((tmp_path / "all" / "both.json").read_text())
    assert [one["steps"] for one in doc["results"]] == [2, 2]
    assert [one["asked_synthetic_share"] for one in doc["results"]] == [0, 0.75]
    for one in doc["results"]:
        assert len(one["per_case"]) == doc["held_out_cases"] == 2
        assert one["drawn_real"] + one["drawn_synthetic"] == 2
    assert str(tmp_path) not in json.dumps(doc)


def test_the_results_that_are_kept_are_of_this_form(plans):
    """``benchmarks/results/papers_*.json``, which docs/papers.md speaks of."""
    kept = sorted((BENCHMARKS / "results").glob("papers_*.json"))
    assert len(kept) >= 4
    for file in kept:
        doc = json.loads(file.read_text("utf-8"))
        plan = plans.find_plan(doc["plan"])
        table = tables.rows(plan, doc["results"], doc["regions"])
        assert len(table) > len({(one["host"], one["arm"]) for one in doc["results"]})


# -- Han et al.'s detector -------------------------------------------------------------------------


def test_hans_arms_are_the_rows_of_table_1_and_one_for_gans_of_a_class_each(plans):
    plan = plans.find_plan("han2019-cpggan")
    shares = [(0.0, None, "constant"), *[(4000 / 6813, 1.422, "constant")] * 2]
    assert arms_of(plans, plan.name) == shares
    assert [arm.optional for arm in plan.arms] == [False, False, True]
    assert [plan.generators[arm.generator] for arm in plan.arms[1:]] == ["joint", "per-class"]
    assert BankSize.parse(plan.arms[1].bank).capacity(2813, 1) == 4000


def test_hans_figures_are_the_papers(plans):
    plan, text = plans.find_plan("han2019-cpggan"), paper("003")
    rows = re.findall(r"^(?:2,813 real.*?|\+ 4,000.*?)\t(.*)$", text, re.MULTILINE)
    told = [[float(re.sub("</?b>", "", cell)) for cell in row.split("\t")] for row in rows]
    assert [[mean for mean, _ in row] for row in figures_of(plan, "yolo")] == told
    assert len(told) == 2


def test_a_detectors_arm_without_samples_has_more_epochs_and_as_many_steps(data):
    _, real, both = dry(*words_for(data, "han2019-cpggan"))
    assert "epochs=100" in after(both, "--set")
    assert "epochs=200" in after(real, "--set")  # 16 slices and 23 samples: two batches of 16
    _, real, both = dry(*words_for(data, "han2019-cpggan"), "--steps", "10")
    assert "epochs=10" in after(real, "--set")
    assert "epochs=5" in after(both, "--set")


def test_a_dry_run_shows_the_papers_table(data):
    shown = typed(*words_for(data, "han2019-cpggan"), "--dry-run").stdout
    assert re.search(r"\+ 4,000 GAN-based DA +- +- +- .* 0.540 +0.770 +7.640 +0.910 +7.180", shown)


def test_a_detectors_figures_stand_beside_the_papers(plans):
    plan = plans.find_plan("han2019-cpggan")
    ours = dict(zip(plan.columns.values(), (0.1, 0.2, 3.0, None, 5.0), strict=True))
    one = {**result("yolo", plan.arms[0].name, [{}]), "figures": ours}
    (_, row) = tables.rows(plan, [one], plan.regions)
    assert row[4:9] == ("0.100", "0.200", "3.000", "-", "5.000")
    assert list(map(str, row[9:])) == ["0.510", "0.670", "4.110", "0.830", "3.590"]
