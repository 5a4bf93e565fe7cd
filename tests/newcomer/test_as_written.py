"""README, docs/first_steps.md and docs/python.md, typed letter by letter on phantoms.

999 stands for 004, as README says. Only what shortens a command stands behind it: no folder, no
variable. What would take minutes all the same is typed elsewhere.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.newcomer.conftest import SMALL, Task

ROOT = Path(__file__).parents[2]
README, FIRST_STEPS, PYTHON = (
    (ROOT / page).read_text("utf-8")
    for page in ("README.md", "docs/first_steps.md", "docs/python.md")
)
BEGINNING = README.split("\n## What there is")[0]
EPOCHS = 3
LENGTH = f"--set num_epochs={EPOCHS} --set num_iterations_per_epoch=1"
TINY = f"--plans gansynthSmallPlans {SMALL} --set sample_every=100 --set checkpoint_every=1"
LONG = {
    "prepare": (
        "--set small=yes --set patch=40,48,40 --set features=4,8,8 --set voxels=1000000",
        "nnUNetPlans_3d_fullres/*.b2nd",
    ),
    "fit": (f"{TINY} --set steps=20", "checkpoints/*"),
    "augment": (
        f"{LENGTH} --set num_val_iterations_per_epoch=1 --set save_every=1",
        "fold_0/checkpoint_latest.pth",
    ),
}
"""README's long commands: what shortens them, and the new file after which Ctrl-C is typed."""
SHORT = {"gansynth augment --target nnunet": "--dry-run", "": ""}
"""Beginnings of the commands of docs/first_steps.md: what shortens them."""
ELSEWHERE = {
    "gansynth demo": "tests/newcomer/test_tasks.py",
    "gansynth evaluate": "tests/newcomer/test_tasks.py",
    "--deidentify": "tests/sampling/test_sharing.py",
    "torchrun": "tests/runtime/test_distributed.py",
    'eval "$(gansynth completion': "tests/cli/test_help.py",
    "nifti:brats": "tests/plugins/test_papers.py; phantoms have too few slices",
    "nifti:MICCAI": "tests/plugins/test_papers.py; a step takes minutes",
    "plan.yaml": "tests/benchmark",
}
"""Parts of commands that are too long, or for data that no phantoms stand for: who types them."""
SCRIPT = {
    '"3d_fullres")': '"3d_fullres", small=True, patch="40,48,40", features="4,8,8", voxels=10**6)',
    'out="runs/g0"': 'out="runs/g0", plans="gansynthSmallPlans", width=12, d_width=12, levels=4',
    "fold=0": "fold=0, steps=2",
    "steps=2000": "steps=2",
    "n=100": 'n=8, only="realism"',
    'ratio="1:1"': 'ratio="1:1", num_epochs=1, num_iterations_per_epoch=1',
    "dry_run=True": "dry_run=True, no_probe=True",
}
"""What shortens the scripts."""


def blocks(text: str, *languages: str) -> str:
    """The blocks of a page that are in these languages, one after the other."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return "".join(block for language, block in found if language in languages).replace(
        "004", "999"
    )


def commands(text: str) -> list[str]:
    """The commands of a page, but those for make and pip, and those that are typed elsewhere."""
    lines = blocks(text, "", "bash").replace("\\\n", "").splitlines()
    parts = [part.split(" #")[0].split() for line in lines for part in line.split(" && ")]
    typed = [" ".join(words) for words in parts if words and words[0] not in ("#", "make", "pip")]
    return [line for line in typed if not any(part in line for part in ELSEWHERE)]


def in_phantoms(folder: Path) -> Task:
    """What types in the folder of README's phantoms."""
    words = "gansynth demo --phantoms nnunet -o phantoms"
    assert f"`{words}`" in README
    Task("", 0, folder)(words)
    Task("", 0, folder)("gansynth demo --phantoms nnunet --seed 7 -o others")
    for name, home, cases in (("scans", "phantoms", "phantom_000_*"), ("normal", "others", "*")):
        raw = folder / home / "nnunet" / "nnUNet_raw" / "Dataset999_Phantom" / "imagesTr"
        (folder / "phantoms" / name).mkdir()
        for image in raw.glob(cases):
            shutil.copy(image, folder / "phantoms" / name / image.name.replace("phantom", name))
    return Task("", 0, folder / "phantoms")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("home", ["nnunet", "exported"])
