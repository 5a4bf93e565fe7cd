from tests.machines import EIGHTHS, MACHINES, Machine, differences, environment, in_turn


def test_pretended_cores_hold_in_a_child_of_a_child_and_others_are_not_taken_for_them():
    machine = Machine("12 cores", cores=12, sees={"cores": [13]})
    with environment(machine) as environ:
        assert differences(machine, environ) == ["cores is [12], not [13]"]


def test_each_machine_has_a_turn_with_each_test_file():
    turns = [in_turn(100 + number) for number in range(EIGHTHS * len(MACHINES))]
    pairs = [(name, file) for name, files in turns for file in files]
    files = {file for _, file in pairs}
    assert "tests/test_machines.py" in files
    assert sorted(pairs) == sorted((name, file) for name in MACHINES for file in files)
