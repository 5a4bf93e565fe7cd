"""What is said of a run's privacy: terms, epsilon, sentences."""

import sys
from typing import Any

import pytest

from gansynth.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth.privacy import Terms, record, refuse_others, spent, terms
from gansynth_cgan3d.options import CGANOptions
from gansynth_dcgan.options import DCGANOptions

accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
ASKED: dict[str, Any] = {
    **{"noise": 1.5, "epsilon": None, "clip": 1.0, "delta": None},
    **{"people": 40, "batch_size": 8, "steps": 100},
}


def asked(**changes: Any) -> Terms:
    return terms(**{**ASKED, **changes})


def test_each_person_is_drawn_as_often_as_the_batch_is_large():
    assert asked().rate == 8 / 40
    assert asked().people == 40


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_epsilon_is_opacus_own_for_the_same_steps(steps):
    accountant = accountants.RDPAccountant()
    for _ in range(steps):
        accountant.step(noise_multiplier=1.5, sample_rate=0.2)
    assert asked().epsilon(steps) == pytest.approx(accountant.get_epsilon(delta=0.0025), rel=1e-9)


def test_epsilon_grows_with_every_step_from_none():
    found = [asked().epsilon(steps) for steps in (0, 1, 2, 50)]
    assert found[0] == 0.0
    assert found == sorted(set(found))


@pytest.mark.parametrize("wanted", [1.0, 8.0, 200.0])
def test_noise_is_found_for_an_epsilon_that_is_not_exceeded(wanted):
    found = asked(noise=None, epsilon=wanted)
    assert wanted - 0.02 < found.epsilon(100) <= wanted
    assert found.target == wanted


def test_an_epsilon_that_no_noise_is_enough_for_is_refused():
    with pytest.raises(UsageFault, match=r"privacy_epsilon=0.001: no noise is enough.*expected"):
        asked(noise=None, epsilon=0.001)


def test_delta_is_a_tenth_of_one_person_where_nobody_says():
    assert asked().delta == 0.1 / 40
    assert asked(delta=1e-5).delta == 1e-5


def test_a_delta_that_one_person_could_be_sold_for_is_refused():
    with pytest.raises(UsageFault, match=r"privacy_delta=0.025.*expected less than 1/40"):
        asked(delta=1 / 40)


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(UsageFault, match=r"batch_size=64: the source has 40.*batch_size=40"):
        asked(batch_size=64)


def test_without_opacus_one_line_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "opacus"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'gansynth\[privacy\]'") as caught:
        asked()
    assert "\n" not in str(caught.value)


# -- manifests -------------------------------------------------------------------------------------


def test_a_manifest_says_what_is_promised_and_what_is_not():
    manifest = {"privacy": record(asked(), 100, ["names", "sheets"])}
    found = spent(manifest)
    assert found is not None
    assert found["epsilon"] == asked().epsilon(100)
    assert (found["delta"], found["unit"]) == (0.0025, "subject")
    for said in ("40 training subjects", "100 noisy steps", "not covered: names; sheets"):
        assert said in found["what"]


@pytest.mark.parametrize("manifest", [{}, {"privacy": None}])
def test_without_privacy_nothing_is_promised(manifest):
    assert spent(manifest) is None


def test_of_a_composite_run_nothing_is_promised():
    assert spent({"parts": [], "privacy": record(asked(), 1, [])}) is None


@pytest.mark.parametrize("found", [{}, {**record(asked(), 1, []), "epsilon": "little"}, 8])
def test_a_damaged_record_is_no_promise(found):
    with pytest.raises(IntegrityFault, match=r"manifest\.json: key 'privacy' is damaged"):
        spent({"privacy": found})


# -- other generators ------------------------------------------------------------------------------


def test_a_conditional_generator_cannot_be_private():
    with pytest.raises(UsageFault, match=r"privacy_noise=1: cgan3d cannot be private.*fit dcgan"):
        refuse_others("cgan3d", CGANOptions.model_fields, {"steps": "3", "privacy_noise": "1"})


def test_a_generator_that_can_is_not_refused_nor_is_one_that_is_not_asked():
    refuse_others("dcgan", DCGANOptions.model_fields, {"privacy_noise": "1"})
    refuse_others("cgan3d", CGANOptions.model_fields, {"steps": "1"})
