"""How a training, or a benchmark, was composed: the paragraph and the table of a paper's methods.

All of it is of what was done: of a training its record and its log of draws, of its generator the
run's manifest, of a benchmark its results. What none of them holds is said to be unknown.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gansynth.bank.draw_log import drawn_cases
from gansynth.core.run_folder import MANIFEST
from gansynth.fitting.run_report import CARD
from gansynth.hosts.contract import record
from gansynth.hosts.contract.prediction import find_result, trained_sessions
from gansynth.report.numbers import joined
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json
from gansynth_benchmark.requests import CardRequest
from gansynth_benchmark.running import RESULTS, read_results
from gansynth_cli.common import WIDTH, table
from gansynth_cli.results import counted

CITATION = (
    "The gansynth authors. gansynth: synthetic lesions and images of one training fold for "
    "nnU-Net, DeepMedic and YOLO. Version {}."
)
UNKNOWN = "not recorded"
Table = dict[str, str]
"""What is told -> what it was."""


def card(request: CardRequest) -> dict[str, Any]:
    """Return the card of a run, or with ``methods`` how a training or benchmark was composed."""
    where = Path(request.result)
    if not request.methods:
        file = where / CARD
        if not file.is_file():
            raise UsageFault(
                "card.no-card",
                f"{where}: holds no {CARD}, expected the folder of a fit; of a training or a "
                f"benchmark: gansynth card {where} --methods",
            )
        return {"card": file.read_text("utf-8")}
    results = where if where.is_file() else where / RESULTS
    if results.is_file():
        found = _of_benchmark(read_results(results), results)
    elif (where / MANIFEST).is_file():
        raise UsageFault(
            "card.methods-of-a-run",
            f"{where}: is a fit, which trained no framework, expected the results of gansynth "
            f"augment or benchmark; its own card: gansynth card {where}",
        )
    else:
        found = _of_training(find_result(request, where))
    found["citation"] = CITATION.format(found["table"]["gansynth"].partition(",")[0])
    return found


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paragraph, and what is cited."""
    if "card" in document:
        yield from document["card"].splitlines()
        return
    yield from textwrap.wrap(document["paragraph"], WIDTH)
    yield ""
    yield from table(document["table"].items(), WIDTH)
    yield ""
    yield from textwrap.wrap(f"Cite: {document['citation']}", WIDTH)


# -- a training ------------------------------------------------------------------------------------


def _of_training(folder: Path) -> dict[str, Any]:
    """Return how the training in a folder was composed."""
    sessions = trained_sessions(folder)
    made, newest = record.read_record(folder), sessions[-1]
    result = record.TrainingResult.of(sessions, folder)
    lineage, *others = record.lineages_of(newest) or (None,)
    logs = [
        (folder / record.DRAWS / str(session.get("draw_log")), session["epochs"][1])
        for session in sessions
    ]
    drawn = drawn_cases(logs)
    own = {} if lineage is None else {case.id: case.subject for case in lineage.cases}
    sources = _sources(drawn["synthetic"], own, others)
    whole = {
        "real": drawn["real"].total() == result.drawn_real,
        "synthetic": drawn["synthetic"].total() == result.drawn_synthetic,
    }
    told = {
        "framework": _framework(newest),
        "finished": "yes" if made.get("complete") else "no",
        "real cases": _cases(newest, own),
        "draws of real cases": _often(drawn["real"], len(own), whole["real"]),
        "synthetic samples": _samples(sessions, result),
        **{
            f"based on {name}": _often(c, n, whole["synthetic"]) for name, (c, n) in sources.items()
        },
        "ratio and schedule": f"{newest['ratio']} real:synthetic, {newest['schedule']}; "
        f"{result.realised:.1%} of the draws synthetic, {_share(result.asked)} asked for",
        "generator": _generator(newest),
        "label maps": _label_maps(newest),
        "seeds": f"training {newest.get('training_seed', UNKNOWN)}, samples {newest.get('seed')}",
        "held-out cases": newest.get("guard") or f"the guard's words are {UNKNOWN}",
        "gansynth": str(made.get("gansynth", UNKNOWN)),
        "versions": ", ".join([f"{k} {v}" for k, v in (newest.get("versions") or {}).items() if v]),
        "measured on": _measured(newest.get("metrics_on_real_cases") or {}),
    }
    told = {title: text for title, text in told.items() if text}
    return {
        "paragraph": _paragraph(newest, result, own, sources, told),
        "table": told,
        "draws": {kind: dict(sorted(counter.items())) for kind, counter in drawn.items()},
    }