def test_readmes_commands_go_on_after_ctrl_c_where_nnunets_own_log_says(
    tmp_path, monkeypatch, home
):
    type_in = in_phantoms(tmp_path)
    if home == "exported":
        (type_in.folder / "nnunet").rename(type_in.folder / home)
        for kind in ("raw", "preprocessed", "results"):
            monkeypatch.setenv(f"nnUNet_{kind}", str(type_in.folder / home / f"nnUNet_{kind}"))
    for line in commands(BEGINNING.replace("nnunet/", f"{home}/")):
        verb = line.split()[1]
        behind, file = LONG.get(verb, ("", ""))
        if file:  # what is prepared already is not prepared again
            codes = (130, 0) if verb == "prepare" else (130,)
            type_in(f"{line} {behind}", *codes, until=f"**/{file}")
        else:
            type_in(line)
        said = type_in(f"{line} {behind}")
        if verb == "augment":
            check_resumed(type_in.folder, said)
            assert "nothing is trained again" in type_in(f"{line} {behind}")
    assert [path for path in tmp_path.rglob("*/") if path.name == path.parent.name] == []


def check_resumed(folder: Path, said: str) -> None:
    """The screen and gansynth's record say of the newest training what nnU-Net's logs say."""
    newest = max(folder.rglob("gansynth_session.json"), key=lambda path: path.stat().st_mtime)
    sessions = json.loads(newest.read_text("utf-8"))["sessions"]
    spans = [tuple(session["epochs"]) for session in sessions]
    reached = spans[0][1]
    assert spans == [(0, reached), (reached, EPOCHS)]
    assert f"resumes at epoch {reached} of {EPOCHS}" in said
    logs = [path.read_text("utf-8") for path in sorted(newest.parent.glob("training_log_*.txt"))]
    first, second = (re.findall(r"Epoch (\d+) \n.*learning rate: (\S+)", log) for log in logs)
    assert first[0] == ("0", "0.01")
    assert [int(epoch) for epoch, _ in second] == [*range(reached, EPOCHS)]
    rate = 0.01 * (1 - reached / EPOCHS) ** 0.9
    assert float(second[0][1]) == pytest.approx(rate, rel=0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_first_steps_is_taken_and_taken_again(folder):
    type_in, raw = Task("", 0, folder), folder / "nnunet" / "nnUNet_raw" / "Dataset999_Phantom"
    for part in ("imagesTr", "labelsTr"):
        shutil.copytree(raw / part, folder / "scans" / part)
    for line in commands(FIRST_STEPS):
        behind = next(text for beginning, text in SHORT.items() if line.startswith(beginning))
        type_in(f"{line} {behind}")
        if " -o " in line and behind != "--dry-run":
            said = type_in(f"{line} {behind}", 0, 2)  # 2: a file is not replaced
            assert "error:" not in said or "exists already, expected a new file" in said


PLAN = """
name: gain
data: nifti:nnunet/nnUNet_raw/Dataset999_Phantom
host: {target: segmenter, steps: 2}
arms: [default, parametric]
sizes: [1]
draws: 3
split: {development: 1, sealed: 1}
"""
BEGUN = 'print("the script is run")\n'
REAL = """
import torch

images = [run.source.load(case).image for case in run.source.train_ids]
real = [{"image": torch.from_numpy(image)} for image in images]
"""
TRAINING = """
    loader = torch.utils.data.DataLoader(mixed, batch_size=2, num_workers=2, collate_fn=list)
    print(len([*loader]), "batches")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_of_the_pages_is_a_plain_script_that_is_run_once(tmp_path):
    """nnU-Net's pools, gansynth's processes and a loader's workers leave it alone."""
    type_in = in_phantoms(tmp_path)
    own, _, loop = blocks(BEGINNING, "python").partition("with gansynth.live_bank")
    code = BEGUN + blocks(PYTHON, "python") + own + REAL + "with gansynth.live_bank" + loop
    for text, shorter in SCRIPT.items():
        assert text in code
        code = code.replace(text, shorter)
    (type_in.folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    (type_in.folder / "script.py").write_text(code + TRAINING, encoding="utf-8")
    said = type_in("python script.py")
    assert said.count("the script is run") == 1
    assert "nothing is trained again" in said  # README's augment is that of docs/python.md
    assert "2 batches" in said
