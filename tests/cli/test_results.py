import copy
from pathlib import Path
from typing import Any

import pytest

import gansynth_benchmark.commands as study_commands
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth_cli import results
from gansynth_evaluate.commands import lines_of_evaluation
from tests.benchmark import documents
from tests.evaluation import documents as evaluation

DRAWN = {"drawn_real": 24, "drawn_synthetic": 24, "realised_synthetic_share": 0.5,
         "asked_synthetic_share": 0.5}  # fmt: skip
FITTED = {
    "run": "runs/g0", "run_id": "066b6569dd8a", "train_cases": 4, "held_out_cases": 1, "steps": 150,
    "resumed_at": 53, "rollbacks": 1, "seconds": 70.7, "waited_share": 0.031, "memory_mib": 695,
    "losses": {"generator/adversarial": 0.31, "generator/l1": 0.1, "discriminator/adversarial": 0.5,
               "rate": 1.0},
    "spectrum_ratio": [[1.0, 0.5, 0.1, 0.05, 0.04, 0.04, 0.2, 0.4], [1.0] * 6 + [0.9, None]],
    "diversity": {"samples": 0.45, "real": None},
}  # fmt: skip
TRAINED = {
    "folder": "R/Dataset004_X/T__P__2d/fold_0",
    "ratio": "1:1", "schedule": "constant", **DRAWN, "fell_back": 2,
    "supply": {"draws_per_sample": 1.5, "restarts": 1}, "warnings": [],
    "metrics_on_real_cases": {
        "dice": {"foreground": 0.71, "1": 0.5}, "hd95": {"foreground": 12.5, "1": None},
        "lesion_sensitivity": {"foreground": 0.8, "1": 0.7},
        "lesion_precision": {"foreground": 0.75, "1": 0.25},
        "false_alarms": {"foreground": 0.5, "1": None},
        "false_positive_volume": {"foreground": 20.25, "1": 3},
        "unit": "px", "distances": "slices", "subjects": 4, "cases": 9,
        "undefined": {name: {"images": 9, "no_truth": 2, "no_truth_predicted": 1,
                             "not_predicted": 3} for name in ("foreground", "1")},
        "own": {"dice": 0.5},
    },
}  # fmt: skip
DEMO: dict[str, Any] = {
    "note": "These are phantoms.", "training_cases": 4, "held_out_cases": 2, "gan_steps": 20,
    "spectrum_ratio": [[1.0] * 8], **DRAWN, "fell_back": 0, "supply": {"restarts": 0},
    "dice_on_held_out_phantoms": {"difference": -0.02, "mean_arm": 0.577, "mean_control": 0.597,
                                  "interval": {"low": -0.061, "high": 0.018}, "subjects": 2},
    "seconds": 90.0, "went_on": False, "files": {"sample sheet": "samples/sheet.png"},
}  # fmt: skip
SAMPLED = {
    "folder": "runs/g0/samples/seed-0", "samples": 2, "rejected": 1, "reject_reasons": {"odd": 1},
    "seconds_per_sample": 0.7931, "sheet": "sheet.png",
    "metrics": {"spectrum": {"high": 0.1234, "bands": [1.0] * 16}},
}  # fmt: skip
EVERY: dict[str, tuple[Any, list[str]]] = {
    "fit": (
        results.lines_of_fit(FITTED),
        [
            "runs/g0: step 150 (went on from 53) in 1:11, 3% of it waiting for data; "
            "4 training cases, 1 held out",
            "went back to a checkpoint 1 time: not finite",
            "losses: G 0.41  D 0.5",
            "finest detail: 0.30 to 0.90 of the real power (1 is as in real images)",
            "likeness of samples to each other: 0.45, of real images: - (mean MS-SSIM)",
            "next: gansynth sample runs/g0 --sheet",
        ],
    ),
    "augment": (
        results.lines_of_training(TRAINED, "nnunet", {"background": 0, "edema": 1}),
        [
            "nnunet: trained; results are in R/Dataset004_X/T__P__2d/fold_0",
            "drawn: 24 real, 24 synthetic (50.0%, asked for 50.0%); 2 missing, real ones took "
            "their place",
            "each synthetic sample was used 1.5 times; their producer was started again 1 time",
            "means over 4 real held-out subject(s) of 9 case(s), HD95 within slices, in px; "
            "sensitivity and precision are of lesions, alarms of cases without one; no truth and "
            "missed are numbers of cases:",
            "region      Dice   HD95   sensitivity  precision  alarms  FP voxels  no truth  missed",
            "foreground  0.710  12.50  0.800        0.750      0.500   20.2       2         3",
            "edema       0.500  -      0.700        0.250      -       3.0        2         3",
            "new images, in a folder IMAGES: gansynth predict R/Dataset004_X/T__P__2d/fold_0 "
            "IMAGES -o predicted",
        ],
    ),
    "demo": (
        results.lines_of_demo(DEMO, Path("demo")),
        [
            "These are phantoms.",
            "generator: fitted on 4 phantoms, 2 held out, 20 steps",
            "nnU-Net: 24 real, 24 synthetic samples (50.0%, asked for 50.0%), and as many steps "
            "without samples",
            "Dice of the tumour on 2 held-out phantoms, predicted without mirroring: 0.58 with "
            "samples, 0.60 without",
            "difference: -0.020, 95 % interval over phantoms -0.061 to +0.018; "
            "of one training each, and others may turn it round",
            "pictures: demo/samples/sheet.png",
            "1:30 in all; more in demo/summary.md",
            "next: gansynth evaluate demo/run",
        ],
    ),
    "sample": (
        results.lines_of_samples(SAMPLED, Path("runs/my g0"), shared=True),
        [
            "2 samples in runs/g0/samples/seed-0, 0.79 s each; 1 would be rejected",
            "sheet: sheet.png",
            "spectrum: high 0.123",
            "next: gansynth evaluate 'runs/my g0' --exported runs/g0/samples/seed-0",
        ],
    ),
}


