"""The parts that ``run.sh`` measures on a GPU, each in a process of its own with a JSON document.

    python benchmarks/gpu/parts.py gan_step --size 128 --dtype bf16 --out gan_step.json [--tiny]

Peaks are bytes of tensors, as PyTorch's allocator counts them, from before anything is on the GPU.
A step of ours is one of the real training loop, batches copied from the CPU; steps are timed from
one reading of the losses to another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_gan_step import (
    CHANNELS,
    Peer,
    batch_of,
    flops,
    match_widths,
    our_steps,
    ours,
    peer_steps,
)
from bench_loading import BATCH, CLASSES, Large, fed
from common import alternate, machine, ratio, training_step
from torch.autograd import DeviceType
from torch.profiler import profile, supported_activities

from gansynth.core.generator import Batch, Generator, Stage, move
from gansynth.core.registry import installed
from gansynth.core.schema import Condition, Schema
from gansynth.fitting.recipe import find_recipe
from gansynth.nn.networks.blocks import one_hot
from gansynth.runtime.devices import tf32
from gansynth.runtime.options import split_settings
from gansynth.training.cuda_graphs import Compile
from gansynth.training.loading import threads_for
from gansynth.training.loop import FitOptions

CUDA = torch.device("cuda")
NEVER = {"sample_every": 10**9, "checkpoint_every": 10**9, "diversity": 0}
Document = dict[str, Any]
Batches = Callable[[int, Stage, range], Batch]


# -- time and memory -------------------------------------------------------------------------------


@contextmanager
def peak_of(found: Document) -> Iterator[None]:
    """Note the peak of what is allocated inside, and the whole pool's, in GB of 1e9 bytes."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.synchronize()
    found["peak_gb"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    found["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9


def peer_step(peer: Peer, size: int, steps: int) -> Callable[[], float]:
    """Steps of the peer; seconds of one."""
    batch = batch_of(size)

    def run() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            assert batch.labels is not None
            peer.step(one_hot(batch.labels.to(CUDA), range(CHANNELS)), batch.image.to(CUDA))
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps

    return run


def measured(make: Callable[[], Callable[[], float]], rounds: int = 3) -> Document:
    """Peak, seconds until the first call is over, and the seconds that further calls return."""
    found: Document = {}
    try:
        with peak_of(found):
            began = time.perf_counter()
            run = make()
            run()
            found["first_call"] = time.perf_counter() - began
        found["seconds"] = [run() for _ in range(rounds)]
    except Exception as error:
        traceback.print_exc()
        found["failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return found


# -- a GAN's step beside MONAI's pair --------------------------------------------------------------


VARIANTS = ("", "CUDA graphs", "cudnn.benchmark", "channels-last")
"""Ways to run a step: as it is, and one change each. Whole steps as CUDA graphs are ours alone:
they are compared with MONAI's step as it is."""


def arrange(nets: Iterable[torch.nn.Module], variant: str) -> None:
    """Lay out weights, and with them what is computed, for a variant."""
    for net in nets if variant == "channels-last" else ():
        net.to(memory_format=torch.channels_last_3d)


def gan_step(args: argparse.Namespace) -> Document:
    """``cgan3d`` of equal FLOPs beside MONAI's pair, in each way, in turn."""
    size, steps = (32, 1) if args.tiny else (args.size, 40 if args.size < 128 else 20)
    width = 8 if args.tiny else 32
    document: Document = {"size": size, "dtype": args.dtype, "shape": args.shape}
    document["tf32"] = tf32(CUDA) if args.dtype == "fp32" else None
    widths, sides = (width, width), dict[str, Callable[[], float]]()
    try:
        peer = Peer(width, args.dtype, device="cuda")
        target = flops(peer_steps(peer, size, 1, "cuda"))
        told = argparse.Namespace(size=size, shape=args.shape, width=width)
        if args.widths:
            widths = tuple(args.widths)
            cost = flops(our_steps(ours(size, *widths, args.shape), size, "bf16", 1, "cuda"))
        else:
            *widths, cost = match_widths(told, target, "cuda")  # type: ignore[assignment]
        document["gflops"] = {"cgan3d": cost / 1e9, "MONAI": target / 1e9}
        del peer
    except (ImportError, SystemExit) as error:
        document["unmatched"] = " ".join(str(error).split())

    def our_side(variant: str) -> Callable[[], float]:
        how = "graphs" if variant == "CUDA graphs" else "off"
        batch, loop = batch_of(size), {"batch_size": 1, "precision": args.dtype, "compile": how}
        generator = ours(size, *widths, args.shape)
        arrange(generator.nets.values(), variant)
        return training_step(generator, lambda *_: batch, steps, "cuda", ema_half_life=1000, **loop)

    def peer_side(variant: str) -> Callable[[], float]:
        peer = Peer(width, args.dtype, device="cuda")
        arrange((peer.g, peer.d), variant)
        return peer_step(peer, size, steps)

    found: Document = {}
    for variant in args.ways:
        for name, side in (("cgan3d", our_side), ("MONAI", peer_side)):
            if name == "MONAI" and variant == "CUDA graphs":
                continue
            label = f"{name}, {variant}" if variant else name

            def make(label: str = label, side: Any = side, variant: str = variant) -> Any:
                run = side(variant)

                def tuned() -> float:
                    torch.backends.cudnn.benchmark = variant == "cudnn.benchmark"
                    return float(run())

                sides[label] = tuned
                return tuned

            found[label] = measured(make, rounds=1)
    running = {label: sides[label] for label in found if "failed" not in found[label]}
    if running:
        rounds, warmup = (1, 0) if args.tiny else (args.rounds, 1)
        for label, seconds in alternate(running, rounds, warmup).items():
            found[label]["seconds"] = seconds
    pairs: Document = {}
    for tail in (f", {variant}" if variant else "" for variant in args.ways):
        ours_, peers = "cgan3d" + tail, "MONAI" + ("" if tail == ", CUDA graphs" else tail)
        if {ours_, peers} <= set(running):
            pairs[tail] = ratio(found[ours_]["seconds"], found[peers]["seconds"])
    return {**document, "widths": list(widths), "sides": found, "over_monai": pairs}


# -- generators in 2D, a large volume, a paper's step ----------------------------------------------


def made(name: str, size: Sequence[int], **own: Any) -> Generator:
    """A generator of two channels and one label; ``cpggan`` is at its last size at once."""
    boxes = ("lesion",) if name == "cpggan" else ()
    names = {"background": 0, "one": 1}
    axes = "DHW"[-len(size) :]
    schema = Schema(("T1", "T2"), names, (1.0,) * len(size), axes, box_classes=boxes)
    cls = installed().generator(name)
    torch.manual_seed(0)
    return cls(schema, tuple(size), cls.Options.model_validate(own))


def random_batches(generator: Generator) -> Batches:
    """Batches of noise, with labels, boxes and what Doncenco's recipe asks for."""
    channels, size = len(generator.schema.channels), generator.size
    boxed = bool(generator.schema.box_classes)

    def batches(step: int, stage: Stage, which: range) -> Batch:
        rng, count = torch.Generator().manual_seed(step), len(which)
        image = torch.randn(count, channels, *size, generator=rng).clamp(-1, 1)
        labels = (image[:, 0] > 0.5).long()
        box = torch.tensor([[[2.0, 2, 6, 6]]]).expand(count, 1, 4) if boxed else None
        classes = torch.zeros(count, 1, dtype=torch.int64) if boxed else None
        asked, body = labels.roll(4, -1), torch.ones_like(labels)
        context = {"asked": asked, "asked_context": body * (asked == 0)}
        return Batch(image, labels, body * (labels == 0), boxes=box, box_labels=classes, **context)

    return batches


TINY = {"dcgan": {"width": 4, "latent": 8}, "cgan3d": {"width": 4, "d_width": 4}}
TINY["cpggan"] = {"width": 2, "max_width": 4, "latent": 8}
LAST_SIZE = {"cpggan": {"stage_images": 2, "fade_images": 0}}


def gan_2d(args: argparse.Namespace) -> Document:
    """Images a second of the 2D GANs at one size, by CUDA graphs and without."""
    size, batch = (16, 4) if args.tiny else (args.size, 16)
    found: Document = {}
    for name in ("dcgan", "cpggan", "cgan3d"):
        own = {**LAST_SIZE.get(name, {}), **(TINY[name] if args.tiny else {})}
        ways: tuple[tuple[str, Compile], ...] = (("", "graphs"), (", compile=off", "off"))
        for dtype, (tail, how) in product(("fp32", "bf16"), ways):
            loop = {"batch_size": batch, "precision": dtype, "compile": how}

            def make(name: str = name, own: Document = own, loop: Document = loop) -> Any:
                generator = made(name, (size, size), **own)
                batches, steps = random_batches(generator), 1 if args.tiny else 20
                return training_step(generator, batches, steps, "cuda", **loop)

            found[f"{name}, {dtype}{tail}"] = measured(make, 1 if args.tiny else 3)
    return {"size": size, "batch_size": batch, "sides": found}


def kernels(args: argparse.Namespace) -> Document:
    """Kernels and waits of a training step: what a run of 16 steps has beyond one of 8."""
    plane, edge, short = (16, 16, 1) if args.tiny else (128, 64, 4)
    sizes = {"dcgan": (plane,) * 2, "cpggan": (plane,) * 2, "cgan3d": (edge,) * 3}
    found: Document = {}
    for name, size in sizes.items():
        own = {**LAST_SIZE.get(name, {}), **(TINY[name] if args.tiny else {})}
        generator, counted = made(name, size, **own), list[np.ndarray]()
        for steps in (short, 2 * short):
            batches = random_batches(generator)
            run = training_step(
                generator, batches, steps, "cuda", batch_size=2, precision="bf16", compile="off"
            )
            run()
            with profile(activities=supported_activities()) as profiled:
                run()
            counted.append(counts(profiled))
        step = (counted[1] - counted[0]) / (2 * short)
        what = ("kernels", "copies", "waits", "busy_ms")
        found[f"{name}, {'x'.join(map(str, size))}"] = dict(zip(what, step.tolist(), strict=True))
    return {"batch_size": 2, "dtype": "bf16", "sides": found}


def counts(profiled: profile) -> np.ndarray:
    """Kernels, copies, waits of the CPU for the GPU, and ms of what ran on the GPU."""
    events = profiled.events() or []
    there = [event for event in events if event.device_type == DeviceType.CUDA]
    copies = [event for event in there if event.name.startswith(("Memcpy", "Memset"))]
    waits = [event for event in events if event.name.endswith("Synchronize")]
    busy = sum(event.time_range.elapsed_us() for event in there) / 1e3
    return np.array([len(there) - len(copies), len(copies), len(waits), busy])


def volume(args: argparse.Namespace) -> Document:
    """A sample of ``cgan3d`` at 256^3: as tiles, and as a whole."""
    edge, tiles = (32, (16, 32)) if args.tiny else (256, (0, 256))
    labels = np.zeros((edge,) * 3, np.int16)
    labels[edge // 4 : edge // 2, edge // 4 : edge // 2] = 1
    found: Document = {}
    for tile in tiles:
        for dtype in ("fp32", "bf16"):

            def make(tile: int = tile, dtype: str = dtype) -> Callable[[], float]:
                own = {"sample_tile": tile, **(TINY["cgan3d"] if args.tiny else {})}
                generator = made("cgan3d", (edge,) * 3, **own)
                move(generator, CUDA)
                generator.precision = "fp32" if dtype == "fp32" else "auto"

                def run() -> float:
                    began = time.perf_counter()
                    generator.sample([Condition(labels=labels)], [0])
                    return time.perf_counter() - began

                return run

            how = "whole" if tile == edge else "tiles"
            found[f"{how}, {dtype}"] = measured(make, 1 if args.tiny else 5)
    return {"size": edge, "sides": found}


def doncenco(args: argparse.Namespace) -> Document:
    """A step of Doncenco's recipe at full size."""
    spec, size = find_recipe("doncenco2022").spec, (16,) * 3 if args.tiny else (64, 240, 240)
    own = next(run.set for run in spec.runs if run.name == "SN")
    names = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
    schema = Schema(("flair", "t1", "t1ce", "t2"), names, (1.5, 1.0, 1.0))
    cls, found = installed().generator("cgan3d"), dict[str, Any]()
    for dtype, checkpointing in (("bf16", "yes"), ("bf16", "no"), ("fp32", "yes"), ("fp32", "no")):
        settings = {key: str(value) for key, value in {**spec.set, **own}.items()}
        settings |= {"checkpointing": checkpointing, "fit_edits": "transplant:pairs=any"}
        settings |= {"width": "4", "d_width": "4"} if args.tiny else {}
        loop, options = split_settings(settings, FitOptions, cls.Options, generator="cgan3d")
        told = {**loop.model_dump(exclude={"steps", "epochs", *NEVER, "log_every"})}

        loop_of_part = {**told, "precision": dtype}

        def real(options: Any = options, own: Document = loop_of_part) -> Callable[[], float]:
            torch.manual_seed(0)
            made = cls(schema, size, options)
            return training_step(made, random_batches(made), 1 if args.tiny else 6, "cuda", **own)

        label = f"{dtype}, checkpointing" if checkpointing == "yes" else dtype
        found[label] = measured(real, rounds=1)
    return {"size": list(size), "sides": found}


def real_fit(args: argparse.Namespace) -> Document:
    """Steps of ``cgan3d`` fed by the loop's own threads, beside those of one constant batch."""
    name = str(args.size or 64)
    size, shape = ((16,) * 3, (24,) * 3) if args.tiny else CLASSES[name][:2]
    own: Document = {"width": 4, "d_width": 4} if args.tiny else {}
    steps = 1 if args.tiny else 40
    source, found = Large(shape), dict[str, Any]()
    for label in ("constant batch", "real fit"):

        def side(label: str = label) -> Callable[[], float]:
            generator, batches = fed(source, size, **own)
            same = batches(0, Stage(), range(BATCH))
            read = batches if label == "real fit" else lambda *_: same
            return training_step(generator, read, steps, "cuda", batch_size=BATCH)

        found[label] = measured(side, 1 if args.tiny else 5)
    threads = threads_for(CUDA)
    return {"size": list(size), "case": list(shape), "threads": threads, "sides": found}


# -- the tests for a GPU ---------------------------------------------------------------------------


def tests(args: argparse.Namespace) -> Document:
    """One file of ``tests/gpu``."""
    words = ["-m", "pytest", args.file, "-q", "-n0", "-m", "gpu and not slow", "--tb=short", "-rfE"]
    words += ["-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    print(done.stdout[-20_000:], done.stderr[-5000:])
    lines = done.stdout.splitlines() or [""]
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1])
    failures = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))]
    found = {"passed": 0, "failed": 0, "skipped": 0, **{word: int(n) for n, word in counts}}
    return {"file": Path(args.file).name, "exit_code": done.returncode, **found, "lines": failures}


PARTS = {
    part.__name__: part for part in (gan_step, gan_2d, real_fit, kernels, volume, doncenco, tests)
}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal")
    parser.add_argument("--size", type=int)
    parser.add_argument("--dtype", choices=("fp32", "bf16"))
    parser.add_argument("--shape", default="pix2pix", help="of cgan3d, see bench_gan_step.py")
    parser.add_argument("--ways", nargs="+", default=VARIANTS, help='of gan_step; "" is as it is')
    parser.add_argument("--rounds", type=int, default=9, help="of gan_step's sides")
    parser.add_argument("--widths", type=int, nargs=2, help="of gan_step, found before to match")
    parser.add_argument("--file", help="of tests/gpu")
    args = parser.parse_args()
    document = PARTS[args.part](args)
    head = {"benchmark": args.part, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
    unfinished = args.out.with_suffix(".tmp")
    unfinished.write_text(json.dumps({**head, **document}, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, args.out)


if __name__ == "__main__":
    main()