def _framework(session: Mapping[str, Any]) -> str:
    network = session.get("network")
    begun = f"{session['epochs'][1]} of {session['of_epochs']}"
    named = f"{session['target']}{f' ({network})' if network else ''}"
    return f"{named}, {begun} {session['counted_in']}"


def _cases(session: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Return how many real cases there were, of how many subjects, and of which fold."""
    source = session.get("source") or {}
    data = f"{source.get('kind')}:{str(source.get('where')).rstrip('/').rpartition('/')[2]}"
    if not own:
        return f"{data}; their number is {UNKNOWN}"
    people = len(set(own.values()))
    reading = ", ".join([str(source[k]) for k in ("configuration", "plans") if source.get(k)])
    return (
        f"{counted(len(own), 'case')} of {counted(people, 'subject')}, the training cases of fold "
        f"{source.get('fold')} of {data}{f' ({reading})' if reading else ''}"
    )


def _sources(
    drawn: Mapping[str, int], own: Mapping[str, str], others: Sequence[Any]
) -> dict[str, tuple[Counter[str], int]]:
    """Return what samples were based on: name -> draws of each case, and how many cases it has."""
    places = [("the training fold", set(own))]
    for lineage in others:
        name = lineage.dataset.rpartition("/")[2]
        places.append((name, {case.id for case in lineage.cases}))
    found: dict[str, tuple[Counter[str], int]] = {}
    for case, times in drawn.items():
        name, cases = next((p for p in places if case in p[1]), ("unknown cases", set[str]()))
        counter, _ = found.setdefault(name, (Counter(), len(cases)))
        counter[case] += times
    return found


def _often(drawn: Mapping[str, int], there: int, whole: bool) -> str:
    """Return in words how often cases were drawn, of how many."""
    if not drawn:
        return "" if whole else UNKNOWN
    times = sorted(drawn.values())
    often = f"{_range(times)} times each, median {median(times):g}"
    if times[0] == times[-1]:
        often = f"{counted(times[0], 'time')} each"
    never = f"; {there - len(drawn)} never" if there > len(drawn) else ""
    part = "" if whole else f"; draws of some sessions are {UNKNOWN}"
    return f"{sum(times)} draws of {counted(len(drawn), 'case')}, {often}{never}{part}"


def _samples(sessions: Sequence[Mapping[str, Any]], result: record.TrainingResult) -> str:
    if not result.drawn_synthetic:
        return "none"
    words = f"{result.drawn_synthetic} draws"
    counts = [session["drawn"] for session in sessions]
    if len(counts) == 1:  # others have banks of their own, which begin alike
        distinct, most = counts[0]["distinct_synthetic"], counts[0]["most_draws"]
        words += f" of {distinct} different samples, each at most {counted(most, 'time')}"
    missing = f"; {result.fell_back} missing, replaced by real cases"
    return words + (missing if result.fell_back else "")


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"


def _generator(session: Mapping[str, Any]) -> str:
    """Return which generator drew the samples, and how it was fitted as far as its run is there."""
    described = session.get("generator")
    if not described:
        return "none"
    digest = str(described.get("manifest_sha256", ""))[:12]
    words = f"{described.get('name', 'of a bank')}, run {described.get('run_id')}"
    run = Path(described.get("folder") or "")
    file = run / MANIFEST
    if not described.get("folder") or not file.is_file():
        return f"{words}, manifest {digest}; its run is not here, so its fit is unknown"
    manifest = read_json(file)
    if manifest.get("run_id", described.get("run_id")) != described.get("run_id"):
        return f"{words}, manifest {digest}; another run is in its folder, so its fit is unknown"
    cases = len((manifest.get("lineage") or {}).get("cases", ()))
    seed = (manifest.get("config", {}).get("fit") or {}).get("seed", UNKNOWN)
    fitted = f"fitted on {cases} cases, {manifest.get('steps')} steps, seed {seed}"
    return f"{words} ({fitted})"


def _label_maps(session: Mapping[str, Any]) -> str:
    """Return whose label maps and scans samples took, and how they were changed and filtered."""
    if not session.get("generator"):
        return ""
    of = session.get("label_source")
    words = [f"of {_place(of)}" if of else "of the generator's training cases"]
    edits = f"edits {joined(session['edits'])}" if session.get("edits") else "default edits"
    words.append(edits)
    if session.get("unlabelled"):
        scans = joined([_place(each) for each in session["unlabelled"]])
        share = session.get("backgrounds")
        words.append(f"lesions also in unlabelled scans ({scans}; {share} of samples)")
    if session.get("self_train"):
        words.append(f"{session['self_train']} of samples are such scans with predicted labels")
    for key in ("lesions", "boxes", "prevalence"):
        if session.get(key):
            words.append(f"{key} {session[key]}")
    filters = session.get("filters") or ["default"]
    words.append(f"filter {joined(filters)}")
    return "; ".join(words) + "; the log does not record whose lesion is in which sample"


def _place(request: Mapping[str, Any]) -> str:
    return f"{request['kind']}:{str(request['where']).rstrip('/').rpartition('/')[2]}"


def _measured(metrics: Mapping[str, Any]) -> str:
    if "subjects" not in metrics:
        return UNKNOWN
    cases, people = counted(metrics["cases"], "real case"), metrics["subjects"]
    return f"{cases} of {counted(people, 'held-out subject')}"


def _paragraph(
    session: Mapping[str, Any],
    result: record.TrainingResult,
    own: Mapping[str, str],
    sources: Mapping[str, tuple[Counter[str], int]],
    told: Table,
) -> str:
    real = f"{len(own)} real cases of {len(set(own.values()))} subjects" if own else "real cases"
    fold = (session.get("source") or {}).get("fold")
    sentences = [
        f"The {session['target']} was trained on {real} (the training cases of fold {fold}) for "
        f"{session['epochs'][1]} {session['counted_in']}."
    ]
    if result.drawn_synthetic:
        based = [f"{len(c)} of the {n} cases of {name}" for name, (c, n) in sources.items()]
        sentences += [
            f"Of the samples it was shown, {result.realised:.1%} were synthetic (real:synthetic "
            f"{session['ratio']}, {session['schedule']} schedule): {told['synthetic samples']}. "
            f"They were generated by {told['generator']}.",
            f"These samples were based on {joined(based)}." if based else "",
        ]
    else:
        sentences.append("It was shown no synthetic samples.")
    sentences.append(
        "Before training, the cases seen by the generator were compared with the held-out cases "
        f"({session['guard']})."
        if session.get("guard")
        else "Training is refused if the generator has seen a held-out case; what was compared is "
        f"{UNKNOWN}."
    )
    return " ".join(filter(None, sentences))


# -- a benchmark -----------------------------------------------------------------------------------


def _of_benchmark(document: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return how the trainings of a benchmark were composed."""
    for key in ("runs", "arms", "data", "plan"):
        if key not in document:
            raise UsageFault(
                "card.no-benchmark",
                f"{file}: has no {key}, expected {RESULTS} of gansynth benchmark on one data set",
            )
    done = [run for run in document["runs"] if run["status"] == "done"]
    data, plan, machine = document["data"], document["plan"], document.get("machine") or {}
    trained = f"{len(done)} of {len(document['runs'])} trainings finished"
    host = f"{document['host']['title']}, {document['host']['steps']} steps"
    design = f"{counted(document['draws'], 'random subset')} of "
    design += f"{joined(map(str, document['sizes']))} subjects, "
    design += f"{counted(document['seeds'], 'training')} on each"
    told = {
        "framework": host,
        "finished": trained,
        "real cases": f"{design}, drawn from {data['pool']} subjects of {data['name']}; which "
        f"cases each training used is {UNKNOWN} in {file.name}",
        "test": f"{data['test_subjects']} subjects, {data['test_cases']} cases, "
        f"{document['look']['split']} split",
    }
    for name, arm in document["arms"].items():
        own = [run for run in done if run["arm"] == name]
        told[f"arm {name}"] = f"{arm['title']}: {_arm(arm, own)}"
    used = dict.fromkeys(filter(None, [arm.get("generator") for arm in document["arms"].values()]))
    seeds = sorted({(run["draw"], run["seed"]) for run in done})
    pairs = counted(len(seeds), "pair")
    told |= {
        "draws and seeds": f"{pairs}: draws {_range([d for d, _ in seeds])}, seeds "
        f"{_range([s for _, s in seeds])}",
        "generators": "; ".join([_settings(name, plan) for name in used]) or "none",
        "draws of cases": f"{UNKNOWN}: a benchmark does not keep the logs of draws",
        "held-out cases": f"the guard's words are {UNKNOWN}; a training it refuses has no result",
        "gansynth": f"{document['gansynth']}, plan {document['plan_hash']}",
        "versions": ", ".join([f"{k} {machine[k]}" for k in ("python", "torch") if k in machine]),
    }
    synthetic = [arm for arm in document["arms"].values() if arm.get("generator")]
    look = document["look"]
    paragraph = (
        f"The {host}, was trained in {len(document['arms'])} arms, {len(synthetic)} of them with "
        f"synthetic samples, on {design} ({trained}). All networks were evaluated on "
        f"{data['test_cases']} cases of {data['test_subjects']} other subjects ({look['split']} "
        f"split, access {look['number']}). {document['verdict']['sentence']}"
    )
    return {"paragraph": paragraph, "table": told}


def _arm(arm: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Return what an arm's finished trainings drew."""
    if not runs:
        return "no training is finished"
    drawn = [run.get("drawn") or [None, None] for run in runs]
    known = [pair for pair in drawn if None not in pair]
    if not known:
        return f"draws are {UNKNOWN}"
    real, synthetic = [_range([pair[n] for pair in known]) for n in (0, 1)]
    words = f"{real} real and {synthetic} synthetic draws a training"
    if arm.get("generator"):
        words += f" by {arm['generator']}, ratio {arm['ratio']}, {arm.get('schedule', 'constant')}"
        scans = joined([each.rpartition("/")[2] for each in arm.get("unlabelled") or ()])
        marked = arm.get("self_train")
        words += f", also in unlabelled scans ({scans})" * bool(scans)
        words += f"; {marked:.0%} of them such scans with predicted labels" if marked else ""
    missing = sum([run.get("fell_back") or 0 for run in runs])
    return words + (f"; {missing} samples missing" if missing else "")


def _range(values: Sequence[float]) -> str:
    least, most = min(values, default=0), max(values, default=0)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _settings(name: str, plan: Mapping[str, Any]) -> str:
    """Return a generator of an arm, and the settings it was fitted with."""
    generator = plan.get("generators", {}).get(name, {})
    settings = [f"{key}={value}" for key, value in (generator.get("set") or {}).items()]
    kind = generator.get("plugin") or generator.get("generator") or name
    return ": ".join(
        [f"{name} ({kind})" if kind != name else name, *filter(None, [", ".join(settings)])]
    )
