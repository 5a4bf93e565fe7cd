"""Fitting a slice selector: the whole job behind ``gansynth selector fit``.

It learns from the slices of a fold's training volumes; those of the held-out volumes choose the
threshold and tell how good it is. Both count as seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from gansynth import __version__
from gansynth.errors import DataFault, TrainingFault, UsageFault
from gansynth.integrity import sha256_file, whole_folder, write_bytes_atomic, write_json_atomic
from gansynth.lineage import CaseRecord, Lineage
from gansynth.precision import pick_device
from gansynth.registry import installed
from gansynth.reporting import Reporter
from gansynth.selector import (
    MANIFEST,
    VERSION,
    WEIGHTS,
    Pixels,
    SelectorOptions,
    SliceNet,
    build_net,
    open_selector,
    pixels,
    score,
)
from gansynth.selector_scores import Truth, judge
from gansynth.settings import parse
from gansynth.sources.base import SourceRequest
from gansynth.sources.slice_choice import NEITHER
from gansynth.sources.slices import SliceSource

FAIR = 0.8
"""Area under the ROC curve below which a selector comes with a warning."""


@dataclass(frozen=True)
class Volume:
    """A volume's slices of either class.

    Attributes:
        record: what lineage remembers of it.
        slices: uint8 (N, C, size, size).
        truth: int64 (N,), 1 with foreground.
    """

    record: CaseRecord
    slices: Pixels
    truth: Truth


def fit_selector(
    request: SourceRequest,
    out: Path,
    *,
    settings: Mapping[str, str],
    device: str = "auto",
    dry_run: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit a selector, and leave its folder behind.

    Args:
        request: ``slices:`` of labelled volumes.
        out: the folder; there must be none, or an empty one.
        settings: ``--set`` values, see ``SelectorOptions``.
        device: where to train: ``auto``, ``cpu``, ``cuda:0``. It is scored, and used, on the CPU.
        dry_run: read and count everything, fit and write nothing.
        reporter: shows progress.

    Returns:
        A JSON-able report: volumes, slices of either class, AUC, sensitivity, specificity.

    Raises:
        UsageFault: no slices of labelled volumes, or options that do not fit.
        DataFault: the volumes of a side have slices of one class only.
        TrainingFault: the loss is not finite.
    """
    began = time.perf_counter()
    options = parse(SelectorOptions, settings)
    where = pick_device(device)
    source = open_labelled(request)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageFault(f"{out}: exists already, expected a new folder; choose another -o")
    train = read_volumes(source, source.inner.train_ids, options.size, "training", reporter)
    held_out = read_volumes(source, source.inner.held_out_ids, options.size, "held-out", reporter)
    report: dict[str, Any] = {
        "selector": str(out),
        "data": source.name,
        "fold": source.fold,
        "train": _counted(train),
        "held_out": _counted(held_out),
    }
    if dry_run:
        return {"dry_run": True, **report, "options": options.model_dump()}
    net = train_net(train, options, where, reporter)
    report |= judge([(score(net, one.slices), one.truth) for one in held_out])
    if report["auc"] < FAIR:
        reporter.warn(
            f"{source.name}: AUC {report['auc']:.2f} on the held-out volumes, expected at least "
            f"{FAIR}: its choice will be poor. Label more volumes, or take more --set steps=, or a "
            "larger --set size="
        )
    folder = out.absolute()
    _write(folder, net, _manifest(source, options, train, held_out, report))
    report["sha256"] = open_selector(folder).sha256
    return {**report, "seconds": round(time.perf_counter() - began, 2)}


# -- what it learns from ---------------------------------------------------------------------------


def open_labelled(request: SourceRequest) -> SliceSource:
    """Open the slices a selector can be fitted on.

    Raises:
        UsageFault: others.
    """
    source = installed().open_source(request) if request.kind == "slices" else None
    if not isinstance(source, SliceSource):
        raise UsageFault(
            f"--data {request.kind}:{request.where}: expected slices of labelled volumes, for "
            f"example slices:{request.kind}:{request.where}"
        )
    options = source.options
    for key, value, usual in (
        ("foreground", options.foreground, "any"),
        ("classes", options.classes, None),
        ("selector", options.selector, None),
        ("concat", "yes" if options.concat else None, None),
    ):
        if value != usual:
            raise UsageFault(
                f"--read {key}={value}: a selector learns from slices with and without foreground, "
                "all channels together; leave it out"
            )
    if not source.inner.schema.foreground:
        raise UsageFault(
            f"{source.inner.name}: its cases have no label maps, expected some, which say what "
            "slices show; fit a selector on labelled volumes"
        )
    if not source.inner.held_out_ids:
        raise UsageFault(
            f"--fold {source.fold}: holds no volume out, expected some to choose the threshold by; "
            "take the number of a fold"
        )
    return source


