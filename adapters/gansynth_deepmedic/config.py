"""What a training is told: ``--set``, the options about engines, and what follows ``--``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs, refuse_idle, refuse_unaugmented
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.engine.settings import SETTINGS as OF_TORCH
from gansynth_deepmedic.order import Engine

if TYPE_CHECKING:
    from gansynth.core.schema import Schema
    from gansynth_deepmedic.model_config import ModelConfig
    from gansynth_deepmedic.program import Program

_NUMBERS: Mapping[str, tuple[str, int, str]] = {
    "epochs": ("numberOfEpochs", 1, "Epochs to train"),
    "subepochs": ("numberOfSubepochs", 1, "Subepochs of an epoch"),
    "cases": ("numOfCasesLoadedPerSubepoch", 1, "Cases that a subepoch loads"),
    "segments": ("numberTrainingSegmentsLoadedOnGpuPerSubep", 1, "Segments that it takes of them"),
    "batch": ("batchsize_train", 1, "Segments of a training step"),
    "processes": ("num_processes_sampling", -1, "Processes that take segments; -1 for none"),
}
"""Setting -> key of ``trainConfig.cfg``, least value, and what it is."""
SETTINGS: Mapping[str, str] = {
    "engine": "What trains, as --engine: deepmedic (your checkout) or torch.",
    "deepmedic": "Folder of the checkout, as --deepmedic.",
    "python": "Python that has its TensorFlow, as --deepmedic-python.",
    "model": "modelConfig.cfg of the network; torch has DeepMedic's own without.",
    **{key: f"{text} ({name} of the file)." for key, (name, _, text) in _NUMBERS.items()},
    "affine": "Probability that a training case is turned (up to 45 degrees) and zoomed (up to 10 "
    "%), as by augm_img_prms_tr, whose place it takes.",
    "output": "Folder for the results, as -o (runs/deepmedic/NAME_R-S).",
    "resume": "yes goes on with the training in that folder.",
    **{key: f"{text[0].upper()}{text[1:]}; engine torch." for key, text in OF_TORCH.items()},
    "regions": "Regions to report Dice and HD95 of, as unions of labels: WT:1+2+3+4,ET:4.",
}
"""Keys of ``--set`` -> one sentence."""
NEEDS: Needs = {
    **dict.fromkeys(("deepmedic", "python"), "engine=deepmedic"),
    **dict.fromkeys(OF_TORCH.keys() - {"regions"}, "engine=torch"),
}
"""What a setting takes to have an effect."""
RUNS = Path("runs") / "deepmedic"
AUGMENTATION = ("augm_img_prms_tr", "augm_sample_prms_tr", "reflectImagesPerAxis", "performIntAugm")
"""Keys that augment training cases or segments, those of earlier versions included."""
_OWN, _VALUED = ("-train", "-test"), ("-model", "-load", "-dev")
_KNOWN = (*_OWN, *_VALUED, "-resetopt")
NO_ENGINE = (
    "nothing says what is to train, or where to write; expected one of: -o DIR alone, a data set "
    "that stock DeepMedic trains on; --deepmedic CHECKOUT, your own DeepMedic trained on the fly; "
    "--engine torch, gansynth's network of the same kind"
)


@dataclass(frozen=True)
class Choices:
    """What the user says about the training."""

    engine: Engine  # what trains
    checkout: Path | None = None  # folder of the program; None for what the environment names
    python: Path | None = None  # its Python; None likewise
    model: Path | None = None  # the network's configuration; None for DeepMedic's own (torch only)
    output: Path | None = None  # folder for results; None for the usual one
    resume: bool = False  # go on with what is there
    # keys of ``trainConfig.cfg`` that are set otherwise
    numbers: Mapping[str, int] = field(default_factory=dict)
    # likewise, of those that augment training cases
    heavier: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)  # settings of the torch engine
    regions: str = ""  # that Dice and HD95 are reported of, as typed
    arguments: tuple[str, ...] = ()  # of the program, without ``-model``; paths are absolute
    device: str = "cpu"  # of the program, as its ``-dev`` says

    @classmethod
    def read(
        cls, settings: Mapping[str, str], options: Sequence[str], model: Path | None = None
    ) -> Choices:
        """Check and convert ``--set`` values and what follows ``--``.

        Raises:
            UsageFault: naming what is wrong, or that no engine is chosen.
        """
        engine = _engine(settings)
        _refuse_others(engine, settings, options)
        own = _Options.read(options)
        if own.model is not None and settings.get("model", own.model) != own.model:
            raise UsageFault(
                f"-- -model {own.model} and --set model={settings['model']}: expected one of them; "
                "leave the other out"
            )
        resume = _yes(settings, "resume")
        if resume and own.load:
            raise UsageFault(
                "-- -load with --set resume=yes: which checkpoint to go on with is known, expected "
                "one of them; leave the other out"
            )
        named = own.model or settings.get("model")
        model = model if named is None else _path(named)
        if engine == "deepmedic" and model is None:
            raise UsageFault(
                "--set model: DeepMedic has no network of its own, expected its configuration: "
                "-- -model modelConfig.cfg"
            )
        return cls(
            engine,
            checkout=_path(settings.get("deepmedic")),
            python=_program(settings.get("python")),
            model=model,
            output=_path(settings.get("output")),
            resume=resume,
            numbers={_NUMBERS[key][0]: n for key, n in _numbers(settings).items()},
            heavier=_heavier(settings),
            own={key: value for key, value in settings.items() if key in OF_TORCH},
            regions=settings.get("regions", ""),
            arguments=own.arguments,
            device=own.device,
        )

    def asked(self, config: TrainConfig) -> TrainConfig:
        """A configuration with the numbers that hold for this training."""
        known: dict[str, Any] = {key: self.numbers[name] for key, (name, _, _) in _NUMBERS.items()
                 if name in self.numbers}  # fmt: skip
        values = {**config.values, **self.numbers, **self.heavier}
        return replace(config, values=values, **known)

    def values(self, config: TrainConfig, output: Path, *, augmented: bool) -> dict[str, Any]:
        """Keys of ``train.cfg`` that are to be other than the user's file says.

        Raises:
            UsageFault: they are not, and are to be turned.
        """
        turned = self.heavier.get("augm_img_prms_tr", {}).get("affine", {})
        refuse_unaugmented({"affine": turned.get("prob")}, ["affine"], usual=augmented)
        off = [] if augmented else [key for key in AUGMENTATION if config.values.get(key)]
        told = {**self.numbers, **self.heavier, "folderForOutput": str(output)}
        return {**told, **dict.fromkeys(off)}

    def program(self) -> Program:
        """The real program.

        Raises:
            UsageFault: no checkout is named, or it is none.
            EnvironmentFault: its Python lacks something.
        """
        from gansynth_deepmedic.program import find_program

        checkout, python = (
            None if path is None else str(path) for path in (self.checkout, self.python)
        )
        return find_program(checkout, python)

    def network(self, schema: Schema) -> ModelConfig:
        """The network's configuration.

        Raises:
            UsageFault: there is no such file.
            DataFault: code, or keys that do not fit.
        """
        if self.model is not None:
            from gansynth_deepmedic.model_config import read_model_config

            return read_model_config(self.model)
        from gansynth_deepmedic.engine.network import default_model

        return default_model(max(schema.labels.values()) + 1, len(schema.channels))

    @property
    def gpus(self) -> tuple[int, ...]:
        """CUDA devices that the program has for itself."""
        if self.engine == "torch":
            from gansynth.runtime.devices import pick_device

            picked = pick_device(self.own.get("device", "auto"))
            return (picked.index or 0,) if picked.type == "cuda" else ()
        found = re.fullmatch(r"cuda(\d*)", self.device)
        return () if found is None else (int(found[1] or 0),)


# -- the program's own options ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """What follows ``--``, as ``deepMedicRun`` takes it: names may be shortened."""

    arguments: tuple[str, ...] = ()
    model: str | None = None
    load: str | None = None
    device: str = "cpu"

    @classmethod
    def read(cls, options: Sequence[str]) -> _Options:
        found: dict[str, str] = {}
        rest: list[str] = []
        left = list(options)
        while left:
            text = left.pop(0)
            name, equals, value = text.partition("=")
            name = _meant(name)
            if name in _OWN:
                raise UsageFault(
                    f"-- {text}: what is trained is said by --data, expected nothing about it "
                    "here; leave it out"
                    if name == "-train"
                    else f"-- {text}: gansynth augment trains, expected no test beside it; leave "
                    "it out, and test afterwards with DeepMedic itself"
                )
            if name not in _VALUED:
                rest.append(text)
                continue
            if not equals and not left:
                raise UsageFault(f"-- {text}: expected a value after it")
            value = value if equals else left.pop(0)
            if name in found:
                raise UsageFault(f"-- {name} {value}: is given twice, expected once")
            found[name] = value
        load = found.get("-load")
        if load is not None:
            rest = ["-load", str(Path(load).absolute()), *rest]
        device = _device(found.get("-dev", "cpu"))
        return cls(("-dev", device, *rest), found.get("-model"), load, device)


def _meant(name: str) -> str:
    """An option by its whole name, if it is one that is known; argparse takes beginnings."""
    meant = [known for known in _KNOWN if len(name) > 1 and known.startswith(name)]
    if "-train" in meant and "-test" in meant:
        return "-train"
    return meant[0] if len(meant) == 1 else name


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda\d*", text):
        raise UsageFault(f"-- -dev {text}: expected cpu, cuda, or cuda0 and so on")
    return text


# -- reading values --------------------------------------------------------------------------------


def _engine(settings: Mapping[str, str]) -> Engine:
    name = settings.get("engine")
    if name is None and "deepmedic" in settings:
        name = "deepmedic"
    if name is None:
        raise UsageFault(NO_ENGINE)
    if name == "deepmedic":
        return "deepmedic"
    if name == "torch":
        return "torch"
    raise UsageFault(f"--engine {name}: expected deepmedic or torch")


def _refuse_others(engine: Engine, settings: Mapping[str, str], options: Sequence[str]) -> None:
    """Refuse what the other engine alone would heed."""

    def typed(key: str) -> str:
        option = {"deepmedic": "--deepmedic", "python": "--deepmedic-python"}.get(key)
        return f"{option} {settings[key]}" if option else f"--set {key}={settings[key]}"

    refuse_idle(settings, {"engine": engine}, NEEDS, typed)
    if engine == "torch" and options:
        raise UsageFault(
            f"-- {options[0]}: --engine torch has no command line of its own, expected --set "
            "KEY=VALUE (model, device ...); leave out what follows --"
        )


def _numbers(settings: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for key, (_, least, _) in _NUMBERS.items():
        if (text := settings.get(key)) is None:
            continue
        if not re.fullmatch(r"-?\d+", text) or int(text) < least:
            raise UsageFault(f"--set {key}={text}: expected a whole number of at least {least}")
        found[key] = int(text)
    return found


def _heavier(settings: Mapping[str, str]) -> dict[str, Any]:
    """DeepMedic's own affine augmentation, at its own angles and zoom."""
    if (text := settings.get("affine")) is None:
        return {}
    if not re.fullmatch(r"0?\.\d+|0|1(\.0*)?", text):
        raise UsageFault(f"--set affine={text}: expected a number from 0 to 1")
    return {"augm_img_prms_tr": {"affine": {"prob": float(text)}}}


def _yes(settings: Mapping[str, str], key: str) -> bool:
    text = settings.get(key, "no")
    if text not in ("no", "yes"):
        raise UsageFault(f"--set {key}={text}: expected no or yes")
    return text == "yes"


def _program(text: str | None) -> Path | None:
    """A name alone is looked for where programs are."""
    return Path(text) if text and os.path.basename(text) == text else _path(text)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(os.path.abspath(os.path.expanduser(text)))
