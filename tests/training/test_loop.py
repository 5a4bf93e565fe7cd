import csv
import json
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gansynth.core.generator import Batch, Generator, GeneratorOptions, Phase, Stage
from gansynth.core.schema import Schema
from gansynth.report.figures import read_metrics
from gansynth.runtime.files import digest_of, sha256_file
from gansynth.training import checkpoint
from gansynth.training import loop as training
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loggers import CLOCKS
from gansynth.training.loop import FitOptions, _stage_at, train
from tests.expected import raises_fault
from tests.recorder import Recorder
from tests.training.zoo.members import differing, newest


class Duel(Generator):
    """Two tiny players; notes who plays in which stage, and may fall ill."""

    name = "duel"
    ill_at: int | None = None
    overflow_at: int | None = None
    only: tuple[str, ...] = ("generator", "critic")
    schedule: tuple[Stage, ...] = (Stage(),)

    def networks(self):
        self.played: list[tuple[Stage, list[str]]] = []
        return {
            "generator": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.2)),
            "critic": spectral_norm(nn.Conv2d(2, 1, 3)),
        }

    def phases(self):
        phases = (Phase("generator", self._paint), Phase("critic", self._judge))
        return [p for p in phases if p.player in self.only]

    def stages(self):
        return self.schedule

    def _paint(self, step):
        self._note(step)
        fake = self.nets["generator"](torch.randn(1, 1, 9, 9, generator=step.rng))
        loss = self.nets["critic"](fake).square().mean() + (fake - 1).square().mean()
        if step.index == self.overflow_at:
            loss = loss + (loss * 0).sqrt()  # 0, and its gradient is not a number
        return {"realism": loss * (float("nan") if step.index == self.ill_at else 1)}

    def _judge(self, step):
        self._note(step)
        return {"gap": (self.nets["critic"](step.batch.image) - 1).square().mean()}

    def _note(self, step):
        nets = self.nets.items()
        learns = [n for n, net in nets if any(p.requires_grad for p in net.parameters())]
        self.played.append((step.stage, learns))

    def sample(self, conditions, seeds):
        return []


def duel(**changes: Any) -> Duel:
    cls = type("Duel", (Duel,), changes)
    torch.manual_seed(3)
    made = cls(Schema(("a", "b"), {"background": 0}, (1.0, 1.0), "HW"), (9, 9), GeneratorOptions())
    assert isinstance(made, Duel)
    return made


def noise(step: int, stage: Stage, which: range) -> Batch:
    def draw(number: int) -> torch.Tensor:
        return torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(100 * step + number))

    return Batch(torch.stack([draw(number) for number in which]))


def run(folder: Path | None, generator: Duel | None = None, batches: Any = noise, **changes: Any):
    """Train a duel for four steps, or as is asked."""
    more = {k: changes.pop(k) for k in ("resume", "callbacks") if k in changes}
    plain = {"steps": 4, "batch_size": 1, "precision": "fp32", "checkpoint_every": 2}
    options = FitOptions.model_validate({**plain, "log_every": 1, **changes})
    return train(generator or duel(), batches, options, folder=folder, **more)


@pytest.mark.parametrize(
    ("key", "value"),
    [("device", "NVIDIA H100"), ("tf32", "convolutions"), ("precision", "bf16"), ("threads", 99)],
)
def test_what_keeps_a_resumed_run_from_being_the_same_is_told(tmp_path, key, value):
    run(tmp_path, steps=1)
    state = tmp_path / "checkpoints" / "step-00000001" / "state.json"
    was = json.loads(state.read_text())
    changed = {**was, key: value}
    state.write_text(json.dumps({**changed, "digest": digest_of(changed)}))
    said = f"resumed with {key} {was[key]} instead of {value}: it continues, but not bit for bit"
    assert run(tmp_path, steps=2).notes == [said]


def test_a_run_says_what_it_resumes_from_and_starts_anew_where_it_must_not(tmp_path):
    reporter = Recorder()
    run(tmp_path, steps=2)
    run(tmp_path, steps=3, callbacks=TrainingCallbacks(reporter=reporter))
    assert reporter.said == ["resuming from step 2 of 3"]
    assert run(tmp_path, steps=3, resume=False).resumed_at == 0


def test_fp16_leaves_out_a_step_that_overflowed_and_keeps_the_lower_scale(tmp_path, monkeypatch):
    # A loss scale works on a CPU too; it is fp16 itself that is refused there.
    monkeypatch.setattr(training, "resolve", lambda precision, device: "fp16")
    found: list[Any] = []
    for steps in (3, 4):
        run(tmp_path, duel(overflow_at=3, only=("generator",)), steps=steps)
        found.append(checkpoint.latest(tmp_path / "checkpoints"))
    before, after = found
    parameters = [f"net/generator/{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
    assert all(torch.equal(before.tensors[k], after.tensors[k]) for k in parameters)
    assert after.state["scaler"]["scale"] == before.state["scaler"]["scale"] / 2


@pytest.mark.fault(33)
def test_a_reader_that_fails_is_heard():
    def batches(step, stage, which):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(None, batches=batches)


def test_a_run_says_how_much_of_its_time_it_waits_for_data(tmp_path):
    def slow(step: int, stage: Stage, which: range) -> Batch:
        time.sleep(0.1)
        return noise(step, stage, which)

    report = run(tmp_path, batches=slow)
    written = read_metrics(tmp_path / "metrics.csv")
    assert 0.2 < report.waited <= 1
    assert max(written["waited"]) > 0.2
    assert min(written["loading"][:-1]) >= 0.1


def test_a_run_killed_between_two_lines_ends_with_the_lines_of_a_whole_one(tmp_path):
    def lines() -> list[list[str]]:
        rows = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
        return [[v for k, v in row.items() if k not in CLOCKS] for row in rows]

    run(tmp_path, log_every=3)
    whole = lines()
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000004")
    run(tmp_path, log_every=3)
    assert lines() == whole


def test_a_damaged_curve_is_kept_aside_and_the_run_goes_on(tmp_path):
    run(tmp_path, steps=2)
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes() + b"2,\xff\xfe,0,0\n")
    report = run(tmp_path)
    assert read_metrics(path)["step"] == [1, 2, 3, 4]
    assert path.with_suffix(".damaged.csv").is_file()
    assert "1 damaged line(s) left out" in report.notes[-1]


