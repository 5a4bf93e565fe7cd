"""Commands that cannot be: one line, its exit code, and nothing written.

``{toy}`` and the like are folders of ``world``; ``{no}`` is not there.
"""

import shlex
from pathlib import Path

import pytest

from gansynth_cli.main import cli

NO = "nowhere/at-all"
AUGMENT = "augment --target toyhost --data toy:3 --generator {toy} --ratio 1:1"
SEGMENTER = "augment --target segmenter --data example:3d --ratio 1:1"
OF_TOY = "augment --target segmenter --generator {toy} --ratio 1:1 --dry-run"
UNMIXED = "augment --data example:3d --ratio 1:0 --dry-run --target"
FIT = "fit means -o out --data toy:3"
DCGAN = "fit dcgan -o out --data"
OF_ILL = "sample {of_ill} -n 1"
FREE = f"{OF_ILL} --label-source nifti:{{free}} --label-source-read"
SLICES = "import slices:nifti:{ill} yolo:out --read folds=2 --read 'channels=channel 0'"
BOXES = "--read boxes=lesion:1+2 --read modality=none"
NEW = "plugins new"
TURING = "turing-test {toy}"

SLIPS: dict[str, str | tuple[str, ...]] = {
    "fti": "No such command 'fti'. Did you mean 'fit'? See: gansynth --help",
    "fit cgan3d --data nnunet:004": "Missing option '-o' / '--out'. See: gansynth fit --help",
    "fit means toy:3 -o out": "Missing option '--data'. Did you mean --data toy:3? See: gansynth",
    "augment": ("--target: missing", "gansynth augment KIND:WHERE"),
    "augment nnunet:004 --data nnunet:005": "names other data",
    "augment --target nnunet": "--ratio: missing, expected R:S",
    # Names in other programs.
    "train cgan3d": "It is called 'fit'",
    "augment nnunet:501 -tr nnUNetTrainerDA5": "nnU-Net's -tr is --trainer NAME here",
    "fit parametric -p nnUNetPlans -o run": "nnU-Net's -p is --plans NAME here",
    "prepare -d 501": "nnU-Net's -d is nnunet:ID, without an option, here",
    "augment nnunet:501 -pretrained_weights x.pth": "is -- -pretrained_weights here",
    "augment nnunet:501 --npz": "is -- --npz here",
    # Options that have no effect.
    f"{SEGMENTER} --bank b --bank-size 9": "--bank-size 9: has no effect with --bank b",
    f"{SEGMENTER} --generator g --offline --refresh 3x": "--refresh 3x: has no effect with",
    f"{SEGMENTER} --generator g --round-ratio": "--round-ratio: has no effect without --export",
    f"{SEGMENTER}": ("--generator is missing", "add --generator RUN", "--ratio 1:0"),
    "benchmark plan.yaml --reopen-test-set why": "--reopen-test-set why: has no effect without "
    "--test-set",
    "demo -o out --channels T1": "--channels T1: has no effect without --phantoms=deepmedic",
    "evaluate run --only maps --metric spectrum": "spectrum: has no effect without --only=realism",
    f"{FIT} --only one": "--only one: has no effect without --recipe",
    "fit copypaste --data example:3d -o out --set steps=9": "--set steps=9: copypaste "
    "has no such setting. See: gansynth options copypaste",
    "fit cgan3d-lesion -o o --data example:3d --set stage=coarse --set steps=9": "=9: has no "
    "effect, as cgan3d-lesion learns by no training steps",
    "fit dcgan --data example:2d -o out --verbose": "--verbose: has no effect without --dry-run",
    f"{DCGAN} slices:nifti:x --read resampling=nearest": "=nearest: has no effect without whole",
    "check nifti:x --read seed=3 --read splits=s.json": "--read seed=3: has no effect with "
    "--read splits=s.json",
    "sample run --set bits=8": "--set bits=8: nifti has no such setting",
    "sample run --format jpeg": "writer 'jpeg' is unknown, expected one of: ",
    "sample run --edit size:bias=2": "size:bias=2: bias: has no effect without like=small",
    "sample run --edit size:like=large": "size:like=large: like: ",
    "sample run --lesions where=own,tries=3": "tries: has no effect with where=own",
    "tune plan.yaml --draw 1": "--draw 1: has no effect without --size",
    # Keys that a source does not have.
    f"{DCGAN} example:2d --read subjects=p(1)": "Did you mean: --subjects 'p(1)'?",
    f"{DCGAN} slices:example:3d --read bogus=1": "--read bogus=1: example: has no such key",
    # Data.
    "check niftl:folder": "Did you mean 'nifti'?",
    "check nowhere/at-all": "nowhere/at-all: no such file or folder, expected one, or KIND:WHERE",
    "check .": "no kind of source opens it; name its kind, as in gansynth check nifti:.",
    "fit cgan3d --data example:2d -o out --set widht=8": (
        "cgan3d has no such setting. Did you mean 'width'?",
        "See: gansynth options cgan3d",
    ),
    "check nnunet:001 --root . --read spacing": "expected KEY=VALUE",
    "check nifti:folder --read a=1 --read a=2": "'a' is given twice",
    "splits h5:file": "gansynth splits: 'h5' has no such command, expected one of: nnunet",
    "prepare nnunet:001 --set=small=yes --set=patch=8,x": "expected whole numbers",
    "import bids:folder nnunet:001": "'bids' is unknown, expected one of",
    "import msd: nnunet:001": "expected KIND:WHERE",
    "import msd:folder deepmedic:x": "has no such command, expected one of: nnunet, yolo",
    "import msd:folder nnunet:": "import 'nnunet:': expected KIND:WHERE",
    "import nifti:{ill} nnunet:1 --fold 0": "--fold: has no effect",
    f"{SLICES} {BOXES} --fold all": "nothing is held out",
    f"{SLICES} {BOXES} --folds 2": "say --read folds=2",
    f"{SLICES} {BOXES} --set=bits=9": "--set bits=9: expected 8 or 16 (of a pixel)",
    f"{SLICES} --read boxes=lesion:9": "has no label 9",
    f"import nifti:{{ill}} yolo:out {BOXES}": "slices with boxes, as by: gansynth import slices:",
    "cache toy:3 -o a/b.h5": ("no folder", "make it"),
    # fit
    "fit means --data somewhere -o out": "somewhere: no such file or folder, expected one, or K",
    f"{FIT} --set 'grain=[4,'": "expected a number",
    f"{FIT} --edit flop": "Did you mean 'flip'?",
    f"{FIT} --device toaster": "toaster",
    "fit means --data toy:3 -o {toy} --no-resume": "holds a run already",
    # sample
    "sample {toy} --format png": "are volumes, expected slices",
    "sample {toy} --replay 3": "--replay 3: expected FILE:LINE of a draw log (draws-*.csv)",
    "sample {toy} --replay a.csv:3 -n 2": "--replay with --number: the record has",
    "sample {toy} --metric spectrun": ("'spectrun' is unknown", "Did you mean 'spectrum'?"),
    "sample {toy} --boxes jitter:postion=1": "Did you mean 'position'",
    "sample {toy} --boxes jitter": ("jitter: means takes no boxes", "leave --boxes out"),
    f"{OF_ILL} --label-source somewhere": "expected KIND:WHERE",
    f"{OF_ILL} --label-source nifty:x": "Did you mean 'nifti'?",
    f"{OF_ILL} --label-source-read fold=0": (
        "--label-source-read fold=0",
        "without --label-source",
    ),
    f"{OF_ILL} --unlabelled nifti:x": "means draws no lesions into real images",
    f"{OF_ILL} --unlabelled somewhere": "--unlabelled 'somewhere': expected KIND:WHERE",
    f"{OF_ILL} --backgrounds own": "--backgrounds own: has no effect without --unlabelled",
    f"{OF_ILL} --unlabelled nifti:x --backgrounds 2": "--backgrounds 2: expected own",
    f"{OF_ILL} --filter default --filter none": "--filter none with --filter default",
    f"{OF_ILL} --filter sieve": "filter 'sieve' is unknown",
    f"{OF_ILL} --lesions pairs=ordered": "means draws no lesions into real images",
    f"{OF_ILL} --edit shift:max_m=3": ("--edit shift:max_m=3", "Did you mean 'max_mm'?"),
    f"{FREE} channels=T1,T2": "its channels are T1, T2, those of the run T1, FLAIR",
    f"{FREE} spacing=1.5": ("1.5 x 1.5 x 1.5 mm", "1 x 1 x 1 mm", "-read spacing=1,1,1"),
    f"{FREE} modality=none": ("intensity is", "mr"),
    f"{FREE} spacin=1": ("--label-source-read spacin=1", "Did you mean 'spacing'?"),
    # augment
    f"{AUGMENT} --target toyhorst": "Did you mean 'toyhost'?",
    f"{AUGMENT} -c impossible": "--configuration impossible: not in the plans",
    f"{AUGMENT} --bank-size 0": "--bank-size '0'",
    f"{AUGMENT} --producers 0": "--producers '0': expected auto, or a number of processes",
    # Crops too small for the network, or for the training: the fit of larger ones is named.
    f"{OF_TOY} --network deepmedic": "gansynth fit means --data toy:3 --read size=64 -o ",
    f"{OF_TOY} --patch 64": "expected at least (64, 64, 64); train on smaller crops (--set patch=)",
    f"{OF_TOY} --network deepmedic --patch 64": "--data toy:3 --read size=64,64,64",
    # Options of a target are refused as they were typed.
    f"{UNMIXED} nnunet --detector x": "No such option '--detector'",
    f"{UNMIXED} segmenter --width 2": "--width 2: expected a number greater than or equal to 4",
    f"{UNMIXED} segmenter --width 8 --set width=9": "--width 8 and --set width=9: expected one of",
    f"{UNMIXED} segmenter --width 8 --export x": "--export with --width: nothing is trained",
    f"{UNMIXED} segmenter --output a -o b": "-o b and --output a: expected one of them",
    f"{UNMIXED} segmenter --real-in-generator-space --export x": "in-generator-space: segmenter",
    # evaluate, turing-test
    "evaluate {toy} --real toys:3": ("--real toys:3", "toy"),
    "evaluate {toy} --metric spektrum": ("'spektrum'", "Did you mean 'spectrum'?"),
    TURING: ("-n 50: toy:3 has 16 image(s)", "use -n 16"),
    f"{TURING} -n 2 --class x": "--class",
    f"{TURING} --real nosuch:x": ("--real nosuch:x", "unknown"),
    f"{TURING} --name ../other": ("--name ../other", "expected letters"),
    f"{TURING} --channel frist -n 2": ("--channel frist", "Did you mean 'first'"),
    f"{TURING} -n 1001": ("-n 1001", "expected 1 to 1000"),
    # help, plugins, options, papers
    "help sourcse": "no such page, expected one of gansynth help. Did you mean 'sources'?",
    "help sources dicom": "help sources 'dicom': no such section, expected words of one of:",
    "plugins check toyhost": "gansynth.testing.check_host",
    "plugins check toy": "a source is checked on data of its own, expected --data toy:WHERE",
    "plugins check means --data toy:3": "--data toy:3: has no effect, a generator",
    "plugins check toy --data example:2d": "is read by example, expected toy:WHERE",
    "plugins check means --set grane=1": "grane",
    f"{NEW} Spots": "'Spots': expected a package name",
    f"{NEW} {'s' * 41}": "at most 40 characters",
    f"{NEW} class": "is a Python keyword",
    f"{NEW} gansynth_spots": "without the prefix gansynth_",
    f"{NEW} cgan3d": "generator 'cgan3d' is already registered by plugin 'cgan3d'",
    f"{NEW} nnunet": "a plugin or package gansynth_nnunet is installed already",
    f"{NEW} spots --kind network": "'network'",
    f"{NEW} spots -o {{free}}": ("exists already", "choose another: -o"),
    "papers shin2018 --data nifti:x --extra-source tissues=nifti:y --dry-run --fit-set stepz=3": (
        "--fit-set stepz: cgan3d has no such setting"
    ),
    "papers shin2018 --data nifti:x --extra-source tissues=nifti:y --dry-run --host-set stepz=3": (
        "--host-set stepz: "
    ),
}

