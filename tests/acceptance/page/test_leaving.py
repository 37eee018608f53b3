"""Answers that come late: where the person has gone on already they change nothing, and what the stream brought before them is not lost."""

import re
from collections.abc import Callable

import pytest
from pagekit import PATIENCE, Person, Served
from playwright.sync_api import APIResponse, Browser, Route, expect

pytestmark = pytest.mark.slow


class Held:
    """Answers of one path that are held back until they are let go; with `old`, as the server gives them when it is asked."""

    def __init__(self, person: Person, path: str, *, old: bool = False) -> None:
        self._person, self._open, self._old = person, False, old
        self._routes: list[tuple[Route, APIResponse | None]] = []
        person.page.route(re.compile(rf"/api/{path}(\?|$)"), self._take)

    def _take(self, route: Route) -> None:
        if self._open:
            route.fallback()
        else:
            self._routes.append((route, route.fetch() if self._old else None))

    def come(self) -> None:
        """Wait until one is asked for."""
        self._person.until(lambda: bool(self._routes))

    def go(self, status: int | None = None) -> None:
        """Let them go, with what the server answers or with a status, and wait until the page has them."""
        page, self._open = self._person.page, True
        for route, response in self._routes:
            with page.expect_event("requestfinished", lambda done, route=route: done == route.request):
                if status is not None:
                    route.fulfill(status=status, json={})
                elif response is not None:
                    route.fulfill(response=response)
                else:
                    route.continue_()
        page.evaluate("() => new Promise(done => setTimeout(done))")


def test_what_was_left_takes_nothing_from_what_is_shown(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve()
    person = Person(browser, served.url)
    page = person.page
    followed: list[str] = []
    page.on("request", lambda request: followed.append(request.url) if "/events?" in request.url else None)
    person.go("#/machine")
    person.until(lambda: len(followed) == 1)

    overview = Held(person, "overview")
    page.evaluate("location.hash = '#/'")
    overview.come()
    person.go("#/workflows")
    person.until(lambda: len(followed) == 2)
    overview.go()
    person.go("#/queues")
    person.until(lambda: len(followed) >= 3)
    assert len(followed) == 3  # one by each; the view of "#/" had been left before it could follow anything

    ident = served.begin("napper")
    person.go(f"#/instances/{ident}")
    person.status("sleeping")
    instance = Held(person, f"instances/{ident}")
    served.ask("POST", f"instances/{ident}/pause")
    instance.come()
    person.go("#/workflows")
    instance.go(404)
    assert page.evaluate("location.hash") == "#/workflows"

    listed = Held(person, "instances")
    page.evaluate("location.hash = '#/instances?status=failed'")
    listed.come()
    page.evaluate("location.hash = '#/instances?status=paused'")
    listed.go()
    person.arrived("#/instances")
    expect(page.get_by_role("button", name="paused")).to_have_attribute("aria-pressed", "true", timeout=PATIENCE)
    expect(page.locator("tbody tr")).to_have_count(1, timeout=PATIENCE)

    page.get_by_label("Find in instances").fill("nothing")
    page.get_by_role("button", name="paused").click()  # what was typed is not forgotten by the next filter
    expect(page).to_have_url(re.compile("#/instances\\?q=nothing$"), timeout=PATIENCE)
    person.leave("404 (Not Found)")


def test_only_what_is_shown_is_chosen(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve()
    failed, completed = served.begin("fragile", {"fail": True}), served.begin("fragile", {"fail": False})
    person = Person(browser, served.url)
    page = person.page
    for ident, status in ((failed, "failed"), (completed, "completed")):
        person.until(lambda ident=ident, status=status: served.ask("GET", f"instances/{ident}")["status"] == status)
    person.go("#/instances")
    expect(page.locator("tbody tr")).to_have_count(2, timeout=PATIENCE)
    every, chosen = page.get_by_label("All on this page"), page.get_by_text(re.compile("chosen$"))

    listed = Held(person, "instances")
    page.evaluate("location.hash = '#/instances?status=failed'")
    listed.come()
    every.click(force=True)  # while the rows of the filter before are to be seen
    expect(page.get_by_role("button", name=re.compile("^Retry all"))).to_have_count(0)
    listed.go()
    expect(page.locator("tbody tr")).to_have_count(1, timeout=PATIENCE)
    person.press(re.compile("^Retry all 1 failed one"))
    person.press("Leave it", page.get_by_role("dialog"))
    expect(chosen).to_have_count(0)
    every.check()
    expect(chosen).to_have_text("1 chosen")
    served.ask("DELETE", f"instances/{failed}")
    expect(page.locator("tbody tr")).to_have_count(0, timeout=PATIENCE)
    expect(chosen).to_have_count(0)
    person.leave()


def test_a_wait_that_could_not_be_asked_for_is_asked_for_again(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve()
    ident = served.begin("asker", "Ada")
    person = Person(browser, served.url)
    person.until(lambda: served.ask("GET", f"instances/{ident}")["status"] == "waiting")
    asked = Held(person, f"instances/{ident}")
    person.page.goto(served.url)
    asked.come()
    asked.go(503)
    person.press(re.compile("^Answer asker"))
    person.leave("503 (Service Unavailable)")


def test_a_page_of_more_that_is_refused_says_so(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve()
    ident = served.begin("chatty")
    person = Person(browser, served.url)
    page = person.page
    person.until(lambda: served.ask("GET", f"instances/{ident}")["status"] == "completed")
    person.go(f"#/instances/{ident}")
    for tab, button, path, line in (
        ("Log", "Older lines", rf"instances/{ident}/logs\?.*before=.*", ".log-line"),
        ("Events", "More events", rf"instances/{ident}/events\?after=[1-9].*", ".event-id"),
    ):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("button", name=button)).to_be_visible(timeout=PATIENCE)
        before = page.locator(line).count()
        refused = Held(person, path)
        person.press(button)
        refused.come()
        refused.go(503)
        person.press("Dismiss")
        expect(page.locator(line)).to_have_count(before)
        person.press(button)
        expect(page.get_by_role("button", name=button)).to_be_hidden(timeout=PATIENCE)
        assert page.locator(line).count() > before
    person.leave("503 (Service Unavailable)")


@pytest.mark.parametrize("old", [True, False])
def test_events_that_the_stream_brings_before_the_page_of_them_are_there_once(
    browser: Browser, serve: Callable[..., Served], old: bool
) -> None:
    served = serve()
    ident = served.begin("asker", "Ada")
    person = Person(browser, served.url)
    page = person.page
    person.go(f"#/instances/{ident}")
    person.status("waiting")
    expect(page.locator(".live")).to_have_text("Live", timeout=PATIENCE)
    tab = page.get_by_role("tab", name="Events")
    refused = Held(person, rf"instances/{ident}/events\?after=0&.*")
    tab.click()
    refused.come()
    refused.go(503)
    page.get_by_role("tab", name="Data").click()
    asked = Held(person, rf"instances/{ident}/events\?after=0&.*", old=old)
    tab.click()
    asked.come()
    served.ask("POST", f"instances/{ident}/signal", {"name": "verdict", "payload": {"decision": "approve"}})
    person.status("completed")  # the stream's events were the sign to read it again
    expect(page.locator(".event-id")).to_have_count(0)
    asked.go()
    ids = [event["id"] for event in served.ask("GET", f"instances/{ident}/events")["events"]]
    expect(page.locator(".event-id")).to_have_text([f"#{one}" for one in ids], timeout=PATIENCE)
    person.leave("503 (Service Unavailable)")