def test_checkpoints_that_are_removed_meanwhile_are_named(tmp_path):
    def remove(path: Path, step: int) -> None:
        shutil.rmtree(path.parent)
        sha256_file(path / "ema.safetensors")

    with raises_fault("training.checkpoints-removed"):
        run(tmp_path, callbacks=TrainingCallbacks(checkpoint=remove))


def test_a_line_averages_the_steps_since_the_last_and_a_later_loss_gets_a_column(tmp_path):
    each, pairs, later = tmp_path / "each", tmp_path / "pairs", tmp_path / "later"
    run(each)
    run(pairs, log_every=2)
    run(later, duel(only=("generator",)), steps=2)
    run(later)
    gaps = [read_metrics(one / "metrics.csv")["critic/gap"] for one in (each, pairs, later)]
    assert gaps[1] == pytest.approx(np.reshape(gaps[0], (2, 2)).mean(axis=1), rel=1e-5)
    assert np.isnan(gaps[2]).tolist() == [True, True, False, False]


def global_states() -> Iterator[bytes]:
    yield torch.get_rng_state().numpy().tobytes()
    yield json.dumps(random.getstate()).encode()
    yield np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("ill_at", [None, 1])
def test_global_random_states_stay_as_they_were_and_another_seed_is_another_run(ill_at):
    ends, before = [], list(global_states())
    for seed in (0, 1):
        generator = duel(ill_at=ill_at)
        with raises_fault("training.numbers-not-finite") if ill_at else nullcontext():
            run(None, generator, seed=seed)
        ends.append(generator.nets["generator"].state_dict()["0.weight"])
    assert not torch.equal(*ends)
    torch.manual_seed(3)  # as ``duel`` has
    duel()
    assert list(global_states()) == before


@pytest.mark.parametrize("half_life", [2.0, 0.3])
def test_the_average_halves_what_is_half_life_images_old(tmp_path, half_life):
    """As worked out by hand from the weights after every step, of two images."""
    generator = duel(only=("generator",))
    held = generator.nets["generator"].state_dict()
    wanted = {k: v.double() for k, v in held.items() if v.is_floating_point()}
    steps: list[dict[str, torch.Tensor]] = []
    noted = TrainingCallbacks(checkpoint=lambda path, step: steps.append(newest(tmp_path)))
    every = {"steps": 12, "batch_size": 2, "checkpoint_every": 1, "ema_half_life": half_life}
    run(tmp_path, generator, callbacks=noted, **every)
    for index, weights in enumerate(steps):
        decay = 0.5 ** (2 / min(half_life, 0.05 * 2 * (index + 1)))
        for key, value in wanted.items():
            value.mul_(decay).add_((1 - decay) * weights[f"net/generator/{key}"])
    found = generator.nets["generator"].state_dict()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value.float())
    assert not torch.allclose(found["0.weight"], steps[-1]["net/generator/0.weight"])


def test_a_preview_sees_the_averages_and_training_does_not(tmp_path):
    watched, seen = duel(), []

    def look(step):
        seen.append((step, watched.nets["generator"].state_dict()["0.weight"].clone()))

    run(tmp_path / "plain")
    callbacks = TrainingCallbacks(preview=look)
    run(tmp_path / "watched", watched, callbacks=callbacks, sample_every=2)
    assert [step for step, _ in seen] == [2, 4]
    assert torch.equal(seen[-1][1], newest(tmp_path / "plain")["ema/generator/0.weight"])
    assert differing(newest(tmp_path / "plain"), newest(tmp_path / "watched")) == []


def test_a_stage_lasts_for_its_images_fades_in_over_the_first_and_the_last_is_for_ever():
    stages = [Stage(images=4), Stage(images=6, fade=4), Stage(images=1, fade=2)]
    found = [_stage_at(stages, images) for images in (0, 3, 4, 5, 9, 10, 11, 999)]
    assert [stages.index(stage) for stage, _ in found] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [alpha for _, alpha in found] == [1, 1, 0, 0.25, 1, 0, 0.5, 1]


STAGES = (Stage(batch_size=3, images=6), Stage())


def test_stages_follow_each_other_with_their_batch_sizes_and_a_run_resumes_in_its_own(tmp_path):
    generator, again, sizes = duel(schedule=STAGES), duel(schedule=STAGES), []

    def batches(step, stage, which):
        sizes.append(len(which))
        return noise(step, stage, which)

    assert run(None, generator, batches).images == 8
    assert sizes == [3, 3, 1, 1]
    # The other player is frozen meanwhile.
    stages = (STAGES[0], STAGES[0], STAGES[1], STAGES[1])
    turns = [(stage, [player]) for stage in stages for player in ("generator", "critic")]
    assert generator.played == turns
    run(tmp_path, duel(schedule=STAGES), steps=1)
    run(tmp_path, again)
    assert again.played == turns[2:]
