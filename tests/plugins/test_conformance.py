import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.registry import installed
from gansynth.core.run_folder import read_manifest
from gansynth.core.schema import Condition
from gansynth.core.source import SourceRequest
from gansynth.data.batches import batch_of
from gansynth.fitting.warm_start import named_axes
from gansynth.runtime.options import parse
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource, check_generator
from gansynth.testing._generator_checks import check_realness
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.styles import STYLES
from gansynth_evaluate.memorisation import discriminator_scores
from tests.expected import raises_fault
from tests.offered import offered
from tests.plugins.toys import (
    SCHEMA,
    SIZE,
    TINY,
    Toys,
    boxes,
    build,
    case,
    cases,
    fit_toys,
    learn,
    maps,
    seen,
    step,
    trained,
    weights,
)
from tests.training.zoo.members import differing, newest

GENERATORS = installed().names("generators")
UNLEARNED = ("copypaste", "elastic", "parametric")
"""Generators without networks."""

# -- with every option -----------------------------------------------------------------------------

LESION = {"lesions": ["lesion"], "rim_mm": 2, "local_size": 8}
PLAIN = {**LESION, "residual": False, "standardise": False}
CHANGES = ["brightness", "flip", "translation"]
ADAPTIVE = {"augment": ["flip", "contrast"], "augment_p": "adaptive"}
INSTANCE = {"n_critic": 2, "g_norm": "instance"}
BATCH = {"d_norm": "batch", "texture_head": False}  # layers of a run from before styles
GAN = {"objective": "gan", "d_norm": "instance", "g_norm": "instance"}
WAYS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("dcgan", {"objective": "gan"}, set()),
    ("dcgan", {**GAN, **ADAPTIVE}, set()),
    ("dcgan", {**GAN, "condition": "foreground", "augment": ["flip"], "with_mask": True}, set()),
    ("dcgan", {**INSTANCE, "objective": "wgan", "d_norm": "layer", "with_mask": True}, set()),
    ("dcgan", {**INSTANCE, "with_mask": True, "condition": "class"}, {"discriminator/penalty"}),
    ("dcgan", {**INSTANCE, "augment": CHANGES}, {"discriminator/penalty"}),
    ("cgan3d", {"augment": CHANGES, "augment_p": 1.0}, {"generator/l1"}),
    ("cgan3d", {"loss": "nonsaturating", "pool": 4}, {"generator/feature_matching"}),
    ("cgan3d", {"loss": "hinge"}, set()),
    ("cgan3d", {"loss": "wgan", "gp": 10, "style": "pix2pix"}, {"discriminator/gp"}),
    ("cgan3d", {"n_critic": 2}, set()),
    ("cgan3d", {"n_critic": "alternate", "style": "doncenco", "context": "body"}, set()),
    ("cgan3d", {"n_critic": "alternate", "style": BATCH}, set()),
    ("cgan3d", {"perceptual": 1, "style": {"dropout": 0.5}}, {"perceptor/cross_entropy"}),
    ("cgan3d", {**ADAPTIVE, "l1_lowpass": "foreground", "style": "unet3d"}, set()),
    ("cgan3d", {"gp": 1, "checkpointing": True}, {"discriminator/gp"}),
    ("cgan3d", {"context": 2, "local": 1.0, "lesions": ["lesion"], "local_size": 8}, set()),
    ("cgan3d", {"given": ["T1"], "feature_matching": 0}, set()),
    ("cgan3d-labels", {"given": ["T1"]}, {"generator/dice"}),
    ("cgan3d-lesion", {**PLAIN, "loss": "wgan", "gp": 10}, {"discriminator/local_gp"}),
    ("cgan3d-lesion", {**LESION, "augment": ["flip", "cutout"], "n_critic": "alternate"}, set()),
    ("cgan3d-lesion", {**PLAIN, "stage": "refine"}, {"generator/local_adversarial"}),
    ("cpggan", {"flips": "hv", "augment": CHANGES, "condition": "class"}, {"discriminator/drift"}),
    ("cpggan", {"mode": "roi", "roi_size": 8, "spp": True, "output": "tanh"}, {"generator/value"}),
    ("cpggan", {"n_critic": 2, "mismatch": 0}, {"discriminator/penalty"}),
]
IDS = [f"{kind}-{'-'.join(f'{k}={v}' for k, v in own.items())}" for kind, own, _ in WAYS]
EVERY = pytest.mark.parametrize(("kind", "own", "terms"), WAYS, ids=IDS)


