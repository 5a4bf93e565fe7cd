"""Make ``results/TABLE.md`` from the JSON documents beside it.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from typing import Any

from common import RESULTS


def injection(doc: dict[str, Any]) -> list[str]:
    """nnU-Net's step with a bank over without, and one draw beside one augmentation."""
    step, one = doc["step_with_over_without"], doc["one_sample"]
    shape = " x ".join(map(str, doc["sample_shape"]))
    return [
        "| nnU-Net step, p = 0.5 from a frozen bank / without "
        f"(patch {doc['patch'][0]}^3, 4 channels)"
        f" | {step['ratio']:.3f} ({step['low']:.3f} to {step['high']:.3f}) | <= {doc['bar']} |",
        f"| one draw ({shape}), ms: median, mean | {one['draw_ms_median']:.2f}, "
        f"{one['draw_ms_mean']:.2f} | |",
        f"| nnU-Net's augmentation of one such sample, ms: median, mean | "
        f"{one['augmentation_ms_median']:.2f}, {one['augmentation_ms_mean']:.2f} | |",
    ]


def gan_step(doc: dict[str, Any]) -> list[str]:
    """Our step over MONAI's."""
    step, flops = doc["time_ours_over_peer"], doc["gflops_per_step"]
    bar = "<= 1.0" if doc["shape"] == "pix2pix" else ""
    what = f"{doc['shape']}, {doc['size']}^3, {doc['dtype']}, MONAI width {doc['widths']['peer']}"
    return [
        f"| GAN step, cgan3d / MONAI, {what} "
        f"({flops['ours']:.1f} / {flops['peer']:.1f} GFLOP): time"
        f" | {step['ratio']:.2f} ({step['low']:.2f} to {step['high']:.2f}) | {bar} |",
        f"| the same: peak memory above the baseline | {doc['memory_ours_over_peer']:.2f} "
        f"| {bar} |",
    ]


def growth(doc: dict[str, Any]) -> list[str]:
    """Exponents over voxels."""
    what = f"{doc['sizes'][0]}^3 to {doc['sizes'][-1]}^3, width {doc['width']}, {doc['dtype']}"
    rows = []
    for key in ("time", "memory"):
        ours, peer = (doc["sides"][side][key]["exponent"] for side in ("ours", "peer"))
        rows.append(
            f"| growth of a GAN step's {key} with voxels, {what}: exponent, cgan3d and MONAI "
            f"| {ours:.2f}, {peer:.2f} | |"
        )
    return rows


def reads(doc: dict[str, Any]) -> list[str]:
    """Patches per second."""
    rows = []
    for found in doc["results"]:
        channels, edge = found["volume"][:2]
        rates = ", ".join(f"{k} {v:.0f}" for k, v in found["reads_per_second"].items())
        rows.append(
            f"| random patches of {found['patch'][0]}^3 from {channels} x {edge}^3, per second "
            f"| {rates} | |"
        )
    return rows


def label_recovery(doc: dict[str, Any]) -> list[str]:
    """Dice of a segmenter trained on real cases, on samples."""
    rows = []
    for name, found in doc["results"].items():
        bars = ">= 0.6 and >= 3" if name == "moved" else ""
        rows.append(
            f"| label recovery, {doc['dataset'].partition(':')[2]}, conditions {name}: Dice real, "
            f"samples, shuffled | {found['real']:.3f}, {found['synthetic']:.3f}, "
            f"{found['shuffled']:.3f} = {found['synthetic_over_real']:.2f} x real, "
            f"{found['synthetic_over_shuffled']:.2f} x shuffled | {bars} |"
        )
    return rows


def hippocampus(doc: dict[str, Any]) -> list[str]:
    """One training: realised share and Dice on real held-out cases."""
    what = f"{doc['dataset']}, one nnU-Net training, ratio {doc['ratio']}"
    share, bar = doc["realised_synthetic_share"], "0.50 +- 0.02" if doc["ratio"] == "1:1" else ""
    return [
        f"| {what}: realised synthetic share | {share:.3f} | {bar} |",
        f"| the same: mean Dice on {doc['held_out_cases']} real held-out cases "
        f"| {doc['dice']:.3f} | |",
    ]


MAKERS = {
    "injection": injection,
    "gan_step": gan_step,
    "label_recovery": label_recovery,
    "hippocampus": hippocampus,
    "growth": growth,
    "reads": reads,
}


def main() -> None:
    """Write the table."""
    lines = ["| what | result (95 % interval) | bar |", "| --- | --- | --- |"]
    machines = set()
    for path in sorted(RESULTS.glob("*.json")):
        doc = json.loads(path.read_text(encoding="utf-8"))
        maker = next(m for name, m in MAKERS.items() if doc["benchmark"].startswith(name))
        lines += maker(doc)
        m = doc["machine"]
        machines.add(f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, no GPU")
    text = "\n".join([*lines, "", f"Machine: {'; '.join(sorted(machines))}.", ""])
    (RESULTS / "TABLE.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