KINDS = {
    "nifti": NO, "msd": NO, "h5": f"{NO}.h5", "pictures": NO, "slices": f"nifti:{NO}",
    "yolo": f"{NO}.yaml", "deepmedic": f"{NO}.cfg", "nnunet": "999", "nnunet-raw": "999",
}  # fmt: skip
TAKE_DATA = (
    *("cache -o out.h5", "check"),
    "augment --target segmenter --generator {no} --ratio 1:1 --data",
)
MISSING: dict[str, str | tuple[str, ...]] = {
    **{f"{DCGAN} {kind}:{where}": "" for kind, where in KINDS.items()},
    **{f"{command} {kind}:{KINDS[kind]}": "" for kind in ("h5", "slices") for command in TAKE_DATA},
    "check nifti:{ill} --bank {no}": "",
    "check --generator {no}": "",
    "sample {toy} --replay {no}.csv:3": "at-all.csv:3: no file nowhere/at-all.csv, expected FILE",
    "sample {free}": "gansynth fit",
    f"{OF_ILL} --label-source nifti:{{no}}": ("--label-source nifti:nowhere", "no such"),
    "evaluate {no}": "",
    "evaluate {free}": ("free", "gansynth fit"),
    "evaluate {of_ill} --real nifti:{no}": "",
    "evaluate {of_ill} --exported {no}": "",
    "evaluate {small} --real toy:3": "--real toy:3",
    "evaluate {small} -n 8 --metric c2st-cnn --only realism": ("8 sample(s)", "at least 16", "-n"),
    "turing-test {no}": ("no manifest.json", "gansynth fit"),
    "turing-test {no} answers.json": ("no study.json", "gansynth turing-test RUN"),
    "turing-test {of_ill} --instructions {no}.txt": "",
    f"{DCGAN} example:2d --init-from {{no}}": "",
    f"{DCGAN} example:2d --recipe {{no}}.yaml": "",
    "fit {no}.yaml -o out --data example:2d": "",
    f"{DCGAN} nifti:{{ill}} --subjects {{no}}.csv": "",
    f"{DCGAN} nifti:{{ill}} --read splits={{no}}.json": "",
    "augment --target segmenter --data nifti:{ill} --ratio 1:1 --generator {no}": "",
    "augment --target segmenter --data nifti:{ill} --ratio 1:1 --bank {no}": "",
    "papers {no}.yaml --data example:2d": "",
    "prepare nnunet:999 --root .": "",
    f"{SLICES} {BOXES} --read=slices=4": "the training slices have no box",
}
CASES = [
    *((2, command, says) for command, says in SLIPS.items()),
    *((3, command, says) for command, says in MISSING.items()),
]


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in files}


