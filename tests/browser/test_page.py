"""The page of the service in a real browser, with a real face behind it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from bench.runs import Run
from bench.service.access import Role
from bench.service.database import State, Submission
from bench.service.face import face
from tests.browser.conftest import Browser, becomes, press, until
from tests.browser.test_leaderboard import AXE, errors
from tests.service.house import House, house, serving
from tests.service.test_intake import SUITE

__all__ = ["house"]  # a fixture
DROP = """
const [text] = arguments, data = new DataTransfer();
data.items.add(new File([text], "suite.yaml"));
for (const kind of ["dragenter", "dragover", "drop"])
  document.getElementById("drop").dispatchEvent(
    new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
"""


SHOWN = "return [...document.querySelectorAll('#queue button')].map((one) => one.dataset.id)"
RIGHT = """
const row = document.querySelector(`[data-id="${arguments[0]}"]`).closest("tr");
return [row.children[2], document.querySelector(".scroll")].map((one) => one.getBoundingClientRect().right);
"""


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Browser]:
    browser.get_log("browser")
    browser.get(house.url)
    browser.execute_script("sessionStorage.clear()")
    browser.get(house.url)
    until(browser, lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    yield browser
    browser.execute_script("sessionStorage.clear()")
    browser.get("about:blank")


def at(browser: Browser, name: str) -> WebElement:
    return browser.find_element(By.ID, name)


def enter(browser: Browser, token: str) -> None:
    at(browser, "token").send_keys(token)
    press(browser, "#door button")
    until(browser, lambda: at(browser, "inside").is_displayed())


def handed_in(house: House, owner: str) -> Submission:
    row = house.queue.page([owner], limit=1)[0]
    assert row.owner == owner
    return row


def claimed(house: House, row: Submission) -> None:
    house.work.renew()
    while (found := house.work.claim({}, lambda owners: [row.owner] if row.owner in owners else owners)) is not None:
        if found.id == row.id:
            return
    raise AssertionError("it was not claimed")


def test_a_suite_is_chosen_and_its_progress_is_seen_as_it_happens(house: House, page: Browser, tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    enter(page, house.token("looker"))
    assert at(page, "me").text.startswith("looker, submitter")
    at(page, "file").send_keys(str(tmp_path / "suite.yaml"))
    until(page, lambda: at(page, "one").is_displayed())
    row = handed_in(house, "looker")
    assert at(page, "one-title").text == row.id
    until(page, lambda: "queued" in at(page, "facts").text)
    claimed(house, row)
    house.work.note(row.id, "<img src=x onerror=alert(1)> starts")
    house.work.progress(row.id, 3, 1, 10, 2.5)
    until(page, lambda: "3 of 10 tasks · 1 failed · about 3 s left" in at(page, "facts").text)
    assert at(page, "bar").get_attribute("value") == "3"
    assert "<img src=x onerror=alert(1)> starts" in at(page, "story").text
    assert page.find_elements(By.CSS_SELECTOR, "#story img") == []
    press(page, "//p[@id='actions']/button[text()='cancel']", By.XPATH)
    until(page, lambda: house.queue.get(row.id).wish == "cancel")
    until(page, lambda: "cancel is on its way" in at(page, "facts").text)
    house.work.end(row.id, State.CANCELED)
    until(page, lambda: at(page, "facts").text.startswith("canceled"))
    until(page, lambda: [one.text for one in page.find_elements(By.CSS_SELECTOR, "#actions button")] == ["retry"])
    assert errors(page) == []


def test_the_page_leads_administrators_to_rays_dashboard_and_nobody_else(house: House, page: Browser):
    app = face(house.database, house.folder, ray_pages="http://127.0.0.1:8265")
    with serving(app) as url:
        for user, role, seen in (("chief", Role.ADMIN, True), ("other", Role.SUBMITTER, False)):
            page.get(url)
            until(page, lambda: page.execute_script("return document.documentElement.dataset.ready"))
            enter(page, house.token(user, role))
            assert at(page, "ray").is_displayed() is seen
            assert not at(page, "mlflow").is_displayed()
            assert not seen or at(page, "ray").get_attribute("href") == "http://127.0.0.1:8265/"
            page.execute_script("sessionStorage.clear()")


def test_a_suite_is_dropped_and_its_mistakes_are_shown(house: House, page: Browser):
    enter(page, house.token("dropper"))
    page.execute_script(DROP, yaml.safe_dump({**SUITE, "models": [{"name": "<b>m</b>", "adapter": "small_cn"}]}))
    until(page, lambda: at(page, "mistakes").is_displayed())
    assert "models[0].name: '<b>m</b>' looks like a path" in at(page, "mistakes").text
    assert page.find_elements(By.CSS_SELECTOR, "#mistakes b") == []
    assert all(row.owner != "dropper" for row in house.queue.page(None))
    page.get_log("browser")  # the browser notes the refusal
    at(page, "shared").click()
    page.execute_script(DROP, json.dumps(SUITE))
    until(page, lambda: at(page, "one").is_displayed())
    assert not at(page, "mistakes").is_displayed()
    assert handed_in(house, "dropper").shared is True
    assert errors(page) == []


def test_the_leaderboard_opens_by_a_link_that_needs_no_token(house: House, page: Browser):
    token = house.token("reader-of-boards")
    row, _ = house.queue.submit("reader-of-boards", "s", "name: s\n")
    claimed(house, row)
    house.work.end(row.id, State.COMPLETE)
    run = Run(house.folder, row.id)
    run.folder.mkdir(parents=True)
    run.reports.mkdir(parents=True)
    (run.folder / "status.json").write_text("{}")
    (run.reports / "leaderboard.html").write_text("<title>the board</title><script>document.title += '!'</script>")
    enter(page, token)
    press(page, f"[data-id='{row.id}']")
    until(page, lambda: page.find_elements(By.XPATH, "//p[@id='actions']/button[text()='leaderboard']"))
    press(page, "//p[@id='actions']/button[text()='leaderboard']", By.XPATH)
    until(page, lambda: page.title == "the board!")
    assert "?key=" in page.current_url
    page.back()
    until(page, lambda: at(page, "me").is_displayed())


def test_a_wrong_token_stays_outside_and_leaving_forgets_the_right_one(house: House, page: Browser):
    at(page, "token").send_keys("gauntlet_wrong")
    press(page, "#door button")
    until(page, lambda: at(page, "problem").is_displayed())
    assert not at(page, "inside").is_displayed()
    assert "gauntlet tokens create" in at(page, "problem").text
    enter(page, house.token("guest", Role.READER))
    assert not at(page, "drop").is_displayed(), "a reader has nothing to hand in"
    page.refresh()
    until(page, lambda: at(page, "inside").is_displayed())
    press(page, "#me button")
    becomes(page, lambda: page.execute_script("return sessionStorage.length"), 0)
    page.refresh()
    until(page, lambda: page.execute_script("return document.documentElement.dataset.ready"))
    assert at(page, "door").is_displayed()
    assert not at(page, "inside").is_displayed()


def test_whoever_is_thrown_out_is_told_why(house: House, page: Browser):
    token = house.token("expired")
    enter(page, token)
    house.access.revoke(token.split("_")[1])
    until(page, lambda: at(page, "door").is_displayed())  # nobody pressed anything
    assert "unknown, expired or revoked. ask an administrator" in at(page, "problem").text
    assert not at(page, "inside").is_displayed()
    becomes(page, lambda: page.execute_script("return sessionStorage.length"), 0)
    at(page, "token").send_keys("gauntlet_\u00fc\u2603")
    press(page, "#door button")
    until(page, lambda: "This is no token" in at(page, "problem").text)


def test_a_service_that_went_away_is_told_and_taken_back_once_it_answers(house: House, page: Browser):
    row, _ = house.queue.submit("lonely", "s", "t") if house.token("lonely") else (None, False)
    assert row is not None
    enter(page, house.token("lonely"))
    press(page, f"[data-id='{row.id}']")
    until(page, lambda: "queued" in at(page, "facts").text)
    assert not at(page, "away").is_displayed()
    broken = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.enable", {})
    page.execute_cdp_cmd("Network.emulateNetworkConditions", broken)
    until(page, lambda: at(page, "away").is_displayed())
    assert "queued" in at(page, "facts").text, "what was known is still shown"
    house.queue.cancel(row.id)
    page.execute_cdp_cmd("Network.emulateNetworkConditions", {**broken, "offline": False})
    until(page, lambda: not at(page, "away").is_displayed())
    until(page, lambda: at(page, "facts").text.startswith("canceled"))
    page.get_log("browser")  # the browser notes each request that failed


def test_more_than_a_page_can_be_reached_and_long_names_leave_the_state_in_sight(house: House, page: Browser):
    owner = "a" * 64
    token = house.token(owner)
    rows = [house.queue.submit(owner, "long-" + "n" * 58, "t")[0].id for _ in range(130)]
    for each in rows:
        house.queue.cancel(each)
    enter(page, token)
    shown = lambda: page.execute_script(SHOWN)  # noqa: E731
    becomes(page, lambda: len(shown()), 100)
    press(page, "#more")
    until(page, lambda: set(rows) <= set(shown()))
    until(page, lambda: not at(page, "more").is_displayed())
    state, frame = page.execute_script(RIGHT, rows[-1])
    assert state < frame


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_of_accessibility(house: House, page: Browser, scheme: str):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    token = house.token("axe")
    row, _ = house.queue.submit("axe", "s", "name: s\n")
    enter(page, token)
    press(page, f"[data-id='{row.id}']")
    until(page, lambda: "queued" in at(page, "facts").text)
    page.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(found["passes"]) > 10
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_on_a_phone_nothing_is_wider_than_the_screen(house: House, page: Browser):
    screen = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    token = house.token("phone")
    row, _ = house.queue.submit("phone", "s", "name: s\n")
    enter(page, token)
    press(page, f"[data-id='{row.id}']")
    until(page, lambda: "queued" in at(page, "facts").text)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390
