"""The page's pure modules, each asked in the browser that will run them; no server is needed."""

import json
import mimetypes
import random
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

HOST = "http://page.test/"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Give a document of the page's origin, with its modules behind `assets/` and nothing else."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(HOST)
        if not path.startswith("assets/"):
            route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")
            return
        file = files("paddock.runtime.http.page").joinpath(path.removeprefix("assets/"))
        route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(path)[0] or "text/javascript")

    opened = browser.new_page()
    opened.route("**/*", answer)
    opened.goto(HOST)
    yield opened
    opened.close()


def ask(page: Page, module: str, code: str, argument: Any = None) -> Any:
    """Run code with a module as `m` and an argument as `x`."""
    return page.evaluate(f"async x => {{ const m = await import('/assets/js/{module}'); {code} }}", argument)


def test_a_stream_may_come_in_any_pieces(page: Page) -> None:
    text = 'retry: 1000\n\nid: 1\ndata: {"a": 1}\n\n: keep-alive\n\nid: 2\r\ndata: one\r\ndata: ü\r\n\r\nid: 3\nevent: end\ndata:x\n\n'
    code = """
        const read = pieces => { const p = new m.SseParser(); return pieces.flatMap(piece => p.feed(piece)); };
        const whole = JSON.stringify(read([x]));
        const differ = [];
        for (let a = 0; a <= x.length; a++) for (let b = a; b <= x.length; b += 3)
            if (JSON.stringify(read([x.slice(0, a), x.slice(a, b), x.slice(b)])) !== whole) differ.push([a, b]);
        return [JSON.parse(whole), differ];
    """
    events, differ = ask(page, "sse.js", code, text)
    assert [(event["id"], event["name"], event["data"]) for event in events] == [
        ("1", "message", '{"a": 1}'),
        ("2", "message", "one\nü"),
        ("3", "end", "x"),
    ]
    assert not differ


def test_time_never_runs_backwards_and_idle_weeks_are_folded(page: Page) -> None:
    dice = random.Random(7)
    cases = []
    for _ in range(200):
        end = dice.choice([10, 5_000, 3_600_000, 86_400_000 * 30])
        spans = [sorted((dice.uniform(0, end), dice.uniform(0, end))) for _ in range(dice.randrange(6))]
        cases.append([end, spans])
    code = """
        return x.map(([end, spans]) => {
            const scale = m.timescale(0, end, spans);
            return { at: Array.from({ length: 101 }, (_, i) => scale.at(end * i / 100)), ticks: scale.ticks.map(t => t.left) };
        });
    """
    for found in ask(page, "timescale.js", code, cases):
        assert found["at"] == sorted(found["at"])
        assert found["at"][0] == 0
        assert abs(found["at"][-1] - 1) < 1e-6
        assert found["ticks"] == sorted(found["ticks"])
    week = 7 * 86_400_000
    code = (
        "const s = m.timescale(0, x, [[0, 2000], [x - 2000, x]]); return [s.at(2000), s.at(x - 2000), s.folds.length];"
    )
    before, after, folds = ask(page, "timescale.js", code, week)
    assert folds == 1
    assert before > 0.4
    assert after < 0.6


def test_nodes_of_any_graph_lie_apart(page: Page) -> None:
    dice = random.Random(11)
    graphs = []
    for size in range(1, 40):
        names = [f"n{index}" for index in range(size)]
        nodes = [
            {
                "name": name,
                "kind": "choice",
                "branches": [],
                "details": {},
                "edges": [
                    {"to": to, "kind": "choice", "label": "x" * dice.randrange(30) or None}
                    for to in {dice.choice([*names, None]) for _ in range(dice.randrange(4))}
                ],
            }
            for name in names
        ]
        graphs.append({"start": names[0], "nodes": nodes})
    code = """
        const { SIZES } = await import('/assets/js/graph_size.js');
        return x.map(graph => {
            const plan = m.layout(graph, SIZES);
            const boxes = plan.nodes.map(({ x, y, width, height }) => ({ x, y, width, height }));
            return { boxes, width: plan.width, height: plan.height, edges: plan.edges.length };
        });
    """
    for graph, plan in zip(graphs, ask(page, "graph_layout.js", code, graphs), strict=True):
        assert plan["edges"] == sum(len(node["edges"]) for node in graph["nodes"])
        boxes = plan["boxes"]
        for index, one in enumerate(boxes):
            assert -0.5 <= one["x"] <= plan["width"] - one["width"] + 0.5
            assert -0.5 <= one["y"] <= plan["height"] - one["height"] + 0.5
            for other in boxes[index + 1 :]:
                apart = (
                    one["x"] + one["width"] <= other["x"] + 0.5
                    or other["x"] + other["width"] <= one["x"] + 0.5
                    or one["y"] + one["height"] <= other["y"]
                    or other["y"] + other["height"] <= one["y"]
                )
                assert apart, json.dumps(graph)


