"""What holds for every view: accessible in light and dark, no wider than a phone, text stays text, nothing asked of others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from pageflows import MARKUP
from pagekit import PATIENCE, Person, Served
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.slow

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RUN = (
    "async () => (await axe.run()).violations.map(one => one.id + ': ' + one.nodes.map(node => node.html).join(' | '))"
)
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def scene(serve: Callable[..., Served]) -> tuple[Served, list[str]]:
    """Give a server on which something of everything has happened, and the addresses of all views."""
    served = serve()
    asker = served.begin("asker", MARKUP, metadata={"note": MARKUP})
    failed = served.begin("fragile", {"fail": True})
    order = served.begin("order", {"customer": "Ada", "items": [{"sku": "A-7"}], "ship_to": {"city": "Bonn"}})
    served.begin("napper")
    served.ask("POST", "schedules", {"workflow": "napper", "every": "1h"})
    for ident, status in ((asker, "waiting"), (failed, "failed"), (order, "completed")):
        while served.ask("GET", f"instances/{ident}")["status"] != status:
            served.ask("GET", f"instances/{ident}/result?timeout=0.2s") if status == "waiting" else None
    instances = [f"#/instances/{ident}" for ident in (asker, failed, order)]
    return served, ["#/", "#/instances", "#/workflows", "#/workflows/order", "#/queues", "#/machine", *instances]


def _views(person: Person, addresses: list[str]) -> Iterator[str]:
    """Go through the views, and in the last one open a dialog with a form."""
    for address in addresses:
        person.go(address)
        yield address
    person.go(addresses[6])
    person.press("Answer")
    expect(person.page.get_by_role("dialog")).to_be_visible()
    yield "the dialog"


def test_every_view_is_accessible_fits_a_phone_and_shows_text_as_text(
    browser: Browser, scene: tuple[Served, list[str]]
) -> None:
    served, addresses = scene
    person = Person(browser, served.url, reduced_motion="reduce")
    page = person.page
    found: list[str] = []
    for address in _views(person, addresses):
        if page.evaluate("window.axe === undefined"):
            page.evaluate(AXE)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            expect(page.locator("html")).to_have_attribute("data-theme", scheme)
            found += [f"{address} ({scheme}): {one}" for one in page.evaluate(RUN)]
        page.set_viewport_size(PHONE)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found += [f"{address}: {wide} pixels too wide for a phone"] if wide > 0 else []
        page.set_viewport_size({"width": 1280, "height": 900})
        assert page.locator("main img, main b b, dialog img").count() == 0
    assert not found, "\n".join(found)
    page.keyboard.press("Escape")
    expect(page.locator(".data-grid")).to_contain_text("onerror", timeout=PATIENCE)
    person.go(addresses[7])
    expect(page.locator(".why")).to_contain_text(MARKUP, timeout=PATIENCE)
    assert page.title().startswith("failed · fragile")
    person.leave()


def test_a_cut_connection_comes_back_and_misses_nothing(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve()
    asker = served.begin("asker", "Ada")
    person = Person(browser, served.url)
    page = person.page
    person.go(f"#/instances/{asker}")
    person.status("waiting")
    page.get_by_role("tab", name="Events").click()
    live = page.locator(".live")
    expect(live).to_have_text("Live", timeout=PATIENCE)
    served.stop()
    expect(live).to_contain_text("Disconnected", timeout=PATIENCE)
    expect(page.get_by_role("alert").first).to_contain_text("does not answer", timeout=PATIENCE)
    served.start()
    served.ask("POST", f"instances/{asker}/signal", {"name": "verdict", "payload": {"decision": "approve"}})
    served.ask("GET", f"instances/{asker}/result")
    page.locator("button.live").click()
    expect(live).to_have_text("Live", timeout=PATIENCE)
    person.status("completed")
    expect(page.locator(".banner")).to_be_hidden(timeout=PATIENCE)
    ids = [event["id"] for event in served.ask("GET", f"instances/{asker}/events")["events"]]
    expect(page.locator(".event-id")).to_have_count(len(ids), timeout=PATIENCE)
    assert page.locator(".event-id").all_text_contents() == [f"#{one}" for one in ids]
    person.leave("net::ERR_")  # the browser tells of the cut


def test_a_token_is_asked_for_and_taken_from_the_address(browser: Browser, serve: Callable[..., Served]) -> None:
    served = serve("the-secret-of-this-test")
    person = Person(browser, served.url)
    page = person.page
    page.goto(served.url)
    page.get_by_label("Token").fill("something else")
    person.press("Enter")
    person.says("This is not the token of this server.")
    page.get_by_label("Token").fill("the-secret-of-this-test")
    person.press("Enter")
    person.arrived("#/")
    person.press("Sign out")
    expect(page.get_by_label("Token")).to_be_visible(timeout=PATIENCE)
    page.goto(served.url + "#token=the-secret-of-this-test")
    page.reload()
    person.arrived("#/")
    assert "secret" not in page.url
    person.leave("401 (Unauthorized)")
