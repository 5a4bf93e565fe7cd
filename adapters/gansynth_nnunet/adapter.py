"""nnU-Net v2 as a host: unmodified, trained in a child process by its own ``run_training``."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gansynth.adapter import Adapter, HostArrays, Injection, Outcome
from gansynth.errors import DataFault, UsageFault
from gansynth.integrity import disk_errors, read_json, write_json_atomic
from gansynth.lineage import CaseRecord
from gansynth.mixing import MixPlan
from gansynth.schema import Sample
from gansynth.sources.base import CaseSource
from gansynth_nnunet import child
from gansynth_nnunet.class_locations import Key, encode, location_keys
from gansynth_nnunet.config import SETTINGS, MixConfig, parse_settings
from gansynth_nnunet.guards import check_bank, check_run, check_samples, host_size
from gansynth_nnunet.launch import (
    EXT_TRAINER,
    PARENT,
    TRAINER,
    parse_options,
    pick_device,
    with_ext_trainer,
)
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.record import SIDECAR
from gansynth_nnunet.session import remove_banks_of
from gansynth_nnunet.source import NnunetSource

WORKERS = "2"
"""nnU-Net's augmentation processes unless the user says otherwise (``nnUNet_n_proc_DA``)."""


class NnunetAdapter(Adapter):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name: ClassVar[str] = "nnunet"
    settings: ClassVar[Mapping[str, str]] = {key: text for key, (_, text) in SETTINGS.items()}

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        if not isinstance(source, NnunetSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: nnU-Net trains on its own "
                "data sets, expected nnunet:ID"
            )
        self.host = source

    @property
    def output_folder(self) -> Path:
        """Where nnU-Net writes this training's results."""
        host = self.host
        model = f"{TRAINER}__{self._plans}__{host.configuration}"
        return host.root.results / host.dataset / model / f"fold_{host.fold}"

    @property
    def _plans(self) -> str:
        """Name of the plans' file, which is what nnU-Net's ``-p`` takes."""
        return self.host.plans.path.stem

    @property
    def sample_size(self) -> tuple[int, ...]:
        """The patch in voxels, (D, H, W); in 2D one slice, (1, H, W)."""
        return host_size(self.host.patch_size)

    def finalise(self, sample: Sample) -> HostArrays:
        """Voxels of each label or region, for nnU-Net's foreground crops."""
        if sample.labels is None:
            raise DataFault("sample: no labels, expected them: nnU-Net learns from nothing else")
        return encode(sample.labels, self.keys)

    def validate(self) -> None:
        """Check that nnU-Net has what it needs beside the cases that the source has checked.

        Raises:
            DataFault: nnU-Net's fingerprint or the labels it validates against are missing, or the
                plans have another name than their file.
        """
        plans, folder = self.host.plans, self.host.plans.folder
        if plans.doc["plans_name"] != self._plans:
            raise DataFault(
                f"{plans.path}: plans_name is {plans.doc['plans_name']!r}, expected its own name"
            )
        for name in ("dataset_fingerprint.json", "gt_segmentations"):
            if not (folder / name).exists():
                raise DataFault(
                    f"{folder / name}: missing, expected it from nnU-Net's preprocessing; "
                    f"run: gansynth prepare nnunet:{self.host.dataset[7:10]} -c "
                    f"{self.host.configuration}"
                )

    def inject(self, dataset: Any, plan: MixPlan[str], *, batch_size: int) -> MixedDataset:
        """Wrap an nnU-Net training data set; for those who build their own trainer.

        Raises:
            DataFault: the bank's samples have other channels.
        """
        channels = len(self.schema.channels)
        return MixedDataset(dataset, plan, batch_size, channels, self.keys)

    def check(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> None:
        """Check settings, nnU-Net's options, and the generator or bank.

        Raises:
            IntegrityFault: leakage, or another data set, plans, configuration.
            UsageFault: a setting, option, edit or device that cannot be; no run or bank there, or
                samples smaller than a patch.
            DataFault: a bank of other channels or labels, or with a sample that cannot be.
        """
        parse_options(options)
        self._config(injection, parse_settings(settings))
        if injection.ratio.p > 0:
            self._check(injection)

    def start(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> Outcome:
        """Train nnU-Net in a child process and wait for its end.

        Raises:
            GansynthError: before anything starts, what ``validate`` and ``check`` refuse.
            EnvironmentFault: another process trains into the same folder.
            TrainingFault: nnU-Net failed.
            KeyboardInterrupt, SystemExit: interrupted, after nnU-Net has ended too.
        """
        self.validate()
        self.check(injection, settings, options)
        from gansynth.run import locked

        config = self._config(injection, parse_settings(settings))
        with locked(self.output_folder, "take other --data, --plans or --fold"):
            self._train(self._write(config), options)
            return self._outcome()

    def _train(self, config: Path, options: Sequence[str]) -> None:
        """Run nnU-Net in a child process until it ends."""
        environ = {
            "nnUNet_n_proc_DA": WORKERS,
            "nnUNet_def_n_proc": str(min(8, os.cpu_count() or 1)),  # nnU-Net: 8 on any machine
            **with_ext_trainer(dict(os.environ)),
            **self.host.root.variables(),
            MixConfig.FILE: str(config),
            PARENT: str(os.getpid()),
        }
        command = [sys.executable, "-m", "gansynth_nnunet.launch", self.host.dataset]
        command += [self.host.configuration, self.host.fold, "-p", self._plans, *options]
        command += ["-device", pick_device(parse_options(options).device)]
        ended = child.run(command, environ, self.output_folder / "gansynth_launch.log")
        if ended.code != 0:
            remove_banks_of(ended.pid)
        child.raise_if_failed(ended, f"{self.output_folder}: nnU-Net's training")

    # -- before ----------------------------------------------------------------------------------

    @functools.cached_property
    def _held_out(self) -> tuple[CaseRecord, ...]:
        return self.source.records(self.source.held_out_ids)

    def _config(self, injection: Injection, settings: Mapping[str, int | float]) -> MixConfig:
        """What the child is told."""
        return MixConfig(
            injection=injection,
            settings=settings,
            subjects=self.source.request.subjects,
            held_out=self._held_out if injection.ratio.p > 0 else (),
        )

    def _check(self, injection: Injection) -> None:
        if injection.bank is None:
            from gansynth import precision, sampling

            assert injection.run is not None  # see Injection
            check_run(injection.run, self.source.host, self._held_out, self.sample_size)
            sampling.build_edits(injection.edits)
            precision.pick_device(injection.device)
            return
        from gansynth.bank import BankReader

        spec = BankReader(injection.bank).spec
        check_bank(injection.bank, spec, self.source.host, self._held_out)
        check_samples(injection.bank, self.schema, self.sample_size)

    def _write(self, config: MixConfig) -> Path:
        file = self.output_folder / "gansynth_config.json"
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(file, config.to_json())
        return file

    # -- after -----------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        """Counts over all sessions of this training, and nnU-Net's own validation."""
        sessions = read_json(self.output_folder / SIDECAR)["sessions"]
        drawn = [session["drawn"] for session in sessions]
        total = {k: sum(d[k] for d in drawn) for k in ("real", "synthetic", "fell_back")}
        reasons: Counter[str] = Counter()
        for counts in drawn:
            reasons.update(counts["reasons"])
        return Outcome(
            folder=self.output_folder,
            drawn_real=total["real"],
            drawn_synthetic=total["synthetic"],
            fell_back=total["fell_back"],
            metrics=self._metrics(),
            reasons=dict(reasons),
        )

    def _metrics(self) -> dict[str, Any]:
        """``dice`` and ``dice_per_label`` of nnU-Net's validation on real held-out cases."""
        path = self.output_folder / "validation" / "summary.json"
        if not path.is_file():
            return {}
        summary = read_json(path)
        per_label = {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()}
        return {"dice": _number(summary["foreground_mean"]["Dice"]), "dice_per_label": per_label}

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net wants to know."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(dict(self.host.plans.doc))
        return location_keys(manager.get_label_manager(dict(self.host.dataset_json)))


def _number(value: float) -> float | None:
    """None where nnU-Net says NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None


def doctor_lines() -> list[str]:
    """What ``gansynth doctor`` says about nnU-Net on this machine."""
    from importlib.metadata import PackageNotFoundError, version

    from gansynth_nnunet import torchvision_cure

    try:
        lines = [f"nnU-Net {version('nnunetv2')}"]
    except PackageNotFoundError:
        return ["nnU-Net is not installed: pip install nnunetv2"]
    for name, folder in NnunetRoot.find().variables().items():
        lines.append(f"{name}: {folder}{'' if Path(folder).is_dir() else ' (not there yet)'}")
    lines.append(
        f"for nnUNetv2_train -tr {TRAINER} and nnUNetv2_predict: nnUNet_extTrainer={EXT_TRAINER}"
    )
    if importlib.util.find_spec("torchvision") is None:
        return lines
    reason = torchvision_cure.failure()
    if reason:
        lines.append(
            f"torchvision does not fit this torch ({reason}): gansynth copes by itself; for "
            f"nnU-Net's own commands set PYTHONPATH={torchvision_cure.CPU_TORCH}"
        )
    else:
        lines.append("torchvision imports")
    return lines
