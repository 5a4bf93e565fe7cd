"""Open a run: its generator, or a composite's parts, with the weights of its manifest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.capabilities import AVERAGED
from gansynth.core.registry import installed
from gansynth.core.run_folder import FIT_AGAIN, MANIFEST, RunDescription, RunFolder
from gansynth.core.schema import Schema
from gansynth.core.space import Space
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import check_sha256, path_inside
from gansynth.runtime.machine import refuse_beyond_memory
from gansynth.sampling.manifest import NOTHING, PARTS, Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gansynth.core.generator import Generator
    from gansynth.core.sample_request import SampleRequest
    from gansynth.runtime.devices import Precision
    from gansynth.sampling.composite import CompositeBase

_COPIES = 8  # arrays of a sample's size that drawing it holds at once, about


def check_weights(run: RunDescription) -> Path:
    """Return the weights' file (of a composite: the folder) if it matches the manifest."""
    if PARTS in run.manifest:
        return check_parts(run)
    folder = run.folder
    weights: Mapping[str, str] | None = run.manifest["weights"]
    if weights is None:
        raise UsageFault(
            "sampling.run-without-checkpoint",
            f"{folder}: this run was stopped before its first checkpoint; type the gansynth fit "
            "that began it again (its settings are in config.yaml)",
        )
    path = path_inside(folder, weights["path"], key=f"{folder / MANIFEST}: key 'weights'")
    check_sha256(path, weights["sha256"], f"{MANIFEST}; {FIT_AGAIN}")
    return path


def load_run(run: Path | RunFolder, device: str = "auto") -> Run:
    """Open a run: build its generator and load the averaged weights, checked against their hash."""
    from gansynth.core.generator import move
    from gansynth.runtime.devices import pick_device
    from gansynth.training.checkpoint import load_tensors

    run = RunFolder(run) if isinstance(run, Path) else run
    manifest = dict(run.manifest)
    check_room(run.space, run.schema, f"{run.folder / MANIFEST}: key 'space'")
    if PARTS in manifest:
        return Run(run.folder, load_composite(run, device), manifest)
    path = check_weights(run)
    generator = build_generator(run, path)
    load_weights(generator, load_tensors(path, manifest["weights"]["sha256"]))
    load_state(generator, run.folder, manifest)
    picked = pick_device(device)
    generator.precision = _precision(run, picked)
    move(generator, picked)
    return Run(run.folder, generator, manifest)


def load_named_in(
    path: Path,
    weights: Mapping[str, str],
    space: Space,
    schema: Schema,
    build: Callable[[], Generator],
) -> Generator:
    """Build a network with fresh weights, and load the averaged ones that a document names.

    ``path``: the document. ``weights``: in it, their ``path`` from its folder, and ``sha256``.
    ``space``, ``schema``: of the training's cases.
    """
    from gansynth.training.checkpoint import load_tensors

    check_room(space, schema, f"{path}: key 'space'")
    file = path_inside(path.parent, weights["path"], key=f"{path}: key 'weights'")
    tensors = load_tensors(file, weights["sha256"])
    generator = build_fitting(build, file)
    load_weights(generator, tensors)
    return generator


def below_its_size(run: Run) -> tuple[str, int]:
    """Return why samples are blocks, and from how many steps not; "" and 0 of a grown generator."""
    from gansynth.sampling.composite import CompositeBase
    from gansynth.training.loop import steps_to_grow

    if isinstance(run.generator, CompositeBase):
        for part in run.generator.parts:
            why, least = below_its_size(part.run)
            if why:
                return why, least
        return "", 0
    stages, steps = list(run.generator.stages()), int(run.manifest["steps"])
    batch_size = run.loop_options.get("batch_size", 1)
    least = steps_to_grow(stages, batch_size)
    if steps >= least:
        return "", 0
    full = "x".join(map(str, stages[-1].size or run.space.size))
    why = (
        f"{run.folder}: {run.generator.name} has not grown to {full} in {steps} steps, and draws "
        f"blocks; expected at least {least} steps. Continue its fit (--set steps={least}), or "
        f"fit it with shorter stages: gansynth options {run.generator.name} has their keys"
    )
    return why, least


def refuse_below_size(run: Run, request: SampleRequest) -> None:
    """Refuse (UsageFault) samples of a generator that has not grown, unless all are accepted."""
    why, _ = below_its_size(run)
    if why and not request.keep_flawed:
        raise UsageFault(
            "sampling.generator-below-its-size", f"{why}; --filter none draws them all the same"
        )


def check_room(space: Space, schema: Schema, where: str) -> None:
    """Refuse (EnvironmentFault) a space whose samples are larger than the memory."""
    voxels = max(math.prod(space.size), math.prod(space.frame))
    size = " x ".join(map(str, space.frame or space.size))
    what = f"{where} has samples of {size} voxels and {len(schema.channels)} channel(s)"
    refuse_beyond_memory(4 * _COPIES * (len(schema.channels) + 1) * voxels, what)


