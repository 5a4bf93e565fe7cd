from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.metrics.segmentation.measures import LESIONS
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import option_rows
from gansynth_benchmark.arms import preset, preset_names
from gansynth_benchmark.plan import (
    ArmPlan,
    BenchmarkPlan,
    HostPlan,
    SplitPlan,
    TunePlan,
)
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.suite import read_suite
from tests.benchmark.people import plan_of
from tests.offered import registered

TEXT = """\
name: toy
data: nnunet:004
host: {target: segmenter, steps: 10}
arms: [default]
sizes: [2, 4]
split: {sealed: 3}
"""
GANS = """\
arms:
  - default
  - {name: gan, generator: cgan3d}
  - {name: other, generator: cgan3d, edit: [identity]}
"""
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def write(folder: Path, text: str = TEXT) -> Path:
    file = folder / "plan.yaml"
    file.write_text(text)
    return file


def with_arm(words: str) -> str:
    return TEXT.replace("[default]", f"[default, {{name: mine, {words}}}]")


def test_a_short_plan_has_the_usual_rest(tmp_path):
    plan = read_plan(write(tmp_path))
    assert (plan.draws, plan.seeds, plan.fits) == (3, 2, "seed")
    assert plan.compared_with == "default"
    assert plan.arm("default").ratio == "1:0"


YOLO = TEXT.replace("segmenter", "yolo")
WITH_LESIONS = ("dice", *LESIONS)


@pytest.mark.parametrize(
    ("text", "primary", "margin", "measured"),
    [
        (TEXT, "dice/foreground", 0.005, WITH_LESIONS),
        (TEXT + "measures: dice\nmargin: 0.02\n", "dice/foreground", 0.02, WITH_LESIONS),
        (TEXT + "margin: 2\nmeasures: [hd95]\n", "hd95/foreground", 2, ("hd95", *LESIONS)),
        (YOLO + "measures: dice\n", "froc", 0.01, ("dice",)),  # boxes have their own
    ],
)
def test_lesions_are_measured_whatever_else_is_and_a_plans_margin_goes_before_the_usual_one(
    tmp_path, text, primary, margin, measured
):
    plan = read_plan(write(tmp_path, text))
    assert (plan.primary_measure, plan.equal_within, plan.measured) == (primary, margin, measured)


def test_the_documented_defaults_may_be_typed_or_left_blank(tmp_path):
    arm = {"name": "real"}
    typed = yaml.safe_load(TEXT) | {"arms": [arm], "tune": {}}
    short = read_plan(write(tmp_path, yaml.safe_dump(typed)))
    parts: list[tuple[type[BaseModel], dict[str, Any]]] = [
        *((HostPlan, typed["host"]), (SplitPlan, typed["split"]), (TunePlan, typed["tune"])),
        *((ArmPlan, arm), (BenchmarkPlan, typed)),
    ]
    for model, part in parts:
        for key, default, _ in option_rows(model):
            if key not in (*AugmentRequest.model_fields, *part):
                part[key] = yaml.safe_load(default) if default else None
    assert typed["measures"] == ",".join(short.measures)
    assert read_plan(write(tmp_path, yaml.safe_dump(typed))) == short