@pytest.mark.fault(23)
@pytest.mark.parametrize(("code", "command", "says"), CASES, ids=[case[1] for case in CASES])
def test_a_command_is_refused_in_one_line_and_writes_nothing(
    run_cli, one_line, world, toys, tmp_path, monkeypatch, code, command, says
):
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / "nnunet"))
    places = {name: world / name for name in ("toy", "small", "of_ill", "ill", "free")}
    before = stamps(world)
    result = run_cli(*shlex.split(command.format(**places, no=NO)))
    one_line(result.exit_code, result.stderr, code, [says] if isinstance(says, str) else says)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert stamps(world) == before
    assert toys.started == []


def test_needs_of_a_commands_options_name_its_own_options():
    """A slip in a table would refuse, or let pass, without a word."""
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        request = getattr(cli.get_command(None, name), "request", None)  # type: ignore[arg-type]
        needs = {} if request is None else request.conditions()
        atoms = ", ".join(needs.values()).replace(" or ", ", ").split(", ")
        named = {atom.replace("!", "").partition("=")[0] for atom in atoms if atom}
        assert request is None or {*needs, *named} <= {*request.model_fields}, name


def test_at_a_ratio_without_samples_options_about_them_are_warned_of(run_cli):
    words = "augment --target segmenter --data example:3d --ratio 1:0 --dry-run --filter faithful"
    result = run_cli(*words.split(), "--bank-size", 9)
    warned = [line for line in result.stderr.splitlines() if "no effect" in line]
    assert [line.split(": ")[1] for line in warned] == ["--bank-size 9", "--filter faithful"]
