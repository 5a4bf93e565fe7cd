import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import find_objects, label

from gansynth.conditions.edit_chain import build_edits
from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import read_manifest
from gansynth.core.schedule import choose_cases
from gansynth.hosts.contract.host import framework
from gansynth.testing.phantoms.brains import PhantomOptions
from gansynth.testing.phantoms.data_sets import write_phantoms
from gansynth_benchmark.papers import plan as plans
from gansynth_benchmark.papers import table_run as tables
from gansynth_benchmark.papers.commands import said
from gansynth_cli.main import cli
from tests.deepmedic_sets import toy_deepmedic
from tests.expected import raises_fault
from tests.offered import offered
from tests.yolo_sets import toy_yolo

ROOT = Path(__file__).parents[3]
PAPERS = ROOT / "../shared/seeds"
NAMES = ("han2019-cpggan", "doncenco2022", "mmgan2020", "mmgan2020-liver", "shin2018")
every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def brats(tmp_path_factory) -> str:
    """Phantoms of 8 mm."""
    folder = tmp_path_factory.mktemp("phantoms") / "brats"
    write_phantoms("brats", folder, 6, options=PhantomOptions(8))
    return f"nifti:{folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory, brats) -> dict[str, str]:
    """KIND:WHERE for each plan: BraTS's folders, slices with boxes, and DeepMedic's lists."""
    base = tmp_path_factory.mktemp("data")
    odd = {"numberTrainingSegmentsLoadedOnGpuPerSubep": 50}  # mixed, six cases take 60
    own = {
        "doncenco2022": f"deepmedic:{toy_deepmedic(base / 'toy', values=odd).train}",
        "han2019-cpggan": f"yolo:{toy_yolo(base / 'slices')}",
    }
    return {**dict.fromkeys((*NAMES, "han2018-dcgan", "han2018-wgan"), brats), **own}


def test_each_table_has_a_plan_and_a_recipe_without_one_names_those_that_have(tmp_path):
    tables = ROOT.glob("plugins/*/recipes/tables/*.yaml")
    assert {path.stem for path in tables} == {*NAMES, "han2018-dcgan", "han2018-wgan"}
    shutil.copy(ROOT / "plugins/gansynth_dcgan/recipes/han2018-wgan.yaml", tmp_path / "bare.yaml")
    with (
        offered("bare", recipes={"bare": tmp_path / "bare.yaml"}),
        raises_fault("papers.recipe-without-table"),
    ):
        plans.find_plan("bare")


@every
def test_the_settings_of_a_plan_are_accepted(name):
    plan = plans.find_plan(name)  # reads it, with its recipe and that recipe's sets
    assert plan.name == name
    assert set(plan.scales) <= set(plan.spec.spec.scale)
    for host, told in plan.hosts.items():
        sets = [told.set, *(scale.hosts.get(host, {}) for scale in plan.scales.values())]
        known = framework(told.target).Options.model_fields if told.target else {}
        assert all(settings.keys() <= known.keys() for settings in sets)
    for row in plan.picture_rows:
        build_edits(row.edits)


REAL = (0.0, None, "constant")
TUNED = (1.0, 1, "finetune:10%@50%")
MIXED = [REAL, *((share, n, "constant") for share, n in ((1.0, 1), (1 / 2, 1), (3 / 4, 3)))]
MIXED.append((5 / 6, 5, "constant"))
GLIOMAS = {"WT": "1+2+4", "TC": "1+4", "ET": "4"}
ARMS: dict[str, tuple[list[Any], dict[str, str]]] = {
    "shin2018": (
        [REAL, (0.5, 1, "constant"), (1.0, 1, "constant"), (1.0, 5, "finetune:10%@50%")],
        {"WT": "all"},
    ),
    "mmgan2020": ([*MIXED, TUNED], GLIOMAS),
    "mmgan2020-liver": (MIXED, {"tumour": "all"}),
    "doncenco2022": (
        [*(REAL, *[(0.5, 1, "constant")] * 2), *((1.0, n, "constant") for n in (1, 1, 2, 2, 3, 3))],
        GLIOMAS,
    ),
    "han2019-cpggan": ([REAL, *[(4000 / 6813, 1.422, "constant")] * 2], {}),
}
"""Share of synthetic samples, samples a case in the bank, and the schedule; regions."""


