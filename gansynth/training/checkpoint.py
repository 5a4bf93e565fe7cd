"""Checkpoints: safetensors for tensors, JSON for the rest, published by one rename.

``step-00000500`` has ``tensors.safetensors`` (networks, averages, optimiser moments),
``ema.safetensors`` and ``state.json`` (with SHA-256 of both and of itself). It is published whole
or not at all. The last two are kept. A damaged one is skipped with a note.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.capabilities import AVERAGED
from gansynth.runtime.errors import GansynthError, IntegrityFault
from gansynth.runtime.files import (
    check_digest,
    digest_of,
    disk_errors,
    parse_json,
    remove_temporaries,
    sha256_file,
    whole_folder,
    write_bytes_atomic,
    write_json_atomic,
)

KEPT_CHECKPOINTS = 2
TENSORS, EMA, STATE = "tensors.safetensors", "ema.safetensors", "state.json"


@dataclass
class Checkpoint:
    """A checkpoint that was read and is whole."""

    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    passed_over: list[str]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Publish a checkpoint below ``folder``, keep the last two; return its folder."""
    from safetensors.torch import save as to_bytes

    final, hashes = folder / f"step-{step:08d}", dict[str, str]()
    with disk_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
    with whole_folder(final) as temporary:
        for name, content in ((TENSORS, tensors), (EMA, ema)):
            plain = {k: v.detach().cpu().contiguous().clone() for k, v in content.items()}
            data = to_bytes(plain)
            hashes[name] = hashlib.sha256(data).hexdigest()
            write_bytes_atomic(temporary / name, data)
        document = dict(state, step=step, sha256=hashes)
        write_json_atomic(temporary / STATE, dict(document, digest=digest_of(document)))
        # An existing checkpoint of this step was damaged and skipped.
        shutil.rmtree(final, ignore_errors=True)
    drop_old(folder, final)
    return final


def bytes_of(nets: Mapping[str, nn.Module]) -> int:
    """Return the bytes of a checkpoint with Adam; other optimisers need less."""
    total = 0
    for name, net in nets.items():
        held = sum([value.nbytes for value in net.state_dict().values()])
        moments = 2 * sum([parameter.nbytes for parameter in net.parameters()])
        total += (3 * held if name == AVERAGED else held) + moments
    return total


def drop_old(folder: Path, newest: Path) -> None:
    """Keep ``KEPT_CHECKPOINTS`` checkpoints up to ``newest``, and any newer ones."""
    upto = [path for path in sorted(folder.glob("step-*")) if path.name <= newest.name]
    for old in upto[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint; None if there are none."""
    damaged: list[str] = []
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        try:
            state = parse_json((candidate / STATE).read_text(encoding="utf-8"))
            check_digest(candidate / STATE, state, "an older one is used")
            tensors = load_tensors(candidate / TENSORS, state["sha256"][TENSORS])
            load_tensors(candidate / EMA, state["sha256"][EMA])
        except (
            GansynthError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            damaged.append(f"{candidate.name}: {error}")
            continue
        return Checkpoint(candidate, tensors, state, damaged)
    if damaged:
        raise IntegrityFault(
            "training.all-checkpoints-damaged",
            f"{folder}: every checkpoint is damaged ({'; '.join(damaged)}); expected a whole one. "
            "Restore one from a backup, or start a new run folder with -o",
        )
    return None


def load_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file. Raises IntegrityFault: missing, damaged, or of another SHA-256."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise IntegrityFault(
            "training.tensor-file-missing", f"{path}: missing, expected a safetensors file"
        )
    digest = sha256_file(path)
    if digest != sha256:
        raise IntegrityFault(
            "training.tensor-file-hash-differs",
            f"{path}: SHA-256 is {digest[:12]}..., expected {sha256[:12]}...",
        )
    try:
        loaded: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise IntegrityFault(
            "training.tensor-file-not-safetensors", f"{path}: not a safetensors file: {error}"
        ) from error
    return loaded


def collect(
    nets: Mapping[str, nn.Module],
    averages: Mapping[str, Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, Tensor]:
    """Return every tensor of a training by name: ``net/``, ``ema/`` and ``optim/`` entries."""
    tensors = {f"net/{n}/{k}": v for n, net in nets.items() for k, v in net.state_dict().items()}
    tensors.update({f"ema/{k}": v for k, v in averages.items()})
    names = {id(p): f"{n}/{k}" for n, net in nets.items() for k, p in net.named_parameters()}
    for player, optimizer in optimizers.items():
        for parameter, moments in optimizer.state.items():
            for key, value in moments.items():
                as_tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                tensors[f"optim/{player}/{names[id(parameter)]}/{key}"] = as_tensor
    return tensors


def restore(
    tensors: Mapping[str, Tensor],
    nets: Mapping[str, nn.Module],
    averages: dict[str, Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    folder: Path | None = None,
) -> None:
    """Load what ``collect`` returned, never partially. Raises IntegrityFault: other shapes."""
    expected = {
        f"net/{n}/{k}": v.shape for n, net in nets.items() for k, v in net.state_dict().items()
    }
    expected.update({f"ema/{k}": v.shape for k, v in averages.items()})
    shapes = {k: v.shape for k, v in tensors.items() if k.startswith(("net/", "ema/"))}
    names = expected.keys() | shapes.keys()
    differing = sorted([name for name in names if expected.get(name) != shapes.get(name)])
    if differing:
        raise IntegrityFault(
            "training.checkpoint-does-not-fit",
            f"{folder or 'checkpoint'}: {len(differing)} tensor(s) do not fit these networks, "
            f"first {differing[0]}: {shapes.get(differing[0])}, expected "
            f"{expected.get(differing[0])}. The training began with other options, or with another "
            "version of its plugin, and cannot be resumed. Train into a new folder, -o",
        )
    for name, net in nets.items():
        prefix = f"net/{name}/"
        net.load_state_dict(
            {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        )
    for key, average in averages.items():
        average.copy_(tensors[f"ema/{key}"])
    for player, optimizer in optimizers.items():
        _restore_optimizer(tensors, nets, player, optimizer)


def _restore_optimizer(
    tensors: Mapping[str, Tensor],
    nets: Mapping[str, nn.Module],
    player: str,
    optimizer: torch.optim.Optimizer,
) -> None:
    parameters = {f"{n}/{k}": p for n, net in nets.items() for k, p in net.named_parameters()}
    prefix = f"optim/{player}/"
    # Before a player's first step, a checkpoint has no moments, so the optimiser gets none.
    optimizer.state.clear()
    for key, value in tensors.items():
        if not key.startswith(prefix):
            continue
        name, _, moment = key[len(prefix) :].rpartition("/")
        parameter = parameters[name]
        # Only a fused Adam keeps its step counter on the device; moments follow their parameter.
        fused = optimizer.defaults.get("fused")
        device = parameter.device if value.ndim or fused else torch.device("cpu")
        optimizer.state[parameter][moment] = value.to(device).clone()
