from tests.machines import Machine, differences, environment


def test_pretended_cores_hold_in_a_child_of_a_child_and_others_are_not_taken_for_them():
    machine = Machine("12 cores", cores=12, sees={"cores": [13]})
    with environment(machine) as environ:
        assert differences(machine, environ) == ["cores is [12], not [13]"]
