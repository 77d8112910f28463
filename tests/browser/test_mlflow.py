"""What a user sees in MLflow's own pages, in a real browser on a real MLflow server."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from bench import results, verbs
from tests.bench.conftest import mlflow_server  # noqa: F401 - a fixture
from tests.browser.conftest import Browser, chromium
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

    def open(self, path: str) -> None:
        self.browser.get("about:blank")
        self.browser.get(f"{self.server}/#/experiments/{self.experiment}{path}")

    def shows(self, *texts: str) -> str:
        """The text of the page as soon as all of these stand in it."""

        def found(browser: Browser) -> str | None:
            text = browser.find_element(By.TAG_NAME, "body").text
            return text if all(one in text for one in texts) else None

        waiting = WebDriverWait(self.browser, 60, ignored_exceptions=[Exception])
        return str(waiting.until(found, f"not all of {texts} are on {self.browser.current_url}"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Pages]:  # noqa: F811
    run = made_run(tmp_path_factory.mktemp("run"))
    found = results.analysis(run)
    verbs.write_reports(run, found, run.reports)
    verbs.publish(run, found, mlflow_server)
    api = f"{mlflow_server}/api/2.0/mlflow"
    answer = requests.get(f"{api}/experiments/get-by-name", {"experiment_name": "lab"}, timeout=20).json()
    experiment = answer["experiment"]["experiment_id"]
    listed = requests.post(f"{api}/runs/search", json={"experiment_ids": [experiment]}, timeout=20).json()["runs"]
    runs = {one["info"]["run_name"]: one["info"]["run_id"] for one in listed}
    with chromium(tmp_path_factory.mktemp("profile"), "--window-size=1900,1200") as browser:
        yield Pages(browser, mlflow_server, experiment, runs)


def test_the_runs_table_has_a_line_for_each_row(pages: Pages) -> None:
    pages.open("/runs")
    pages.shows(*ROWS)
