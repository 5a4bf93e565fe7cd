"""Whether what is asked of samples can be asked of a generator, and whose cases it lets in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansynth.core.lineage import CaseRecord, Lineage, guard
from gansynth.core.sample_request import Asking
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.request_parsing import check_texts

if TYPE_CHECKING:
    from gansynth.core.adapter import Injection
    from gansynth.core.source import CaseSource


def origin_of_samples(injection: Injection) -> tuple[Lineage, str]:
    """What the samples' maker has seen, and what to call it."""
    if injection.bank is not None:
        from gansynth.bank.reader import BankReader

        return BankReader(injection.bank).spec.lineage, "bank"
    from gansynth.sampling.run import read_manifest

    assert injection.run is not None  # see Injection
    return Lineage.from_json(read_manifest(injection.run)["lineage"]), "generator"


def check_learnable(
    injection: Injection, target: str, needs: Literal["labels", "boxes"] = "labels"
) -> None:
    """Refuse a run whose samples a host cannot learn from, and boxes that it is not asked for.

    Args:
        injection: names a run.
        target: the host's name.
        needs: what the host learns from.

    Raises:
        UsageFault: with the way out.
    """
    from gansynth.sampling.run import read_manifest

    assert injection.run is not None
    manifest = read_manifest(injection.run)
    check_labelled(injection.run, manifest, target, injection.edits, needs=needs)
    if injection.boxes is not None and "boxes" not in manifest.get("heeds", ()):
        raise UsageFault(
            f"--boxes {injection.boxes}: {manifest['generator']} is not asked for boxes, expected "
            "a generator that is, such as cpggan; leave --boxes out"
        )


def check_labelled(
    folder: Path,
    manifest: Mapping[str, Any],
    target: str,
    edits: Sequence[str] = (),
    *,
    needs: Literal["labels", "boxes"] = "labels",
) -> None:
    """Refuse a generator that draws no images, or nothing beside them that a host learns from.

    Args:
        folder: the run.
        manifest: its.
        target: the host's name.
        edits: asked for; of label maps that a generator draws itself there are none.
        needs: what the host learns from.

    Raises:
        UsageFault: with the way out; or an edit that the generator cannot follow.
    """
    if manifest["options"].get("target") == "labels":
        raise UsageFault(
            f"{folder}: {manifest['generator']} was fitted to draw label maps of images, expected "
            f"one that draws images, which {target} is trained on; name the chain it is a part of, "
            "or fit one without --set target=labels"
        )
    if needs == "boxes":
        if "boxes" not in manifest.get("heeds", ()):
            raise UsageFault(
                f"{folder}: {manifest['generator']} is not asked for boxes, and {target} learns "
                "from them; fit a generator that is, such as cpggan"
            )
        return
    if edits and "image" in manifest.get("heeds", ()):
        from gansynth.conditions.edit_chain import build_edits
        from gansynth.conditions.edits.along import check_moving

        check_moving(str(manifest["generator"]), build_edits(edits))
    if edits and manifest.get("labelling") == "drawn":
        raise UsageFault(
            f"--edit {edits[0]}: {folder} draws its own label maps, so none is asked of it that "
            "could be edited; leave --edit out"
        )
    if manifest.get("labelling") == "none":
        raise UsageFault(
            f"{folder}: {manifest['generator']} draws images without label maps, and {target} "
            "learns from labels; fit it again with --with-mask, which draws both together"
        )


def check_heeded(
    asking: Asking, name: str, heeds: Iterable[str], labelling: str, *, parts: bool = False
) -> None:
    """Refuse what a generator is not asked for.

    Args:
        asking: what is asked.
        name: of the generator.
        heeds: what of a condition it heeds.
        labelling: where its label maps come from.
        parts: whether it is several generators in one run, one for each class of cases.

    Raises:
        UsageFault: naming the option.
    """
    heeds = frozenset(heeds)
    if asking.lesions is not None and "lesion" not in heeds:
        raise UsageFault(
            f"--lesions {asking.lesions}: {name} draws no lesions into real images, expected a "
            "generator that does, such as copypaste; leave --lesions out"
        )
    if asking.weights is not None and labelling != "asked":
        raise UsageFault(
            f"--weights {asking.weights}: {name} is asked for no label maps, expected a generator "
            "that is, such as cgan3d: they say which to draw more often; leave --weights out"
        )
    if asking.conditions is None:
        return
    said = f"--conditions {asking.conditions['kind']}:{asking.conditions['where']}"
    if parts:
        raise UsageFault(
            f"{said}: {name} is a generator for each class of its own source's cases, expected one "
            "for all cases; leave --conditions out"
        )
    if labelling != "asked":
        raise UsageFault(
            f"{said}: {name} is asked for no label maps that could be another source's, expected a "
            "generator that is, such as cgan3d; leave --conditions out"
        )
    if "boxes" in heeds:
        raise UsageFault(
            f"{said}: {name} is asked for boxes, which are those of its own training cases; leave "
            "--conditions out, or see --boxes"
        )


