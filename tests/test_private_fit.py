"""A private fit: who is drawn, what it refuses, its key, and that all it spends is counted."""
# mypy: disallow-untyped-calls=False

import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth import checkpoint, fitting
from gansynth.curves import read_metrics
from gansynth.errors import IntegrityFault, UsageFault
from gansynth.generator import Stage
from gansynth.job import resolve
from gansynth.parallel import Team
from gansynth.previews import Preview
from gansynth.privacy import KEY_FILE, Terms, spent
from gansynth.private import Mechanism
from gansynth.private_fit import PeopleBatches
from gansynth.reporting import NullReporter
from gansynth.run import load_run, read_manifest
from gansynth.show import describe_run
from gansynth.sources.base import SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.testing import ToySource
from gansynth_dcgan.private import PrivateObjective

accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
OWN: dict[str, Any] = {
    **{"width": 4, "latent": 4, "objective": "gan", "diversity": 0},
    **{"privacy_noise": 1.0, "privacy_clip": 0.5},
}
LOOP: dict[str, Any] = {"steps": 6, "batch_size": 4, "sample_every": 100}
"""Twelve people, of whom a step draws four; a checkpoint every two steps."""


@pytest.fixture(scope="module")
def fit(toy_fit):
    def run(out: Path, own: dict[str, Any] | None = None, **changes: Any) -> Any:
        chosen = {**LOOP, **changes}
        return toy_fit(out, generator="dcgan", own={**OWN, **(own or {})}, edits=None, **chosen)

    return run


@pytest.fixture(scope="module")
def ended(fit, tmp_path_factory) -> tuple[Path, Any]:
    """A private run that came to its end, and what the fit reported. Do not change it."""
    out: Path = tmp_path_factory.mktemp("private") / "run"
    return out, fit(out)


@pytest.fixture
def done(ended) -> Path:
    return Path(ended[0])


@pytest.fixture(scope="module")
def killed(fit, tmp_path_factory) -> Path:
    """A run that was killed after step 3 of 6, with a checkpoint of step 2. Do not change it."""
    out: Path = tmp_path_factory.mktemp("killed") / "run"

    def kill(self, step):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Preview, "__call__", kill)
        with pytest.raises(Killed):
            fit(out, sample_every=3)
    return out


@pytest.fixture
def cut(killed, tmp_path) -> Path:
    """The killed run, to be gone on with."""
    return Path(shutil.copytree(killed, tmp_path / "cut"))


class Killed(BaseException):
    """Stands for kill -9: nothing is written after it."""


