"""pandas, which pyarrow imports wherever it is installed, comes into no process that reads, makes or checks state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nodes import node_a
from tests.support.published import signing_key

COMMANDS = """
import sys
from jobs.cli import run
for line in sys.stdin.read().splitlines():
    code = run(line.split("\t"))
    loaded = "pandas" in sys.modules
    if code or loaded:
        sys.exit(f"{line}: exit code {code}, pandas imported: {loaded}")
"""

PROCESS = """
import sys
import pyarrow as pa
from pipelines.execution.without_pandas import without_pandas
without_pandas()
without_pandas()
assert pa.array([1, None]).to_numpy(zero_copy_only=False)[0] == 1 and pa.scalar(b"a").as_py() == b"a"
assert "pandas" not in sys.modules
import pandas
assert list(pa.table({"a": pa.array(pandas.Series([1, 2]))}).to_pandas()["a"]) == [1, 2]
assert pa.array(pandas.Series(["a", float("nan")])).to_pylist() == ["a", None]
"""


def in_a_process(code: str, text: str = "") -> None:
    """Run code where nothing is imported yet."""
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "way", [pytest.param((), id="with a dataset"), pytest.param(("--dataset", "none"), id="directly", marks=pytest.mark.slow)]
)
def test_a_production_and_its_readers_need_no_pandas(tmp_path: Path, way: tuple[str, ...]) -> None:
    """Producing, checking, fetching and restoring, one after another in one process."""
    home, out, fetched = node_a(), tmp_path / "out", tmp_path / "fetched"
    produce = ("produce", "--node-home", home, "--context", home / "context.json", "--num-parts", 5, "--to", out, *way)
    commands = [
        (*produce, "--signing-key", signing_key(), "--work", f"file://{tmp_path}/work", "--in-process"),
        ("check", out, "--in-process"),
        ("fetch", out, "--into", fetched, "--insecure"),
        ("restore", fetched, "--to", f"rocksdb://{tmp_path}/database", "--in-process"),
    ]
    in_a_process(COMMANDS, "\n".join("\t".join(map(str, command)) for command in commands))


def test_who_asks_for_pandas_later_has_it() -> None:
    """`to_pandas`, and a series that becomes a column afterwards."""
    in_a_process(PROCESS)
