"""``gansynth check --sites`` and ``--against``: where sites differ, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gansynth.conditions.condition_source import differing_images, open_other
from gansynth.core.requests.samples import CheckRequest
from gansynth.core.source import CaseSource
from gansynth.data.folds import cases_of_sites, is_table
from gansynth.data.grid import same_spacing
from gansynth.data.kinds import read_named
from gansynth.metrics.site_gap import OUTLINE, SAY, SiteMeasures, chosen_cases, compared, verdict
from gansynth.runtime.errors import DataFault, UsageFault, describe_error
from gansynth.runtime.progress import Reporter, counting

FEWEST_SUBJECTS = 2  # subjects of a site
TOLD = 3  # measures of a kind that a line names


@dataclass(frozen=True)
class Site:
    """Cases of one site, and whose they are."""

    name: str
    source: CaseSource
    subject_of: Mapping[str, str]

    @property
    def labels(self) -> dict[str, int]:
        """Its foreground, name -> value."""
        return {name: value for name, value in self.source.schema.labels.items() if value > 0}


def sites_asked(request: CheckRequest, source: CaseSource) -> list[tuple[Site, Site]]:
    """Return the pairs of sites that ``--sites`` or ``--against`` asks to compare.

    Of three sites or more, each is compared with all others together.
    """
    if request.against is not None:
        return [(_site(source.name, source), _against(request, source))]
    if request.sites is None:
        return []
    sites = _sites(request.sites, source)
    if len(sites) == 2:
        return [(sites[0], sites[1])]
    return [(_others(site, sites), site) for site in sites]


def site_gap(here: Site, there: Site, reporter: Reporter) -> dict[str, Any]:
    """Measure where two sites differ, as JSON."""
    shared = [name for name in here.labels if name in there.labels]
    sides, chosen = [], [chosen_cases(site.subject_of) for site in (here, there)]
    with counting(reporter, f"{here.name} against {there.name}") as progress:
        done, total = 0, sum(map(len, chosen))
        for site, cases in zip((here, there), chosen, strict=True):
            labelled = {name: site.labels[name] for name in shared}
            measures = SiteMeasures(site.source.schema, labelled)
            for case in cases:
                measures.add(site.source.load(case), site.subject_of[case])
                done += 1
                progress(done, total)
            sides.append(measures)
    found = compared(*sides)
    spacings = [site.source.schema.spacing for site in (here, there)]
    voxels = [" x ".join(f"{mm:g}" for mm in spacing) for spacing in spacings]
    return {
        "here": {"name": here.name, "subjects": len(sides[0].rows)},
        "there": {"name": there.name, "subjects": len(sides[1].rows)},
        "spacing": "" if same_spacing(*spacings) else f"{voxels[0]} against {voxels[1]}",
        "verdict": verdict(found, labelled=bool(shared)),
        "differences": [{**asdict(one), "part": one.part, "shown": one.shown} for one in found],
    }


def gap_lines(gaps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is said of each comparison, to read: a line for each kind of difference."""
    for gap in gaps:
        here, there = gap["here"], gap["there"]
        yield (
            f"{here['name']} ({here['subjects']} subjects) against {there['name']} "
            f"({there['subjects']}): {gap['verdict']}"
        )
        if gap["spacing"]:
            yield f"  voxels {gap['spacing']}: resample to the same"
        kinds: dict[str, list[str]] = {}
        for one in gap["differences"]:
            if one["shown"]:
                kinds.setdefault(one["kind"], []).append(_told(one))
        for kind, measures in kinds.items():
            more = f", {len(measures) - TOLD} more" if len(measures) > TOLD else ""
            yield f"  {kind}: {SAY[kind]} ({', '.join(measures[:TOLD])}{more})"
    if gaps:
        yield "what a difference costs, only a training tells (gansynth help sites)"


def _told(one: Mapping[str, Any]) -> str:
    if one["name"] == OUTLINE:  # its score has no unit
        return OUTLINE
    return f"{one['name']} {_short(one['here'][0])} to {_short(one['there'][0])}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _against(request: CheckRequest, source: CaseSource) -> Site:
    """Open the cases of ``--against`` as those that are checked are read."""
    text, how = str(request.against), dict(request.against_read)
    if request.subjects is not None and not is_table(request.subjects):
        how.setdefault("subjects", request.subjects)  # an expression holds for both
    asked = read_named(text, how, "--against", request.root)
    assert asked is not None, "it is named"
    with (
        describe_error("--label-source", "--against"),
        describe_error("--read ", "--against-read "),
        describe_error("or give a CSV", "or name these: --against-read subjects=RULE, CSV or each"),
    ):
        other = open_other(asked, source, like=True)
    differ = differing_images(other, source)
    if differ:
        raise UsageFault(
            "sites.other-images",
            f"--against {text}: {differ}; name cases of the same channels",
        )
    return _site(other.name, other)


def _site(name: str, source: CaseSource) -> Site:
    subjects = {case: source.header(case).subject for case in _cases(source)}
    return _checked(Site(name, source, subjects))


def _sites(text: str, source: CaseSource) -> list[Site]:
    """Part a source's cases by ``--sites``."""
    subject_of = {case: source.header(case).subject for case in _cases(source)}
    return [
        _checked(Site(name, source, {case: subject_of[case] for case in cases}))
        for name, cases in cases_of_sites(text, subject_of).items()
    ]


def _others(site: Site, sites: Sequence[Site]) -> Site:
    subjects: dict[str, str] = {}
    for other in sites:
        if other is not site:
            subjects |= other.subject_of
    return Site("the others", site.source, subjects)


def _checked(site: Site) -> Site:
    """Refuse a site of too few people."""
    subjects = len(set(site.subject_of.values()))
    if subjects < FEWEST_SUBJECTS:
        raise DataFault(
            "sites.too-few-subjects",
            f"site {site.name!r} has {subjects} subject(s), expected {FEWEST_SUBJECTS} or more; "
            "leave its cases out, or count them to another site (--sites sites.csv)",
        )
    return site


def _cases(source: CaseSource) -> list[str]:
    return [*source.train_ids, *source.held_out_ids]
