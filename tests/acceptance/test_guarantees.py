"""The page of guarantees names tests that there are, every guarantee, every fault, and the bounds that the measurement holds."""

import ast
import re
from pathlib import Path

from mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
FAULTS = 71


def every_test() -> set[str]:
    """Return the names of all tests."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= {
            node.name
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return found


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 100
    assert not named - every_test()


def test_every_guarantee_has_its_row_and_a_mutant():
    rows = re.findall(r"^\| (G\d+) \|", PAGE, re.MULTILINE)
    assert rows == [f"G{number}" for number in range(1, 17)]
    assert {mutant.guarantee for mutant in MUTANTS} == set(rows)


def test_every_fault_has_its_row_with_a_test_or_a_reason():
    rows = dict(re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert [int(number) for number in rows] == list(range(1, FAULTS + 1))
    assert not [number for number, tried in rows.items() if "`test_" not in tried and len(tried) < 80]


def test_the_bounds_are_those_that_are_measured():
    tree = ast.parse((ROOT / "benchmarks" / "recovery.py").read_text())
    [figures] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FIGURES"
    ]
    bounds = [f"{call.args[1].value:g} s" for call in figures.values]
    assert re.findall(r"^\| [^|]+ \| [\d.]+ s \| [\d.]+ s \| (\d+ s) \|$", PAGE, re.MULTILINE) == bounds
