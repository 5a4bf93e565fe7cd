"""Where samples come from, a generator's run or a bank, and what is checked before a training.

A training is refused that would see held-out cases, another space or other units.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from gansynth.bank.reader import BankReader
from gansynth.core.identity import Compared, HeldOut
from gansynth.core.lineage import Lineage
from gansynth.core.registry import such_as
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.deidentify import real_parts
from gansynth.sampling.request_checks import GeneratorInfo, check_request, check_texts
from gansynth.sampling.run_source import open_matching_real

if TYPE_CHECKING:
    from gansynth.sampling.other_sources import OtherSources


@dataclass(frozen=True)
class SampleSource:
    """A generator's run or a bank, read once; ``Session`` checks it.

    Either ``run`` or ``bank`` is None. ``described`` has the hash of the run's manifest, which
    includes that of its weights, and of a complete bank's content. ``compared``: with what is held
    out.
    """

    lineage: Lineage
    described: dict[str, Any]
    run: RunFolder | None = None
    bank: BankReader | None = None
    compared: Compared = field(default_factory=Compared)

    @property
    def real(self) -> tuple[str, ...] | None:
        """What the generator takes of real images; None for a bank that does not know it."""
        if self.run is not None:
            return real_parts(self.run)
        return None if self.bank is None else self.bank.spec.real


def find_sample_source(request: AugmentRequest) -> SampleSource:
    """Read the origin of samples: a bank's description, or a run's manifest."""
    if request.bank is not None:
        reader = BankReader(request.bank)
        described = {
            "run_id": reader.spec.run_id,
            "manifest_sha256": reader.spec.generator,
            "bank_sha256": reader.sha256,
        }
        return SampleSource(reader.spec.lineage, described, bank=reader)
    run = request.run
    assert run is not None  # see AugmentRequest
    described = {
        "run_id": run.run_id,
        "name": run.manifest["generator"],
        "folder": str(run.folder),
        "manifest_sha256": run.manifest_sha256,
    }
    return SampleSource(run.lineage, described, run)


def check_learnable(
    run: RunFolder, target: str, needs: Literal["labels", "boxes"] = "labels"
) -> None:
    """Refuse a generator that draws no images, or no labels or boxes that the training needs."""
    folder, manifest, can = run.folder, run.manifest, run.capabilities
    if can.draws == "labels":
        raise UsageFault(
            "hosts.generator-draws-only-label-maps",
            f"{folder}: {manifest['generator']} was fitted to draw label maps of images, "
            f"expected images to train {target}. Name the chain it is a part of, or fit one "
            "that draws images",
        )
    if needs == "boxes":
        if "boxes" in can.takes:
            return
        if not (run.schema.foreground and run.schema.box_classes):
            raise UsageFault(
                "hosts.generator-takes-no-boxes",
                f"{folder}: {manifest['generator']} takes no boxes, and {target} learns from "
                "them; fit a generator that does, such as "
                f"{such_as(lambda able: 'boxes' in able.takes)}, or give label maps to the fit "
                "(--read masks=yes), around whose parts boxes are drawn",
            )
    if not can.labelled:
        raise UsageFault(
            "hosts.generator-draws-no-label-maps",
            f"{folder}: {manifest['generator']} draws images without label maps, and {target} "
            f"learns from labels; {can.remedy('no labels')}",
        )


def check_asked(
    request: AugmentRequest,
    sample_source: SampleSource,
    host: CaseSource,
    held_out: HeldOut,
    reporter: Reporter,
) -> SampleSource:
    """Check all requests for a run's samples, and return the origin with all source cases."""
    samples, run = request.samples, sample_source.run
    assert run is not None  # for it is no bank
    maker = GeneratorInfo.of(run)
    check_request(samples, maker)
    check_texts(samples)
    if samples.label_source is None and not samples.unlabelled:
        return sample_source
    own = open_matching_real(run, host)
    others, compared = check_others(samples, maker, own, host, held_out, reporter)
    compared = sample_source.compared.joined(compared)
    lineage = sample_source.lineage.joined(*others.lineages)
    return replace(sample_source, lineage=lineage, compared=compared)


def check_others(
    samples: SampleRequest,
    maker: GeneratorInfo,
    own: CaseSource,
    host: CaseSource,
    held_out: HeldOut,
    reporter: Reporter,
) -> tuple[OtherSources, Compared]:
    """Open the other sources of a request, say what they are, and refuse held-out cases in them.

    ``own``: the data set as the generator reads it; ``host``: as the training does.
    """
    from gansynth.sampling.other_sources import OtherSources

    others = OtherSources.open(samples, own, maker.can)
    # Of other scans, which a first training marks, nobody knows yet what they show.
    known = [scans for scans in others.unlabelled if scans.vouched or scans.has_maps]
    for scans in (*known, *others.marked):
        reporter.say(str(scans))
    return others, others.refuse_held_out(held_out, host)