@every
def test_arms_are_the_rows_of_the_papers_table_and_regions_the_papers(name):
    plan = plans.find_plan(name)
    found = [
        (
            float(Ratio.parse(arm.ratio).p),
            BankSize.parse(arm.bank).times if arm.generator else None,
            arm.schedule,
        )
        for arm in plan.arms
    ]
    assert (found, plan.regions) == ARMS[name]


def test_what_is_special_to_a_papers_arms():
    hosts = plans.find_plan("shin2018").hosts
    for name, usual in (("gan-no-aug", False), ("gan-aug", True)):
        assert (hosts[name].usual_augmentation, hosts[name].set["network"]) == (usual, "pix2pix")
        own = plans.find_plan("shin2018").spec.spec.set  # of the part that segments, too
        assert all(hosts[name].set[key] == str(own[key]) for key in ("width", "batch_size"))
    subjects = {str(number): str(number) for number in range(210 + 75)}
    assert len(choose_cases(subjects, 0.1, 0)) == 29  # of MM-GAN's figure 10
    plan = plans.find_plan("doncenco2022")
    assert [arm.generator for arm in plan.arms] == [None, *["SN", "plain"] * 4]
    runs = {run.name: run.set for run in plan.spec.spec.runs}
    normed = {name: runs[run]["spectral_norm"] for name, run in plan.generators.items()}
    assert normed == {"SN": True, "plain": False}
    plan = plans.find_plan("han2019-cpggan")
    assert [arm.optional for arm in plan.arms] == [False, False, True]
    assert [plan.generators[str(arm.generator)] for arm in plan.arms[1:]] == ["joint", "per-class"]
    assert BankSize.parse(plan.arms[1].bank).capacity(2813, 1) == 4000


Figures = list[list[tuple[float, float | None]]]


def rows_of(number: str, pattern: str, between: str = "±", after: str = "") -> Figures:
    """Cells of a paper's table, each a mean and a deviation if there is one."""
    found = next(PAPERS.glob(f"{number}_*.txt"), None) if PAPERS.is_dir() else None
    if found is None:
        pytest.skip("the papers are not at hand: ../shared/seeds")
    text = found.read_text(encoding="utf-8")
    rows = re.findall(pattern, text[text.index(after) :], re.MULTILINE)
    cells = [[re.sub("</?b>", "", c).partition(between) for c in r.split("\t")[1:]] for r in rows]
    return [[(float(a), float(b) if b else None) for a, _, b in row] for row in cells]


def figures_of(name: str, host: str) -> Figures:
    plan = plans.find_plan(name)
    rows: Any = ([plan.figure(host, arm, m) for m in plan.measures] for arm in plan.arms)
    return [[(one.mean, one.deviation) for one in row] for row in rows if None not in row]


def test_figures_are_the_papers():
    rows = rows_of("000", r"^(?:GAN-based|Wang).*\t\d.*$", "/")
    for host, row in zip(("gan-no-aug", "gan-aug", "wang2017"), rows, strict=True):
        assert [one[0] for one in figures_of("shin2018", host)] == row
    rows = rows_of("004", r"^\d00% .*\t\d.*$")
    assert len(rows) == 15
    assert figures_of("mmgan2020", "unet") == rows[:5]
    assert figures_of("mmgan2020", "cascade") == rows[5:10]
    assert figures_of("mmgan2020-liver", "unet") == rows[10:]
    rows = rows_of("002", r"^\w[\w +]*?\t[\d.\t]+$", after="Class Dataset")
    assert figures_of("doncenco2022", "deepmedic") == rows
    assert len(rows) == len(ARMS["doncenco2022"][0])
    assert figures_of("doncenco2022", "unet") == []  # the thesis has no such host
    rows = rows_of("003", r"^(?:2,813 real.*?|\+ 4,000.*?)\t.*$")
    assert [[m for m, _ in row] for row in figures_of("han2019-cpggan", "yolo")] == [
        [m for m, _ in row] for row in rows
    ]
    assert len(rows) == 2


ARM = {"name": "R", "ratio": "1:0"}
UNET = {"title": "x", "target": "segmenter"}


