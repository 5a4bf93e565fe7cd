"""Make ``results/TABLE.md`` from the JSON documents beside it.

python benchmarks/measure/table.py
"""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from common import RESULTS
from table_statistics import statistics


def injection(doc: dict[str, Any]) -> list[str]:
    """nnU-Net's step with a bank over without, and its loader's wait."""
    waits = doc["loader_wait_over_without"]
    return [
        f"| nnU-Net step, {p} from a frozen bank / without (patch {doc['patch'][0]}^3, 4 channels)"
        f" | {interval(step)}; its loader {waits[p]['ratio']:.3f} | <= {doc['bar']} |"
        for p, step in doc["step_over_without"].items()
    ]


def live(doc: dict[str, Any]) -> list[str]:
    """nnU-Net's step beside a producer over without, and what the steering said of it."""
    where = f"{doc['device']}, producer on {doc['producer_device']}"
    rows = []
    for p, found in doc["results"].items():
        said, waits = found["steering"], found["loader_wait_seconds"]
        wait = ", ".join(f"{k} {1e3 * median(v):.1f}" for k, v in waits.items())
        rows += [
            f"| nnU-Net step, {p} from a live bank / without ({where}, patch {doc['patch'][0]}^3)"
            f" | {interval(found['live_over_without'])} | <= {doc['bar']}, "
            f"target {doc['target']} |",
            f"| the same: producer at work / resting | {interval(found['live_over_idle'])} | |",
        ]
        if "overhead" in said:
            rows.append(
                "| the same as measured while training | "
                f"{1 + said['overhead']:.3f} ({1 + said['overhead_low']:.3f} to "
                f"{1 + said['overhead_high']:.3f}), at work {said['duty']:.0%} of the time | |"
            )
        renewed = f"{said['refresh_seconds']:.0f} s" if "refresh_seconds" in said else "not yet"
        rows.append(
            "| the same: loader wait, ms; draws of a sample; bank renewed in | "
            f"{wait}; {said['draws_per_sample']:.1f}; {renewed} | |"
        )
    return rows


def draws(doc: dict[str, Any]) -> list[str]:
    """A draw beside nnU-Net's own augmentation; bytes written."""
    rows = []
    for found in doc["results"]:
        shape = " x ".join(map(str, found["sample_shape"]))
        rows.append(
            f"| one draw ({shape}) / nnU-Net's augmentation of one sample, patch "
            f"{found['patch']}^3, ms: medians; means | {found['draw_ms_median']:.2f} / "
            f"{found['augmentation_ms_median']:.1f}; {found['draw_ms_mean']:.2f} / "
            f"{found['augmentation_ms_mean']:.1f} | |"
        )
    for name, found in doc["bytes_per_1000_samples"].items():
        sent = found["sent_to_storage"]
        bar = "0" if name == "bank in shared memory" else ""
        amount = "unknown" if sent is None else f"{sent / 1e6:.3f} MB"
        rows.append(f"| {name}: written to storage per 1,000 samples | {amount} | {bar} |")
    return rows


def interval(found: dict[str, float]) -> str:
    """A ratio with its interval."""
    return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


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


def lesion(doc: dict[str, Any]) -> list[str]:
    """Faithfulness and seam of lesions put into real images, each arm."""
    rows = []
    for arm, found in doc["arms"].items():
        what = f"{doc['data']}, lesions by {arm}"
        for judge, told in found["faithfulness"].items():
            new, apart = told["lesion"], found["above_copypaste"].get(judge)
            said = interval(new)
            if apart is not None:
                ends = f"{apart['low']:+.3f} to {apart['high']:+.3f}"
                said += f"; above copy-paste's by {apart['difference']:+.3f} ({ends})"
            rows.append(
                f"| {what}, judge {judge}: Dice in and around new lesions / real "
                f"({new['real']:.3f}) | {said} "
                f"| {'>= 0.8, above copy-paste' if arm == 'both' else ''} |"
            )
        seam, seconds = found["seam"], median(found["seconds_per_sample"])
        rows.append(
            f"| {what}: share in the range of real lesions' rims (real ones themselves); seconds "
            f"a sample | {seam['in range']:.2f} ({seam['real in range']:.2f}); {seconds:.2f} | |"
        )
    return rows


def throttle(doc: dict[str, Any]) -> list[str]:
    """What a producer costs simulated trainings."""
    most = max(doc["hosts"], key=lambda host: host["overhead_percent"])
    return [
        f"| overhead of a producer asked for {doc['budget_percent']} %, simulated, "
        f"{len(doc['hosts'])} kinds of trainings: the worst mean, {most['host']} "
        f"| {most['overhead_percent']} % | <= 2.1 % |"
    ]


def loading(doc: dict[str, Any]) -> list[str]:
    """What the threads of a fit need for a step's batch, and a core for a sample."""
    rows = []
    for found in doc["results"].values():
        crop, case = (" x ".join(map(str, found[key])) for key in ("crop", "case"))
        for way, name in (("cut", "context cut from the whole case's"), ("anew", "made anew")):
            by_threads = {k: v for k, v in found[way].items() if k.isdigit()}
            cpu = ", ".join(f"{v['cpu']:.0f} ({k})" for k, v in by_threads.items())
            rows.append(
                f"| a fit reads a batch of {doc['batch']}, {crop} of {case}, 4 channels, {name}: "
                f"CPU ms (threads); ms a sample by 8 cores | {cpu}; "
                f"{found[way]['ms_a_sample_by_8_cores']:.1f} | <= {found['gpu_step_ms']:g} |"
            )
    return rows


MAKERS = {
    "draws": draws,
    "gan_step": gan_step,
    "growth": growth,
    "injection": injection,
    "lesion": lesion,
    "live": live,
    "loading": loading,
    "statistics": statistics,
    "throttle": throttle,
}
ELSEWHERE = (
    "advice",
    "cohort",
    "fuzz.json",
    "guard.json",
    "guard_only.json",
    "kills.json",
    "gpu_",
    "newcomer.json",
    "papers_",
    "removal",
    "same_bits",
    "sampling",
    "site_gaps",
    "against_itself",
    "shuffled",
    "asked_sizes",
    "lesion_sizes",
    "start",
    "tissue",
)
"""Beginnings of files whose tables are in the docs; ``results/README.md`` says where."""


OLDER = (
    "lesion_brats15.json",
    "gan_step_pix2pix_fp32_w32.json",
)
"""Measured before a change that touches them: ``README.md`` says which."""
HEAD = ["| what | result (95 % interval) | bar |", "| --- | --- | --- |"]


def made() -> str:
    """The tables of all results but those that ``results/README.md`` has; older ones apart."""
    lines, older = [*HEAD], [*HEAD]
    machines, gone = set(), (RESULTS / "README.md").read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("*.json")):
        if path.name.startswith(ELSEWHERE) or f"# {path.name}," in gone:
            continue
        doc = json.loads(path.read_text(encoding="utf-8"))
        make = next(m for name, m in MAKERS.items() if doc["benchmark"].startswith(name))
        (older if path.name in OLDER else lines).extend(make(doc))
        m = doc["machine"]
        gpu = m.get("cuda") or "no GPU"
        machines.add(f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, {gpu}")
    said = "Older than a change that touches them ([which](../../README.md#older-than-a-change)):"
    return "\n".join(
        [*lines, "", said, "", *older, "", f"Machine: {'; '.join(sorted(machines))}.", ""]
    )


if __name__ == "__main__":
    (RESULTS / "TABLE.md").write_text(made(), encoding="utf-8")
