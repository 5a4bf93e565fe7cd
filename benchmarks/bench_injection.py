"""nnU-Net's training step with half of its samples from a frozen bank, beside the step without.

Both trainers are nnU-Net's own, on the same preprocessed phantoms (four channels), small plans, one
process, no augmentation workers: whatever drawing costs lies in the step. A step is one batch from
nnU-Net's loader (augmentation included) and one ``train_step``. Sides alternate step by step. Then
one draw from the bank is timed beside nnU-Net's own augmentation of one sample of the same shape.

    python benchmarks/bench_injection.py [--rounds 60] [--patch 48]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, print_table, ratio, write

BAR = 1.05
PLANS = "gansynthSmallPlans"
BANK = 48


def prepare_data(root: Path, patch: int) -> Any:
    """Phantoms, preprocessed by nnU-Net, with small plans; the source of fold 0."""
    from gansynth.phantoms import write_nnunet_raw
    from gansynth.registry import installed
    from gansynth.sources.base import SourceRequest
    from gansynth_nnunet.prepare import SmallPlans, prepare

    write_nnunet_raw(root / "nnUNet_raw", 10)
    own = SourceRequest("nnunet", "999", root=str(root))
    prepare(own, ("3d_fullres",), small=SmallPlans(PLANS, patch_size=(patch,) * 3))
    request = SourceRequest(
        "nnunet", "999", configuration="3d_fullres", plans=PLANS, root=str(root)
    )
    return installed().open_source(request)


def fill_bank(source: Any, root: Path) -> Path:
    """A frozen bank from a generator fitted for two steps: real shapes, channels and extras."""
    from gansynth.bank import BankSpec, BankWriter
    from gansynth.fitting import fit
    from gansynth.registry import installed
    from gansynth.reporting import NullReporter
    from gansynth.run import load_run
    from gansynth.sampling import SampleDrawer

    settings = {"steps": "2", "width": "8", "d_width": "8"}
    folder = root / "run"
    fit("cgan3d", source.request, folder, settings=settings, edits=None, reporter=NullReporter())
    run = load_run(folder)
    adapter = installed().adapter("nnunet")(source)
    spec = BankSpec(
        schema=source.schema,
        lineage=run.lineage,
        run_id=run.run_id,
        generator=run.manifest_sha256,
        frozen=True,
        capacity=BANK,
    )
    writer = BankWriter.create(root / "bank", spec)
    drawer = SampleDrawer(run, source)
    for first in range(0, BANK, spec.segment_samples):
        samples = drawer.draw(first, spec.segment_samples)
        writer.publish([(s, adapter.finalise(s)) for s in samples])
    writer.finish()
    return root / "bank"


def trainer(source: Any, bank: Path | None) -> Any:
    """nnU-Net's own trainer, ready to step; with a bank its training data set is wrapped."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    from gansynth.mixing import MixPlan
    from gansynth.ratio import Ratio
    from gansynth.registry import installed

    built = get_trainer_from_args(
        source.dataset, "3d_fullres", 0, "nnUNetTrainer", PLANS, device=torch.device("cpu")
    )
    if bank is not None:
        adapter: Any = installed().adapter("nnunet")(source)
        plain = built.get_tr_and_val_datasets

        def mixed() -> tuple[Any, Any]:
            train, validation = plain()
            size = built.batch_size
            return adapter.inject(train, MixPlan(bank, Ratio(1, 1)), batch_size=size), validation

        built.get_tr_and_val_datasets = mixed
    built.initialize()
    built.dataloader_train, _ = built.get_dataloaders()
    built.network.train()
    return built


def step_of(built: Any) -> Callable[[], object]:
    """One batch and one training step."""
    return lambda: built.train_step(next(built.dataloader_train))


def time_draws(built: Any, bank: Path, count: int = 200) -> dict[str, float]:
    """Milliseconds of one draw from the bank, and of augmenting one sample of that shape."""
    import torch
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    from gansynth.bank import BankReader

    loader = built.dataloader_train.data_loader
    reader = BankReader(bank)
    rng = np.random.default_rng(0)
    draws, augmentations = [], []
    for _ in range(count):
        began = time.perf_counter()
        sample = reader.draw(rng)
        draws.append(time.perf_counter() - began)
        corner = [
            (n - p) // 2 for n, p in zip(sample.image.shape[1:], loader.patch_size, strict=True)
        ]
        box = [[c, c + p] for c, p in zip(corner, loader.patch_size, strict=True)]
        image = torch.from_numpy(crop_and_pad_nd(sample.image, box, 0)).float()
        labels = torch.from_numpy(crop_and_pad_nd(sample.labels[None], box, -1))
        began = time.perf_counter()
        loader.transforms(image=image, segmentation=labels)
        augmentations.append(time.perf_counter() - began)
    return {
        "draw_ms_median": 1e3 * float(np.median(draws)),
        "draw_ms_mean": 1e3 * float(np.mean(draws)),
        "augmentation_ms_median": 1e3 * float(np.median(augmentations)),
        "augmentation_ms_mean": 1e3 * float(np.mean(augmentations)),
        "draw_over_augmentation": float(np.mean(draws) / np.mean(augmentations)),
    }


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="training steps per side")
    parser.add_argument("--patch", type=int, default=48, help="edge of the patch, voxels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = prepare_data(root, args.patch)
        os.environ.update(source.root.variables(), nnUNet_n_proc_DA="0", nnUNet_compile="f")
        bank = fill_bank(source, root)
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net introduces itself at length
            sides = {"with bank": trainer(source, bank), "without": trainer(source, None)}
        seconds = alternate({k: step_of(v) for k, v in sides.items()}, args.rounds, warmup=4)
        draws = time_draws(sides["with bank"], bank)
        shape = [len(source.schema.channels), *source.space.size]
    found = ratio(seconds["with bank"], seconds["without"])
    document = {
        "patch": [args.patch] * 3,
        "batch_size": int(sides["without"].batch_size),
        "sample_shape": shape,
        "synthetic_share": 0.5,
        "seconds_per_step": seconds,
        "step_with_over_without": found,
        "one_sample": draws,
        "bar": BAR,
        "passed": found["ratio"] <= BAR,
    }
    write("injection", document)
    medians = {k: float(np.median(v)) for k, v in seconds.items()}
    print_table(
        [
            ("step", "s median", "s mean"),
            *((k, medians[k], float(np.mean(v))) for k, v in seconds.items()),
            ("ratio", found["ratio"], found["mean_ratio"]),
        ]
    )
    print(f"ratio 95 % interval: {found['low']:.3f} to {found['high']:.3f}; bar {BAR}")
    print_table(
        [
            ("one sample, ms", "median", "mean"),
            ("draw from the bank", draws["draw_ms_median"], draws["draw_ms_mean"]),
            (
                "nnU-Net's augmentation",
                draws["augmentation_ms_median"],
                draws["augmentation_ms_mean"],
            ),
        ]
    )
    if not document["passed"]:
        raise SystemExit("above the bar")


if __name__ == "__main__":
    main()