@EVERY
def test_training_moves_every_network_and_axes_fit_its_weights(kind, own, terms):
    generator = build(kind, **own)
    before = weights(generator)
    shapes = {
        f"{name}/{key.replace('parametrizations.weight.original', 'weight')}": value.shape
        for name, net in generator.nets.items()
        for key, value in net.state_dict().items()
    }
    axes = generator.channel_axes()
    assert {key.partition("/")[0] for key in axes} == set(generator.nets)
    for key, (axis, names) in axes.items():
        assert shapes[key][axis] == len(names), key
    report = learn(generator, 8 if kind == "cpggan" else 4, ema_half_life=0)
    assert terms <= set(report.losses)
    assert np.isfinite(list(report.losses.values())).all()
    assert report.rollbacks == 0
    moved = {name for name, new in weights(generator).items() if (new != before[name]).any()}
    assert moved == set(before)


@EVERY
def test_a_batch_that_is_shared_out_comes_to_the_same(kind, own, terms):
    """What is random belongs to samples, so halves average to the whole."""
    batch = own.get("style") == BATCH
    if batch or (own.get("objective") == "gan" and "g_norm" not in own):
        pytest.skip("batch normalisation looks at whoever is in the batch")
    plain = {"spectral_norm": False} if kind.startswith("cgan3d") else {}
    whole, halves = (seen(kind, **{**own, **plain}) for _ in range(2))
    together = step(whole, cases())
    shares = [step(halves, cases()[first : first + 2], first, 4) for first in (0, 2)]
    for one, other in zip(whole.phases(), halves.phases(), strict=True):
        parts = [other.loss(share) for share in shares]
        for name, value in one.loss(together).items():
            mean = sum(part[name].item() for part in parts) / 2
            assert mean == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name


@EVERY
def test_realness_of_a_case_does_not_depend_on_the_others(kind, own, terms):
    generator = seen(kind, **own)
    check_realness(generator, cases())
    one: Any = discriminator_scores(generator, cases())
    plain = {k: v for k, v in own.items() if not k.startswith("augment")}
    for other in (generator, seen(kind, **plain)):  # what it sees is not augmented
        assert np.array_equal(one, discriminator_scores(other, cases()))  # type: ignore[arg-type]
    assert len(np.unique(one)) == len(one)


IMAGES, LABELS = ["image:T1", "image:T2"], [f"label:{v}" for v in ("-1", *SCHEMA.labels)]
LATENTS, KINDS = [f"latent:{i}" for i in range(8)], ["class:a", "class:b"]
WITH_KINDS = {"with_mask": True, "condition": "class"}
BARE_WEIGHTS = {"spectral_norm": False}
NAMED: list[tuple[str, dict[str, Any], str, int, list[str]]] = [
    ("dcgan", WITH_KINDS, "generator/layers.1.weight", 1, [*IMAGES, *LABELS]),
    (
        "dcgan",
        WITH_KINDS,
        "generator/first.weight",
        1,
        [*LATENTS, *KINDS],
    ),
    ("dcgan", WITH_KINDS, "discriminator/class_embedding.weight", 0, KINDS),
    (
        *("cgan3d-lesion", BARE_WEIGHTS, "generator/stem.weight", 1),
        [*LABELS, "hole", "start:T1", "start:T2"],
    ),
    ("cgan3d-lesion", BARE_WEIGHTS, "local/stem.weight", 1, [*IMAGES, *LABELS, "hole"]),
    ("cpggan", {}, "discriminator/image.2.weight", 1, [*IMAGES, "box:lesion", "box:cyst"]),
]