def shown(row: dict[str, str]) -> dict[str, Any]:
    return {"pictures": [{"name": "fig1", "of": "x", "rows": [{"name": "x", **row}]}]}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"arms": [{**ARM, "steps": 5}]}, "papers.plan-value-refused"),
        ({"arms": [{**ARM, "ratio": "0:1", "generator": "GAN"}]}, "papers.plan-value-refused"),
        ({"arms": [{**ARM, "ratio": "0:1"}]}, "papers.plan-value-refused"),
        ({"arms": [ARM, ARM]}, "papers.plan-value-refused"),
        ({"arms": [{**ARM, "schedule": "later"}]}, "schedule.malformed"),
        ({"generators": {"MM-GAN": "pond"}}, "papers.generator-set-unknown"),
        ({"recipe": "sun2020"}, "registry.name-unknown"),
        ({"hosts": {"x": {**UNET, "code": "others"}}}, "papers.plan-value-refused"),
        ({"hosts": {"x": {"title": "x"}}}, "papers.plan-value-refused"),
        ({"hosts": {"x": {**UNET, "target": "vnet"}}}, "papers.plan-value-refused"),
        ({"scales": {"tiny": {"hosts": {"y": {}}}}}, "papers.plan-value-refused"),
        (shown({}), "papers.plan-value-refused"),
        (shown({"generator": "GAN"}), "papers.plan-value-refused"),
        (shown({"shows": "detections", "arm": "S"}), "papers.plan-value-refused"),
        (shown({"generator": "MM-GAN", "label_source": "tissues"}), "papers.plan-value-refused"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path, other, expected):
    file = ROOT / "plugins/gansynth_cgan3d/recipes/tables/mmgan2020.yaml"
    document = {**yaml.safe_load(file.read_text("utf-8")), **other}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(document))
    with raises_fault(expected):
        plans.read_plan(tmp_path / "plan.yaml")


@pytest.fixture
def typed(data):
    def run(name: str, *words: str) -> Any:
        own = {"doncenco2022": ["--regions", "WT:1+2,TC:2,ET:2"],
               "shin2018": ["--extra-source", "tissues=nifti:tissues"]}.get(name, [])  # fmt: skip
        where = [] if "--data" in words else ["--data", data[name], *own]
        return CliRunner().invoke(cli, ["papers", name, *where, *words])

    return run


@pytest.fixture
def dry(typed):
    def run(name: str, *words: str) -> list[list[str]]:
        result = typed(name, *words, "--dry-run")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        return [shlex.split(line) for line in lines if line.startswith("gansynth ")]

    return run


def after(words: list[str], option: str) -> list[str]:
    return [value for key, value in pairwise(words) if key == option]


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, ()) for name in NAMES), ("mmgan2020", ("--scale", "tiny"))]
)
def test_a_dry_run_prints_the_commands(dry, data, name, scale):
    plan = plans.find_plan(name)
    fit, *augments = dry(name, *scale, "--seed", "3", "--seed", "4")
    assert fit[:3] == ["gansynth", "fit", plan.spec.spec.generator]
    assert after(fit, "--recipe") == [name]
    assert after(fit, "--extra-source") == ["tissues=nifti:tissues"] * (name == "shin2018")
    assert after(fit, "--scale") == list(scale[1:])
    kind, recipe = data[name].partition(":")[0], plan.spec.spec
    arms = [arm for arm in plan.arms if not arm.optional]
    ratios = [arm.ratio for _ in plan.hosts_for(kind) for arm in arms for _ in range(2)]
    assert [after(words, "--ratio")[0] for words in augments] == ratios
    assert len({after(words, "-o")[0] for words in augments}) == len(augments)
    read = {**plan.spec.read_of(kind), **(recipe.scale["tiny"].read if scale else {})}
    for words in augments:
        assert words[:3] == ["gansynth", "augment", data[name]]
        assert {f"{k}={v}" for k, v in read.items()} <= set(after(words, "--read"))
        assert ("--offline" in words) == (after(words, "--ratio") != ["1:0"])


