def pytest_addoption(parser):
    parser.addoption("--kills", nargs="+")
    parser.addoption("--kills-json")
