"""Workflows as drawings: from definitions, from journals, from both."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from paddock import FlowContext, Instance, StateMachine, StepResult, branch, flow, state, workflow
from paddock.runtime.authoring.diagram import END, START, diagram_of, journal_diagram, marked
from paddock.runtime.cli.mermaid import mermaid
from paddock.runtime.engine.definition import definition_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def work(value: int) -> int:
    return value


def in_stock(ctx) -> bool:
    return True


GRAPH = (
    workflow("drawn")
    .task("first", work)
    .loop("again", in_stock, "first")
    .choice("which", choices=[(in_stock, "both"), (lambda ctx: False, "last")], default="last")
    .parallel(
        "both",
        branches=[branch("left").task("a", work).task("b", work).build(), branch("right").task("c", work).build()],
        next="last",
    )
    .pass_("last", end=True)
    .build()
)


class Data(BaseModel):
    n: int = 0


class Machine(StateMachine[Data], name="drawn-machine", start="one"):
    @state
    async def one(self):
        if self.data.n:
            return "three"
        return self.two if self.data.n == 0 else None

    @state
    async def two(self):
        return self.two if self.data.n else self.three

    @state
    async def three(self):
        self.data.n = 1


@flow("drawn-flow")
async def steps(n: int, ctx: FlowContext) -> int:
    return await ctx.step("only", work, n)


def instance(name: str, *steps: tuple[str, str, str], status: str = "running") -> Instance:
    results = {
        key: StepResult(key=key, step_name=key, kind=kind, status=how, started_at=NOW) for key, kind, how in steps
    }
    ended = NOW if status in ("completed", "failed") else None
    return Instance(
        id="x",
        workflow_name=name,
        status=status,
        step_results=results,
        created_at=NOW,
        started_at=NOW,
        completed_at=ended,
    )


def ways(diagram, *, taken=False):
    return {(arrow.source, arrow.target) for arrow in diagram.arrows if arrow.taken or not taken}


def test_a_step_graph_is_drawn_whole():
    drawn = diagram_of(GRAPH)
    assert [box.key for box in drawn.boxes] == [
        *(START, "first", "again", "which", "both"),
        *("both/left/a", "both/left/b", "both/right/c", "both#join", "last", END),
    ]
    assert ways(drawn) == {
        (START, "first"),
        ("first", "again"),
        ("again", "first"),
        ("again", "which"),
        ("which", "both"),
        ("which", "last"),
        ("both", "both/left/a"),
        ("both/left/a", "both/left/b"),
        ("both/left/b", "both#join"),
        ("both", "both/right/c"),
        ("both/right/c", "both#join"),
        ("both#join", "last"),
        ("last", END),
    }
    labels = {(arrow.source, arrow.target, arrow.label) for arrow in drawn.arrows if arrow.label}
    assert labels == {("again", "first", "again"), ("which", "both", "in_stock"), ("which", "last", "default")}
    assert [(group.key, group.name, group.parent) for group in drawn.groups] == [
        ("both/left", "left", None),
        ("both/right", "right", None),
    ]


def test_a_machine_is_drawn_from_what_its_states_return():
    drawn = diagram_of(definition_of(Machine))
    assert [box.key for box in drawn.boxes] == [START, "one", "two", "three", END]
    assert ways(drawn) == {
        (START, "one"),
        *(("one", target) for target in ("two", "three", END)),
        ("two", "two"),
        ("two", "three"),
        ("three", END),
    }


def test_a_flow_is_code_and_its_journal_is_its_drawing():
    drawn = diagram_of(steps)
    assert not drawn.complete
    ran = instance(
        "drawn-flow", ("now", "now", "completed"), ("only", "step", "completed"), ("rest", "sleep", "waiting")
    )
    assert marked(drawn, ran) == journal_diagram(ran)
    assert [(box.key, box.status) for box in journal_diagram(ran).boxes] == [
        (START, None),
        ("only", "completed"),
        ("rest", "waiting"),
    ]


def test_the_path_that_was_taken_is_marked():
    ran = instance(
        "drawn",
        ("first", "task", "completed"),
        ("again", "loop", "completed"),
        ("first#2", "task", "completed"),
        ("which", "choice", "completed"),
        ("both", "parallel", "running"),
        ("both/left/a", "task", "completed"),
        ("both/right/c", "task", "failed"),
        ("both/left/b", "task", "running"),
    )
    drawn = marked(diagram_of(GRAPH), ran)
    boxes = {box.key: (box.status, box.visits) for box in drawn.boxes}
    assert boxes["first"] == ("completed", 2)
    assert boxes["both/left/b"] == ("running", 1)
    assert (boxes["both#join"], boxes["last"], boxes[END]) == ((None, 0), (None, 0), (None, 0))
    assert ways(drawn, taken=True) == {
        (START, "first"),
        ("first", "again"),
        ("again", "first"),
        ("again", "which"),
        ("which", "both"),
        ("both", "both/left/a"),
        ("both/left/a", "both/left/b"),
        ("both", "both/right/c"),
    }


def test_the_end_is_marked_as_it_was():
    ran = instance("drawn-machine", ("one", "state", "completed"), ("three", "state", "completed"), status="completed")
    drawn = marked(diagram_of(definition_of(Machine)), ran)
    assert ways(drawn, taken=True) == {(START, "one"), ("one", "three"), ("three", END)}
    assert drawn.boxes[-1].status == "completed"
    failed = instance("drawn-machine", ("one", "state", "failed"), status="failed")
    drawn = marked(diagram_of(definition_of(Machine)), failed)
    assert ways(drawn, taken=True) == {(START, "one")}
    assert drawn.boxes[-1].status == "failed"


@pytest.mark.parametrize("hostile", ['say "hi"', "a<b>c", "100;", "x]y)"])
def test_a_label_stands_for_itself(hostile):
    text = mermaid(diagram_of(workflow("quoted").task(hostile, work).build()))
    (line,) = [line for line in text.splitlines() if line.strip().startswith("n1[")]
    label = line.strip().removeprefix('n1["').removesuffix('"]')
    assert not set('"<>') & set(label)


def test_mermaid():
    ran = instance("drawn-machine", ("one", "state", "completed"), ("two", "state", "running"))
    assert mermaid(marked(diagram_of(definition_of(Machine)), ran)).splitlines() == [
        "flowchart TD",
        '    n0(("start"))',
        '    n1("one")',
        '    n2("two")',
        '    n3("three")',
        '    n4(("end"))',
        "    n0 ==> n1",
        "    n1 --> n3",
        "    n1 ==> n2",
        "    n1 --> n4",
        "    n2 --> n2",
        "    n2 --> n3",
        "    n3 --> n4",
        "    classDef completed fill:#d3f2dc,stroke:#1a7f37,color:#0b3d1a",
        "    class n0,n1 completed",
        "    classDef running fill:#d6ecff,stroke:#0969da,color:#0a3069",
        "    class n2 running",
        "    linkStyle 0,2 stroke:#1a7f37,stroke-width:3px",
    ]
