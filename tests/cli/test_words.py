"""Words that commands end with are found by ``gansynth help``."""

import re

from gansynth.runtime.errors import UsageFault
from gansynth_benchmark.commands import _benchmark_lines, _tune_lines
from gansynth_benchmark.report.verdict import verdict
from gansynth_cli.commands.help import PAGES, entries, search, settings
from gansynth_evaluate.commands import lines_of_evaluation
from tests.benchmark import documents
from tests.cli.conftest import READ
from tests.cli.test_results import CHOICE, EVERY
from tests.evaluation import documents as evaluation

TOY = ("--data", "toy:3")
AUGMENT = ("augment", "--target", "toyhost", *TOY, "--ratio", "1:1", "--generator", "RUN")
COMMANDS: tuple[tuple[object, ...], ...] = (
    ("fit", "means", *TOY, "-o", "OUT/run"),
    ("fit", "means", *TOY, "-o", "OUT/dry", "--dry-run"),
    ("sample", "RUN", "-n", 2, "--sheet", "-o", "OUT/samples"),
    ("check", "nifti:ILL", *READ),
    ("check", "--generator", "RUN"),
    ("cache", "toy:3", "-o", "OUT/cases.h5"),
    (*AUGMENT, "--dry-run"),
    AUGMENT,
    ("turing-test", "RUN", "-n", 4),
)
LAST = 10
ORDINARY = """
a above again against all and another are as asked at back bad be beside best bytes c cannot chosen
command config cpu cut darker dataset dataset004 did difference dropped f finite first fitted
float32
for g0 gansynth harm has i is it kib labelled many may median mib more next nnunetv2 none not o on
other others over page part parts predict predicted repeat report round same say second some started
statistics study surroundings t tell than their these time times took tr train trained tuned turn
two unlike used values versions warning was went were will within without would x yet
differs likely edema flair ill nnu-net t1
"""
"""Words that say what they say anywhere; names of channels, labels and frameworks."""


PAGE_OF = {path.stem: path for path in PAGES.glob("*.md")}


def words_of(lines):
    """Words of the last lines, but for paths, files and values of options."""
    for token in re.findall(r"[^\s,;()|]+", " ".join(map(str, lines[-LAST:]))):
        if not re.search(r"[/=]|\.(html|json)$|^[0-9a-f]{8}", token):
            yield from re.findall(r"(?<!\w)[a-z][a-z0-9-]*", token.replace("_", " ").lower())


def test_every_word_that_a_command_ends_with_is_found_by_help(run, world, run_cli, tmp_path):
    places = {"RUN": run, "ILL": world / "ill", "OUT": tmp_path}
    document = documents.full()
    document["verdict"] = verdict(document)
    ends = [expected for _, expected in EVERY.values()]
    files = {"report.html": "report.html"}
    ends += [[*_tune_lines(CHOICE)], [*_benchmark_lines(document, files)]]
    ends += [[*lines_of_evaluation(evaluation.full() | {"files": files}, run)]]
    for typed in COMMANDS:
        told = " ".join(map(str, typed))
        for name, place in places.items():
            told = told.replace(name, str(place))
        shown = run_cli(*told.split())
        assert shown.exit_code == 0, shown.stderr
        hints = [line for line in shown.stderr.splitlines() if line.startswith("next: ")]
        ends.append([*shown.stdout.splitlines(), *hints])
    known = [*entries(PAGE_OF), *settings()]
    known = [entry for entry in known if entry.kind != "page" or entry.name in PAGE_OF]
    unknown = set()
    for word in {word for lines in ends for word in words_of(lines)} - {*ORDINARY.split()}:
        try:
            search(word, known)
        except UsageFault:
            unknown.add(word)
    assert unknown == set(), "a term goes into docs/glossary.md, an ordinary word into ORDINARY"


def test_what_a_word_names_to_read_on_is_printed(run_cli):
    named = {entry.more for entry in entries(PAGE_OF) if entry.kind == "word"}
    assert [more for more in named if run_cli(*more.split()[1:]).exit_code] == []
