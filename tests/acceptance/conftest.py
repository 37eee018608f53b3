"""What the tests of the command line share."""

import pytest
from clikit import Zygote


@pytest.fixture(scope="session")
def zygote():
    running = Zygote()
    yield running
    running.close()