def read_volumes(
    source: SliceSource, cases: Sequence[str], size: int, side: str, reporter: Reporter
) -> list[Volume]:
    """Read volumes one by one; slices of too little foreground to be of a class are left out.

    Raises:
        DataFault: all slices are of one class.
    """
    found: list[Volume] = []
    numbers = [source.inner.schema.channels.index(name) for name in source.schema.channels]
    with reporter.task(len(cases), f"{side} volumes") as bar:
        for name in cases:
            case, shows = source.volume(name), source.choice.shows(name)
            kept = [i for i in source.choice.indices(name) if shows[i] != NEITHER]
            slices = pixels(case.image[numbers], source.axis, size)
            record = source.inner.record(name, source.volume)
            found.append(Volume(record, slices[kept], shows[kept]))
            bar.advance(1)
    truth = np.concatenate([one.truth for one in found])
    if len(set(truth.tolist())) < 2:
        kind = "with" if truth.any() else "without"
        raise DataFault(
            f"{source.name} fold {source.fold}: all {len(truth)} slices of {len(found)} {side} "
            f"volume(s) are {kind} foreground, expected some of either kind; take other volumes, "
            "another fold, or a wider range: --read slices="
        )
    return found


def _counted(volumes: Sequence[Volume]) -> dict[str, int]:
    truth = np.concatenate([one.truth for one in volumes])
    shown = int(truth.sum())
    return {"volumes": len(volumes), "with": shown, "without": len(truth) - shown}


# -- training --------------------------------------------------------------------------------------


def train_net(
    volumes: Sequence[Volume], options: SelectorOptions, device: torch.device, reporter: Reporter
) -> SliceNet:
    """Train on batches of which half is with foreground, flipped and recoloured at random.

    Raises:
        TrainingFault: the loss is not finite.
    """
    slices = np.concatenate([one.slices for one in volumes])
    truth = np.concatenate([one.truth for one in volumes])
    sides = [np.flatnonzero(truth == kind) for kind in (0, 1)]
    net = build_net(slices.shape[1], options.width, options.seed)
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=0.05)
    with reporter.task(options.steps, "selector") as bar:
        for step in range(options.steps):
            rng = np.random.default_rng(np.random.SeedSequence((options.seed, step)))
            half = options.batch_size // 2
            drawn = np.concatenate(
                [rng.choice(sides[0], options.batch_size - half), rng.choice(sides[1], half)]
            )
            x = torch.from_numpy(changed(slices[drawn], rng)).to(device)
            y = torch.from_numpy(truth[drawn]).float().to(device)
            loss = functional.binary_cross_entropy_with_logits(net(x), y)
            value = float(loss.detach())
            _check_finite(value, step)
            warm = min(1.0, (step + 1) / 20)
            for group in optimizer.param_groups:
                group["lr"] = options.lr * warm * (1 + math.cos(math.pi * step / options.steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            bar.advance(1, loss=value)
    return net.cpu().eval()


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingFault(
            f"selector: loss is {loss} at step {step}, expected a finite one; lower the "
            "rate: --set lr=1e-4"
        )


def changed(slices: Pixels, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Slices as float32 in [0, 1], flipped, shifted by an eighth, with other contrasts and grain.

    Args:
        slices: (B, C, size, size).
        rng: draws what is changed, of each slice and channel.
    """
    made = slices.astype(np.float32) / 255
    most = made.shape[-1] // 8
    for one in made:
        for axis in (1, 2):
            if rng.random() < 0.5:
                one[:] = np.flip(one, axis)
            moved = int(rng.integers(-most, most + 1))
            one[:] = np.roll(one, moved, axis)
    each = (*made.shape[:2], 1, 1)
    made = made ** np.exp(rng.uniform(-0.4, 0.4, each)).astype(np.float32)
    made = made * rng.uniform(0.8, 1.2, each) + rng.uniform(-0.1, 0.1, each)
    grain = rng.normal(0, 1, made.shape) * rng.uniform(0, 0.05, each)
    return (made + grain).clip(0, 1).astype(np.float32)


# -- writing ---------------------------------------------------------------------------------------


def _manifest(
    source: SliceSource,
    options: SelectorOptions,
    train: Sequence[Volume],
    held_out: Sequence[Volume],
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``manifest.json`` holds; the same fit gives the same, whenever and wherever it is."""
    inner, volumes = source.inner, sorted((*train, *held_out), key=lambda one: one.record.id)
    records = tuple(one.record for one in volumes)
    lineage = Lineage(inner.name, inner.fold, records, dict(inner.host), inner.ancestors)
    return {
        "kind": "selector",
        "version": VERSION,
        "data": source.name,
        "plane": source.options.plane,
        "channels": list(source.schema.channels),
        "labels": dict(inner.schema.labels),
        "min_foreground": source.options.min_foreground,
        "options": options.model_dump(mode="json"),
        "threshold": report["threshold"],
        "scores": {key: value for key, value in report.items() if key != "selector"},
        "lineage": lineage.to_json(),
        "versions": {"gansynth": __version__, "torch": torch.__version__},
    }


def _write(out: Path, net: SliceNet, manifest: Mapping[str, Any]) -> None:
    """Publish the folder, whole or not at all."""
    from safetensors.torch import save as to_bytes

    with whole_folder(out) as temporary:
        weights = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
        write_bytes_atomic(temporary / WEIGHTS, to_bytes(weights))
        digest = sha256_file(temporary / WEIGHTS)
        write_json_atomic(temporary / MANIFEST, {**manifest, "weights_sha256": digest})
