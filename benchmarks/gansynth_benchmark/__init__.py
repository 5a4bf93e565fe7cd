"""Arms x draws x seeds on the user's own cases, paired statistics, and a report that says it."""

COMMANDS = {
    "benchmark": (
        "gansynth_benchmark.commands:benchmark",
        "Measure whether samples help, by how much, and how certain that is.",
    ),
    "card": (
        "gansynth_benchmark.commands:card",
        "Print the card of a fit, or how a training or benchmark was composed, for a paper.",
    ),
    "papers": (
        "gansynth_benchmark.commands:papers",
        "Reproduce a paper's table, with its numbers beside ours.",
    ),
    "tune": (
        "gansynth_benchmark.commands:tune",
        "Choose generator, ratio and schedule by inner folds, or none.",
    ),
}
"""Command -> where it is; a line for ``gansynth --help``."""
