"""What a run tells: lines in a pipe, bars on a terminal, and an estimate that is a number of seconds."""

import io
import re

from bench.progress import Bars, Lines, display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines_when_something_ends_with_an_estimate_of_the_rest():
    now = [0.0]
    out = io.StringIO()
    lines = Lines(out, clock=lambda: now[0])
    lines.phase()
    lines.begin("cnn/digits/pgd", 4, 0)
    lines.begin("cnn/digits/cw", 4, 2)
    now[0] = 2.0
    lines.advance("cnn/digits/pgd", 1)
    assert out.getvalue() == "", "nothing is worth a line yet"
    now[0] = 6.0
    lines.advance("cnn/digits/pgd", 2)
    assert out.getvalue() == "cnn/digits/pgd: 2/4 (all: 4/8, ETA 12 s)\n"
    lines.advance("cnn/digits/cw", 4)
    lines.advance("cnn/digits/cw", 4)
    assert out.getvalue().splitlines()[1:] == ["cnn/digits/cw: 4/4 (all: 6/8, ETA 3 s)"]
    assert "\x1b" not in out.getvalue()


def test_a_new_phase_is_counted_by_itself():
    out = io.StringIO()
    lines = Lines(out, clock=lambda: 0.0)
    lines.begin("train cnn", 100, 0)
    lines.advance("train cnn", 100)
    lines.phase()
    lines.begin("cnn/digits/pgd", 1, 0)
    lines.advance("cnn/digits/pgd", 1)
    assert out.getvalue().splitlines()[-1] == "cnn/digits/pgd: 1/1 (all: 1/1)"


def test_a_terminal_gets_bars_for_what_is_at_work_even_a_narrow_one(monkeypatch):
    for columns in ("100", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        out = Terminal()
        with display(out) as bars:
            assert isinstance(bars, Bars)
            bars.phase()
            bars.begin("cnn/digits/pgd", 4, 0)
            bars.begin("cnn/digits/done", 4, 4)
            bars.advance("cnn/digits/pgd", 2)
            bars.note("something happened")
            bars._progress.refresh()
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
        assert "something happened" in shown
        assert "2/4" in shown
        assert "cnn/digits/done" not in shown
