"""What a person sees: something soon, and on a narrow terminal, in a file and in a pipe what one looks for whole."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from jobs.command_time import CommandTime
from jobs.terminal import BarProgress, ShownConsole
from pipelines.execution.progress import StageProgress

URL = "https://a-very-long-name-of-a-mirror.example.org/some/path/that/goes/on/and/on/" + "x" * 150
ROOT = "8kiK9kgtoEx8BScnqq9NZ6h4Ao2HFdDHhsaS958pAEXB"


def result_table() -> Table:
    """Return a table like those of results."""
    table = Table("shard", "records", title="What came from where")
    table.add_column("source")
    table.add_column("state root", overflow="fold")
    table.add_row("s0.v0", "431", URL, ROOT)
    return table


@pytest.mark.parametrize(("width", "is_terminal"), [(80, True), (80, False), (180, False), (300, True)])
def test_a_table_never_breaks_a_url_or_a_root(width: int, is_terminal: bool) -> None:
    """Too wide for a terminal, a row is lines of its own; in a file a table is as wide as it needs."""
    stream = io.StringIO()
    ShownConsole(file=stream, width=width, force_terminal=is_terminal, color_system=None).print(result_table())
    lines = stream.getvalue().splitlines()
    assert any(URL in line for line in lines) and any(ROOT in line for line in lines)
    assert all(word in stream.getvalue() for word in ("What came from where", "shard", "431"))


def test_a_bar_shows_the_time_left_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rates too, on a line more."""
    monkeypatch.setattr("jobs.terminal._rates", lambda *_: "123,456 records/s, 1,234.5 MB/s, 1234 parts")
    stream = io.StringIO()
    bars = BarProgress(ShownConsole(file=stream, width=80, force_terminal=True, color_system=None))
    bars.stage(StageProgress("build", "s11.v3", 12, 3456, records=123_456_789, size=98_765_432_100, parts=12))
    bars.stage(StageProgress("build", "s11.v3", 13, 3456, records=133_456_789, size=99_765_432_100, parts=13))
    bars.close()
    last = stream.getvalue()
    assert "13/3456" in last and "0:00:00" in last and "-:--:--" in last and "1,234.5" in last and "parts" in last, last


def test_something_shows_soon_and_only_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that the command has begun, where nothing else came first."""
    monkeypatch.setattr("jobs.command_time.FIRST_LINE_S", 0.01)
    silent, speaking = CommandTime(), CommandTime()
    speaking.spoke()
    for command in (speaking, silent):
        command.say_soon("fetch").join()
    assert capsys.readouterr().err == "statecast fetch: begun\n"
    assert silent.seconds() >= 0.01
