"""What a user sees in MLflow's own pages, in a real browser on a real MLflow server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from bench import results, verbs
from bench.records import Row
from tests.bench.conftest import mlflow_server  # noqa: F401 - a fixture
from tests.browser.conftest import Browser, becomes, chromium, until
from tests.browser.test_leaderboard import models
from tests.reports.lab import MODELS, made_run

pytestmark = pytest.mark.slow
ROWS = [f"{model} · digits" for model in MODELS]


@dataclass
class Pages:
    """MLflow's pages on one published run."""

    browser: Browser
    server: str
    experiment: str
    runs: dict[str, str]
    rows: Sequence[Row]

    def open(self, path: str) -> None:
        self.browser.get("about:blank")
        self.browser.get(f"{self.server}/#/experiments/{self.experiment}{path}")

    def shows(self, *texts: str) -> str:
        """The text of the page as soon as all of these stand in it."""

        def found(browser: Browser) -> str | None:
            text = browser.find_element(By.TAG_NAME, "body").text
            return text if all(one in text for one in texts) else None

        waiting = WebDriverWait(self.browser, 120, ignored_exceptions=[Exception])
        return str(waiting.until(found, f"not all of {texts} are on {self.browser.current_url}"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Pages]:  # noqa: F811
    run = made_run(tmp_path_factory.mktemp("run"))
    found = results.analysis(run)
    verbs.write_reports(run, found, run.reports)
    verbs.publish(run, found, mlflow_server)
    api = f"{mlflow_server}/api/2.0/mlflow"
    answer = requests.get(f"{api}/experiments/get-by-name", {"experiment_name": "lab"}, timeout=60).json()
    experiment = answer["experiment"]["experiment_id"]
    listed = requests.post(f"{api}/runs/search", json={"experiment_ids": [experiment]}, timeout=60).json()["runs"]
    runs = {one["info"]["run_name"]: one["info"]["run_id"] for one in listed}
    with chromium(tmp_path_factory.mktemp("profile"), "--window-size=1900,1200") as browser:
        yield Pages(browser, mlflow_server, experiment, runs, found.rows)


def test_the_runs_table_has_a_line_for_each_row(pages: Pages) -> None:
    pages.open("/runs")
    pages.shows(*ROWS)


def test_the_models_page_lists_every_model_with_its_data_set_and_accuracy(pages: Pages) -> None:
    pages.open("/models")
    text = pages.shows(*MODELS, *ROWS)
    for row in pages.rows:
        assert row.metrics["clean_accuracy"].value is not None
        assert str(row.metrics["clean_accuracy"].value) in text
    assert "digits (#" in text  # the metrics stand in the column of their data set


def test_the_leaderboard_works_inside_the_artifact_viewer(pages: Pages) -> None:
    pages.open(f"/runs/{pages.runs[ROWS[0]]}/artifacts/leaderboard.html")
    pages.shows("leaderboard.html", "card.html")
    browser = pages.browser
    frame = WebDriverWait(browser, 60).until(lambda b: b.find_element(By.TAG_NAME, "iframe"))
    browser.switch_to.frame(frame)
    try:
        until(browser, lambda: set(models(browser)) == set(MODELS))
        browser.find_element(By.NAME, "search").send_keys("weak")
        becomes(browser, lambda: models(browser), ["weak"])
    finally:
        browser.switch_to.default_content()