def test_a_flow_is_drawn_from_what_it_did(page: Page) -> None:
    def step(key: str, began: int, ended: int | None) -> dict[str, Any]:
        at = lambda second: None if second is None else f"2026-01-01T00:00:{second:02}.000000Z"  # noqa: E731
        return {
            "key": key,
            "step_name": key.split("#", maxsplit=1)[0],
            "kind": "step",
            "started_at": at(began),
            "completed_at": at(ended),
        }

    steps = [step("a", 0, 1), step("b", 1, 3), step("c", 1, 2), step("d", 3, 3), step("a#2", 3, 4), step("e", 4, None)]
    code = "return m.observed(x, [{ name: 'f', kind: 'step', edges: [] }]).nodes.flatMap(n => n.edges.map(e => n.name + e.to));"
    assert set(ask(page, "visits.js", code, steps)) == {"ab", "ac", "bd", "cd", "da", "ae", "ef"}


def test_a_choice_lights_only_the_way_that_was_taken(page: Page) -> None:
    code = """
        const visits = m.visitsOf(x);
        const node = { kind: 'choice' };
        const lit = to => m.taken(node, { to, kind: 'choice' }, 'pick', '', visits, true);
        return [lit('left'), lit('right'), visits.get('left').visits];
    """
    base = {"status": "completed", "attempts": 1, "loop_count": 0, "poll_count": 0, "output": None}
    steps = [
        {**base, "key": "pick", "output": "left"},
        {**base, "key": "left"},
        {**base, "key": "left#2"},
        {**base, "key": "right"},
    ]
    assert ask(page, "visits.js", code, steps) == [True, False, 2]


def test_one_sentence_says_why(page: Page) -> None:
    at = "2026-01-01T00:00:00.000000Z"
    step = {
        "key": "call",
        "status": "retrying",
        "attempts": 2,
        "error": {"type": "ConnectionError", "message": "refused\nat once"},
    }
    sleeping = {
        "status": "sleeping",
        "steps": [step],
        "waits_for": [{"kind": "time", "step": "call", "until": "2026-01-01T00:05:00Z", "reason": "it is tried again"}],
    }
    waiting = {
        "status": "waiting",
        "children": [{"id": "c-1", "workflow_name": "audit", "status": "blocked"}],
        "waits_for": [{"kind": "instance", "instance_id": "c-1"}],
    }
    pending = {
        "status": "pending",
        "workflow_name": "ingest",
        "waits_for": [{"kind": "slot", "ahead": 1, "reason": "its workflow is at its limit of 1"}],
    }
    month = {"status": "sleeping", "waits_for": [{"kind": "time", "step": "rest", "until": "2026-01-30T23:59:00Z"}]}
    said = {
        "Attempt 2 of call failed: ConnectionError: refused. It is tried again at , in 5 min.": sleeping,
        "Waits for the end of audit c-1 (blocked). It has no process meanwhile.": waiting,
        "Queued: its workflow is at its limit of 1. One is ahead of it. ingest": pending,
        "Sleeps in rest until , in 30 d. It has no process meanwhile.": month,
    }
    code = """
        const text = part => typeof part === "string" ? part : part.code ?? part.instance ?? part.running ?? "";
        return x[1].map(one => m.explain(one, Date.parse(x[0])).parts.map(text).join(""));
    """
    assert ask(page, "explain.js", code, [at, list(said.values())]) == list(said)