@pytest.mark.parametrize(("kind", "own", "weight", "axis", "names"), NAMED, ids=str)
def test_weights_are_taken_over_by_the_names_of_channels(kind, own, weight, axis, names):
    found = named_axes(build(kind, **own))[weight]
    assert (found[0], list(found[1])) == (axis, names)


# -- the contract ----------------------------------------------------------------------------------

RATE = {"lr_generator": 1e-3}
DRAWN = {"width": 8, "rim_mm": 2, "local_size": 8, **RATE}
CONTRACTS: list[tuple[str, dict[str, Any], tuple[int, ...], int]] = [
    ("cgan3d", {"width": 8, "output": "tanh", "context": 3, **RATE}, (2,), 30),
    ("cgan3d-lesion", {**DRAWN, "stage": "both"}, (2,), 40),
    ("cgan3d-labels", {"width": 8, **RATE}, (2,), 30),
    ("copypaste", {}, (3, 2), 0),
    ("copypaste", {"blend": "none", "object_intensity": 0}, (2,), 0),
    ("copypaste", {"blend": "poisson"}, (2,), 0),
    ("copypaste", {"mixing": "carve"}, (2,), 0),
    ("copypaste", {"image_level": 0.5}, (2,), 0),
    ("parametric", {}, (2,), 0),
    ("elastic", {}, (3, 2), 0),
    ("elastic", {"gamma": 0.4}, (2,), 0),
    ("elastic", {"contrast": 0.3}, (2,), 0),
    ("elastic", {"brightness": 0.5}, (2,), 0),
    ("dcgan", {"objective": "gan", "lr_generator": 2e-3, "condition": "class"}, (2,), 50),
    ("cpggan", {"stage_images": 48, "fade_images": 48, "condition": "class"}, (2,), 0),
]
SLOW_CONTRACTS: list[tuple[str, dict[str, Any], tuple[int, ...], int]] = [
    ("cgan3d", {"width": 8, "d_width": 8, **RATE}, (3,), 40),
    # Sun et al. 2020; their generator has no noise: with dropout it draws more than one image.
    (
        "cgan3d",
        {
            **{"width": 8, "d_width": 8, "style": {**dict(STYLES["mmgan"]), "dropout": 0.2}},
            **{"output": "tanh", "pool": 4, "l1": 10, "lr_generator": 2e-3, "betas": (0, 0.999)},
        },
        (2,),
        40,
    ),
    ("cgan3d-lesion", {**DRAWN, "stage": "refine"}, (2,), 40),
    ("copypaste", {"match": False}, (2,), 0),
    ("copypaste", {"blend": "poisson", "mixing": "carve"}, (3,), 0),
    ("parametric", {"rim_mm": 1, "variety": 0}, (3,), 0),
    ("dcgan", {"objective": "gan", "lr_generator": 2e-3, "with_mask": True}, (3,), 50),
    ("cpggan", {"lr_generator": 2e-3}, (2,), 60),
]
SKIPPED = {
    "blend=none-object_intensity=0": {"seeds matter"},
    "image_level=0.5": {"background kept"},
    "elastic-": {"seeds matter"},
}
# Of what a few steps are too few to learn.
UNLEARNT = {"dcgan": {"faithful", "contrast"}, "cpggan": {"boxes act in place", "boxes matter"}}


