"""The documents hold: their programs run and print what they say, their links lead somewhere, their tables are those of the code.

A `python` block whose first line is a file's name (`# hello.py`) is a program; a `text` block after "It prints:" is its output. Any other
`python` block is a fragment, and must compile.
"""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

import paddock
from paddock.runtime.base import errors
from paddock.runtime.base.causes import Cause
from paddock.runtime.base.config import SqlitePragmas, WatchdogConfig, WorkflowsConfig
from paddock.runtime.base.limits import ALWAYS_PASSED, ProcessLimits
from paddock.runtime.base.records import Status, StepStatus
from paddock.runtime.cli.main import app
from paddock.runtime.server.workflows import Workflows
from paddock.watchdog import policy
from paddock.watchdog.beats import Verdict

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

_BLOCK = re.compile(
    r"^```(\w*)\n(.*?)^```$(\n\nIt prints:\n\n```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One `python` block of a page, and what it must print, where the page says so."""

    page: str
    line: int
    text: str
    output: str | None

    @property
    def file(self) -> str | None:
        found = _FILE.match(self.text)
        return found[1] if found else None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in _BLOCK.finditer(text):
            if found[1] == "python":
                yield Block(page.name, text.count("\n", 0, found.start()) + 1, found[2], found["output"])


PROGRAMS = [block for block in blocks() if block.file is not None]
FRAGMENTS = [block for block in blocks() if block.file is None]


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def cells(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the tables under a heading, without those that head them."""
    text = (DOCS / page).read_text().partition(f"# {heading}\n")[2]
    text = re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    assert text, f"{page} has no heading {heading!r}"
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|--"):
            found.pop()
        elif line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- programs and fragments ---


def test_no_two_programs_of_a_page_share_a_name():
    names = [(block.page, block.file) for block in PROGRAMS]
    assert len(set(names)) == len(names)
    assert len(names) > 20


@pytest.mark.slow
@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"{block.page}:{block.file}")
def test_a_program_runs_and_prints_what_the_page_says(block: Block, tmp_path: Path):
    (tmp_path / block.file).write_text(block.text)
    found = subprocess.run(
        [sys.executable, "-P", block.file], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert found.returncode == 0, found.stdout + found.stderr
    if block.output is not None:
        assert (found.stdout, found.stderr) == (block.output, "")


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_fragment_compiles(block: Block):
    compile(block.text, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


# --- links ---


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}: no such heading"


# --- events ---

_EVENT = re.compile(r"(workflow|log)(\.([a-z_]+|<>))+")


def events_in_code() -> set[str]:
    """Return every text of the runtime's source that is an event's name; what is filled in is <>."""
    found: set[str] = set()
    for path in (ROOT / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "<>" for part in node.values)
            if text and _EVENT.fullmatch(text):
                found.add(text)
    return found


def test_the_table_of_events_is_that_of_the_code():
    names = {re.sub(r"<[^>]+>", "<>", quoted(row[0])[0]) for row in cells("events.md", "Every event")}
    assert names == events_in_code()


# --- supervision ---


def test_the_table_of_the_watchdog_is_that_of_its_policy():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (policy.__doc__ or "").splitlines()
        if line.startswith("|")
    ]
    assert cells("supervision.md", "Who is ended") == rows[2:]
    verdicts = {name for row in rows[2:] for name in quoted(row[2])}
    assert verdicts == {verdict.name for verdict in Verdict} - {"NONE"}


def test_the_table_of_deaths_is_the_code():
    assert [quoted(row[0])[0] for row in cells("supervision.md", "How a death reads")] == list(Cause)


def test_the_table_of_limits_is_the_code():
    rows = cells("running.md", "What a process may use")
    assert {quoted(row[0])[0].partition("=")[0] for row in rows} == set(ProcessLimits.model_fields)
    text = (DOCS / "running.md").read_text()
    assert all(f"`{name}`" in text for name in ALWAYS_PASSED)


# --- configuration and errors ---


@pytest.mark.parametrize("config", [WorkflowsConfig, SqlitePragmas, WatchdogConfig], ids=lambda config: config.__name__)
def test_the_table_of_a_configuration_is_the_code(config):
    rows = {quoted(row[0])[0]: row[2] for row in cells("configuration.md", config.__name__)}
    assert list(rows) == list(config.model_fields)
    for name, default in rows.items():
        value = eval(quoted(default)[0], {"SqlitePragmas": SqlitePragmas})
        assert getattr(config(**{name: value}), name) == getattr(config(), name), name


def test_the_tree_of_errors_is_the_code():
    tree = (DOCS / "errors.md").read_text().split("```")[1]
    path: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in tree.splitlines():
        if found := re.match(r"([│├└─ ]*)(\w+)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else None
    real = {name: getattr(errors, name) for name in errors.__all__}
    assert set(drawn) == set(real)
    for name, parent in drawn.items():
        assert parent is None or issubclass(real[name], real[parent]), f"{name} is no {parent}"


# --- names ---


def test_the_tables_of_the_context_are_the_code():
    tables = quoted(" ".join(row[0] for row in cells("guide.md", "The context")))
    named = {re.sub(r"^await ", "", name).partition("(")[0].removeprefix("ctx.") for name in tables}
    members = {name for name in dir(paddock.FlowContext) if not name.startswith("_")}
    assert named == members - {"frame", "execution", "blocking", "scope"}  # the engine's own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path):
    text = page.read_text()
    for name in re.findall(r"\bserver\.workflows\.(\w+)", text):
        assert hasattr(Workflows, name), f"{page.name}: server.workflows.{name}"
    for name in re.findall(r"\bserver\.(\w+)\(", text):
        assert hasattr(paddock.AppServer, name), f"{page.name}: server.{name}"
    for line in re.findall(r"^from paddock import (.+)$", text, re.MULTILINE):
        for name in line.split(", "):
            assert name in paddock.__all__, f"{page.name}: {name}"


def test_the_commands_that_are_shown_are_there():
    commands = set(get_command(app).commands)
    guide = (DOCS / "running.md").read_text().partition("\n## The command line\n")[2].split("```")[1]
    assert set(re.findall(r"^paddock (\w+)", guide, re.MULTILINE)) == commands
    for page in PAGES:
        for name in re.findall(r"`paddock (\w+)", page.read_text()):
            assert name in commands, f"{page.name}: paddock {name}"


@pytest.fixture
def tool_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module


def test_the_reference_of_the_command_line_is_its_help(tool_of):
    tool = tool_of("command_line")
    found = tool.BLOCK.search(tool.PAGE.read_text())
    assert found, "docs/command-line.md has no place for the reference"
    assert found[0] == tool.reference(), "run: python tools/command_line.py --write"


def test_every_command_has_an_example_that_its_options_allow(tool_of):
    tool = tool_of("command_line")
    for name, command in tool.commands().items():
        examples = tool.examples(command)
        assert examples, f"paddock {name} --help shows no example"
        for example in examples:
            words = shlex.split(re.split(r" [|<>] ", example)[0])
            words = words[words.index("paddock") :]  # what stands before is for the shell
            assert words[1] == name, example
            command.make_context(name, words[2:])  # raises where an option or an argument is wrong


# --- lifecycle and files ---


def test_the_diagram_is_drawn_from_the_table(tool_of):
    tool = tool_of("lifecycle")
    found = tool.BLOCK.search(tool.PAGE.read_text())
    assert found, "docs/lifecycle.md has no place for the diagram"
    assert found[0] == tool.block(), "run: python tools/lifecycle.py --write"


def test_every_status_is_explained():
    assert [quoted(row[0])[0] for row in cells("lifecycle.md", "An instance")] == list(Status)
    assert [quoted(row[0])[0] for row in cells("lifecycle.md", "A step")] == list(StepStatus)


def test_every_file_is_in_the_table_of_files():
    text = (DOCS / "architecture.md").read_text().partition("\n## The files\n")[2]
    named = set(re.findall(r"\]\(\.\./([\w/]+\.py)\)", text))
    folders = [ROOT / name for name in ("paddock", "runtime", "ipc", "watchdog")]
    shipped = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py")}
    shipped -= {name for name in shipped if name.endswith("__init__.py") and name != "paddock/__init__.py"}
    assert named == shipped, "docs/architecture.md, section The files: one line for each file"


# --- the reference ---


def test_the_reference_has_every_public_name():
    text = (DOCS / "api.rst").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", text, re.MULTILINE))
    assert set(paddock.__all__) - {"__version__"} <= listed


def test_every_page_is_in_the_site():
    listed = set(re.findall(r"^[\w-]+$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed
