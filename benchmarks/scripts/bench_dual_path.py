"""Does the segmenter's ``--network deepmedic`` equal, and learn like, the engine that it replaced?

Until commit 4faf1626 gansynth had a torch engine of its own for DeepMedic (``--engine torch``),
whose numbers were DeepMedic's. ``--engine`` names a worktree of that commit; it runs in processes
of its own, with the packages of this environment.

equal: the same weights and the same volumes; the engine cuts segments and contexts itself. The
figures of ``tests/adapters/segmenter/reference/dual_path.json`` are the engine's outputs.

train: BRATS volumes of DeepMedic's examples, a case held out in turn. Both sides train on the
others with equal widths, segments (25 voxels, context x 3), batches, steps and mirroring, and each
with its own optimiser, schedule, sampling and noise of intensities. Dice of the held-out case.

    git worktree add ../then 4faf1626
    python benchmarks/scripts/bench_dual_path.py --engine ../then [--what equal train]
        [--cases ../shared/data/brats2015_deepmedic] [--seeds 3] [--steps 300] -o runs/dual_path
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE))
REFERENCE = HERE / "tests/adapters/segmenter/reference/dual_path.json"
WIDTH, BATCH, CROP, SEGMENT = 15, 8, 57, 25
FEATURES = [15, 15, 20, 20, 20, 20, 25, 25]
INTENSITIES = {
    "shift": {"mu": 0.0, "std": 0.05},
    "scale": {"mu": 1.0, "std": 0.01},
}  # of the example
REGIONS = {"WT": "1+2+3+4", "TC": "1+3+4"}

OLD_SIDE = """
import sys, numpy as np, torch
from gansynth_deepmedic.configs import ConfigFile, ModelConfig
from gansynth_deepmedic.engine.geometry import SegmentGeometry, high_segment, low_context
from gansynth_deepmedic.engine.network import DualPath

given = dict(np.load(sys.argv[1]))
factors, segment = given.pop("factors").tolist(), int(given.pop("segment"))
image, widths = given.pop("image"), given.pop("widths").tolist()
channels, labels, head = len(image), int(given.pop("labels")), int(given.pop("head"))
model = ConfigFile(None, {
    "numberOfOutputClasses": labels, "numberOfInputChannels": channels,
    "numberFMsPerLayerNormal": widths, "kernelDimPerLayerNormal": [[3, 3, 3]] * 8,
    "layersWithResidualConnNormal": [4, 6, 8], "useSubsampledPathway": True,
    "subsampleFactor": [[n] * 3 for n in factors], "numberFMsPerLayerFC": [head, head],
    "kernelDimPerLayerFC": [[1, 1, 1]] * 3, "layersWithResidualConnFC": [2],
    "segmentsDimTrain": [segment] * 3,
}).parse(ModelConfig)
network, rates = DualPath(model).eval(), (0.0, 0.5, 0.5)
assert tuple(model.dropout) == rates, model.dropout

def fill(path, name):
    for number, block in enumerate(path.blocks):
        if number == 0 and name != "head":
            set_(block[0].bias, given[f"shift.{name.split('.')[1]}"])
            set_(block[3].weight, given[f"{name}.blocks.0.weight"])
            continue
        own = f"{name}.blocks.{number}"
        for key, value in (("weight", block[0].weight), ("bias", block[0].bias)):
            set_(value, given[f"{own}.0.{key}"])
        block[0].means[:] = torch.from_numpy(given[f"{own}.0.running_mean"])
        block[0].variances[:] = torch.from_numpy(given[f"{own}.0.running_var"])
        set_(block[1].weight, given[f"{own}.1.weight"])
        kept = 1 - rates[number] if name == "head" else 1.0
        set_(block[3].weight, given[f"{own}.3.weight"] / kept)

def set_(parameter, array):
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.asarray(array, np.float32)))

fill(network.normal, "paths.0")
for number, path in enumerate(network.low, 1):
    fill(path, f"paths.{number}")
fill(network.head, "head")
set_(network.bias.bias, given["head.blocks.2.3.bias"])
geometry = SegmentGeometry.cubes(segment, 17, factors)
start = [(image.shape[1] - segment) // 2] * 3
high = torch.from_numpy(high_segment(image, start, geometry).copy())[None]
low = [torch.from_numpy(low_context(image, start, [n] * 3, geometry))[None] for n in factors]
with torch.inference_mode():
    np.save(sys.argv[2], network(high, low).numpy())
"""


def old_environment(engine: Path) -> dict[str, str]:
    """The environment of a process that imports the old revision."""
    folders = [engine, *(engine / part for part in ("adapters", "cli", "plugins"))]
    path = os.pathsep.join(str(folder.resolve()) for folder in folders)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def equal(engine: Path, volume: Path | None) -> list[dict[str, Any]]:
    """Compare both networks on a random volume, and on a real one."""
    import torch

    from tests.adapters.segmenter.dual_path_reference import (
        CASES,
        LABELS,
        WIDTH,
        crop_of,
        figures,
        with_weights,
    )

    rows, kept = [], {}
    for segment, factors in CASES:
        (network, shifts), crop = with_weights(factors), crop_of(segment, factors)
        images = {"random": crop[0].numpy()}
        if volume is not None:
            images["BRATS"] = _middle(volume, crop.shape[-1])
        state = {key: value.numpy() for key, value in network.state_dict().items()}
        state |= {f"shift.{n}": shift.numpy() for n, shift in enumerate(shifts)}
        widths = [network.paths[0].blocks[0].out_channels]
        widths += [block[3].out_channels for block in list(network.paths[0].blocks)[1:]]
        for name, image in images.items():
            with tempfile.TemporaryDirectory() as scratch:
                given, output = Path(scratch) / "given.npz", Path(scratch) / "out.npy"
                sizes = {"labels": LABELS, "head": 5 * WIDTH, "widths": widths}
                np.savez(given, **state, **sizes, image=image, factors=factors, segment=segment)
                subprocess.run(
                    [sys.executable, "-c", OLD_SIDE, str(given), str(output)],
                    check=True, cwd=scratch, env=old_environment(engine),
                )  # fmt: skip
                old = np.load(output)
            with torch.inference_mode():
                new = network(torch.from_numpy(image)[None])
            rows.append(
                {
                    "segment": segment,
                    "factors": list(factors),
                    "volume": name,
                    "output": list(old.shape[2:]),
                    "largest_output": float(np.abs(old).max()),
                    "largest_difference": float(np.abs(new.numpy() - old).max()),
                }
            )
            if name == "random":
                kept[f"{segment} {factors}"] = figures(torch.from_numpy(old))
    document = {"engine": "4faf1626", "outputs": kept}
    REFERENCE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return rows


def _middle(case: Path, edge: int) -> Any:
    """The middle of a case in cubes: float32 (C, edge, edge, edge), of stored axes."""
    import nibabel

    from tests.deepmedic_sets import BRATS_FILES

    files = [case / BRATS_FILES[key] for key in ("flair", "t1c")]
    channels = [np.asarray(nibabel.load(file).dataobj) for file in files]
    inner = tuple(slice((n - edge) // 2, (n - edge) // 2 + edge) for n in channels[0].shape)
    return np.stack([channel[inner] for channel in channels]).astype(np.float32)


def train(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train both sides; a finished training in ``-o`` is not run again."""
    cases, rows = (
        sorted(path for path in args.cases.iterdir() if path.is_dir()),
        list[dict[str, Any]](),
    )
    names = [case.name for case in cases]
    for seed in range(1, args.seeds + 1):
        for held in (case for case in cases if case.name in (args.held_out or names)):
            config, model = _configurations(args.output, cases, held, args.steps)
            for side, output in _runs(args, held, seed, config, model).items():
                if not (output / RESULT[side]).is_file():
                    continue
                found = json.loads((output / RESULT[side]).read_text("utf-8"))
                scores = found["mean"] if side == "engine" else found["dice"]
                dice = {region: scores[region] for region in REGIONS}
                rows.append({"side": side, "held_out": held.name, "seed": seed, "dice": dice})
            print_table([tuple(row.values()) for row in rows[-2:]])
    return rows


RESULT = {"engine": "validation.json", "segmenter": "metrics.json"}


def _runs(
    args: argparse.Namespace, held: Path, seed: int, config: Path, model: Path
) -> dict[str, Path]:
    """Folders of both sides' results."""
    common = [
        "augment",
        "--data",
        f"deepmedic:{config}",
        "--ratio",
        "1:0",
        "--seed",
        str(seed),
        "--precision",
        "fp32",
        "--set",
        "device=cpu",
        "--regions",
        ",".join(f"{name}:{labels}" for name, labels in REGIONS.items()),
    ]
    own = {
        "engine": ["--target", "deepmedic", "--engine", "torch", "--model", str(model)],
        "segmenter": [
            "--target",
            "segmenter",
            "--network",
            "deepmedic",
            "--patch",
            str(CROP),
            "--width",
            str(WIDTH),
            "--batch-size",
            str(BATCH),
            "--steps",
            str(args.steps),
            "--rotate",
            "0",
            "--shift",
            "0",
            "--elastic",
            "0",
            "--flip",
            "yes",
        ],
    }
    environment = {"engine": old_environment(args.engine), "segmenter": dict(os.environ)}
    outputs = {}
    for side, words in own.items():
        outputs[side] = output = args.output / side / f"{held.name}-{seed}"
        if not (args.finished or (output / RESULT[side]).is_file()):
            line = [sys.executable, "-m", "gansynth_cli", *common, *words, "-o", str(output)]
            subprocess.run(line, check=True, env={**environment[side], "OMP_NUM_THREADS": "1"})
    return outputs


def _configurations(
    folder: Path, cases: Sequence[Path], held: Path, steps: int
) -> tuple[Path, Path]:
    """Write both of DeepMedic's configurations: ``steps`` in three epochs of subepochs of 10."""
    from tests.deepmedic_sets import BRATS_FILES

    home = (folder / "configurations" / held.name).absolute()
    home.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "sessionName": "dual_path",
        "folderForOutput": "./output",
        "numberOfEpochs": 3,
        "numberOfSubepochs": steps // 30,
        "numOfCasesLoadedPerSubepoch": len(cases) - 1,
        "numberTrainingSegmentsLoadedOnGpuPerSubep": 10 * BATCH,
        "batchsize_train": BATCH,
        "num_processes_sampling": -1,
        "typeOfLearningRateSchedule": "poly",
        "performValidationOnSamplesThroughoutTraining": False,
        "performFullInferenceOnValidationImagesEveryFewEpochs": True,
        "numberOfEpochsBetweenFullInferenceOnValImages": 3,
        "augm_sample_prms_tr": {"hist_dist": INTENSITIES, "reflect": (0.5, 0.0, 0.0)},
    }
    for part, listed in (
        ("Training", [case for case in cases if case != held]),
        ("Validation", [held]),
    ):
        for name, file in BRATS_FILES.items():
            text = "".join(f"{(case / file).resolve()}\n" for case in listed)
            (home / f"{part}_{name}.cfg").write_text(text)
        values[f"channels{part}"] = [f"./{part}_{name}.cfg" for name in ("flair", "t1c")]
        values[f"gtLabels{part}"] = f"./{part}_labels.cfg"
        values[f"roiMasks{part}"] = f"./{part}_roi.cfg"
    (home / "names.cfg").write_text("held_out.nii.gz\n")
    values["namesForPredictionsPerCaseVal"] = "./names.cfg"
    model = {
        "modelName": "half",
        "folderForOutput": "./output",
        "numberOfOutputClasses": 5,
        "numberOfInputChannels": 2,
        "numberFMsPerLayerNormal": FEATURES,
        "kernelDimPerLayerNormal": [[3, 3, 3]] * 8,
        "layersWithResidualConnNormal": [4, 6, 8],
        "useSubsampledPathway": True,
        "subsampleFactor": [[3, 3, 3]],
        "numberFMsPerLayerFC": [5 * WIDTH] * 2,
        "kernelDimPerLayerFC": [[1, 1, 1]] * 3,
        "layersWithResidualConnFC": [2],
        "segmentsDimTrain": [SEGMENT] * 3,
        "segmentsDimVal": [SEGMENT] * 3,
        "segmentsDimInference": [45] * 3,
    }
    for file, keys in (("trainConfig.cfg", values), ("modelConfig.cfg", model)):
        (home / file).write_text("".join(f"{key} = {value!r}\n" for key, value in keys.items()))
    return home / "trainConfig.cfg", home / "modelConfig.cfg"


