"""Opening the source that a run was fitted on, and the run to draw samples of it for a host.

A producer and every check before it pass ``open_drawer``; so what the one would refuse after
minutes the other refuses at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from gansynth.core.lineage import same_host
from gansynth.core.source import CaseSource, SourceRequest, places_of
from gansynth.data.views import open_plain
from gansynth.runtime.errors import DataFault, UsageFault, said_of
from gansynth.sampling.drawn_labels import viewed

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter
    from gansynth.core.run_folder import Described, RunFolder
    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.schema import Sample
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.run import Run


def open_source(request: SourceRequest) -> CaseSource:
    """Open the source a request names, with the labels that a generator draws of its cases.

    Raises:
        UsageFault: an unknown kind, or ``--read`` keys that it does not have.
        GansynthError: what the source raises.
    """
    return viewed(open_plain(replace(request, view={})), request.view)


def open_real(request: Mapping[str, Any], source: CaseSource) -> CaseSource:
    """Real cases of another source, a ``SourceRequest`` as JSON, as the run's own would have them.

    Raises:
        UsageFault, DataFault: it does not open, or its cases are not like the run's own.
    """
    from gansynth.conditions.external_source import open_base

    with said_of("--conditions", "--real"):  # which is read alike
        return open_base(request, source)


def own_source(run: Described, host: CaseSource, *, any_size: bool = False) -> CaseSource:
    """Where a run's training cases come from: the host's own source, or another one.

    Args:
        any_size: whether the host takes samples of other sizes than it reads its cases in.
    """
    if same_host(run.lineage.host, host.host):
        if not any_size or run.request.read == host.request.read:
            return host
        return open_source(replace(host.request, read=run.request.read))
    return open_beside(run, host)


def open_beside(run: Described, host: CaseSource) -> CaseSource:
    """A run's own source, below the root of a host's where it names none."""
    return open_source(replace(run.request, root=run.request.root or host.request.root))


def source_for(run: Run, adapter: Adapter) -> tuple[CaseSource, Callable[[Sample], Sample] | None]:
    """Where a run's conditions come from; and what brings samples from there to the host, if
    that is elsewhere.
    """
    source = own_source(run, adapter.source, any_size=adapter.any_size)
    return source, None if source is adapter.source else adapter.bring(source, run.space)


def open_moved(run: Described, data: str | None, root: str | None) -> CaseSource:
    """The source a run was fitted on, where it lies now; its content is compared as it is drawn of.

    Raises:
        UsageFault, DataFault: it is not there.
    """
    request = run.request if root is None else replace(run.request, root=root)
    if data is None:
        return open_taken(request)
    moved = SourceRequest.parse(data)
    return open_taken(replace(request, kind=moved.kind, where=moved.where), by_user=True)


def open_taken(request: SourceRequest, *, by_user: bool = False) -> CaseSource:
    """Open a source; where a run, and no user, has said which, a fault tells of moved ones.

    Raises:
        UsageFault, DataFault: it cannot be opened.
    """
    try:
        return open_source(request)
    except (UsageFault, DataFault) as fault:
        if by_user or places_of(request):
            raise
        way_out = "If it was moved, say where it is: --data KIND:WHERE"
        raise type(fault)(f"{fault}. {way_out}") from fault


def requested(options: Mapping[str, Any], run: RunFolder | None) -> SourceRequest:
    """What a host is opened on: what was asked for, and the rest as the generator was fitted on.

    Args:
        options: attributes of a ``SourceRequest``; None, or none, of those that were not said.
        run: of the generator, if there is one. Of another kind of data set only the fold is taken.

    Raises:
        UsageFault: nothing says which data set it is.
    """
    given_options = {key: value for key, value in options.items() if value}
    fitted: dict[str, Any] = {} if run is None else {**run.manifest["request"], "view": {}}
    if "kind" not in given_options and not fitted:
        raise UsageFault(
            "--data: missing, expected KIND:WHERE, for example nnunet:004; or --generator RUN, "
            "whose data are taken then"
        )
    if fitted and given_options.get("kind", fitted["kind"]) != fitted["kind"]:
        fitted = {"fold": fitted["fold"]}
    read = {**fitted.get("read", {}), **given_options.get("read", {})}
    return SourceRequest(**{**fitted, **given_options, "read": read})


def taken(request: SourceRequest, options: Mapping[str, Any]) -> str:
    """What of a request nobody has asked for, in words; empty if there is nothing."""
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
    adapter: Adapter, run: RunFolder, request: SampleRequest, *, device: str, learn: bool = True
) -> tuple[SampleDrawer, Callable[[Sample], Sample] | None]:
    """Open a run to draw samples of for a host.

    Returns:
        What draws, in the space of the run's own source; and what brings samples from there to the
        host, if that is elsewhere.

    Raises:
        GansynthError: a run that is damaged or does not fit its source, or what cannot be asked.
    """
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.open_run import load_run

    opened: Run = load_run(run, device)
    source, bring = source_for(opened, adapter)
    return SampleDrawer(opened, source, request, learn=learn), bring