REFUSED: list[tuple[str, str, tuple[str, ...]]] = [
    # keys that are not known
    ("target: segmenter", "targte: segmenter", ("^host: targte: unknown. Did you mean 'target'?",)),
    ("sizes:", "generators: {g: {generator: cgan3d, steps: 9}}\nsizes:",
     ("generators.g: steps: unknown",)),
    # values that cannot be
    ("[default]", "[defalt]", ("'defalt'", "Did you mean 'default'?", "copy-paste")),
    ("[default]", "[default, default]", ("two have the name 'default'",)),
    ("[default]", "[{name: ../up}]", ("arms.0: name",)),
    ("[2, 4]", "[4, 2]", ("sizes [4, 2]", "rising")),
    ("[2, 4]", "[2, 2]", ("sizes [2, 2]", "rising")),
    ("steps: 10", "steps: 10, set: {widht: 4}", ("^host.set.widht: '4'",)),
    ("[default]", "[{name: a, set: text}]", ("arms.0: set", "'text'", "KEY=VALUE")),
    ("target: segmenter", "target: nnuned", ("^host.target: ", "nnunet")),
    ("split:", "control: none\nsplit:", ("control 'none'", "expected one of default")),
    ("sealed: 3", "development: 3", ("sealed", "fold")),
    ("sealed: 3", "sealed: 3, fold: 0", ("sealed", "fold")),
    ("sealed: 3", "pool: 3, fold: 0", ("pool and fold",)),
    ("split:", "tune: {rungs: [1, 0.5]}\nsplit:", ("rungs [1.0, 0.5]", "rising")),
    ("split:", "tune: {rungs: [0.5, 2]}\nsplit:", ("rungs", "at most 1")),
    ("split:", "tune: {keep: 1}\nsplit:", ("tune.keep",)),
    ("split:", "measures: [dise]\nsplit:", ("'dise'", "Did you mean 'dice'?")),
    ("split:", "measures: [froc]\nsplit:", ("'froc'",)),
    ("split:", "primary: dies/1\nsplit:", ("dies/1",)),
    ("split:", "primary: nsd/1\nsplit:", ("primary nsd/1", "one of the measures: dice")),
    ("split:", "measures: [hd95]\nsplit:", ("margin", "hd95/foreground", "no default")),
    ("split:", "primary: dice@alarms/1\nsplit:", ("dice@alarms/1", "one of the measures")),
    ("[default]", "[default, {name: a, tune: [default]}]\nprimary: dice@alarms/foreground",
     ("expected no arm with tune",)),
    ("segmenter, steps: 10}", "deepmedic, steps: 10}\nprimary: dice@alarms/foreground",
     ("deepmedic keeps no probabilities",)),
    ("name: toy", "1: toy", ("expected a plan in YAML",)),
    (TEXT, "- name\n", ("holds list",)),
    (TEXT, "name: [\n", ("not YAML",)),
    # choices of an arm
    ("[default]", "[default, {name: a, tune: [default]}, {name: b, tune: [a]}]",
     ("tune names 'a'",)),
    ("[default]", "[default, parametric, {name: a, tune: [parametric]}]",
     ("arms.a", "no arm without a generator")),
    ("[default]", "[default, double, {name: a, tune: [default, double]}]",
     ("with real 2",)),
    *(
        ("[default]", f"[{{name: a, {why}}}, default]", ("control 'a': expected an arm that is",))
        for why in ("tune: [default]", "candidate: yes")
    ),
    ("[default]", "[default, {name: a, tune: [default]}]", ("2 subjects for 3 inner folds",)),
]  # fmt: skip
REFUSED_ARMS: list[tuple[str, tuple[str, ...]]] = [
    ("generator: cgan3d, ratio: 1:1", ("arms.1: ratio", "quotes", '"1:1"')),
    ("generator: cgan3d, ratio: 1/1", ("arms.1", "'1/1'", "REAL:SYNTHETIC")),
    ('generator: cgan3d, ratio: "1:0"', ("arms.1", "ratio '1:0'", "generator 'cgan3d'")),
    ('ratio: "1:1"', ("arms.1", "ratio '1:1'", "generator None")),
    ("generator: cgan3d, bank_size: 3y", ("arms.1", "'3y'", "3x")),
    ("generator: cgan3d, schedule: soon", ("arms.1", "'soon'", "anneal")),
    ('generator: cgan3d, schedule: "finetune:10%@80%"', ("arms.1: ", "ratio 0:1")),
    ("schedule: anneal", ("arms.1", "nothing to anneal")),
    ("set: {widht: 5}", ("arms.mine.set.widht", "segmenter has no", "Did you mean 'width'?")),
    ("generator: cgan3d, edit: [elastik]", ("arms.mine: ", "Did you mean 'elastic'?")),
    ("generator: cgan3d, edit: ['shift:mm=3']", ("arms.mine: ", "shift", "max_mm")),
    ("generator: copypaste, lesions: colour=3", ("arms.mine: ", "colour")),
    ("generator: cgan3d, filter: [nice]", ("arms.mine: ", "'nice'")),
    ("augmentation: heavier", ("arms.1: augmentation: unknown", "heavier: yes")),
    ("generator: cgan3d, bank: 3x", ("arms.1: bank: unknown", "bank_size: 3x")),
    (
        "generator: cgan3d, offline: yes, refresh: 4x",
        ("arms.1: refresh 4x: has no effect with offline",),
    ),
    ("generator: cgan3d, refesh: 4x", ("arms.1: refesh: unknown", "Did you mean 'refresh'?")),
    ("seed: 1", ("arms.1: seed: the study sets it",)),
    ("tune: [default], generator: cgan3d", ("arms.1", "tune and generator")),
    ("tune: [mine]", ("arms.mine", "tune names 'mine'")),
    ("generator: cgan4d", ("arms.mine.generator", "'cgan4d'", "Did you mean 'cgan3d'?")),
]
REFUSED_GENERATORS: list[tuple[str, tuple[str, ...]]] = [
    ("{generator: cgan3d, set: {stepps: 5}}", ("generators.g", "stepps", "'steps'")),
    ("{generator: cgan3d, set: {steps: many}}", ("generators.g", "steps=many", "a whole number")),
    ("{generator: cgan3d, recipe: mmgan}", ("generators.g", "'mmgan'", "mmgan2020")),
    ("{generator: cgan4d}", ("^generators.g.generator: 'cgan4d' is not installed", "'cgan3d'?")),
]


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((TEXT.replace(old, new), words) for old, new, words in REFUSED),
        *((with_arm(arm), words) for arm, words in REFUSED_ARMS),
        *(
            (f"{with_arm('generator: g')}generators: {{g: {told}}}\n", words)
            for told, words in REFUSED_GENERATORS
        ),
    ],
)
def test_a_wrong_plan_is_refused_by_file_and_key(tmp_path, text, words):
    file = write(tmp_path, text)
    assert text != TEXT
    with pytest.raises(UsageFault) as refused:
        read_plan(file)
    line = str(refused.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    told = "^" + line.removeprefix(f"{file}: ")
    assert [word for word in words if word not in told] == []


def test_numbers_of_yaml_are_words_where_words_are_meant(tmp_path):
    text = TEXT.replace("sealed: 3", "fold: 0").replace(
        "steps: 10", "steps: 10, set: {width: 8, l1: 0.5, flip: yes, network: x}"
    )
    plan = read_plan(write(tmp_path, text + "regions: {ET: 4, WT: 1+2}\n"))
    assert plan.split.fold == "0"
    assert plan.regions == {"ET": "4", "WT": "1+2"}
    assert plan.host.set == {"width": "8", "l1": "0.5", "flip": "true", "network": "x"}


def test_what_lies_beside_the_plan_is_found_from_anywhere_and_is_the_same_plan(
    tmp_path, monkeypatch
):
    plans = []
    for folder in ("one", "other"):
        (tmp_path / folder / "cases").mkdir(parents=True)
        (tmp_path / folder / "people.csv").touch()
        text = with_arm("generator: parametric, unlabelled: 'nifti:cases'")
        text = text.replace("nnunet:004", "nifti:cases") + "subjects: people.csv\nroot: cases\n"
        plans.append(read_plan(write(tmp_path / folder, text)))
    plan = plans[0]
    assert (plan.data, plan.root) == (f"nifti:{tmp_path}/one/cases", f"{tmp_path}/one/cases")
    assert plan.subjects == f"{tmp_path}/one/people.csv"
    assert plan.arm("mine").unlabelled == (f"nifti:{tmp_path}/one/cases",)
    monkeypatch.chdir(tmp_path / "other")  # where data of the command line starts
    plans.append(read_plan(tmp_path / "one" / "plan.yaml", "nifti:cases"))
    assert plans[2].data == f"nifti:{tmp_path}/other/cases"
    assert len({plan.hash for plan in plans}) == 1
    plan = read_plan(write(tmp_path, TEXT + "subjects: (p\\d+)_\nroot: nowhere\n"), "nnunet:007")
    assert (plan.data, plan.subjects, plan.root) == ("nnunet:007", r"(p\d+)_", "nowhere")


BASE = yaml.safe_load(TEXT.replace("arms: [default]\n", GANS)) | {
    "generators": {"mine": {"generator": "cgan3d", "set": {"steps": 5}}},
    "regions": {"WT": "1+2"},
}
FOR_PEOPLE: dict[str, Any] = {
    "title": "of the report", "open": ["a remark"], "root": "/elsewhere",
    "host.title": "a small one", "arms.1.title": "for people", "arms.1.what": "a sentence",
}  # fmt: skip
NUMBERS: dict[str, Any] = {
    "data": "nnunet:005", "subjects": "(p)", "host.steps": 11, "generators.mine.edit": ["flip"],
    "arms.1.name": "third", "arms.1.ratio": "2:1", "arms.1.host_augmentation": False,
    "split.seed": 1, "regions": {"WT": "1"}, "tune.keep": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(("path", "value"), [*FOR_PEOPLE.items(), *NUMBERS.items()])
def test_whatever_can_change_a_number_is_in_the_hash_and_words_for_people_are_not(path, value):
    document = yaml.safe_load(yaml.safe_dump(BASE))
    *outer, last = path.split(".")
    at = document
    for key in outer:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    at[last] = value
    assert (BenchmarkPlan(**document).hash != BenchmarkPlan(**BASE).hash) == (path in NUMBERS)


@pytest.mark.parametrize(
    "file",
    sorted(file for shelf in ("gains", "sites") for file in (BENCHMARKS / shelf).glob("**/*.yaml")),
    ids=lambda f: f"{f.parent.name}-{f.stem}",
)
def test_our_own_plans_can_be_read(file, monkeypatch):
    examples = BENCHMARKS.parent / "examples"
    for folder in (BENCHMARKS / "blank", BENCHMARKS / "controls", examples / "gansynth_translate"):
        monkeypatch.syspath_prepend(folder)
    names = ("gansynth_blank", "gansynth_controls", "gansynth_translate")
    blank, controls, translate = [import_module(name) for name in names]
    suite = read_suite(file)
    if suite is not None:
        assert file.stem == "suite"
        return
    with (
        registered(blank, "blank"),
        registered(controls, "controls"),
        registered(translate, "translate"),
    ):
        plan = read_plan(file)
    assert plan.name == (file.parent.name if file.stem == "plan" else file.stem)
    assert len(plan.arms) >= 2


PRESETS = (
    *("default", "none", "heavier", "again", "double", "elastic", "copy-paste", "coarse-paste"),
    *("parametric", "whole", "unedited", "interpolated", "dcgan", "cpggan"),
    *("synthetic-only", "pretrain", "random-maps", "target"),
)


def test_the_controls_and_the_ways_to_use_a_gan_are_there_and_no_two_are_the_same(tmp_path):
    assert set(preset_names()) == set(PRESETS)
    arms = read_plan(write(tmp_path, TEXT.replace("default", ", ".join(PRESETS)))).arms
    for arm in arms:
        assert arm.title
        assert arm.what
        assert (Ratio.parse(arm.ratio).p > 0) == (arm.generator is not None)
    words = {"name", "title", "what"}
    assert len({arm.model_dump_json(exclude=words) for arm in arms}) == len(PRESETS)


def test_a_generator_of_the_plan_goes_before_the_presets_and_so_does_any_key_of_an_arm():
    own = {"name": "mine", "from": "pretrain", "schedule": "finetune:50%@60%"}
    elastic = {"from": "elastic", "bank_size": "4x"}
    pasted = {"cgan3d-lesion": {"generator": "copypaste"}}
    plan = plan_of(arms=["default", own, elastic, "coarse-paste"], generators=pasted)
    assert plan.generator("cgan3d-lesion").generator == "copypaste"
    assert plan.generator("cgan3d-lesion").recipe is None
    arm = plan.arm("mine")
    assert (arm.schedule, arm.ratio, arm.generator) == ("finetune:50%@60%", "0:1", "cgan3d")
    assert arm.title == preset("pretrain")["title"]
    assert plan.arm("elastic").bank_size == "4x"