def compared(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Segmenter minus engine, by region: mean over held-out cases, interval over seeds.

    The deviation over seeds is pooled over cases and sides. Other cases may differ otherwise.
    """
    from scipy.stats import t

    found = {}
    for region in REGIONS:
        dice: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            dice.setdefault((row["held_out"], row["side"]), []).append(row["dice"][region])
        cases = sorted({case for case, _ in dice})
        means = {
            side: float(np.mean([np.mean(dice[case, side]) for case in cases]))
            for side in ("engine", "segmenter")
        }
        freedom = len(rows) - len(dice)
        squares = sum(((np.array(each) - np.mean(each)) ** 2).sum() for each in dice.values())
        deviation = float(np.sqrt(squares / freedom))
        error = deviation * np.sqrt(sum(1 / len(each) for each in dice.values())) / len(cases)
        gap, half = means["segmenter"] - means["engine"], t.ppf(0.975, freedom) * error
        found[region] = {
            **means,
            "difference": gap,
            "low": float(gap - half),
            "high": float(gap + half),
            "sd_over_seeds": deviation,
        }
    return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--what", nargs="+", default=["equal", "train"])
    parser.add_argument("--cases", type=Path, default=HERE / "../shared/data/brats2015_deepmedic")
    parser.add_argument("--held-out", nargs="*", help="cases to hold out; all if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--finished", action="store_true", help="train nothing more")
    parser.add_argument("-o", dest="output", type=Path, default=Path("runs/dual_path"))
    args = parser.parse_args()
    if args.engine is None:
        print("skipped: name --engine, a worktree of commit 4faf1626")
        return
    real = args.cases if args.cases.is_dir() else None
    if "equal" in args.what:
        volume = None if real is None else sorted(p for p in real.iterdir() if p.is_dir())[0]
        rows = equal(args.engine, volume)
        write("dual_path_equal", {"engine": "4faf1626", "rows": rows})
        print_table([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    if "train" in args.what and real is not None:
        trained = train(args)
        write("dual_path_dice", {"engine": "4faf1626", "runs": trained, **compared(trained)})


if __name__ == "__main__":
    main()