def test_a_dry_run_of_real_cases_is_one_that_gansynth_understands(dry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (words,) = dry("mmgan2020", "--scale", "tiny", "--only", "100% R")  # nothing to fit
    result = CliRunner().invoke(cli, [*words[1:], "--dry-run"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("name", "words", "lengths"),
    [
        ("doncenco2022", "--scale tiny", ["steps=200"] * 9),
        ("mmgan2020", "--scale tiny --steps 7", ["steps=7"] * 6),
        ("mmgan2020", "--epochs 3", ["epochs=3"] * 6),
        # Of a detector 16 slices, and 23 samples: two batches of 16.
        ("han2019-cpggan", "", ["epochs=200", "epochs=100"]),
        ("han2019-cpggan", "--steps 10", ["epochs=10", "epochs=5"]),
    ],
)
def test_every_arm_has_as_many_steps(dry, name, words, lengths):
    settings = [after(line, "--set") for line in dry(name, *words.split())[1:]]
    found = [[s for s in of if s.startswith(("steps", "epochs"))] for of in settings]
    assert found == [[length] for length in lengths]


def test_the_papers_own_detector_is_trained_if_it_is_named_and_lists_get_the_papers_host(dry, data):
    usual, named = (dry("han2019-cpggan", *words)[1:] for words in ((), ("--host", "yolov3")))
    ours = {"detector=ultralytics", "model=yolov3.yaml"}
    assert [ours & set(after(w, "--set")) for w in usual] == [set(), set()]
    assert all(ours <= set(after(words, "--set")) for words in named)
    for where, found in (((), True), (("--data", data["shin2018"]), False)):
        (line,) = dry("doncenco2022", *where, "--only", "Real")
        assert ("network=deepmedic" in after(line, "--set")) == found


def test_what_raters_said_stands_beside_what_the_papers_physician_said(typed, dry, tmp_path):
    counts = dict(zip(tables.COUNTS, (40, 10, 30, 20), strict=True))
    raters = [{"name": "anna", "table": {"accuracy": {"value": 0.6}, **counts}}]
    for file, document in {
        "t1ce-128/manifest.json": {},
        "t1ce-128/turing/study/results.json": {"raters": raters},
        "Concat-64/manifest.json": {},
    }.items():
        path = tmp_path / "generators" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    result = typed("han2018-wgan", "--dry-run", "-o", str(tmp_path))
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    at = rows.index(["T1c-128", "paper's physician", "55", "13", "37", "8", "42"])
    assert rows[at + 1] == ["t1ce-128", "anna", "60", "40", "10", "30", "20"]
    assert ["Concat-64", tables.NOT_RATED, *"-----"] in rows
    (fit,) = dry("han2018-wgan", "--fit-set", "steps=4", "-o", str(tmp_path))
    assert (fit[:3], after(fit, "--recipe")) == (["gansynth", "fit", "dcgan"], ["han2018-wgan"])
    assert after(fit, "--set") == ["steps=4"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--figures"], "--figures: has no effect without -o"),
        (["--only", "Unreal"], "--only Unreal: expected among: Real"),
        (["--host", "unet", "--host", "vnet"], "--host vnet"),
        (["--scale", "huge"], "--scale huge: expected one of tiny"),
        (["--regions", "XX:1"], "--regions XX:1"),
        (["--regions", "WT:1+4"], "has the labels 1, 2, but WT is 1+4"),
        (["--steps", "1", "--epochs", "1"], "expected one of them"),
        (["--fit-set", "steps"], "expected KEY=VALUE"),
    ],
)
def test_papers_refuses_before_anything_is_fitted(typed, more, told):
    result = typed("doncenco2022", *more, "--dry-run")
    assert result.exit_code == 2
    assert told in result.output


def test_growth_that_cannot_happen_is_refused_before_anything_is_trained(typed, tmp_path):
    result = typed("han2019-cpggan", "--fit-set", "steps=100", "-o", str(tmp_path))
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "steps=100: cpggan has grown to 256 x 256 after 6" in result.output


def test_commands_that_remarks_name_have_these_options():
    words = []
    for path in ROOT.glob("plugins/*/recipes/tables/*.yaml"):
        text = " ".join(plans.read_plan(path).open)
        words += re.findall(r"gansynth ([a-z-]+) (RUN(?: -\S+ \S+?)+)[ ;]", text)
    assert {name for name, _ in words} == {"turing-test", "evaluate"}
    context = cli.make_context("gansynth", ["doctor"])
    for name, typed_words in words:
        command = cli.get_command(context, name)
        assert command is not None
        command.make_context(name, typed_words.split())


def test_a_plan_without_pictures_draws_none(typed):
    result = typed("mmgan2020-liver", "--figures", "--dry-run", "-o", "x")
    assert (result.exit_code, "mmgan2020-liver has no pictures" in result.output) == (2, True)


def test_a_dry_run_names_the_figures_and_fits_what_they_show(typed):
    words = ["--only", "Real", "--dry-run", "-o", "x"]
    plain, drawn = (typed("doncenco2022", *words, *more).stdout for more in ([], ["--figures"]))
    assert "gansynth fit" not in plain
    assert f"\nopen:\n- {plans.find_plan('doncenco2022').open[0]}" in plain
    assert "--only SN --only plain" in drawn
    assert "figure: Doncenco 2022, fig. 9" in drawn


def result(host: str, arm: str, *dice: dict[str, float | None], **more: Any) -> dict[str, Any]:
    return {
        **{"host": host, "arm": arm, "steps": 9, "drawn_real": 4, "drawn_synthetic": 2},
        "metrics_on_real_cases": {"dice": dice[0]},
        "per_case": {str(number): one for number, one in enumerate(dice)},
        **more,
    }


def test_the_table_stands_beside_the_papers():
    plan = plans.find_plan("mmgan2020")
    one = {"WT": 0.2, "TC": 0.5, "ET": None}
    results = [result("unet", "100% R", one, {**one, "WT": 0.4}) for _ in range(2)]
    head, row, *others = tables.rows(plan, results, plan.regions)
    assert head[4:] == ("WT", "TC", "ET", "paper WT", "paper TC", "paper ET")
    assert row[:7] == ("3D U-Net", "100% R", 8, 4, "0.300 ± 0.10", "0.500 ± 0.00", "-")
    assert list(map(str, row[7:])) == ["0.8722 ± 0.14", "0.7525 ± 0.24", "0.6638 ± 0.33"]
    assert len(others) == len(plan.arms)  # of the host that is others' code
    assert {line[4] for line in others} == {"not run"}
    assert str(others[-2][7]) == "0.899 ± 0.08"
    assert others[-1][7] == "-"  # figure 10 has no numbers
    assert "--target nnunet" in tables.notes(plan)[0]
    plan = plans.find_plan("shin2018")  # its region is of all labels
    results = [result("gan-aug", "Real", {"foreground": 0.25, "1": 0.5})]
    row = tables.rows(plan, results, plan.regions, plan.arms[:1])[1]
    assert (row[4], str(row[5])) == ("0.250", "0.810 ± 0.13")


def test_a_detectors_figures_stand_beside_the_papers(typed):
    plan = plans.find_plan("han2019-cpggan")
    ours = dict(zip(plan.columns.values(), (0.1, 0.2, 3.0, None, 5.0), strict=True))
    one = result("yolo", plan.arms[0].name, {}, figures=ours)
    (_, row) = tables.rows(plan, [one], plan.regions)
    assert row[4:9] == ("0.100", "0.200", "3.000", "-", "5.000")
    assert list(map(str, row[9:])) == ["0.510", "0.670", "4.110", "0.830", "3.590"]
    shown = typed("han2019-cpggan", "--dry-run").stdout
    lines = [line for line in shown.splitlines() if line.startswith("+ 4,000 GAN-based DA")]
    yolox = re.findall(r"- / ([\d.]+)", " ".join(lines[: len(lines) // 2]))
    assert yolox == ["0.540", "0.770", "7.640", "0.910", "7.180"]
    table = shown.partition("YOLOX-n (the")[2].partition("open:")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_arms_of_other_lengths_are_said_and_folders_are_not():
    same = [result("unet", arm, {}) for arm in "ab"]
    assert tables.steps_of(same) == []
    others = tables.steps_of([*same, result("unet", "c", {}, steps=8)])
    assert others == ["unet: its arms had 8, 9 steps, not the same"]
    words = ["--data", "nifti:/home/me/brats", "-o", "/tmp/x/run", "--set", "a=b"]
    assert said(words, Path("/tmp/x")) == "gansynth --data nifti:brats -o run --set a=b"


@pytest.mark.slow
def test_a_table_is_made_and_what_is_done_is_taken_up(typed, tmp_path):
    words = ["mmgan2020-liver", "--read", "frame=16x16x16", "--scale", "tiny", "--steps", "2"]
    words += ["--fit-set", "steps=2", "-o", f"{tmp_path}/all"]
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


FRAME = "--read frame=24x32x32 --scale tiny --steps 1 --fit-set steps=1"
SLICES = "--read slices=5-15 --scale tiny --fit-set steps=2"
SETS = [f"{name}-128" for name in ("Concat", "flair", "t1", "t1ce", "t2")] + ["Concat-64"]
PICTURES: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {
    "shin2018": (f"{FRAME} --read whole=24x32x32 --only Real", {"fig3": (6, 5)}),
    "doncenco2022": (
        f"{FRAME} --read whole=24x32x32 --only Real",
        {"fig9": (4, 2 * 5)},
    ),
    "mmgan2020": (f"{FRAME} --only '100% R'", {"fig6": (3 * 3, 2 * 5)}),
    "han2018-dcgan": (SLICES, {f"fig3_{name}": (2, 8) for name in SETS}),
    "han2018-wgan": (SLICES, {f"fig4_{name}": (2, 8) for name in SETS}),
    "han2019-cpggan": (
        "--read size=16x16 --scale tiny --steps 1 --fit-set steps=17 --fit-set admit=none",
        {"fig1": (4, 4), "fig2": (3, 3)},
    ),
}
"""Words, and by picture its rows and columns of panels; three test images have boxes."""


@pytest.fixture(scope="module")
def tissues(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("phantoms") / "tissues"
    write_phantoms("tissues", folder, 3, options=PhantomOptions(8, ("T1",)))
    return ["--extra-source", f"tissues=nifti:{folder}"]


def panels_of(file: Path) -> tuple[int, int]:
    """Count rows and columns of panels: what is at least half as wide as a panel, on white."""
    found, _ = label((np.asarray(Image.open(file)) < 255).any(2))
    boxes = [box for box in find_objects(found) if min(s.stop - s.start for s in box) > 50]
    tops, lefts = ({box[axis].start for box in boxes} for axis in (0, 1))
    assert len(boxes) == len(tops) * len(lefts), file
    return len(tops), len(lefts)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_figures_of_a_paper_are_drawn_of_our_samples(typed, brats, tissues, data, tmp_path, name):
    words, expected = PICTURES[name]
    of = data[name] if name == "han2019-cpggan" else brats
    where = ["--data", of, *tissues * (name == "shin2018")]
    result = typed(name, *where, *shlex.split(words), "--figures", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    stem = f"papers_{name.replace('-', '_')}"
    found = {file.stem.removeprefix(f"{stem}_"): panels_of(file) for file in tmp_path.glob("*.png")}
    assert found == expected
    doc = json.loads((tmp_path / f"{stem}.json").read_text())
    assert set(doc["pictures"]) == {f"{stem}_{name}.png" for name in expected}
    assert all(str(tmp_path / file) in result.stdout for file in doc["pictures"])


def test_the_results_that_are_kept_are_of_this_form():
    """``benchmarks/measure/results/papers_*.json``, which docs/papers.md speaks of."""
    kept = sorted((ROOT / "benchmarks/measure/results").glob("papers_*.json"))
    assert len(kept) >= 4
    for file in kept:
        doc = json.loads(file.read_text("utf-8"))
        table = tables.rows(plans.find_plan(doc["plan"]), doc["results"], doc["regions"])
        assert len(table) > len({(one["host"], one["arm"]) for one in doc["results"]})


RUNS = ("shin2018", "doncenco2022/SN", "mmgan2020/pool")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_each_recipe_is_fitted_sampled_banked_and_trained_on_by_both_hosts(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    page = (ROOT / "benchmarks/measure/results/papers.md").read_text("utf-8")
    (sequence,) = re.findall(r"<!-- sequence -->\n```sh\n(.*?)```\n<!-- /sequence", page, re.DOTALL)
    done = subprocess.run(
        ["bash", "-euc", sequence],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for run in RUNS:
        assert (tmp_path / "sheets" / run / "sheet.png").stat().st_size > 10_000
        for host in ("nnunet", "deepmedic"):
            assert read_manifest(tmp_path / "runs" / host / run)["complete"]
            told = json.loads((tmp_path / f"{host}-{Path(run).name}.json").read_text())
            assert told["realised_synthetic_share"] == pytest.approx(0.5), (host, run)
            assert told["fell_back"] == 0
            assert told["drawn_synthetic"] > 0
    shared = tmp_path / "ph" / "nnunet" / "nnUNet_raw" / "Dataset711_Shared"
    assert json.loads((shared / "dataset.json").read_text())["numTraining"] == 3
    assert len(list((shared / "imagesTr").iterdir())) == 3 * 4
    for file in (shared / "labelsTr").iterdir():
        image: Any = nib.Nifti1Image.from_filename(file)
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2, 3}, "no tissues"