def per_class(manifest: Mapping[str, Any]) -> bool:
    """Whether a run has a part for each class of whole cases."""
    return any("classes" in part for part in manifest.get("parts", ()))


def refuse_boxes_with_bank(injection: Injection) -> None:
    """Refuse to say which boxes samples are asked for that are in a bank already.

    Raises:
        UsageFault: naming the boxes and the bank.
    """
    if injection.boxes is not None:
        raise UsageFault(
            f"--boxes {injection.boxes}: samples come from the bank {injection.bank}, which "
            "says what they were asked to be; leave --boxes out"
        )


def refuse_with_bank(injection: Injection) -> None:
    """Refuse to ask anything of samples that are in a bank already.

    Raises:
        UsageFault: naming the option.
    """
    asking = injection.asking
    said = {
        "--conditions": asking.conditions and "{kind}:{where}".format(**asking.conditions),
        "--lesions": asking.lesions,
        "--weights": asking.weights,
        "--filter": asking.filters[0] if asking.filters else None,
    }
    for option, value in said.items():
        if value is not None:
            raise UsageFault(
                f"{option} {value}: samples come from the bank {injection.bank}, which says what "
                f"they were asked to be; leave {option} out"
            )


def check_injection(
    injection: Injection,
    source: CaseSource,
    held_out: Sequence[CaseRecord],
) -> Lineage | None:
    """Check all that an injection asks of samples; for every host, before anything long starts.

    Args:
        injection: names a run or a bank.
        source: the host's cases.
        held_out: records of those it holds out.

    Returns:
        Lineage of the cases of another source that samples are drawn of; None if there are none.

    Raises:
        UsageFault: something that cannot be asked, of this generator or at all.
        DataFault: another source's cases cannot be read.
        IntegrityFault: one of these is held out.
    """
    asking = injection.asking
    if not asking:
        return None
    if injection.bank is not None:
        refuse_with_bank(injection)
        return None
    from gansynth.sampling.run import read_manifest

    assert injection.run is not None  # see Injection
    manifest = read_manifest(injection.run)
    heeds: Iterable[str] = manifest.get("heeds", ())
    labelling = str(manifest.get("labelling", "asked"))
    check_heeded(asking, str(manifest["generator"]), heeds, labelling, parts=per_class(manifest))
    check_texts(asking)
    if asking.weights is not None:
        _check_weights(Path(asking.weights), manifest, source, held_out)
    if asking.conditions is None:
        return None
    return _check_conditions(asking.conditions, injection.run, manifest, source, held_out)


def _check_weights(
    path: Path, manifest: Mapping[str, Any], source: CaseSource, held_out: Sequence[CaseRecord]
) -> None:
    """Refuse weights of other cases than the run's, or that have seen a held-out one."""
    from gansynth.conditions.weights import Weights

    weights = Weights.read(path)
    weights.check(Lineage.from_json(manifest["lineage"]), manifest["schema"]["labels"])
    weights.guard(held_out, source.name)


def _check_conditions(
    asked: Mapping[str, Any],
    run: Path,
    manifest: Mapping[str, Any],
    source: CaseSource,
    held_out: Sequence[CaseRecord],
) -> Lineage:
    from gansynth.conditions.external_source import open_base
    from gansynth.data.opening import open_source
    from gansynth.sampling.run import own_request

    request = own_request(run, manifest)
    own = open_source(replace(request, root=request.root or source.request.root))
    base = open_base(asked, own)
    lineage = base.lineage()
    guard(
        lineage,
        held_out,
        what="--conditions",
        dataset=source.name,
        way_out="Leave these cases out of it, or name another source",
    )
    return lineage
