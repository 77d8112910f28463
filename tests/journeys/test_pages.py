"""The pages of a real run in a real browser."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import Browser, browser, opened  # noqa: F401 - fixtures
from tests.browser.test_leaderboard import AXE, errors, heading, models
from tests.journeys.conftest import PATIENCE, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MODELS = [
    {"name": "means", "adapter": "lab_means"},
    {"name": "broken", "adapter": "lab_means", "args": {"fault": "raise"}},
]


def faults(browser: Browser) -> list[tuple[str, list[str]]]:  # noqa: F811
    """What axe finds on the page that is open."""
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert len(found["passes"]) > 10
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


def card_text(browser: Browser) -> str | None:  # noqa: F811
    """What stands on the card, once it is open."""
    return browser.find_element(By.TAG_NAME, "main").text if "/cards/" in browser.current_url else None


def test_the_page_of_a_real_run_sorts_filters_and_opens_its_cards(
    project: Project,
    opened: Callable[[Path], Browser],  # noqa: F811
) -> None:
    attacks = [
        {"attack": "pgd", "name": f"pgd-{steps}", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": steps}}
        for steps in (1, 3, 9)
    ]
    attacks[-1]["keep"] = "8bit"
    evaluations = {"attacks": attacks, "probes": ["macs", "sparsity", "parameters"]}
    board = {"rank_by": "robust_accuracy/linf/worst/0.1"}
    project.suite(
        models=MODELS, datasets=[{"dataset": "lab_digits", "limit": 80}], evaluations=evaluations, leaderboard=board
    )
    row, broken = project.run(code=1)["rows"]
    assert broken["failures"]
    [page] = (project.folder / "out" / "reports").glob("*/leaderboard.html")
    shown = opened(page)
    assert models(shown) == ["means", "broken"]
    heading(shown, "MACs").find_element(By.CSS_SELECTOR, ".dt-column-title").click()
    assert models(shown) == ["means", "broken"], "what has no value stays last"
    search = shown.find_element(By.NAME, "search")
    search.send_keys("mea")
    WebDriverWait(shown, PATIENCE).until(lambda _: models(shown) == ["means"])

    figures = {
        one.get_attribute("data-metric"): one.get_attribute("value")
        for one in shown.find_elements(By.CSS_SELECTOR, ".board tbody data[data-metric]")
    }
    project.records()
    records = [r for r in pq.read_table(project.folder / "out" / "export.parquet").to_pylist() if r["model"] == "means"]
    untouched = {r["sample"]: r["prediction"] == r["label"] for r in records if r["evaluation"] == "clean"}
    lost = {r["sample"] for r in records if r["kind"] == "attack" and r["broken"][-1]}
    assert float(figures["clean_accuracy"] or "nan") == pytest.approx(sum(untouched.values()) / 80)
    stands = sum(right and sample not in lost for sample, right in untouched.items())
    assert float(figures["robust_accuracy/linf/worst/0.1"] or "nan") == pytest.approx(stands / 80)
    assert row["metrics"]["robust_accuracy/linf/worst/0.1"]["value"] == pytest.approx(stands / 80)
    assert faults(shown) == []
    assert (
        shown.execute_script("return Chart.getChart(document.querySelector('.sweeps canvas')).data.datasets.length")
        == 3
    )

    shown.find_element(By.LINK_TEXT, "means").click()
    text = WebDriverWait(shown, PATIENCE, ignored_exceptions=[WebDriverException]).until(card_text)
    assert "Inputs of shape (64,) are no images." in text
    assert re.search(r"gauntlet run suite\.yaml .*--only 'means/lab_digits/\*'", text)
    assert faults(shown) == []
    shown.find_element(By.LINK_TEXT, "leaderboard").click()
    shown.find_element(By.LINK_TEXT, "broken").click()
    assert "Not ranked" in shown.find_element(By.TAG_NAME, "main").text
    assert faults(shown) == []
    assert errors(shown) == []