def newest(out: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(out / "checkpoints")
    assert found is not None
    return found.tensors


# -- who is drawn ----------------------------------------------------------------------------------


class Pairs(ToySource):
    """Two cases of each person; the last has four."""

    def subject(self, case_id: str) -> str:
        return f"p{min(int(case_id[4:]) // 2, 4)}"


def people_of(source: ToySource) -> dict[str, tuple[str, ...]]:
    people: dict[str, tuple[str, ...]] = {}
    for case in source.train_ids:
        people[source.subject(case)] = (*people.get(source.subject(case), ()), case)
    return people


def batches(rate: float = 0.4, key: bytes = b"k" * 32) -> tuple[PeopleBatches, ToySource]:
    source = Pairs(2)
    people = people_of(source)
    agreed = Terms(1.0, 1.0, rate, len(people), 0.01)
    made = Mechanism(1.0, None, 1.0, None, agreed, key=key)
    crops = CaseBatches(CaseCache(source), source.space)
    return PeopleBatches(made, crops, people), source


def drawn(of: PeopleBatches, source: ToySource, step: int) -> list[str]:
    """Which cases a step draws; toy cases are as large as their crops."""
    known = {source.load(i).image.tobytes(): i for i in source.train_ids}
    return [known[image.numpy().tobytes()] for image in of(step, Stage(), range(2)).image]


def test_how_many_are_drawn_is_binomial():
    found, _ = batches()
    counts = [len(found(step, Stage(), range(2)).image) for step in range(800)]
    assert np.mean(counts) == pytest.approx(5 * 0.4, abs=4 * np.sqrt(5 * 0.24 / 800))
    assert np.var(counts) == pytest.approx(5 * 0.24, rel=0.2)
    assert {0, 5} <= set(counts)


def test_each_person_is_drawn_at_the_rate_and_once_a_step_however_many_cases_they_have():
    found, source = batches()
    times: Counter[str] = Counter()
    for step in range(400):
        who = [source.subject(case) for case in drawn(found, source, step)]
        assert len(set(who)) == len(who)
        times.update(who)
    assert set(times) == {f"p{i}" for i in range(5)}
    for count in times.values():
        assert count == pytest.approx(160, abs=4 * np.sqrt(400 * 0.24))


def test_whether_one_is_drawn_says_nothing_of_another():
    found, source = batches()
    rows = np.zeros((400, 5))
    for step in range(400):
        for case in drawn(found, source, step):
            rows[step, int(source.subject(case)[1:])] = 1
    apart = np.asarray(np.corrcoef(rows.T))[np.triu_indices(5, 1)]
    assert np.abs(apart).max() < 0.2


def test_every_case_of_a_person_has_its_turn():
    found, source = batches(rate=1.0)
    seen = Counter(case for step in range(60) for case in drawn(found, source, step))
    assert set(seen) == set(source.train_ids)


def test_a_step_nobody_is_drawn_in_has_no_image():
    found, source = batches(rate=1e-9)
    image = found(0, Stage(), range(2)).image
    assert image.shape == (0, 2, *source.space.size)
    assert image.dtype == torch.float32


def test_draws_are_those_of_the_key_and_of_the_step():
    (one, source), (other, _) = batches(), batches(key=b"l" * 32)
    first = [drawn(one, source, step) for step in range(12)]
    assert first == [drawn(one, source, step) for step in range(12)]
    assert first != [drawn(other, source, step) for step in range(12)]
    one.mechanism.back = 2
    assert [drawn(one, source, step) for step in range(10)] == first[2:]


# -- what it comes to ------------------------------------------------------------------------------


def test_epsilon_is_opacus_own_in_manifest_curve_and_report(ended):
    out, report = ended
    accountant = accountants.RDPAccountant()
    for _ in range(6):
        accountant.step(noise_multiplier=1.0, sample_rate=4 / 12)
    manifest = read_manifest(out)
    promised = spent(manifest)
    assert promised is not None
    assert promised["epsilon"] == pytest.approx(accountant.get_epsilon(delta=0.1 / 12))
    assert report["privacy"] == promised
    assert manifest["privacy"]["steps"] == 6
    curve = read_metrics(out / "metrics.csv")["privacy/epsilon"]
    assert curve[-1] == pytest.approx(promised["epsilon"], rel=1e-5)
    assert curve == sorted(set(curve))


def test_nothing_of_real_cases_is_logged(done):
    columns = set(read_metrics(done / "metrics.csv"))
    assert columns == {
        *("step", "images", "seconds", "rate", "privacy/epsilon"),
        *("generator/adversarial", "discriminator/synthetic"),
    }


def test_an_epsilon_that_is_asked_for_is_kept(fit, tmp_path):
    fit(tmp_path / "run", {"privacy_noise": "null", "privacy_epsilon": 5}, log_every=6)
    promised = spent(read_manifest(tmp_path / "run"))
    assert promised is not None
    assert 4.9 < promised["epsilon"] <= 5


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({}, {"mean and deviation"}),
        ({"privacy_units": [0, 1]}, set()),
        ({"output": "tanh"}, {"the window"}),
    ],
    ids=["learnt", "known", "window"],
)
def test_what_is_learnt_without_noise_is_named(toy_source, own, named):
    settings = {k: str(v) for k, v in {**OWN, **own, "batch_size": 4}.items()}
    job = resolve("dcgan", SourceRequest("toy", "2"), settings, None, "cpu")
    assert job.generator.privacy is not None
    told = job.generator.privacy.uncovered
    learnt = {words for words in ("mean and deviation", "the window") if _any(told, words)}
    assert learnt == named
    for words in ("each case counts as a subject", "manifest.json", "sheets", "how the source"):
        assert _any(told, words)
    job.generator.observe(job.observed(np.random.default_rng(0)))
    seen = job.generator.state()["intensities"]["mean"] != [0.0, 0.0]
    assert seen == ("mean and deviation" in named)


def _any(lines: tuple[str, ...], words: str) -> bool:
    return any(words in line for line in lines)


