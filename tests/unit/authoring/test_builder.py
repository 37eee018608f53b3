"""What `build()` refuses, and the words in which it says so."""

import sys

import pytest

from paddock import InvalidWorkflow, Poll, Retry, branch, workflow
from paddock.runtime.engine.definition import BUILT, Definition


def ok(*_args):
    return 1


def w():
    return workflow("w")


def b():
    return branch("b").task("s", ok).build()


_REFUSED = {
    "unknown next": (lambda: w().task("a", ok, next="nowhere"), "'a'.*'nowhere'.*there are a"),
    "unknown choice": (lambda: w().choice("c", [(ok, "nowhere")], default="a").task("a", ok), "'c'.*'nowhere'"),
    "unknown default": (lambda: w().choice("c", [(ok, "a")], default="nowhere").task("a", ok), "'c'.*'nowhere'"),
    "unknown loop target": (lambda: w().task("a", ok).loop("l", ok, "nowhere"), "'l'.*'nowhere'"),
    "unknown start": (lambda: w().task("a", ok).start_at("b"), "'b'"),
    "unreachable": (lambda: w().task("a", ok, end=True).task("b", ok), "'b' cannot be reached"),
    "unreachable behind a choice": (
        lambda: w().choice("c", [(ok, "z")], default="z").task("y", ok).task("z", ok),
        "'y' cannot",
    ),
    "no end": (lambda: w().task("a", ok).task("b", ok, next="a"), "no end can be reached"),
    "an island without an end": (
        lambda: w().choice("c", [(ok, "x")], default="z").task("x", ok, next="y").task("y", ok, next="x").task("z", ok),
        "'x' no end|'y' no end",
    ),
    "a value as a child's input": (
        lambda: w().child("c", "kid", input={"n": 1}),
        "'w'.*'n': 1.*neither a type nor a function",
    ),
    "a value as a job's input": (lambda: w().task("j", job="act", input=[1]), "'w'.*neither a type nor a function"),
    "a value as a task's input": (lambda: w().task("t", ok, input=1), "'w'.*neither a type nor a function"),
    "duplicate": (lambda: w().task("a", ok).pass_("a"), "two steps called 'a'"),
    "duplicate branches": (lambda: w().parallel("p", [b(), b()]), "'p'.*share a name"),
    "no steps": (w, "no steps"),
    "no steps in a branch": (lambda: w().parallel("p", [branch("b")]), "branch 'b' has no steps"),
    "no branches": (lambda: w().parallel("p", []), "'p'.*branches"),
    "branches that are none": (lambda: w().parallel("p", [5]), "'p'.*branches"),
    "on_error": (lambda: w().parallel("p", [b()], on_error="maybe"), "'p'.*fail-fast.*maybe"),
    "next and end": (lambda: w().task("a", ok, next="b", end=True).task("b", ok), "'a'.*both"),
    "next and end of a poll": (lambda: w().poll("a", ok, next="b", end=True).task("b", ok), "'a'.*both"),
    "a choice of nothing": (lambda: w().choice("c", []), "'c'"),
    "a choice that is no pair": (lambda: w().choice("c", [("x", ok)]), "'c'.*pair"),
    "a choice that is nothing like a pair": (lambda: w().choice("c", [5]), "'c'.*pair"),
    "no handler": (lambda: w().task("a"), "'a'.*handler"),
    "a handler that cannot be called": (lambda: w().task("a", 5), "'a'.*5"),
    "a handler that wants too much": (lambda: w().task("a", lambda x, y, z: 1), "'a'.*'y'"),
    "transform and result": (lambda: w().pass_("a", transform=ok, result=1), "'a'.*not both"),
    "a transform that cannot be called": (lambda: w().pass_("a", transform=5), "'a'.*transform"),
    "a condition that cannot be called": (lambda: w().task("a", ok).loop("l", 5, "a"), "'l'.*condition"),
    "retry 0": (lambda: w().task("a", ok, retry=0), "'a'.*max_attempts"),
    "retry fields": (lambda: w().task("a", ok, retry={"tries": 3}), "'a'.*tries"),
    "retry nonsense": (lambda: w().task("a", ok, retry="often"), "'a'.*often"),
    "retry interval": (lambda: w().task("a", ok, retry={"interval": "soon"}), "'a'.*soon"),
    "retry pattern": (lambda: w().task("a", ok, retry={"retry_on": ["("]}), "'a'.*regular expression"),
    "retry backoff": (lambda: w().task("a", ok, retry={"backoff_rate": 0.5}), "'a'.*backoff_rate"),
    "default retry": (lambda: w().default_retry(max_attempts=0).task("a", ok), "max_attempts"),
    "step timeout": (lambda: w().task("a", ok, timeout="soon"), "'a'.*timeout.*soon"),
    "negative timeout": (lambda: w().task("a", ok, timeout=-1), "'a'.*timeout.*-1"),
    "workflow timeout": (lambda: w().timeout("soon").task("a", ok), "timeout.*soon"),
    "poll interval": (lambda: w().poll("a", ok, interval="soon"), "'a'.*interval.*soon"),
    "poll attempts": (lambda: w().poll("a", ok, max_attempts=0), "'a'.*max_attempts"),
    "poll backoff": (lambda: w().poll("a", ok, backoff=0.5), "'a'.*backoff"),
    "sleep": (lambda: w().sleep("a", "soon"), "'a'.*soon"),
    "NaN": (lambda: w().sleep("a", float("nan")), "'a'.*nan"),
    "loop interval": (lambda: w().task("a", ok).loop("l", ok, "a", interval=-1), "'l'.*interval"),
    "loop iterations": (lambda: w().task("a", ok).loop("l", ok, "a", max_iterations=-1), "'l'.*max_iterations"),
    "an empty name": (lambda: w().task("", ok), "''"),
    "a slash in a name": (lambda: w().task("a/b", ok), "'a/b'"),
    "a number sign in a name": (lambda: w().task("a#2", ok), "'a#2'"),
    "a newline in a name": (lambda: w().task("a\nb", ok), r"a\\nb"),
    "a long name": (lambda: w().task("a" * 201, ok), "aaa"),
    "a name that is no text": (lambda: w().task(None, ok), "None"),
    "a branch's name": (lambda: branch("x/y"), "'x/y'"),
    "a workflow's name": (lambda: workflow("w w"), "'w w'"),
    "an inner graph": (
        lambda: w().parallel("p", [branch("b").task("a", ok, next="nowhere")]),
        "branch 'b', step 'a'.*'nowhere'",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_build_refuses(case):
    make, words = _REFUSED[case]
    with pytest.raises(InvalidWorkflow, match=words):
        make().build()


def test_an_annotation_that_cannot_be_resolved_is_named():
    def handler(value: "Nowhere") -> int:  # noqa: F821
        return 1

    with pytest.raises(InvalidWorkflow, match=r"'a'.*Nowhere"):
        w().task("a", handler)


@pytest.mark.parametrize("words", [("a", "b"), ("ü and 🐎",), ("with space", "x.y:z-1")])
def test_names_that_steps_may_have(words):
    builder = w()
    for word in words:
        builder.task(word, ok)
    assert list(builder.build().nodes) == list(words)


def test_a_step_without_next_goes_on_to_the_one_behind_it():
    built = w().task("a", ok, next="c").task("b", ok, end=True).task("c", ok, next="b").build()
    assert [(node.name, node.next) for node in built.nodes.values()] == [("a", "c"), ("b", None), ("c", "b")]


def test_choices_in_both_spellings():
    built = w().choice("c", [(ok, "x"), {"condition": ok, "next": "y"}]).task("x", ok, end=True).task("y", ok).build()
    assert built.nodes["c"].targets() == ("x", "y")


def test_what_a_workflow_says_of_itself():
    inner = branch("deep").parallel("n", [branch("x").task("s", ok), branch("y").task("s", ok)])
    built = (
        w().describe("what it does", tags=["t"]).timeout("90d").isolated(False).parallel("p", [inner]).end("e").build()
    )
    assert (built.name, built.description, built.tags, built.timeout, built.isolated) == (
        "w",
        "what it does",
        ("t",),
        90 * 86400,
        False,
    )
    assert built.total_steps == 5
    assert built.module == __name__
    assert BUILT[(__name__, "w")] is built
    assert isinstance(built, Definition)


def test_the_module_is_the_one_that_calls_build():
    builder = w().task("a", ok)
    scope = {"__name__": "elsewhere", "builder": builder}
    exec("built = builder.build()", scope)
    assert scope["built"].module == "elsewhere"
    del BUILT[("elsewhere", "w")]


def test_the_fingerprint_changes_with_the_shape_and_only_with_it():
    def fingerprint(build):
        return build(w()).build().fingerprint()

    base = fingerprint(lambda x: x.task("a", ok).task("b", ok))
    assert base == fingerprint(lambda x: x.task("a", lambda: 2).task("b", ok, timeout=5))
    others = {
        fingerprint(lambda x: x.task("a", ok)),
        fingerprint(lambda x: x.task("a", ok).task("c", ok)),
        fingerprint(lambda x: x.task("a", ok, end=True).task("b", ok).start_at("b")) if False else "start",
        fingerprint(lambda x: x.task("a", ok).pass_("b")),
        fingerprint(lambda x: x.task("a", ok).parallel("b", [b()])),
        fingerprint(lambda x: x.task("a", ok).parallel("b", [branch("b").task("t", ok)])),
        fingerprint(lambda x: x.task("a", ok).loop("b", ok, "a")),
    }
    assert len(others | {base}) == 8


def test_what_may_be_a_schema_and_what_is_a_mapper():
    class Mapper:
        def __call__(self, prev):
            return prev

    for schema in (int, list[int], dict[str, int] | None, Poll):
        assert w().task("a", ok, input=schema).build().nodes["a"].mapper is None
    for mapper in (lambda prev: prev, len, Mapper(), Mapper().__call__):
        assert w().task("a", ok, input=mapper).build().nodes["a"].mapper is mapper


def test_a_retry_is_what_was_written():
    built = (
        w()
        .default_retry(Retry(max_attempts=7, interval=3))
        .task("a", ok)
        .task("b", ok, retry={"interval": "5s"})
        .build()
    )
    policies = [(node.retry.max_attempts, node.retry.interval) for node in built.nodes.values()]
    assert policies == [(7, 3), (7, 5)]


def test_a_graph_of_a_thousand_steps_is_checked_without_recursion():
    builder = w()
    for number in range(sys.getrecursionlimit() + 100):
        builder.task(f"s{number}", ok)
    assert builder.build().total_steps == sys.getrecursionlimit() + 100


def test_a_schema_of_a_child_or_a_job_is_the_workflows_where_it_comes_first():
    child = w().child("c", "kid", input=list[int]).build()
    job = w().task("j", job="act", input=list[int]).build()
    later = w().task("t", ok).child("c", "kid", input=list[int]).build()
    assert [one.input_schema.annotation for one in (child, job, later)] == [list[int], list[int], None]