@pytest.mark.parametrize("command", EVERY)
def test_a_result_is_told_in_lines_and_ends_with_the_next_command(command):
    lines, expected = EVERY[command]
    assert list(lines) == expected


def test_a_difference_without_an_interval_says_why():
    made = copy.deepcopy(DEMO)
    made["dice_on_held_out_phantoms"]["interval"] = {"low": None, "high": None}
    text = "\n".join(results.lines_of_demo(made, Path("demo")))
    assert "one training each, so no interval: other trainings may turn it round" in text


CHOICE = {
    "chosen": "gan", "by": "dice/1", "why": "it did best on the inner folds", "candidates": [],
    "rungs": [{"share": 0.3, "scores": {"gan": 0.7, "real": 0.6, "other": 0.1}},
              {"share": 1, "scores": {"gan": 0.81234, "real": 0.79},
               "beside": {"false_alarms/1": {"gan": 0.25, "real": None}}}],
    "dropped": {"bad": "all were rejected"}, "compared_with": "real",
    "gains": {"gan": {"words": "+0.0223 (standard error 0.01, 5 subject(s))"}},
    "use": ["gansynth fit cgan3d -o runs/gan", "gansynth augment --generator runs/gan"],
}  # fmt: skip


def test_a_choice_is_told_with_the_last_scores_and_what_to_type():
    assert list(study_commands._tune_lines(CHOICE)) == [
        "chosen: gan; it did best on the inner folds",
        "dropped: bad: all were rejected",
        "dice/1 on inner folds, at the last of 2 rungs: gan 0.8123, real 0.7900",
        "false_alarms/1 on inner folds, at the last of 2 rungs: gan 0.2500, real -",
        "gan against real: +0.0223 (standard error 0.01, 5 subject(s))",
        "next: gansynth fit cgan3d -o runs/gan",
        "then: gansynth augment --generator runs/gan",
    ]


def test_a_benchmark_is_told_by_its_sentence_and_its_differences():
    def told(**changes: Any) -> list[str]:
        document = documents.full() | changes
        document["verdict"] = {"sentence": "It does."}
        return list(study_commands._benchmark_lines(document, {"report.html": "out/report.html"}))

    lines = told()
    assert lines[0] == "It does."
    assert lines[2] == "Dice (mean of labels), points:"
    assert lines[3].split("  ")[0] == "arm"
    assert max(map(len, lines[1:-1])) <= 80
    assert told(primary="hd95/1")[2] == "HD95 (Anterior), mm:"
    rows = [each | {"mde": 0.8302} for each in documents.full()["comparisons"]]
    assert not [line for line in told(comparisons=rows) if "83.02" in line]
    assert told(comparisons=rows)[4].endswith("  none")
    assert lines[-1] == "report: out/report.html"


def test_an_evaluation_is_told_by_its_three_answers_first():
    found = evaluation.full() | {"files": {"report.html": "out/report.html"}}
    lines = list(lines_of_evaluation(found))
    assert lines[0] == (
        "Realism: ◆ Like real in 2 of 8 figures  ▼ Unlike real in 5 of 8 figures  "
        "○ Cannot tell in 1 of 8 figures"
    )
    assert [line.partition(":")[0] for line in lines[1:3]] == ["Labels", "Memorisation"]
    assert lines[3].startswith("ALARM ")
    clean = {**found, "alarms": [], "identity": {**found["identity"], "findings": []}}
    assert "Nothing that names a patient" in list(lines_of_evaluation(clean))[3]
    assert lines[-1] == "report: out/report.html"


@pytest.mark.parametrize(
    ("part", "key", "value", "line"),
    [
        ("request", "kind", "nnunet", "augment --target nnunet --generator"),
        ("request", "kind", "yolo", "augment --target yolo --generator"),
        ("capabilities", "takes", [], "help dcgan label-maps"),
        ("schema", "labels", {"background": 0, "lesion": 1}, "augment --target segmenter"),
    ],
)
def test_the_next_training_is_of_the_framework_of_the_data(run, part, key, value, line):
    manifest = read_manifest(run)
    manifest["request"]["kind"] = "nifti"
    manifest[part][key] = value
    write_manifest(run, manifest)
    assert line in list(results.then_augment(run))[-1]
