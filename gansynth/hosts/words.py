"""How options of ``gansynth augment`` combine: exports, baselines, data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Adapter, hosts_that
from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.source import SourceRequest
from gansynth.data.read_options import refuse_idle_read
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import FlagText, flag_of, put_setting
from gansynth.runtime.words import Given
from gansynth.sampling.run_source import requested, resolve_request

SOURCE = ("data", "configuration", "plans", "fold", "subjects", "read", "root")
SAMPLES = ("generator", "ratio", "bank", "bank_size", "restarts", "seed", "edit", "device")
REAL = ("real_in_generator_space", "nearest")
CONDITIONS = ("boxes", "condition_source", "condition_source_read", "prevalence", "lesions")
CHOSEN = ("sampling_weights", "filter")
SAYING = ("target", "export", "out", "content", "dry_run", "as_json", "quiet", "debug")
WRITING = frozenset((*SOURCE, *SAMPLES, *REAL, *CONDITIONS, *CHOSEN, *SAYING))
"""Options that an export uses; every other one is about training."""
NEEDS = {
    **dict.fromkeys(("bank_size", "bank_dir", "offline", "device", "edit"), "!bank"),
    **dict.fromkeys(("reuse", "refresh", "overhead"), "!bank, !offline"),
    "restarts": "!bank",
    "condition_source_read": "condition_source",
    "nearest": "out",
}
"""Conditions under which options have an effect; see ``gansynth.runtime.options.Needs``."""
OF_SAMPLES = (
    *("generator", "bank", "bank_size", "offline", "reuse", "refresh", "overhead", "bank_dir"),
    *("restarts", "strict", "allow_empty_bank", "augment_synthetic", "edit", *CONDITIONS, *CHOSEN),
    "device",
)
"""Options about samples."""


class AugmentWords(Given):
    """The words of ``gansynth augment``."""

    def called(self, name: str) -> str:
        """Return what is typed for a word; for settings, the first flag."""
        settings = self.words["set"] if name == "settings" else {}
        flags = (flag_of(key) for key, text in settings.items() if isinstance(text, FlagText))
        return next(flags, super().called(name))

    def warn_of_idle(self, ratio: Ratio, warn: Callable[[str], None]) -> None:
        """Warn of words without effect where no sample is used, e.g. at a baseline's ratio."""
        for message in self.idle(dict.fromkeys(OF_SAMPLES if ratio.p == 0 else (), "!ratio")):
            warn(message.partition(";")[0])

    def check_export(self, out: Path | None) -> None:
        """Refuse words that an export would ignore, and ``--content`` without an export.

        Args:
            out: folder of a data set to write, if any.
        """
        export, content = self.words["export"], self.words["content"]
        if export is None and out is None:
            if content is not None:
                raise UsageFault(
                    f"--content {content}: expected --export DatasetNNN_Name or -o DIR beside it; "
                    "without one, samples are mixed in at --ratio during training"
                )
            return
        if export is not None and self.words["out"] is not None:
            raise UsageFault(
                f"--export {export} with -o {self.words['out']}: one says where the data set goes, "
                "expected --export for a name of the framework's, -o for a folder; leave one out"
            )
        option = "--export" if out is None else "-o"
        for name in self.given:
            if name not in WRITING:
                raise UsageFault(
                    f"{option} with {self.called(name)}: nothing is trained, expected only options "
                    "of the samples to write; leave it out"
                )


def mix_config_from(words: Mapping[str, Any], samples: SampleRequest) -> MixConfig:
    """Return how samples are mixed in."""
    generator, bank, place = (words[key] for key in ("generator", "bank", "bank_dir"))
    return MixConfig(
        run=None if generator is None else RunFolder(Path(generator)),
        ratio=Ratio.parse(words["ratio"]),
        schedule=Schedule.parse(words["schedule"]),
        frozen=words["offline"],
        size=BankSize.parse(str(words["bank_size"])),
        pacing=RefreshPolicy.parse(words["reuse"], words["refresh"], words["overhead"]),
        bank=None if bank is None else Path(bank),
        scratch=None if place is None else Path(place),
        samples=samples,
        device=words["device"],
        restarts=words["restarts"],
        strict=words["strict"],
        keep_going=words["allow_empty_bank"],
        usual_augmentation=words["host_augmentation"],
        augment_synthetic=words["augment_synthetic"] in (True, "yes"),
        real_in_generator_space=words["real_in_generator_space"],
        nearest=words["nearest"],
    )


def host_settings(
    host: type[Adapter], settings: Mapping[str, str], options: Sequence[str], output: Path | None
) -> tuple[dict[str, str], Path | None]:
    """Find what ``-o`` is: the folder of a training's results, or a data set to write.

    Args:
        settings: of the target.
        options: arguments after ``--``.

    Returns:
        Settings, and the folder of ``-o`` if a data set is written.
    """
    merged, place = dict(settings), host.Options.place
    if not host.trains_into(merged, options) or not place:
        return merged, output
    if output is not None:
        put_setting(merged, place, str(output), "-o")
    return merged, None


def data_set_name(adapter: Adapter, export: str | None, output: Path | None) -> str:
    """Return the name of the new data set, as the target framework needs it."""
    option = f"--export {export}" if output is None else f"-o {output}"
    if adapter.exports == "nothing":
        raise UsageFault(
            f"{option}: {adapter.name} has no data sets to write; expected a target that has"
            f"{hosts_that(lambda host: host.exports != 'nothing')}. Leave it out to train with "
            "samples mixed in"
        )
    if output is None and adapter.exports == "folder":
        raise UsageFault(
            f"{option}: {adapter.name} has no list of data sets to add a name to, expected -o "
            "DIR, a new folder; use that instead"
        )
    if output is not None and adapter.exports == "name":
        raise UsageFault(
            f"{option}: {adapter.name} finds data sets by name in its own folders, expected "
            "--export DatasetNNN_Name; use that instead"
        )
    return str(export if output is None else output)


def host_data(
    data: str | None, reading: Mapping[str, Any], run: RunFolder | None
) -> tuple[SourceRequest, str]:
    """Return the data of a target, and in words what was taken from the generator's fit.

    Raises:
        UsageFault: no data set is named, or a key has no effect.
        DataFault: no run there.
    """
    if data is not None:
        parsed = SourceRequest.parse(data)
        reading = {**reading, "kind": parsed.kind, "where": parsed.where}
    request = requested(reading, run)
    refuse_idle_read(request, reading["read"])
    return request, "" if run is None else resolve_request(request, reading)
