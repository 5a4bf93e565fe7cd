"""gansynth: GAN samples from one training fold, mixed on the fly into the framework you train.

The functions of ``dir(gansynth)`` are the commands of the same names (docs/python.md). Plugins
import from here, too (docs/plugins.md); the module that holds a name may change. Importing this
package is cheap: a name's module is imported at its first use. So ``gansynth --help`` and readers
of a sample bank import neither torch nor any framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gansynth.runtime.version import __version__

if TYPE_CHECKING:
    from gansynth.bank.api import fill_bank, live_bank
    from gansynth.bank.draw_log import summarise
    from gansynth.bank.producer import ProducerConfig
    from gansynth.bank.reader import BankReader
    from gansynth.bank.store import BankSample
    from gansynth.bank.supervisor import ProducerSupervisor
    from gansynth.benchmark.api import benchmark, papers, tune
    from gansynth.core.adapter import Adapter, HostArrays, HostOptions
    from gansynth.core.capabilities import Capabilities, Input, narrower
    from gansynth.core.case_pool import CaseContext, TrainingCases
    from gansynth.core.edit import CaseEdit, Edit, EditContext, EditOptions, EditResult
    from gansynth.core.filter import (
        Filter,
        FilterOptions,
        FilterRequest,
        FilterResult,
        FilterTrainingData,
    )
    from gansynth.core.findings import CheckReport, Finding
    from gansynth.core.generator import (
        Batch,
        Generator,
        GeneratorOptions,
        Phase,
        Stage,
        TrainingStep,
        at_rest,
        move,
    )
    from gansynth.core.hookspecs import (
        API_VERSION,
        Register,
        RegisterCommand,
        hookimpl,
        lazily,
        offer_files,
    )
    from gansynth.core.host_commands import (
        CommandReport,
        ExportRequest,
        TrainingFolder,
        TrainingRequest,
    )
    from gansynth.core.lineage import CaseRecord, Lineage
    from gansynth.core.mix_config import Mix, MixConfig, MixerConfig, TrainingResult
    from gansynth.core.prediction import LabelMaps, Prediction
    from gansynth.core.ratio import Ratio
    from gansynth.core.registry import installed
    from gansynth.core.requests.hosts import (
        DoctorRequest,
        ImportRequest,
        PrepareRequest,
        SplitsRequest,
    )
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.schedule import Schedule, choose_cases
    from gansynth.core.schema import (
        OUTSIDE,
        Boxes,
        Case,
        Condition,
        FloatArray,
        LabelArray,
        Sample,
        Schema,
        keep_outside,
    )
    from gansynth.core.source import (
        CaseHeader,
        CaseSource,
        FoldSplit,
        SourceRequest,
        StoredCase,
        case_records,
    )
    from gansynth.core.space import Placement, Space
    from gansynth.core.writer import Item, Writer, WriterOptions
    from gansynth.data.case_writer import write_volume, yolo_lines
    from gansynth.data.read_options import ReadOptions, parse_read, register_read_options
    from gansynth.evaluation.api import evaluate
    from gansynth.evaluation.audit import audit_exported
    from gansynth.evaluation.check import check
    from gansynth.evaluation.detections import detections
    from gansynth.evaluation.hard_cases.job import hard_cases
    from gansynth.evaluation.memorisation import discriminator_scores, load_discriminator
    from gansynth.evaluation.option_tables import options
    from gansynth.evaluation.turing.api import turing_test
    from gansynth.fitting.api import fit
    from gansynth.fitting.recipe import find_recipe
    from gansynth.hosts.api import augment
    from gansynth.hosts.batchgenerators_loader import mix_batches
    from gansynth.hosts.commands import doctor, import_data, prepare, splits
    from gansynth.hosts.host import Framework, FrameworkOptions, Host, Job, TrainingOptions
    from gansynth.hosts.mixer import Mixer
    from gansynth.hosts.segments import mix_segments
    from gansynth.hosts.torch_dataset import mix
    from gansynth.hosts.windows import predict_by_windows
    from gansynth.metrics.comparison import Comparison, Metric, Quantity
    from gansynth.metrics.features import features_of
    from gansynth.report.png import png_bytes
    from gansynth.runtime.errors import (
        DataFault,
        EnvironmentFault,
        GansynthError,
        IntegrityFault,
        TrainingFault,
        UsageFault,
    )
    from gansynth.runtime.machine import DoctorLine
    from gansynth.runtime.options import read_settings
    from gansynth.sampling.api import cache, load, show
    from gansynth.sampling.replay import replay
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sample import sample
    from gansynth.sampling.sampler import Sampler
    from gansynth.testing import (
        ToySource,
        check_adapter,
        check_edit,
        check_filter,
        check_generator,
        check_writer,
    )
    from gansynth.testing.demonstration import demo

__all__ = [
    "API_VERSION",
    "OUTSIDE",
    "Adapter",
    "BankReader",
    "BankSample",
    "Batch",
    "Boxes",
    "Capabilities",
    "Case",
    "CaseContext",
    "CaseEdit",
    "CaseHeader",
    "CaseRecord",
    "CaseSource",
    "CheckReport",
    "CommandReport",
    "Comparison",
    "Condition",
    "DataFault",
    "DoctorLine",
    "DoctorRequest",
    "Edit",
    "EditContext",
    "EditOptions",
    "EditResult",
    "EnvironmentFault",
    "ExportRequest",
    "Filter",
    "FilterOptions",
    "FilterRequest",
    "FilterResult",
    "FilterTrainingData",
    "Finding",
    "FloatArray",
    "FoldSplit",
    "Framework",
    "FrameworkOptions",
    "GansynthError",
    "Generator",
    "GeneratorOptions",
    "Host",
    "HostArrays",
    "HostOptions",
    "ImportRequest",
    "Input",
    "IntegrityFault",
    "Item",
    "Job",
    "LabelArray",
    "LabelMaps",
    "Lineage",
    "Metric",
    "Mix",
    "MixConfig",
    "Mixer",
    "MixerConfig",
    "Phase",
    "Placement",
    "Prediction",
    "PrepareRequest",
    "ProducerConfig",
    "ProducerSupervisor",
    "Quantity",
    "Ratio",
    "ReadOptions",
    "Register",
    "RegisterCommand",
    "RunFolder",
    "Sample",
    "SampleRequest",
    "Sampler",
    "Schedule",
    "Schema",
    "SourceRequest",
    "Space",
    "SplitsRequest",
    "Stage",
    "StoredCase",
    "ToySource",
    "TrainingCases",
    "TrainingFault",
    "TrainingFolder",
    "TrainingOptions",
    "TrainingRequest",
    "TrainingResult",
    "TrainingStep",
    "UsageFault",
    "Writer",
    "WriterOptions",
    "__version__",
    "at_rest",
    "audit_exported",
    "augment",
    "benchmark",
    "cache",
    "case_records",
    "check",
    "check_adapter",
    "check_edit",
    "check_filter",
    "check_generator",
    "check_writer",
    "choose_cases",
    "demo",
    "detections",
    "discriminator_scores",
    "doctor",
    "evaluate",
    "features_of",
    "fill_bank",
    "find_recipe",
    "fit",
    "hard_cases",
    "hookimpl",
    "import_data",
    "installed",
    "keep_outside",
    "lazily",
    "live_bank",
    "load",
    "load_discriminator",
    "mix",
    "mix_batches",
    "mix_segments",
    "move",
    "narrower",
    "offer_files",
    "open_source",
    "options",
    "papers",
    "parse_read",
    "png_bytes",
    "predict_by_windows",
    "prepare",
    "read_settings",
    "register_read_options",
    "replay",
    "sample",
    "show",
    "splits",
    "summarise",
    "tune",
    "turing_test",
    "write_volume",
    "yolo_lines",
]

_HOMES = {
    "gansynth.bank.api": "fill_bank live_bank",
    "gansynth.bank.draw_log": "summarise",
    "gansynth.bank.producer": "ProducerConfig",
    "gansynth.bank.reader": "BankReader",
    "gansynth.bank.store": "BankSample",
    "gansynth.bank.supervisor": "ProducerSupervisor",
    "gansynth.benchmark.api": "benchmark papers tune",
    "gansynth.core.adapter": "Adapter HostArrays HostOptions",
    "gansynth.core.capabilities": "Capabilities Input narrower",
    "gansynth.core.case_pool": "CaseContext TrainingCases",
    "gansynth.core.edit": "CaseEdit Edit EditContext EditOptions EditResult",
    "gansynth.core.filter": "Filter FilterOptions FilterRequest FilterResult FilterTrainingData",
    "gansynth.core.findings": "CheckReport Finding",
    "gansynth.core.generator": "Batch Generator GeneratorOptions Phase Stage TrainingStep at_rest "
    "move",
    "gansynth.core.hookspecs": "API_VERSION hookimpl Register RegisterCommand lazily offer_files",
    "gansynth.core.host_commands": "CommandReport ExportRequest TrainingFolder TrainingRequest",
    "gansynth.core.requests.hosts": "DoctorRequest ImportRequest PrepareRequest SplitsRequest",
    "gansynth.core.lineage": "CaseRecord Lineage",
    "gansynth.core.mix_config": "Mix MixConfig MixerConfig TrainingResult",
    "gansynth.core.prediction": "LabelMaps Prediction",
    "gansynth.core.ratio": "Ratio",
    "gansynth.core.registry": "installed",
    "gansynth.core.run_folder": "RunFolder",
    "gansynth.core.sample_request": "SampleRequest",
    "gansynth.core.schedule": "Schedule choose_cases",
    "gansynth.core.schema": "OUTSIDE Boxes Case Condition FloatArray "
    "LabelArray Sample Schema keep_outside",
    "gansynth.core.source": "CaseHeader CaseSource FoldSplit SourceRequest StoredCase case_records",
    "gansynth.core.space": "Placement Space",
    "gansynth.core.writer": "Item Writer WriterOptions",
    "gansynth.data.case_writer": "write_volume yolo_lines",
    "gansynth.data.read_options": "ReadOptions parse_read register_read_options",
    "gansynth.evaluation.api": "evaluate",
    "gansynth.evaluation.audit": "audit_exported",
    "gansynth.evaluation.check": "check",
    "gansynth.evaluation.detections": "detections",
    "gansynth.evaluation.hard_cases.job": "hard_cases",
    "gansynth.evaluation.turing.api": "turing_test",
    "gansynth.evaluation.memorisation": "discriminator_scores load_discriminator",
    "gansynth.evaluation.option_tables": "options",
    "gansynth.fitting.api": "fit",
    "gansynth.fitting.recipe": "find_recipe",
    "gansynth.hosts.api": "augment",
    "gansynth.hosts.commands": "doctor import_data prepare splits",
    "gansynth.hosts.batchgenerators_loader": "mix_batches",
    "gansynth.hosts.host": "Framework FrameworkOptions Host Job TrainingOptions",
    "gansynth.hosts.mixer": "Mixer",
    "gansynth.hosts.segments": "mix_segments",
    "gansynth.hosts.torch_dataset": "mix",
    "gansynth.hosts.windows": "predict_by_windows",
    "gansynth.metrics.comparison": "Comparison Metric Quantity",
    "gansynth.metrics.features": "features_of",
    "gansynth.report.png": "png_bytes",
    "gansynth.runtime.errors": "DataFault EnvironmentFault GansynthError IntegrityFault "
    "TrainingFault UsageFault",
    "gansynth.runtime.machine": "DoctorLine",
    "gansynth.runtime.options": "read_settings",
    "gansynth.sampling.api": "cache load show",
    "gansynth.sampling.replay": "replay",
    "gansynth.sampling.run_source": "open_source",
    "gansynth.sampling.sample": "sample",
    "gansynth.sampling.sampler": "Sampler",
    "gansynth.testing.demonstration": "demo",
    "gansynth.testing": "ToySource check_adapter check_edit check_filter check_generator "
    "check_writer",
}
"""Module -> the names that it holds."""


COMMANDS = (
    *("fit", "load", "check", "sample", "evaluate", "augment", "benchmark", "options", "show"),
    *("cache", "hard_cases", "turing_test", "tune", "papers", "detections", "demo"),
    *("import_data", "prepare", "splits", "doctor"),
    *("fill_bank", "live_bank", "mix", "mix_batches", "mix_segments"),
)
"""What users need; the other names are for plugins (docs/plugins.md)."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(module), name)
    from gansynth.runtime.errors import did_you_mean

    hint = did_you_mean(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}", name=name)


def __dir__() -> list[str]:
    return ["__version__", *COMMANDS]