@pytest.mark.parametrize(
    ("kind", "own", "ndim", "steps"),
    [*CONTRACTS, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW_CONTRACTS)],
    ids=[
        f"{kind}-{'-'.join(f'{k}={v}' for k, v in own.items())}"
        for kind, own, *_ in (*CONTRACTS, *SLOW_CONTRACTS)
    ],
)
def test_generator_keeps_the_contract(kind, own, ndim, steps, request):
    def briefly(generator: Any, known: Any, steps: int) -> object:
        batch, loop = batch_of(known[:4], generator.context), {"batch_size": 4, "steps": steps}
        options = FitOptions.model_validate({**loop, "precision": "fp32"})
        return train(generator, lambda *_: batch, options)

    options = {**TINY.get(kind, {}), **own}
    fit: Any = {"fit": briefly} if kind in ("dcgan", "cpggan") else {}
    cls = installed().generator(kind)
    report = check_generator(cls, options=options, ndim=ndim, steps=steps, **fit)
    verdicts: dict[str, set[str]] = {"failed": set(), "skipped": set(), "passed": set()}
    for check in report.checks:
        verdicts[check.verdict].add(check.name.partition(": ")[2])
    assert verdicts["failed"] <= UNLEARNT.get(kind, set()), report
    if kind in UNLEARNED:
        name = request.node.callspec.id
        wanted = next((v for k, v in SKIPPED.items() if name.endswith(k)), set())
        assert verdicts["skipped"] == wanted


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "way_out"),
    [
        ("cgan3d", {"gp": "1", "style": "{d_norm: batch}"}, "another d_norm"),
        ("cgan3d", {"style": "{narrow: none}"}, "skip=concat"),
        ("cgan3d", {"style": "{narrow: none, skip: concat, up: transposed}"}, "not up=transposed"),
        ("cgan3d", {"loss": "wgan", "augment_p": "adaptive", "augment": "flip"}, "wgan has none"),
        ("cgan3d", {"pool": "2", "given": "T1"}, "pool=0"),
        ("cgan3d", {"augment": "flap"}, "'flip'"),
        ("cgan3d", {"standardise": "yes", "output": "tanh"}, "linear"),
        ("cgan3d", {"context": "bodies"}, "body:CHANNEL"),
        ("cgan3d", {"style": "isola"}, "own, pix2pix, mmgan, unet3d, doncenco"),
        ("cgan3d", {"fit_edits": "transplant"}, "feature_matching=0"),
        (
            "cgan3d",
            {"fit_edits": "flip", "given": "T1", "feature_matching": "0"},
            "leave given out",
        ),
        ("dcgan", {"d_norm": "batch"}, "instance, layer or none"),
        ("dcgan", {"augment_p": "adaptive"}, "a number, or objective=gan"),
        ("dcgan", {"augment_p": "2"}, "less than or equal to 1"),
        ("dcgan", {"augment": "[brigthness]"}, "'brightness'"),
        ("cpggan", {"minibatch": "1"}, "minibatch=2 or more, or mismatch=0"),
    ],
    ids=str,
)
def test_contradicting_options_are_refused_with_a_way_out(kind, settings, way_out):
    with raises_fault("options.value-invalid", names=way_out) as caught:
        parse(installed().generator(kind).Options, settings)
    assert "\n" not in str(caught.value)


NO_CLASSES, NO_BOXES, NO_LABELS = (
    {"classes": ()},
    {"box_classes": ()},
    {"labels": {"background": 0}},
)


@pytest.mark.parametrize(
    ("kind", "own", "schema", "expected"),
    [
        ("cgan3d", {"given": ["FLAR"]}, {"channels": ("T1", "FLAIR")},
         "cgan3d.given-channel-unknown"),
        ("cgan3d", {"given": ["T1", "T2"]}, {}, "cgan3d.all-channels-given"),
        ("cgan3d-labels", {"given": ["FLAR"]}, {"channels": ("T1", "FLAIR")},
         "cgan3d.given-channel-unknown"),
        ("cgan3d-lesion", {"lesions": ["leson"]}, {}, "connected-components.lesion-label-unknown"),
        ("cgan3d-lesion", {}, NO_LABELS, "connected-components.no-foreground"),
        ("dcgan", {"condition": "class"}, NO_CLASSES, "dcgan.source-without-classes"),
        ("dcgan", {"condition": "foreground"}, NO_LABELS, "dcgan.source-without-label-maps"),
        ("cpggan", {"condition": "class"}, NO_CLASSES, "cpggan.source-without-classes"),
        ("cpggan", {}, NO_BOXES, "cpggan.source-without-boxes"),
        ("dcgan", {}, {"size": ()}, "dcgan.source-without-one-size"),
        *(
            ("cpggan", {}, {"size": size}, "cpggan.size-not-power-of-two")
            for size in ((), (48, 48), (64, 32), (2, 2), (16, 16, 16))
        ),
    ],
    ids=str,
)  # fmt: skip
def test_cases_of_another_kind_than_it_learns_from_are_refused(kind, own, schema, expected):
    size, changes = schema.get("size", SIZE), {k: v for k, v in schema.items() if k != "size"}
    with raises_fault(expected):
        build(kind, size, replace(SCHEMA, **changes), **own)


