"""With a line of a guarantee taken out, a test fails: the quick ones here, all of them by `make mutation`."""

from pathlib import Path

import pytest
from mutants import MUTANTS, TESTS, copy_package, mutate, survives

GUARANTEES = {f"G{number}" for number in range(1, 17)}


def test_every_guarantee_has_a_mutant_and_every_mutant_its_line(tmp_path: Path):
    assert {mutant.guarantee for mutant in MUTANTS} == GUARANTEES
    root = copy_package(tmp_path)
    for mutant in MUTANTS:
        text = (root / mutant.file).read_text()
        mutate(root, mutant)
        (root / mutant.file).write_text(text)
        path, _, name = mutant.test.partition("::")
        assert not name or f"def {name.partition('[')[0]}(" in (TESTS / path).read_text(), mutant.test


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.fast], ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant, tmp_path: Path):
    assert survives(mutant, tmp_path) is None
