"""Make ``results/TABLE.md`` from the JSON documents beside it.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from common import RESULTS
from table_lesion import lesion
from table_papers import mmgan_quality, papers, recipe_sizes
from table_statistics import statistics


def injection(doc: dict[str, Any]) -> list[str]:
    """nnU-Net's step with a bank over without, its loader's wait, and one draw."""
    one, shape = doc["one_sample"], " x ".join(map(str, doc["sample_shape"]))
    waits = doc["loader_wait_over_without"]
    rows = [
        f"| nnU-Net step, {p} from a frozen bank / without (patch {doc['patch'][0]}^3, 4 channels)"
        f" | {interval(step)}; its loader {waits[p]['ratio']:.3f} | <= {doc['bar']} |"
        for p, step in doc["step_over_without"].items()
    ]
    return [
        *rows,
        f"| one draw ({shape}), ms: median, mean | {one['draw_ms_median']:.2f}, "
        f"{one['draw_ms_mean']:.2f} | |",
        f"| nnU-Net's augmentation of one such sample, ms: median, mean | "
        f"{one['augmentation_ms_median']:.2f}, {one['augmentation_ms_mean']:.2f} | |",
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


def soak(doc: dict[str, Any]) -> list[str]:
    """A training whose producer was killed again and again."""
    growth, alone = (
        max(found["mib_per_minute"] for found in doc[key].values())
        for key in ("memory", "memory_without_synthetic_samples")
    )
    left = len(doc["processes_left"]) + len(doc["bank_files_left"]) + len(doc["stale_files"])
    until = median(doc["seconds_until_the_next_producer"])
    return [
        f"| {doc['minutes']:g} min of nnU-Net, producer killed {doc['kills']} times: seconds until "
        f"the next one (median); fell back; processes and files left | {until:.0f}; "
        f"{doc['drawn']['fell_back']} of {doc['drawn']['synthetic']}; {left} | 0 left |",
        "| the same: fastest growth of one process's memory, MiB a minute; without synthetic "
        f"samples | {growth:.1f}; {alone:.1f} | < {doc['flat_below_mib_per_minute']:g} |",
    ]


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


def realism(doc: dict[str, Any]) -> list[str]:
    """Distances to real slices in spectrum and intensities."""
    rows = []
    for name, result in doc["results"].items():
        for side, found in result["distances"].items():
            cells = ", ".join(
                f"{d['value']:.2f} ({d['low']:.2f} to {d['high']:.2f})" for d in found.values()
            )
            bar = "below noise and blurred mean" if side == "wgan-gp" else ""
            rows.append(f"| realism, {name}, {side}: spectrum, histogram | {cells} | {bar} |")
    return rows


def dcgan(doc: dict[str, Any]) -> list[str]:
    """Images a second beside a plain-torch DCGAN."""
    rows = []
    for r in doc["results"]:
        layout = ", plain torch channels last" if "channels_last" in doc["benchmark"] else ""
        what = f"dcgan {r['objective']}, {r['size']}^2, {r['precision']}{layout}"
        rate, bar = r["images_per_second"], f"<= {doc['bar']:.2f}" if r["size"] == 128 else ""
        drawn = r["sampling"]["batch 64"]["images_per_second"]
        said = r["projection"]
        rows += [
            f"| {what}: step / plain torch, equal FLOPs | {interval(r['time_ours_over_peer'])} "
            f"| {bar} |",
            f"| the same: trained; drawn, images/s (plain torch) | {rate['ours']:.0f} "
            f"({rate['peer']:.0f}); {drawn['ours']:.0f} ({drawn['peer']:.0f}) | |",
            f"| the same: hours for Han's 15,400 images, projected (Han: {said['hours_han']:g} on "
            f"a GTX 980) | {said['hours_here']:.1f} | |",
        ]
    return rows


def dcgan_nnunet(doc: dict[str, Any]) -> list[str]:
    """nnU-Net 2d with samples whose labels were drawn, and without."""
    rows = []
    for ratio, r in doc["results"].items():
        bar = "0.50 +- 0.02" if ratio == "1:1" else ""
        rows.append(
            f"| nnU-Net 2d, hippocampus, dcgan {doc['objective']} {ratio}: synthetic share; mean "
            f"Dice on {doc['held_out_cases']} real held-out cases, one training | "
            f"{r['realised_synthetic_share']:.3f}; {r['dice']:.3f} | {bar} |"
        )
    return [*rows, f"| the same: samples rejected | {doc['bank']['rejected_share']:.1%} | |"]


def mask_recovery(doc: dict[str, Any]) -> list[str]:
    """Dice of a segmenter trained on real slices, against label maps drawn with images."""
    rows = []
    for name, found in doc["results"].items():
        cells = ", ".join(f"{found[side]['mean']:.3f}" for side in ("real", "samples", "shuffled"))
        gap, what = found["samples_minus_shuffled"], doc["benchmark"].replace("_", " ")
        bar = f">= {doc['bars']['of_real']} x real, above shuffled" if name == "all" else ""
        rows.append(
            f"| {what}, {name}: Dice real, samples, shuffled; difference of the last two "
            f"| {cells}; {gap['mean']:.3f} ({gap['low']:.3f} to {gap['high']:.3f}) | {bar} |"
        )
    return rows


def cpggan(doc: dict[str, Any]) -> list[str]:
    """Images a second beside a plain-torch PGGAN of equal FLOPs."""
    rows, target = [], doc["target"]
    for r in doc["results"]:
        rate, what = (
            r["images_per_second"],
            f"cpggan, {r['size']}^2, {r['precision']}, {r['device']}",
        )
        bar = ""
        if r["size"] == target["size"]:
            bar = f">= {target['images_per_second']} images/s on an {target['device']}"
        rows.append(
            f"| {what}: step / plain torch, equal FLOPs; trained, images/s (plain torch) "
            f"| {interval(r['time_ours_over_peer'])}; {rate['ours']:.1f} ({rate['peer']:.1f}) "
            f"| {bar} |"
        )
    return rows


def cpggan_contrast(doc: dict[str, Any]) -> list[str]:
    """Contrast inside own and shuffled boxes."""
    rows = []
    for r in doc["results"]:
        for side in ("samples", "real", "unseen"):
            n = r["numbers"]
            low, high = n[f"{side} difference low"], n[f"{side} difference high"]
            rows.append(
                f"| contrast inside boxes, cpggan {r['size']}^2, {r['data']}, {side}: own, "
                f"shuffled; difference | {n[side]:.3f}, {n[f'{side} shuffled']:.3f}; "
                f"{n[f'{side} difference']:.3f} ({low:.3f} to {high:.3f}) "
                f"| {'above 0, half of real' if side == 'samples' else ''} |"
            )
    return rows


def detector(doc: dict[str, Any]) -> list[str]:
    """A detector's epoch with samples over its epoch with as many real images."""
    return [
        f"| {r['detector']}, epoch with samples from a {side} bank / with as many real images "
        f"({doc['images']} + {doc['images']}, {doc['workers']} workers) | {interval(found)} "
        f"| <= {doc['bar']} |"
        for r in doc["results"]
        for side, found in r["over_stock"].items()
    ]