@pytest.mark.parametrize("kind", ["dcgan", "cpggan"])
def test_crops_smaller_than_what_it_draws_are_refused(kind):
    generator = seen(kind)
    crops = [replace(c, image=c.image[:, :8, :8], labels=None) for c in cases()]
    (judge,) = (p for p in generator.phases() if p.player == "discriminator")
    with raises_fault(f"{kind}.patch-not-whole-image", names="patch=[8, 8]"):
        judge.loss(step(generator, crops))


@pytest.mark.parametrize(
    ("kind", "own", "lacks", "expected"),
    [
        ("dcgan", {"condition": "class"}, "label_class", "dcgan.case-without-condition"),
        ("dcgan", {"condition": "foreground"}, "labels", "dcgan.case-without-condition"),
        ("dcgan", {"with_mask": True}, "labels", "dcgan.case-without-label-map"),
        ("cpggan", {}, "boxes", "cpggan.case-without-boxes"),
        ("cpggan", {"condition": "class"}, "label_class", "cpggan.case-without-class"),
    ],
)
def test_a_case_that_lacks_what_is_learnt_is_named(kind, own, lacks, expected):
    bad: Any = {lacks: None}
    with raises_fault(expected, names="case 'c1'"):
        build(kind, **own).observe([case(), case(1, **bad)])


INCOMPLETE = "schema.condition-incomplete"
FAR = boxes((0, 0, 2, 2), labels=(2,))
NEAR = boxes((2, 2, 6, 6))
LACKING: list[dict[str, Any]] = [{"background": None}, {"lesion": None}, {"donor": None}]
BARE = Condition(labels=maps((16, 16)))
WHOLE = replace(
    BARE,
    background=case().image,
    lesion=np.where(case().labels == 4, np.int16(4), np.int16(0)),
    donor=case(2).image,
)


@pytest.mark.parametrize(
    ("kind", "own", "asked", "expected", "names"),
    [
        ("cgan3d", {}, Condition(), INCOMPLETE, "no labels"),
        ("cgan3d", {"given": ["T1"]}, BARE, INCOMPLETE, "no given"),
        ("cgan3d", {"given": ["T1"]}, replace(BARE, given=case().image),
         "cgan3d.given-channel-count-differs", "2 channels"),
        *(
            ("cgan3d-lesion", LESION, replace(WHOLE, **lacking), INCOMPLETE,
             f"no {next(iter(lacking))}")
            for lacking in LACKING
        ),
        ("dcgan", {"condition": "class"}, Condition(label_class=2),
         "dcgan.condition-class-unknown", "class 2"),
        ("cpggan", {"condition": "class"}, Condition(label_class=2),
         "cpggan.condition-class-unknown", "class 2"),
        ("cpggan", {}, Condition(boxes=FAR), "cpggan.box-class-unknown", "class 2"),
        ("cpggan", {"mode": "roi", "roi_size": 8}, Condition(boxes=NEAR),
         "cpggan.condition-without-background", ""),
        ("copypaste", {}, BARE, INCOMPLETE, "no background"),
        ("parametric", {}, BARE, INCOMPLETE, "no background"),
        ("elastic", {}, BARE, "elastic.condition-without-moved-image", ""),
    ],
    ids=str,
)  # fmt: skip
def test_a_condition_without_what_is_needed_is_refused(kind, own, asked, expected, names):
    with raises_fault(expected, names=names):
        seen(kind, **own).sample([asked], [0])


