"""The page against the Parquet export, by a few lines that know nothing of bench.metrics."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from bench.__main__ import main
from tests.reports.lab import MODELS, made_run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    run = made_run(folder)
    page, records = folder / "board.html", folder / "records.parquet"
    assert main(["leaderboard", str(run.folder), "--html", str(page)]) == 0
    assert main(["records", str(run.folder), "--to", str(records)]) == 0
    return page, records


def test_figures_on_the_page_equal_those_of_the_parquet_export(files: tuple[Path, Path]) -> None:
    page, records = files
    rows = pq.read_table(records).to_pylist()
    body = page.read_text().split("<tbody>")[1].split("</tbody>")[0]
    checked = 0
    for line in body.split("<tr")[1:]:
        model = re.search(r'data-model="([^"]+)"', line)[1]
        shown = {
            name: float(v) for v, name in re.findall(r'<data value="([^"]+)"[^>]*data-metric="([^"]+)"', line, re.S)
        }
        mine = [row for row in rows if row["model"] == model]
        clean = [row for row in mine if row["evaluation"] == "clean"]
        attacks = [row for row in mine if row["kind"] == "attack"]
        broken = {row["sample"] for row in attacks if row["broken"][row["epsilons"].index(0.1)]}
        wrong = {row["sample"] for row in clean if row["prediction"] != row["label"]}
        scores = [row for row in mine if row["kind"] == "detector"]
        assert shown["clean_accuracy"] == pytest.approx(1 - len(wrong) / len(clean))
        assert shown["robust_accuracy/linf/worst/0.1"] == pytest.approx(1 - len(broken | wrong) / len(clean))
        area = roc_auc_score([row["outlier"] for row in scores], [row["score"] for row in scores])
        assert shown["auroc/msp"] == pytest.approx(area)
        checked += 1
    assert checked == len(MODELS)
