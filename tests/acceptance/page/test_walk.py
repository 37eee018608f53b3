"""Somebody walks through the page and presses every button that there is."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pagekit import PATIENCE, Person, Served
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.slow


def test_every_button(browser: Browser, serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(rows=50_000)
    gate = tmp_path / "gate"
    stuck = served.begin("stuck")
    for _ in range(3):
        served.begin("holder", str(gate))
    person = Person(browser, served.url)
    _starts_an_order(person)
    _answers(person, served)
    _steers(person, served)
    _fails_and_forks(person, served)
    _changes_data(person, served)
    _sees_what_runs(person, served)
    _works_on_many(person, served)
    _turns_the_frame(person)
    _plans(person)
    _looks_at_the_machine(person, stuck)
    gate.touch()
    missed = (
        person.seen - person.pressed - {"Dismiss"}
    )  # on notes that go away by themselves: pressed where one is still there
    assert not missed, f"nobody pressed: {sorted(missed)}"
    person.leave("422 (Unprocessable Entity)")  # a schedule that cannot work, data that do not fit


def _starts_an_order(person: Person) -> None:
    page = person.page
    person.go("#/workflows/order")
    person.says("Asks a person about large orders")
    person.press("Start")
    expect(page.get_by_text("customer is needed.").or_(page.locator(".complaint:visible")).first).to_be_visible()
    page.get_by_label("customer").fill("Ada")
    page.get_by_label("sku").fill("A-7")
    page.get_by_label("quantity").fill("12")
    page.get_by_label("city").fill("Bonn")
    page.get_by_label("country").select_option("FR")
    page.get_by_label("gift").check()
    page.get_by_label("weight").fill("1.5")
    person.press("Add to items")
    page.get_by_label("sku").nth(1).fill("B-9")
    person.press("As JSON")
    assert '"country": "FR"' in page.locator("textarea.code").input_value()
    person.press("As form")
    person.press(re.compile("Remove items 2"))
    page.get_by_text("Id, delay, priority").click()
    page.get_by_label("Id", exact=True).fill("my-order")
    page.locator("form").get_by_role("button", name="Start", exact=True).click()
    person.arrived("#/instances/my-order")
    person.status("waiting")


def _answers(person: Person, served: Served) -> None:
    page = person.page
    person.says("Waits for the signal")
    person.press("Answer")
    dialog = page.get_by_role("dialog")
    person.press("Send", dialog)
    person.says("Choose one for decision.")
    dialog.get_by_label("approve").check()
    dialog.get_by_label("comment").fill("it is fine")
    person.press("Add to reviewers", dialog)
    dialog.get_by_label("reviewers 1", exact=True).fill("Grace")
    person.press("Send", dialog)
    person.status("completed")
    expect(page.locator(".step.is-completed")).to_have_count(8, timeout=PATIENCE)
    page.locator('g.step[aria-label^="validate"]').click()
    expect(page.locator(".step-panel h2")).to_have_text("validate")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".step-panel h2")).to_have_text("size")
    person.press(re.compile("^follow ?, completed"))
    expect(page.locator(".step-panel h2")).to_have_text("follow")
    page.keyboard.press("Home")
    expect(page.locator(".step-panel h2")).to_have_text("validate")
    stops = page.locator('.tl-rows [tabindex="0"], .graph-picture [tabindex="0"]')
    expect(stops).to_have_count(2)  # however many steps there are
    person.press("Copy the id")
    assert served.ask("GET", "instances/my-order")["signals"][0]["payload"]["reviewers"] == ["Grace"]
    for tab, text in (("Log", "an order of Ada"), ("Events", "step.started"), ("Data", "Input")):
        page.get_by_role("tab", name=tab).click()
        person.says(text)
    person.pressed |= {"Log", "Events", "Data"}
    page.get_by_role("tab", name="Events").click()
    page.locator(".event-line summary").first.click()
    expect(page.locator(".event-line .json").first).to_be_visible()


def _steers(person: Person, served: Served) -> None:
    person.go(f"#/instances/{served.begin('napper')}")
    person.status("sleeping")
    person.look()
    person.page.get_by_role("button", name="Pause").press("Enter")
    person.status("paused")
    resume = person.page.get_by_role("button", name="Resume")
    expect(resume).to_be_focused(
        timeout=PATIENCE
    )  # its button has gone, so the focus went to the first of those that there are
    resume.press("Enter")
    person.status("sleeping")
    person.pressed |= {"Pause", "Resume"}
    person.press("Signal…")
    dialog = person.page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("hello")
    dialog.get_by_label("value").fill('{"early": true}')
    person.press("Send", dialog)
    person.says("Sent.")
    person.press("Signal…")
    person.press("Close", dialog)
    person.press("Cancel")
    person.press("Leave it", dialog)
    person.status("sleeping")
    person.press("Cancel")
    person.press("Cancel it", dialog)
    person.status("cancelled")
    person.press("Delete")
    person.press("Delete it", dialog)
    person.arrived("#/instances")


def _fails_and_forks(person: Person, served: Served) -> None:
    page = person.page
    ident = served.begin("fragile", {"fail": True})
    person.go(f"#/instances/{ident}")
    person.status("failed")
    person.says(re.compile("this cannot work: <img src=x"))
    expect(page.locator(".step-panel .text-block summary").first).to_have_text("Traceback")
    person.press("Retry")
    person.says("Queued again, from where it failed.")
    expect(page.locator(".facts", has_text="2 executions")).to_be_visible(timeout=PATIENCE)
    person.status("failed")
    person.press("Fork from here")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Run again from")).to_have_value("work")
    person.press("Close", dialog)
    page.keyboard.press("f")
    expect(dialog.get_by_label("Run again from")).to_have_value("")
    page.keyboard.press("Escape")
    person.press("Fork…")
    dialog.get_by_label("with another input").check()
    dialog.get_by_label("fail").uncheck()
    person.press("Fork", dialog)
    person.status("completed")
    assert person.page.title().startswith("completed · fragile")


def _changes_data(person: Person, served: Served) -> None:
    ident = served.begin("game", {"guesses": 3, "player": "Ada"}, metadata={"table": 5})
    person.go(f"#/instances/{ident}")
    person.status("waiting")
    page, dialog = person.page, person.page.get_by_role("dialog")
    page.get_by_role("tab", name="Data").click()
    person.press("Set metadata…")
    person.press("Set", dialog)
    person.says("The key is needed.")
    dialog.get_by_label("Key").fill("table")
    dialog.get_by_label("Key").blur()
    expect(dialog.get_by_label("value")).to_have_value("5")
    dialog.get_by_label("value").fill('"by the window"')
    person.press("Set", dialog)
    expect(page.get_by_role("group", name="metadata")).to_contain_text("by the window", timeout=PATIENCE)
    person.press("Change data…")
    expect(dialog.get_by_label("guesses")).to_have_value("3")
    dialog.get_by_label("guesses").fill("13")
    person.press("Change", dialog)
    expect(dialog.locator(".complaint:visible")).to_have_text("13 is nobody's luck", timeout=PATIENCE)
    dialog.get_by_label("guesses").fill("7")
    dialog.get_by_label("player").fill("")
    person.press("Change", dialog)
    expect(page.get_by_role("group", name="data of the machine")).to_contain_text("7", timeout=PATIENCE)
    assert served.ask("GET", f"instances/{ident}")["state"] == {"guesses": 7, "player": None}
    assert served.ask("GET", f"instances/{ident}")["metadata"] == {"table": "by the window"}


def _sees_what_runs(person: Person, served: Served) -> None:
    [running] = served.ask("GET", "instances?workflow=holder&status=running")["instances"]
    person.go(f"#/instances/{running['id']}")
    person.press("Stacks")
    dialog = person.page.get_by_role("dialog")
    expect(dialog.locator("pre")).to_contain_text("in hold", timeout=PATIENCE)
    with person.page.expect_response("**/stacks"):
        person.press("Take again", dialog)
    person.press("Close", dialog)


def _works_on_many(person: Person, served: Served) -> None:
    page = person.page
    person.go("#/instances?workflow=archive&status=completed")
    rows = page.locator("tbody tr")
    expect(page.get_by_role("button", name="completed")).to_contain_text("50,000", timeout=PATIENCE)
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("old-49999")
    person.press("Older →")
    expect(rows.first).to_contain_text("old-49949", timeout=PATIENCE)
    person.press("← Newer")
    expect(rows.first).to_contain_text("old-49999", timeout=PATIENCE)
    page.get_by_label("Choose old-49998").check()
    person.press("Delete")
    person.press("Delete", page.get_by_role("dialog"))
    expect(rows.nth(1)).to_contain_text("old-49997", timeout=PATIENCE)
    page.get_by_label("Workflow").select_option("fragile")
    expect(page.get_by_text("archive", exact=True)).to_have_count(1)  # the word in the list of workflows
    person.press(re.compile("^completed"))  # off again
    for status in (
        "running",
        "waiting",
        "blocked",
        "pending",
        "sleeping",
        "paused",
        "timed out",
        "cancelled",
        "failed",
    ):
        person.press(re.compile(f"^{status}"))
    person.go("#/instances?workflow=fragile&status=failed")
    person.press(re.compile("^Retry all"))
    person.press("Leave it", page.get_by_role("dialog"))
    page.get_by_label("All on this page").check()
    person.press("Retry")
    person.press("Retry", page.get_by_role("dialog"))
    person.says("Retry: 1 instance.")
    page.get_by_label("Find in instances").fill("no such thing")
    person.says("No instance fits these filters.")
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Workflow").select_option("napper")
    person.page.wait_for_url("**workflow=napper*")
    asker = served.begin("asker", "Ada")
    for _ in range(2):  # the first one was forked, and is looked after
        served.begin("fragile", {"fail": True})
    person.go("#/")
    person.press(re.compile("^Answer asker"))
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("deny").check()
    person.press("Send", dialog)
    person.until(lambda: served.ask("GET", f"instances/{asker}")["status"] == "completed")
    expect(page.get_by_text("2 × fragile")).to_be_visible(timeout=PATIENCE)
    person.press(re.compile("^Retry all fragile"))
    person.press("Retry", dialog)
    person.says("Retry: 2 instances.")
    _forks_what_was_late(person, served)
    person.go("#/")
    person.press("Start game")
    person.press("As JSON", dialog)
    person.press("Start", dialog)
    person.status("waiting")
    expect(page.locator('g.step[aria-label^="ask: waiting"]')).to_be_visible(timeout=PATIENCE)


def _forks_what_was_late(person: Person, served: Served) -> None:
    page, dialog = person.page, person.page.get_by_role("dialog")
    served.begin("patient")
    expect(page.locator(".row", has_text="patient").locator(".badge")).to_have_text("retrying", timeout=PATIENCE)
    expect(page.locator(".row", has_text="patient")).to_contain_text("ConnectionError: nobody answers")
    first = served.begin("late")
    person.press(re.compile("^Fork… late"))
    person.press("Fork", dialog)
    person.status("timed out")
    assert first not in page.url
    second = served.begin("late")
    person.go("#/")
    expect(page.get_by_text("2 × late")).to_be_visible(timeout=PATIENCE)
    person.press(re.compile("^Fork all late"))
    person.press("Fork", dialog)
    person.says("Forked: 2 instances.")
    person.until(lambda: not {first, second} & {one["id"] for one in served.ask("GET", "now")["broken"]})
    expect(page.get_by_text("2 × late")).to_be_visible(timeout=PATIENCE)


def _turns_the_frame(person: Person) -> None:
    page = person.page
    person.press(re.compile("^Turn"))
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    person.press(re.compile("^Turn"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    person.press("Close", page.get_by_role("dialog"))
    person.press("Keys")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("old-00001")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1, timeout=PATIENCE)
    page.locator("main").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    person.arrived("#/instances/old-00001")
    page.keyboard.press("l")
    expect(page.get_by_role("tab", name="Log")).to_be_focused()
    person.press("Live")
    page.keyboard.press("g")
    page.keyboard.press("q")
    person.arrived("#/queues")


def _plans(person: Person) -> None:
    page = person.page
    expect(page.locator("tr", has_text="holder").get_by_text("1 of 1")).to_be_visible(timeout=PATIENCE)
    person.press("New schedule")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Workflow").select_option("napper")
    dialog.get_by_label("Starts").select_option("cron")
    dialog.get_by_label("When").fill("0 3 * *")
    person.press("Schedule", dialog)
    expect(dialog.locator(".form-problem")).not_to_be_empty(timeout=PATIENCE)
    dialog.get_by_label("When").fill("0 3 * * *")
    dialog.get_by_label("Time zone").fill("Europe/Berlin")
    person.press("Schedule", dialog)
    person.says("0 3 * * *")
    person.press("Delete schedule napper")
    person.press("Delete it", dialog)
    expect(page.get_by_text("No schedule.")).to_be_visible(timeout=PATIENCE)


def _looks_at_the_machine(person: Person, stuck: str) -> None:
    page = person.page
    person.go("#/machine")
    for role in ("server", "watchdog", "fork server", "instance"):
        expect(page.get_by_role("rowheader", name=re.compile(f"^{role}")).first).to_be_visible(timeout=PATIENCE)
    kill = page.locator("li.kill")
    expect(kill.first).to_contain_text("silent", timeout=PATIENCE)
    kill.first.locator("summary").click()
    expect(kill.first.locator("pre")).to_contain_text("in hang")
    person.look()
    person.go(f"#/instances/{stuck}")
    person.status("failed")
    person.look()
