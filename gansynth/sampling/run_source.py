"""Open the source that a run was fitted on, and the run, to generate samples for an adapter.

A producer and all checks before it call ``open_drawer``. The checks therefore refuse at once what
the producer would refuse after minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from gansynth.core.lineage import same_host
from gansynth.core.source import CaseSource, SourceRequest, places_of
from gansynth.data.views import open_plain
from gansynth.runtime.errors import DataFault, UsageFault, describe_error
from gansynth.sampling.label_maps import viewed

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter
    from gansynth.core.run_folder import RunDescription, RunFolder
    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.schema import Sample
    from gansynth.sampling.run import Run
    from gansynth.sampling.sampler import Sampler


def open_source(request: SourceRequest) -> CaseSource:
    """Open the requested source, with the labels that a generator adds to its cases.

    Raises:
        UsageFault: an unknown kind, or ``--read`` keys that it does not have.
        GansynthError: what the source raises.
    """
    return viewed(open_plain(replace(request, view={})), request.view)


def open_real(request: Mapping[str, Any], source: CaseSource) -> CaseSource:
    """Open real cases of another source, a ``SourceRequest`` as JSON, in the run's own format.

    Raises:
        UsageFault, DataFault: it does not open, or its cases are not like the run's own.
    """
    from gansynth.conditions.condition_source import open_base

    with describe_error("--condition-source", "--real"):  # both are read alike
        return open_base(request, source)


def source_of_run(run: RunDescription, host: CaseSource, *, any_size: bool = False) -> CaseSource:
    """Return the source of a run's training cases: the adapter's own source, or another one.

    Args:
        any_size: whether the adapter takes samples of other sizes than it reads its cases in.
    """
    if same_host(run.lineage.host, host.space.host):
        if not any_size or run.request.read == host.request.read:
            return host
        return open_source(replace(host.request, read=run.request.read))
    return open_matching_real(run, host)


def open_matching_real(run: RunDescription, host: CaseSource) -> CaseSource:
    """Open a run's own source, below the root of the adapter's where it names none."""
    return open_source(replace(run.request, root=run.request.root or host.request.root))


def source_for(
    run: Run, source: CaseSource, adapter: Adapter | None
) -> tuple[CaseSource, Callable[[Sample], Sample] | None]:
    """Return the source of a run's conditions, and a function that maps samples to the adapter.

    The function is None if both have the same source, or samples are for no adapter.
    """
    if adapter is None:
        return source, None
    own = source_of_run(run, source, any_size=adapter.any_size)
    return own, None if own is source else adapter.bring(own, run.space)


def open_moved(run: RunDescription, data: str | None, root: str | None) -> CaseSource:
    """Open the source of a run at its present place; its content is compared when it is used."""
    request = run.request if root is None else replace(run.request, root=root)
    if data is None:
        return open_resolved(request)
    moved = SourceRequest.parse(data)
    return open_resolved(replace(request, kind=moved.kind, where=moved.where), by_user=True)


def open_resolved(request: SourceRequest, *, by_user: bool = False) -> CaseSource:
    """Open a source; if the user has not named it, a fault hints at moved data."""
    try:
        return open_source(request)
    except (UsageFault, DataFault) as fault:
        if by_user or places_of(request):
            raise
        hint = "If it was moved, say where it is: --data KIND:WHERE"
        raise type(fault)(f"{fault}. {hint}") from fault


def requested(options: Mapping[str, Any], run: RunFolder | None) -> SourceRequest:
    """Complete the options of a source by those that the generator was fitted on.

    Args:
        options: attributes of a ``SourceRequest``; None or empty if not given.
        run: the generator's run, if any. If its data set is of another kind, only the fold is used.
    """
    given_options = {key: value for key, value in options.items() if value}
    fitted: dict[str, Any] = {} if run is None else {**run.manifest["request"], "view": {}}
    if "kind" not in given_options and not fitted:
        raise UsageFault(
            "--data: missing, expected KIND:WHERE, for example msd:Task04; or --generator RUN, "
            "whose data are then used"
        )
    if fitted and given_options.get("kind", fitted["kind"]) != fitted["kind"]:
        fitted = {"fold": fitted["fold"]}
    read = {**fitted.get("read", {}), **given_options.get("read", {})}
    return SourceRequest(**{**fitted, **given_options, "read": read})


def resolve_request(request: SourceRequest, options: Mapping[str, Any]) -> str:
    """Describe the parts of a request that the user has not given; empty if there are none."""
    usual = asdict(SourceRequest("", ""))
    defaults = {k: v for k, v in asdict(request).items() if v != usual[k] and not options.get(k)}
    if "kind" in defaults:
        defaults = {"data": f"{defaults.pop('kind')}:{defaults.pop('where')}", **defaults}
    if "fold" in usual and not options.get("fold"):
        defaults["fold"] = request.fold
    return ", ".join(f"{key} {_said(value)}" for key, value in defaults.items())


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={entry}" for key, entry in value.items())
    return str(value)


def open_drawer(
    source: CaseSource,
    adapter: Adapter | None,
    run: RunFolder,
    request: SampleRequest,
    *,
    device: str,
    learn: bool = True,
) -> tuple[Sampler, Callable[[Sample], Sample] | None]:
    """Open a run to generate samples for an adapter on a source, or for none.

    Returns:
        The drawer, in the space of the run's own source, and a function that maps its samples to
        the adapter. It is None if both have the same source.

    Raises:
        GansynthError: a run is damaged or does not fit its source, or a request is not supported.
    """
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.sampler import Sampler

    opened: Run = load_run(run, device)
    own, bring = source_for(opened, source, adapter)
    return Sampler(opened, own, request, learn=learn), bring
