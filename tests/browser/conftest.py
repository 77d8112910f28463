"""A real browser for the pages. `make browser` installs it where there is none; without it these tests are skipped."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.ports import free_port

Browser = webdriver.Chrome
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Browser]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver: `make browser` installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver, port=free_port()))
    started.set_script_timeout(2 * PATIENCE)
    try:
        yield started
    finally:
        started.quit()


PATIENCE = 60.0  # seconds; a page that does its work needs one of them
UNREADY = (
    NoSuchElementException, StaleElementReferenceException, ElementClickInterceptedException,
    ElementNotInteractableException,
)  # fmt: skip


def until(browser: Browser, true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits until it holds: a page answers a click or a key in its own time, and swaps elements as it does."""
    WebDriverWait(browser, seconds, 0.05, ignored_exceptions=UNREADY).until(lambda _: true())


def press(browser: Browser, selector: str, by: str = By.CSS_SELECTOR) -> None:
    """Clicks what may be drawn anew between being found and being clicked."""
    until(browser, lambda: browser.find_element(by, selector).click() is None)


def becomes(browser: Browser, look: Callable[[], object], wanted: object, seconds: float = PATIENCE) -> None:
    """Waits until `look` sees what is wanted, and says what it saw last where it never does."""
    seen: list[object] = []
    try:
        until(browser, lambda: seen.append(look()) or seen[-1] == wanted, seconds)
    except TimeoutException:
        assert seen[-1:] == [wanted]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile"), "--window-size=1400,1000") as started:
        yield started


@pytest.fixture
def opened(browser: Browser) -> Callable[[Path], Browser]:
    """Opens a leaderboard and waits until its script has run."""

    def open_page(path: Path) -> Browser:
        browser.get_log("browser")  # what other pages said
        browser.get(path.as_uri())
        ready = "return document.documentElement.dataset.ready"
        until(browser, lambda: browser.execute_script(ready))
        return browser

    return open_page