def test_samples_are_drawn_and_shown_as_ever(done, run_cli):
    shown = run_cli("show", done)
    assert shown.exit_code == 0, shown.output
    for words in ("privacy.epsilon", "privacy.clip", "privacy does not cover  manifest.json"):
        assert words in shown.stdout
    assert KEY_FILE not in shown.stdout
    sampled = run_cli("sample", done, "-n", "2", "--device", "cpu")
    assert sampled.exit_code == 0, sampled.output


def test_a_fit_without_privacy_says_nothing_of_it(fit, tmp_path):
    own = {"privacy_noise": "null", "privacy_clip": "null", "d_norm": "layer"}
    report = fit(tmp_path / "run", own, steps=2)
    assert "privacy" not in report
    assert spent(read_manifest(tmp_path / "run")) is None
    assert not (tmp_path / "run" / KEY_FILE).exists()
    assert "privacy/epsilon" not in read_metrics(tmp_path / "run" / "metrics.csv")


# -- the key, and going on -------------------------------------------------------------------------


def test_the_key_is_for_its_owner_alone_and_nowhere_else(killed, done):
    assert not (done / KEY_FILE).exists()
    key = killed / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    text = key.read_text()
    assert len(text) == 64
    for path in (p for p in killed.rglob("*") if p.is_file() and p != key):
        assert text.encode() not in path.read_bytes()
        assert bytes.fromhex(text) not in path.read_bytes()
    privacy = describe_run(killed)["privacy"]
    assert privacy is not None
    assert privacy["key"] == str(key)


