"""What samples are worth: realism, faithfulness to labels, memorisation, and the report on it."""

COMMANDS = {
    "detections": (
        "gansynth_evaluate.commands:detections",
        "Evaluate detectors, and compare them at equal false positives.",
    ),
    "evaluate": (
        "gansynth_evaluate.commands:evaluate",
        "Evaluate samples: realism, faithfulness and memorisation.",
    ),
    "turing-test": (
        "gansynth_evaluate.commands:turing_test",
        "Let raters tell real images from samples, each on a page.",
    ),
}
"""Command -> where it is; a line for ``gansynth --help``."""
