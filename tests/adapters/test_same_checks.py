"""A dry run refuses what the run would, in every host; and no run is tied to a folder's name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.adapter import Injection
from gansynth.core.fingerprint import prints_of
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.hosts.checks import Takes, check_origin
from gansynth.hosts.origin import Origin
from gansynth.runtime.errors import IntegrityFault
from gansynth.testing import ToySource
from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401  # fixtures
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401  # fixtures

HOSTS = ("nnunet", "deepmedic", "segmenter", "yolo")


@dataclass
class Setting:
    """A host, a generator's run that a test may change, and the data set it was fitted on.

    Attributes:
        host: its name.
        run: the run.
        data: what was fitted on.
        more: what else names its cases, now that it lies elsewhere.
    """

    host: str
    run: Path
    data: str
    output: Path
    more: tuple[str, ...] = ()

    def words(self, *more: str) -> tuple[str, ...]:
        """``gansynth augment`` on the generator's own data set."""
        return (
            *("augment", "--target", self.host, "--generator", str(self.run), "--ratio", "1:1"),
            *({"yolo": (f"--set=output={self.output}",), "nnunet": ()}.get(self.host, self.named)),
            *more,
        )

    @property
    def named(self) -> tuple[str, ...]:
        engine = ("--engine", "torch") if self.host == "deepmedic" else ()
        return (*engine, "-o", str(self.output))

    def change(self, **values: Any) -> None:
        """Write another manifest."""
        path = self.run / "manifest.json"
        path.write_text(json.dumps({**self.manifest, **values}))

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "manifest.json").read_text())
        return found


@pytest.fixture(params=HOSTS)
def setting(request, tmp_path) -> Setting:
    fixtures = {"nnunet": "fitted", "yolo": "box_run"}
    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(fixtures.get(request.param, "crop_run")), run)
    asked = json.loads((run / "manifest.json").read_text())["request"]
    return Setting(request.param, run, f"{asked['kind']}:{asked['where']}", tmp_path / "out")


@pytest.fixture
def renamed(setting: Setting, tmp_path: Path) -> Setting:
    """The same with the data set copied to a folder of another name."""
    where, new = Path(setting.data.partition(":")[2]), tmp_path / "Elsewhere"
    if setting.host == "nnunet":
        old = Path(setting.manifest["request"]["root"])
        for part in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(old / part / "Dataset501_Toy", new / part / "Dataset777_Other")
        (new / "nnUNet_results").mkdir()
        setting.data, setting.more = "nnunet:777", ("--root", str(new))
    else:
        shutil.copytree(where.parent, new)
        config = new / where.name
        config.write_text(config.read_text().replace("'toy'", "'other'"))  # DeepMedic's session
        setting.data = f"{setting.data.partition(':')[0]}:{new / where.name}"
    return setting


def refused(setting: Setting, refuse: Callable[..., None], code: int, says: list[str]) -> None:
    """The dry run and the run end alike, before the host is started."""
    for more in (("--dry-run",), ()):
        refuse(*setting.words(*more), code=code, says=says)
        assert not setting.output.exists()


def test_a_training_case_that_has_changed_since_is_refused_before_the_host_starts(setting, refuse):
    lineage = setting.manifest["lineage"]
    lineage["cases"][-1]["sha256"] = "0" * 64
    setting.change(lineage=lineage)
    says = [lineage["cases"][-1]["id"], "is not the one the run was fitted on"]
    refused(setting, refuse, 6, says)


def test_a_training_case_that_is_new_is_refused_before_the_host_starts(setting, refuse):
    lineage = setting.manifest["lineage"]
    new = lineage["cases"].pop()
    setting.change(lineage=lineage)
    refused(setting, refuse, 6, ["not in that fit", new["id"]])


def test_a_generator_of_label_maps_is_refused(setting, refuse):
    setting.change(options={**setting.manifest["options"], "target": "labels"})
    refused(setting, refuse, 2, [str(setting.run), "label maps of images"])