def load_state(generator: Generator, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Restore what a generator has learnt of its cases; IntegrityFault: it cannot be read."""
    try:
        generator.load_state(manifest["state"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise IntegrityFault(
            "sampling.generator-state-damaged",
            f"{folder / MANIFEST}: damaged, key 'state': {type(error).__name__}: "
            f"{str(error)[:200]}; {FIT_AGAIN}",
        ) from error


def _precision(run: RunDescription, device: torch.device) -> Precision:
    """Return the training precision: bf16 gives other samples than fp32. Half counts as bf16."""
    trained = str(run.loop_options.get("precision", "auto"))
    if trained == "fp32":
        return "fp32"
    return "auto" if trained == "auto" or device.type != "cuda" else "bf16"


def load_weights(generator: Generator, tensors: Mapping[str, Tensor]) -> None:
    """Load the averaged weights, by ``network/tensor``, into networks of their shapes."""
    net = generator.nets.get(AVERAGED)
    if net is not None:
        prefix = f"{AVERAGED}/"
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        net.load_state_dict(state, strict=False)


def build_fitting(build: Callable[[], Generator], path: Path) -> Generator:
    """Build a generator with fresh weights, once its networks are known to be those of a file.

    They are built without memory first. torch's random state is kept. ``path``: the averaged
    weights; of a generator without networks anything.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from torch.overrides import TorchFunctionMode

    class WithoutValues(TorchFunctionMode):
        """Leaves tensors unfilled: on ``meta``, torch imports half of its compiler to fill them."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if func.__name__ == "normalize" or func.__name__[-1:] == "_" != func.__name__[:1]:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), WithoutValues():
                generator = build()
        except (RuntimeError, TypeError):  # a plugin's networks that need values to be built
            generator = build()
        if not generator.nets:
            return build()
        states = {
            f"{name}/{key}": value
            for name, net in generator.nets.items()
            for key, value in net.state_dict().items()
        }
        averaged = f"{AVERAGED}/"
        try:
            with safe_open(path, "pt") as file:
                names = [key for key in file.keys() if key.startswith(averaged)]  # noqa: SIM118
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
        except SafetensorError as error:
            raise IntegrityFault(
                "sampling.weights-not-safetensors",
                f"{path}: not a safetensors file: {error}; {FIT_AGAIN}",
            ) from error
        # Only floating-point tensors are averaged; counters keep their initial value.
        expected = {
            k: tuple(v.shape)
            for k, v in states.items()
            if k.startswith(averaged) and v.is_floating_point()
        }
        differing = [k for k in expected.keys() | shapes.keys() if expected.get(k) != shapes.get(k)]
        if differing:
            first = min(differing)
            raise IntegrityFault(
                "sampling.weights-do-not-fit",
                f"{path}: {len(differing)} tensor(s) do not fit the generator, first {first}: "
                f"{shapes.get(first)}, expected {expected.get(first)}; this run was made by "
                "another version of its plugin. Fit it again",
            )
        size = sum(value.nbytes for value in states.values())
        refuse_beyond_memory(size, f"{path.parent}: the run has networks")
        return build()


def build_generator(run: RunDescription, path: Path) -> Generator:
    """Build a run's generator with fresh weights; see ``build_fitting``."""
    from pydantic import ValidationError

    manifest, space = run.manifest, run.space
    cls = installed().generator(manifest["generator"])
    schema = space.generator_schema(run.schema)
    try:
        options = cls.Options(**manifest["options"])
    except (ValidationError, TypeError) as error:
        raise IntegrityFault(
            "sampling.manifest-options-of-other-version",
            f"{run.folder / MANIFEST}: key 'options': {_first_line(error)}; expected "
            f"options of the installed {manifest['generator']}. This run was made by another "
            "version of its plugin: install that one, or fit the run again with another -o",
        ) from None
    return build_fitting(lambda: cls(schema, space.size, options), path)


def _first_line(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "all"
    further = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    return f"{where} is {first['input']!r}: {first['msg']}{further}"


def load_composite(run: RunDescription, device: str) -> CompositeBase:
    """Open the parts that generate images, each checked against the composite's manifest."""
    from gansynth.sampling.composite import CompositeGenerator, CompositePart, PerClassGenerator

    check_parts(run)
    folder, space = run.folder, run.space
    taking_part = [part for part in run.manifest[PARTS] if part["draws"] != NOTHING]
    parts = [
        CompositePart(p["name"], load_run(part_folder(folder, p), device)) for p in taking_part
    ]
    schema = space.generator_schema(run.schema)
    if all(part.classes for part in parts):
        return PerClassGenerator(schema, space, parts)
    parts = [part for part in parts if part.run.capabilities.draws != "labels"]
    missing = sorted(set(schema.channels) - {c for part in parts for c in part.draws})
    if missing:
        raise IntegrityFault(
            "sampling.channel-without-part",
            f"{folder / MANIFEST}: no part draws channel(s) {', '.join(missing)}; expected one for "
            "each. Fit the run again",
        )
    return CompositeGenerator(schema, space, parts)


def check_parts(run: RunDescription) -> Path:
    """Return the folder of the parts if every one of them is complete and unchanged."""
    folder = run.folder
    for part in run.manifest[PARTS]:
        if part["manifest_sha256"] is None:
            raise UsageFault(
                "sampling.part-not-fitted",
                f"{folder}: part {part['name']!r} is not fitted yet; continue the gansynth fit "
                "that began this run",
            )
        part_run = part_folder(folder, part)
        said = f"the composite's {MANIFEST}; {FIT_AGAIN}"
        check_sha256(part_run / MANIFEST, part["manifest_sha256"], said)
        check_weights(RunFolder(part_run))
    return folder / PARTS


def part_folder(folder: Path, part: Mapping[str, Any]) -> Path:
    """Return the folder of a part."""
    label = f"{folder / MANIFEST}: key 'parts'"
    return path_inside(folder, part["folder"], key=label)