def detector_gain(doc: dict[str, Any]) -> list[str]:
    """Means over seeds of what the paper's table has."""
    rows = []
    for r in doc["results"]:
        for key, values in r["over_seeds"].items():
            cells = ", ".join(
                "-" if v is None else f"{v['mean']:.3f} ({v['least']:.3f} to {v['most']:.3f})"
                for v in values.values()
            )
            rows.append(
                f"| {r['detector']}, {r['data']}, {doc['ratio']}, equal {doc['equal']}, {key}, "
                f"{len(r['seeds'])} seeds: {', '.join(values)}; mean (range) | {cells} | |"
            )
    return rows


def deepmedic_real(doc: dict[str, Any]) -> list[str]:
    """What the real DeepMedic loaded, and how often it repeated itself."""
    rows, asked, with_ = [], doc["asked"], doc["deepmedic"]
    stock = doc["stock_num_processes_sampling_2"]["random_states"]
    for mode, found in doc["num_processes_sampling"].items():
        each = {
            tuple(one[f"{kind}_{what}"] for what in ("cases", "segments") for kind in KINDS)
            for one in found["subepochs"]
        }
        real, synthetic, of_real, of_synthetic = each.pop() if len(each) == 1 else "????"
        rows.append(
            f"| real DeepMedic (numpy {with_['numpy']}), {asked['ratio']}, num_processes_sampling "
            f"{mode}: exit code; cases, segments of each of {len(found['subepochs'])} subepochs; "
            f"distinct draws | {found['exit_code']}; {real} + {synthetic}, {of_real} + "
            f"{of_synthetic}; {found['random_states']['distinct']} of "
            f"{found['random_states']['draws']} | exact, all |"
        )
    rows.append(
        f"| the same, stock in 2 processes: distinct draws | {stock['distinct']} of "
        f"{stock['draws']} | |"
    )
    return rows


def deepmedic(doc: dict[str, Any]) -> list[str]:
    """A subepoch of the real DeepMedic with synthetic cases over one without."""
    words = {"draw": "drawing a subepoch", "train": "training on it", "whole": "the training"}
    return [
        f"| real DeepMedic, {words[key]}: at R:S from {doc['bank']} bank / stock "
        f"| {interval(found)} | {'<= 1.05' if key == 'whole' else ''} |"
        for key, found in doc["mixed_over_stock"].items()
    ]


KINDS = ("real", "synthetic")
MAKERS = {
    "recipe_sizes": recipe_sizes,
    "lesion": lesion,
    "deepmedic_real": deepmedic_real,
    "deepmedic": deepmedic,
    "cpggan_contrast": cpggan_contrast,
    "cpggan": cpggan,
    "detector_gain": detector_gain,
    "detector": detector,
    "mask_recovery": mask_recovery,
    "dcgan_nnunet": dcgan_nnunet,
    "dcgan": dcgan,
    "injection": injection,
    "live": live,
    "draws": draws,
    "soak": soak,
    "gan_step": gan_step,
    "label_recovery": label_recovery,
    "hippocampus": hippocampus,
    "growth": growth,
    "reads": reads,
    "realism": realism,
    "papers": papers,
    "mmgan_quality": mmgan_quality,
    "statistics": statistics,
}


def main() -> None:
    """Write the table."""
    lines = ["| what | result (95 % interval) | bar |", "| --- | --- | --- |"]
    machines = set()
    for path in sorted(RESULTS.glob("*.json")):
        doc = json.loads(path.read_text(encoding="utf-8"))
        if doc["benchmark"].startswith("evaluate"):  # docs/evaluate.md has a table of its own
            continue
        maker = next(m for name, m in MAKERS.items() if doc["benchmark"].startswith(name))
        lines += maker(doc)
        m = doc["machine"]
        gpu = m.get("cuda") or "no GPU"
        machines.add(f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, {gpu}")
    text = "\n".join([*lines, "", f"Machine: {'; '.join(sorted(machines))}.", ""])
    (RESULTS / "TABLE.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