def test_a_data_set_that_was_renamed_is_the_same(renamed, run_cli):
    words = renamed.words("--data", renamed.data, *renamed.more, "--dry-run", "--json")
    result = run_cli(*words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["data"] != renamed.manifest["lineage"]["dataset"]


def test_people_are_held_out_whatever_the_data_set_is_called(renamed, refuse, run_cli):
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.opening import open_source

    asked = {**renamed.manifest["request"], "root": (None, *renamed.more)[-1]}
    asked["where"] = renamed.data.partition(":")[2]
    source = open_source(SourceRequest(**asked))
    person = source.subject(source.held_out_ids[0])
    lineage = renamed.manifest["lineage"]
    lineage["cases"].append({"id": "a visit before", "subject": person, "sha256": "f" * 64})
    renamed.change(lineage=lineage)
    words = renamed.words("--data", renamed.data, *renamed.more, "--dry-run")
    refuse(*words, code=6, says=["leakage", "a visit before"])


def test_data_and_fold_are_the_generators_and_it_says_so(setting, run_cli):
    result = run_cli(*setting.words("--dry-run", "--json"))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["data"] == setting.manifest["lineage"]["dataset"]
    assert f"as {setting.run} was fitted: data {setting.data}" in result.stderr
    assert "fold 0" in result.stderr


def test_a_dry_run_says_how_long_drawing_takes_and_what_is_not_known(setting, run_cli):
    result = run_cli(*setting.words("--dry-run", "--json"))
    document = json.loads(result.stdout)
    assert document["seconds_per_sample"] > 0
    assert document["seconds_before_training"] > 0
    assert document["bank_bytes"] > 0
    assert "not known" in document["training_time_and_memory"]


@pytest.mark.parametrize("command", ["sample", "evaluate", "turing-test"])
def test_where_the_data_set_was_moved_the_way_out_is_named(command, box_run, tmp_path, refuse):  # noqa: F811
    run = tmp_path / "run"
    shutil.copytree(box_run, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["request"]["where"] = str(tmp_path / "gone" / "data.yaml")
    (run / "manifest.json").write_text(json.dumps(manifest))
    moved = ["gone", "If it was moved", "--data KIND:WHERE"]
    code = {"UsageFault": 2, "DataFault": 3}
    from gansynth.core.source import SourceRequest
    from gansynth.runtime.errors import GansynthError
    from gansynth.sampling.opening import open_source

    with pytest.raises(GansynthError) as fault:
        open_source(SourceRequest(**manifest["request"]))
    refuse(command, run, code=code[type(fault.value).__name__], says=moved)


def test_samples_are_the_same_from_where_the_data_set_is_now(renamed, run_cli, tmp_path):
    words = ("sample", renamed.run, "-n", "1", "--device", "cpu", "-q")
    before = run_cli(*words, "-o", tmp_path / "one")
    after = run_cli(*words, "-o", tmp_path / "two", "--data", renamed.data, *renamed.more)
    assert (before.exit_code, after.exit_code) == (0, 0), after.stderr
    one, two = (sorted((tmp_path / name).glob("*/*.nii.gz")) for name in ("one", "two"))
    folders = {"images"} if renamed.host == "yolo" else {"images", "labels"}
    assert {path.parent.name for path in one} == folders
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] != []


@pytest.mark.parametrize("setting", ["yolo"], indirect=True)
def test_a_fit_goes_on_where_the_data_set_is_now(renamed, run_cli):
    loop = ("steps=3", "batch_size=2", "sample_every=2")
    words = ("fit", "cpggan", "--data", renamed.data, "--read", "size=32x32", "-o", renamed.run)
    result = run_cli(*words, *(f"--set={one}" for one in loop), "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resumed_at"] == 2


@pytest.mark.parametrize(
    ("seen", "says"),
    [({"prints": ()}, "the case itself"), ({"id": "new"}, "near-identical")],
)
def test_a_held_out_slice_is_known_in_data_of_another_name(seen, says):
    """By its id, should the data set be the same one; by its look, should it be another."""
    source = ToySource(2)
    prints = prints_of(np.random.default_rng(0).random((1, 64, 64), np.float32))
    held_out = [replace(source.record(source.held_out_ids[0]), prints=prints)]
    new = {"subject": "new", "sha256": "1" * 64, "image": "1" * 64}
    record = replace(held_out[0], **{**new, **seen})
    run = RunFolder.known(Path("run"), {"generator": "any", "options": {}})
    origin = Origin(Lineage("toy:elsewhere", "0", (record,), source.host), {}, run)
    injection = Injection(run, Ratio(1, 1))
    with pytest.raises(IntegrityFault, match=says):
        check_origin(injection, Takes("any", source, held_out), origin)