@pytest.mark.parametrize(
    ("kind", "own", "lacks"),
    [
        ("dcgan", {"with_mask": True}, "labels"),
        ("dcgan", {"condition": "class"}, "classes"),
        ("dcgan", {"condition": "foreground"}, "labels"),
        ("cgan3d", {}, "labels"),
        ("cgan3d", {"context": 2}, "context"),
        ("cpggan", {}, "box_labels"),
        ("cpggan", {"condition": "class"}, "classes"),
    ],
)
def test_without_what_it_is_told_a_discriminator_is_not_asked(kind, own, lacks):
    generator = seen(kind, **own)
    batch = batch_of(cases(), generator.context)
    assert generator.realness(batch, generator.stages()[-1]) is not None
    setattr(batch, lacks, None)
    assert generator.realness(batch, generator.stages()[-1]) is None


@pytest.mark.parametrize("kind", ["dcgan", "cpggan"])
def test_a_class_can_be_asked_for_and_is_else_as_frequent_as_in_training(kind):
    spec = replace(SCHEMA, classes=("a", "b", "c"))
    generator = trained(build(kind, spec=spec, condition="class"), 12)

    def classes(asked: Sequence[Condition], seeds: Sequence[int]) -> tuple[list[Any], list[str]]:
        drawn = generator.sample(asked, seeds)
        told = [s.notes.get("class") or spec.classes[s.label_class] for s in drawn]
        return [s.image for s in drawn], told

    (one, other), told = classes([Condition(label_class=k) for k in (0, 1)], [4, 4])
    assert told == ["a", "b"]
    assert not np.allclose(one, other)
    _, told = classes([Condition()] * 48, range(48))
    assert told.count("c") == 0
    assert 0.25 < told.count("a") / 48 < 0.75


# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "own", "asked", "offset"),
    [
        ("dcgan", {}, Condition(), (3000, -7)),
        ("cgan3d", {"standardise": True}, BARE, (3000, -7)),
        ("cgan3d-lesion", {**PLAIN, "standardise": True}, WHOLE, (0, 0)),
        ("cpggan", {}, Condition(boxes=NEAR), (3000, -7)),
    ],
    ids=["dcgan", "cgan3d", "lesion", "cpggan"],
)
def test_units_of_each_channel_have_no_influence(kind, own, asked, offset):
    spec, drawn = replace(SCHEMA, outside_fill=None), []
    for gain, shift in (((1, 1), (0, 0)), ((500, 0.01), offset)):
        by, to = (np.array(each, np.float32)[:, None, None] for each in (gain, shift))
        known = [replace(c, image=c.image * by + to) for c in cases()]
        generator = seen(kind, *known, spec=spec, **own)
        generator.load_state(json.loads(json.dumps(generator.learnt)))
        losses = generator.phases()[0].loss(step(generator, known))
        images = {key: getattr(asked, key) for key in ("background", "donor")}
        told = {key: image * by + to for key, image in images.items() if image is not None}
        (sample,) = generator.sample([replace(asked, **told)], [7])
        drawn.append(([v.item() for v in losses.values()], (sample.image - to) / by))
    (one, image), (other, scaled) = drawn
    assert one == pytest.approx(other, rel=2e-3)
    np.testing.assert_allclose(image, scaled, atol=5e-3)
    assert abs(image.mean()) < 2  # even untrained ones lie where the images do


# -- runs ------------------------------------------------------------------------------------------