def test_a_killed_run_ends_as_if_it_had_not_been_to_the_bit(fit, cut, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(cut / KEY_FILE, whole)
    assert fit(cut, sample_every=3)["resumed_at"] == 2
    fit(whole, sample_every=3)
    one, two = newest(cut), newest(whole)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert read_manifest(cut)["privacy"] == read_manifest(whole)["privacy"]
    curves = [read_metrics(folder / "metrics.csv") for folder in (cut, whole)]
    for column in set(curves[0]) - {"seconds"}:
        assert curves[0][column] == curves[1][column]
    assert not (cut / KEY_FILE).exists()


def test_another_key_has_other_noise(fit, cut, done):
    """Seeds are told to everyone who has the run; what comes from them is no secret."""
    one, two = newest(cut), newest(done)
    assert any(not torch.equal(one[k], two[k]) for k in one if k.startswith("net/discriminator"))
    assert (
        read_manifest(cut)["config"]["fit"]["seed"] == read_manifest(done)["config"]["fit"]["seed"]
    )


@pytest.mark.parametrize(
    ("text", "said"), [("no key", "damaged, expected 64 hexa"), ("", "missing, expected the key")]
)
def test_without_its_key_a_cut_run_does_not_go_on(fit, cut, text, said):
    (cut / KEY_FILE).unlink()
    if text:
        (cut / KEY_FILE).write_text(text)
    with pytest.raises(IntegrityFault, match=rf"privacy\.key: {said}"):
        fit(cut, sample_every=3)


def test_a_run_that_is_done_may_be_trained_further_and_spends_more(done, fit, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    fit(tmp_path / "run", steps=7)
    before, after = (spent(read_manifest(folder)) for folder in (done, tmp_path / "run"))
    assert before is not None
    assert after is not None
    assert after["epsilon"] > before["epsilon"]
    assert read_manifest(tmp_path / "run")["privacy"]["steps"] == 7
    assert not (tmp_path / "run" / KEY_FILE).exists()


def test_steps_that_were_taken_back_are_counted_and_not_drawn_again(fit, tmp_path, monkeypatch):
    used: list[int] = []
    plain = PrivateObjective.real

    def real(self, step):
        used.append(self.gan.privacy.number(step.index))
        plain(self, step)
        if len(used) == 4:  # of index 3; there is a checkpoint of step 2
            next(self.gan.nets["discriminator"].parameters()).grad[:] = torch.nan

    monkeypatch.setattr(PrivateObjective, "real", real)
    report = fit(tmp_path / "run", log_every=6)
    assert (report["rollbacks"], report["steps"]) == (1, 6)
    assert used == list(range(8))
    found = read_manifest(tmp_path / "run")["privacy"]
    assert found["steps"] == 8
    terms = Terms(**{k: found[k] for k in ("noise", "clip", "rate", "people", "delta", "target")})
    assert found["epsilon"] == terms.epsilon(8) > terms.epsilon(6)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "loop", "said"),
    [
        ({}, {"accumulate": 2}, "accumulate=2: a private step is done at once"),
        ({}, {"batch_size": 13}, "batch_size=13: the source has 12 training subject"),
        ({}, {"patch": [16, 16]}, "patch=.16, 16.: a private fit"),
        ({"privacy_delta": 0.1}, {}, "privacy_delta=0.1: who publishes one of 12"),
        ({"objective": "wgan-gp"}, {}, "use objective=gan or wgan"),
        ({"d_norm": "batch"}, {}, "d_norm=batch mixes people"),
        ({"with_mask": True}, {}, "leave with_mask out"),
        ({"condition": "foreground"}, {}, "use condition=none"),
        ({"augment": "flip", "augment_p": "adaptive"}, {}, "augment_p=adaptive follows"),
        ({"privacy_epsilon": 3}, {}, "give one of them"),
        ({"privacy_noise": "null"}, {}, "without noise there is none"),
        ({"privacy_units": [0, 0]}, {}, "a deviation is above 0"),
        ({"privacy_units": [0, 1], "output": "tanh"}, {}, "use output=linear"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:20],
)
def test_what_would_break_the_promise_is_refused_in_one_line(fit, tmp_path, own, loop, said):
    with pytest.raises(UsageFault, match=said) as caught:
        fit(tmp_path / "run", own, **loop)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    # They would wait for each other before anything else.
    monkeypatch.setattr(fitting, "team", lambda device: nullcontext(Team()))
    with pytest.raises(UsageFault, match="torchrun with 2 processes"):
        fit(tmp_path / "run")


def test_another_runs_weights_are_no_beginning(toy_source, done, tmp_path):
    settings = {k: str(v) for k, v in {**OWN, "batch_size": 4}.items()}
    with pytest.raises(UsageFault, match="expected a private run to start from nothing"):
        fitting.fit(
            "dcgan",
            SourceRequest("toy", "2"),
            tmp_path / "run",
            settings=settings,
            edits=None,
            device="cpu",
            init_from=done,
            reporter=NullReporter(),
        )


def test_other_terms_are_no_way_to_go_on(fit, tmp_path):
    wanted = {"privacy_noise": "null", "privacy_epsilon": 5}
    fit(tmp_path / "run", wanted, steps=2)
    with pytest.raises(UsageFault, match=r"begun on other terms of privacy \(noise is .*, was"):
        fit(tmp_path / "run", wanted, steps=4)
    with pytest.raises(UsageFault, match=r"options\.privacy_clip is 1\.0, was 0\.5"):
        fit(tmp_path / "run", {**wanted, "privacy_clip": 1.0}, steps=2)


def test_a_conditional_generator_is_refused(toy_fit, tmp_path):
    with pytest.raises(UsageFault, match=r"cgan3d cannot be private.*fit dcgan"):
        toy_fit(tmp_path / "run", privacy_noise=1.0)


def test_a_dry_run_costs_it_and_leaves_no_key(fit, tmp_path):
    report = fit(tmp_path / "run", dry_run=True)
    assert report["seconds_per_step"] > 0
    assert "case by case" in report["why"]
    assert not (tmp_path / "run").exists()


def test_a_run_is_opened_without_the_library(done, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "opacus"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opacus", None)
    assert load_run(done, "cpu").generator.privacy is not None


@pytest.mark.slow
def test_a_fit_that_is_really_killed_goes_on_to_the_same_end(tmp_path):
    settings = {**OWN, "batch_size": 4, "steps": 150, "checkpoint_every": 5, "sample_every": 1000}
    command = [sys.executable, "-m", "gansynth_cli", "fit", "dcgan", "--data", "example:2d"]
    command += ["--device", "cpu", *(f"--set={k}={v}" for k, v in settings.items()), "-o"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    with subprocess.Popen([*command, str(cut)], stderr=subprocess.DEVNULL) as child:
        while not (cut / "checkpoints" / "step-00000010").exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
    assert not read_manifest(cut)["complete"]
    whole.mkdir()
    shutil.copy(cut / KEY_FILE, whole)
    for out in (cut, whole):
        subprocess.run([*command, str(out)], check=True, capture_output=True)
    one, two = newest(cut), newest(whole)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert read_manifest(cut)["privacy"] == read_manifest(whole)["privacy"]
    assert read_manifest(cut)["privacy"]["steps"] == 150
