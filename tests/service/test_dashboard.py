"""Ray's dashboard, where somebody asks for it; the real one is in tests/journeys/test_dashboard.py."""

import socket
from pathlib import Path

import pytest
import requests

from bench.__main__ import main
from bench.errors import OperatorError
from bench.service import companions
from bench.service.access import Role
from bench.service.face import face
from tests.service.house import PATIENCE, House, house, serving

__all__ = ["house"]  # a fixture


def test_only_administrators_are_led_to_it(house: House):
    app = face(house.database, house.folder, pages="https://pages", ray_pages="http://127.0.0.1:8265")
    with serving(app) as url:
        for role in Role:
            headers = {"Authorization": f"Bearer {house.token(f'dash-{role}', role)}"}
            me = requests.get(f"{url}/v1/me", headers=headers, timeout=PATIENCE).json()
            assert me["ray"] == ("http://127.0.0.1:8265" if role is Role.ADMIN else None)
            assert me["mlflow"] == "https://pages"


def test_what_it_lacks_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(companions, "RAY_NEEDS", ("json", "no_such_module"))
    with pytest.raises(OperatorError, match=r"no_such_module\)\n.*install gauntlet-bench\[dashboard\]"):
        companions.check_dashboard(8265)
    for words in (("up", "--dashboard"), ("dispatch", "--dashboard-port", "8265")):
        assert main([*words, "--output", str(tmp_path / "out")]) == 4
        assert "gauntlet-bench[dashboard]" in capsys.readouterr().err
        assert main([*words, "--output", str(tmp_path / "out"), "--address", "10.0.0.1:6379"]) == 2
        assert "--ray-pages links another's" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(companions, "RAY_NEEDS", ())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OperatorError, match="--dashboard-port"):
        companions.check_dashboard(taken.getsockname()[1])