# Of generators that are not here: 2D and 3D, with their own defaults.
DATA = {"cpggan": ("boxes",)}
OWN = {k: {**v, "d_levels": 1} if k.startswith("cgan3d") else v for k, v in TINY.items()}
LOOP = {"batch_size": 2, "precision": "fp32", "log_every": 1, "sample_every": 100, "diversity": 0}
RUNS = [(kind, where) for kind in GENERATORS for where in DATA.get(kind, ("2", "3"))]
LONG = [(kind, "3") for kind in ("dcgan", "copypaste", "parametric", "cgan3d-labels")]


def quick(values: Sequence[Any], long: Sequence[Any]) -> list[Any]:
    """Values for ``parametrize``; those that take long are slow."""
    slow = pytest.mark.slow
    return [pytest.param(v, marks=slow) if v in long else v for v in values]


def learns(kind: str) -> bool:
    return kind in TINY or kind not in UNLEARNED


@pytest.fixture(scope="module", autouse=True)
def _toys():
    with offered("toys", sources={"toys": Toys}):
        yield


def fit_one(kind: str, where: str, out: Path, **changes: Any) -> dict[str, Any]:
    loop = {"steps": 4, **LOOP} if learns(kind) else {}
    request = SourceRequest("toys", where)
    return fit_toys(kind, request, out, **{**OWN.get(kind, {}), **loop, **changes})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Callable[[str, str], Path]:
    """The folder of a run of four steps, fitted when it is first asked for. Do not change it."""
    home = tmp_path_factory.mktemp("runs")

    def run(kind: str, where: str) -> Path:
        out: Path = home / f"{kind}-{where}"
        if not out.exists():
            fit_one(kind, where, out)
        return out

    return run


@pytest.fixture(params=quick(RUNS, LONG), ids="-".join)
def run(request, fitted) -> Any:
    kind, where = request.param
    return SimpleNamespace(kind=kind, where=where, folder=fitted(kind, where))


def digest(folder: Path) -> str:
    found: str = read_manifest(folder)["weights"]["sha256"]
    return found


def test_a_run_is_complete_and_has_the_lineage_and_options_of_its_fit_and_no_path(run):
    manifest = read_manifest(run.folder)
    assert {case["id"] for case in manifest["lineage"]["cases"]} == set(ToySource().train_ids)
    assert (manifest["complete"], manifest["generator"]) == (True, run.kind)
    assert manifest["steps"] == (4 if learns(run.kind) else 0)
    generator = load_run(run.folder, "cpu").generator
    assert generator.capabilities.to_json() == manifest["capabilities"]
    assert manifest["options"].items() >= OWN.get(run.kind, {}).items()
    texts = [(run.folder / name).read_text() for name in ("config.yaml", "manifest.json")]
    assert not any(str(run.folder.parent) in text for text in texts)
    if not learns(run.kind):
        weights = list(run.folder.rglob("*.safetensors"))
        assert all(path.stat().st_size < 64 for path in weights)  # a header


@pytest.mark.parametrize("precision", quick(["fp32", "bf16"], ["bf16"]))
@pytest.mark.parametrize(
    "run", quick(RUNS, [one for one in RUNS if one[1] == "3"]), ids="-".join, indirect=True
)
def test_a_run_that_was_cut_off_equals_one_that_was_not(run, tmp_path, precision):
    whole, cut, changes = run.folder, tmp_path / "cut", {}
    if learns(run.kind):
        if precision == "bf16":
            whole, changes = tmp_path / "whole", {"precision": precision}
            fit_one(run.kind, run.where, whole, **changes)
        fit_one(run.kind, run.where, cut, steps=2, **changes)
        torch.manual_seed(2)  # whatever state another process starts in
        assert fit_one(run.kind, run.where, cut, **changes)["resumed_at"] == 2
        assert {name.partition("/")[0] for name in newest(cut)} >= {"net", "ema", "optim"}
        assert differing(newest(cut), newest(whole)) == []
    else:
        assert fit_one(run.kind, run.where, cut)["steps"] is None
    assert digest(cut) == digest(whole)
