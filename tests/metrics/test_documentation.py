from pathlib import Path

from bench import names

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_metric_of_detectors_and_of_confidence_is_documented() -> None:
    alone = [*names.CONFIDENCE, *names.REFUSAL]
    of_detectors = [name for name in (*names.DETECTION, *names.JOINT, *names.FITTED) if name not in names.SELECTIVE]
    of_detectors += ["overhead", "detector_passes"]
    assert [name for name in alone if f"`{name}`" not in PAGE] == []
    assert [name for name in of_detectors if f"`{name}/DETECTOR`" not in PAGE] == []