def test_a_traceback_begins_where_the_users_code_does(page: Page) -> None:
    ours = '  File "/x/site-packages/paddock/runtime/engine/tries.py", line 1, in run\n    call()\n'
    library = '  File "/usr/lib/python3.11/concurrent/futures/thread.py", line 58, in run\n'
    user = '  File "/home/ada/shop.py", line 7, in pay\n    raise ValueError\n'
    head, end = "Traceback (most recent call last):\n", "ValueError: no\n"
    code = """
        const { textBlock, culprit } = m;
        return [...x.slice(0, 2).map(one => textBlock("Traceback", one).querySelector("pre").textContent), culprit(x[2])];
    """
    stacks = (library + ours + user).replace(", in ", " in ")
    texts = [head + ours + library + ours + user + end, head + ours + end, stacks]
    long, bare, found = ask(page, "parts/error_view.js", code, texts)
    assert long == f"{head}  … 3 frames of Paddock\n{user}{end}"
    assert bare == head + ours + end
    assert found == {"file": "shop.py", "line": "7", "name": "pay"}


PAGED = """
    const answers = [];
    const ask = () => new Promise((resolve, reject) => answers.push({ resolve, reject }));
    const made = id => ({
        id, name: "workflow.started", level: "info", message: `#${id}`, data: {}, created_at: "2026-01-01T00:00:00Z",
    });
    const brought = (view, ...ids) => view.add(ids.map(made));
    const answer = async (ids, next) => {
        const list = ids.map(made);
        answers.pop().resolve({ events: list, next, logs: list, before: next });
        await new Promise(done => setTimeout(done));
    };
    const refuse = async loading => {
        answers.pop().reject(new Error("nobody answers"));
        return loading.then(() => null, error => error.message);
    };
    const shown = (view, what) => [...view.node.querySelectorAll(what)].map(one => one.textContent).join(" ");
"""


def test_events_that_come_while_a_page_is_read_are_shown_behind_it(page: Page) -> None:
    """The page's answer may be older than what the stream brings meanwhile, or newer."""
    code = """
        const view = new m.EventView(ask), found = [];
        brought(view, 1);
        const loading = view.load();
        brought(view, 2);
        found.push(await refuse(loading));
        brought(view, 3);
        view.load();
        brought(view, 4, 5);
        await answer([1, 2, 3], 3);
        brought(view, 6);
        found.push(shown(view, ".event-id"));
        view.node.querySelector("button").click();
        brought(view, 7);
        brought(view, 8);
        await answer([4, 5, 6, 7], null);
        brought(view, 9);
        return [...found, shown(view, ".event-id")];
    """
    found = ask(page, "parts/event_view.js", PAGED + code)
    assert found == ["nobody answers", "#1 #2 #3", "#1 #2 #3 #4 #5 #6 #7 #8 #9"]


def test_lines_that_come_while_the_last_ones_are_read_are_shown_behind_them(page: Page) -> None:
    code = """
        const view = new m.LogView(ask), bare = new m.LogView(ask);
        view.load();
        brought(view, 3, 4);
        await answer([1, 2, 3], null);
        brought(view, 5);
        const loading = bare.load();
        brought(bare, 1);
        const said = await refuse(loading);
        brought(bare, 2);
        return [shown(view, ".log-text"), said, shown(bare, ".log-text")];
    """
    found = ask(page, "parts/log_view.js", PAGED + code)
    assert found == ["#1 #2 #3 #4 #5", "nobody answers", "#1 #2"]


def test_a_prefix_is_forgotten_in_its_own_time(page: Page) -> None:
    page.clock.install()
    code = "window.heard = []; const keys = new m.Keys(); for (const key of ['n', 'g n']) keys.on(key, () => heard.push(key));"
    ask(page, "keys.js", code)
    for key, milliseconds in (("g", 1000), ("x", 0), ("g", 1000), ("n", 0), ("g", 1600), ("n", 0)):
        page.keyboard.press(key)
        page.clock.run_for(milliseconds)
    assert page.evaluate("heard") == ["g n", "n"]
