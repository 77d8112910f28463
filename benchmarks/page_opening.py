"""How long Chromium takes to open a leaderboard of 200 models × 30 columns, on the clock and on its main thread.

    python benchmarks/page_opening.py --repeats 5

Seconds on the clock are from the start of the navigation until the page has run its script and is painted. On a machine
that does other things they say how busy it is; the seconds of the main thread do not.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import Browser, chromium
from tests.browser.test_leaderboard import big_page

PAINTED = "return performance.getEntriesByName('ready').length && performance.getEntriesByName('ready')[0].startTime"


def opening(browser: Browser, page: Path) -> tuple[float, float]:
    """Seconds on the clock, and on the main thread."""
    browser.get("about:blank")
    before = main_thread(browser)
    browser.get(page.as_uri())
    wall = WebDriverWait(browser, 60).until(lambda found: found.execute_script(PAINTED)) / 1000
    return wall, main_thread(browser) - before


def main_thread(browser: Browser) -> float:
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "big.html"
        page.write_text(big_page(), encoding="utf-8")
        with chromium(Path(folder) / "profile", "--window-size=1400,1000") as browser:
            browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            load = os.getloadavg()[0]
            walls, threads = zip(*(opening(browser, page) for _ in range(repeats)), strict=True)
        print(f"{page.stat().st_size / 1e6:.2f} MB; {repeats} openings; load {load:.1f} on {os.cpu_count()} cores")
        for what, seconds in (("on the clock", walls), ("main thread", threads)):
            print(f"{what}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}")


if __name__ == "__main__":
    main()
