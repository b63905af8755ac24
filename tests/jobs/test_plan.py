"""``statecast plan``: what publishing takes and costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import run
from tests.support.commands import statecast
from tests.support.nodes import localnet_home

EXAMPLE_PRICES = Path(__file__).parents[2] / "examples" / "prices.toml"
MAINNET = ["plan", "--shards", "9", "--state-gib", "180", "--largest-gib", "38.8", "--json"]


def _plan(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert run([*MAINNET, *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_a_deadline_asks_for_the_fewest_machines_that_meet_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A shorter deadline takes more cores, and fewer would miss it."""
    relaxed, tight = _plan(capsys, "--deadline", "1h"), _plan(capsys, "--deadline", "15m")
    assert relaxed["deadline_met"] and tight["deadline_met"]
    cores = tight["worker_cores"]
    assert isinstance(cores, int) and isinstance(relaxed["worker_cores"], int) and cores > relaxed["worker_cores"]
    assert not _plan(capsys, "--deadline", "15m", "--cores", str(cores - 8))["deadline_met"]


def test_a_deadline_that_nothing_meets_is_said_to_be_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """The export alone takes longer than a minute."""
    assert not _plan(capsys, "--deadline", "60s")["deadline_met"]


def test_the_bill_is_the_sum_of_amounts_times_prices(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line of it, with the example's prices."""
    document = _plan(capsys, "--egress-gib", "1000", "--prices", str(EXAMPLE_PRICES))
    bill = document["bill_per_month"]
    assert isinstance(bill, list)
    by_name = {item["item"]: item for item in bill}
    assert by_name["egress"]["cost"] == pytest.approx(1000 * 0.08)
    assert document["cost_per_month"] == pytest.approx(sum(item["amount"] * item["price"] for item in bill), abs=0.1)


def test_machines_are_paid_for_from_their_start_to_the_last_part(capsys: pytest.CaptureFixture[str]) -> None:
    """Once, whatever part of it is the start."""
    document = _plan(capsys, "--epochs-per-day", "3", "--start", "30m", "--cores", "64", "--prices", str(EXAMPLE_PRICES))
    bill, run_s = document["bill_per_month"], document["last_part_s"]
    assert isinstance(bill, list) and isinstance(run_s, float) and run_s > 1800
    hours = {item["item"]: item["amount"] for item in bill}
    assert hours["head"] == pytest.approx(run_s / 3600 * 3 * 365.25 / 12, rel=1e-3)
    assert hours["worker cores"] == pytest.approx(64 * hours["head"], rel=1e-3)


def test_a_person_sees_times_cost_and_what_limits(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json."""
    assert run([*MAINNET[:-1], "--prices", str(EXAMPLE_PRICES)]) == 0
    shown = capsys.readouterr().out
    for text in ("6,149 parts", "first part out", "deadline", "cores beside the node's disk", "together"):
        assert text in shown


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ("currency = 'USD'", "storage_gib_month"),
        ("currency = ", "not TOML"),
        ("currency = 'USD'\nstorage_gib = 1", "no field storage_gib"),
        ("storage_gib_month = 1", "currency"),
        (EXAMPLE_PRICES.read_text().replace("0.08", "-1"), "egress_gib"),
        (EXAMPLE_PRICES.read_text().replace("0.08", "nan"), "egress_gib"),
        (EXAMPLE_PRICES.read_text().replace("0.08", "true"), "egress_gib"),
    ],
)
def test_a_price_list_with_a_fault_is_refused_by_the_field(
    prices: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, unknown and impossible prices."""
    (tmp_path / "prices.toml").write_text(prices)
    assert run([*MAINNET, "--prices", str(tmp_path / "prices.toml")]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ("--state-gib", "nan"),
        ("--egress-gib", "inf"),
        ("--deadline", "soon"),
        ("--costs", "/nowhere"),
        ("--shards", "200000"),
        # A forecast of so much would not end; of so much more it can't even be counted.
        ("--state-gib", "1e7"),
        ("--state-gib", "1e300"),
        ("--largest-gib", "1e305"),
    ],
)
def test_a_number_that_is_none_is_a_usage_error(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert run([*MAINNET, *options]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_sizes_are_read_from_a_node_or_a_dataset() -> None:
    """Its shards, the largest first; sizes that are given as well are refused."""
    outcome = statecast("plan", "--node-home", localnet_home(), "--json")
    sizes = [shard["memory_usage"] for shard in outcome.document["shards"]]
    assert len(sizes) == 4 and sizes == sorted(sizes, reverse=True) and sum(sizes) > 2_000_000
    one = statecast("plan", "--node-home", localnet_home(), "--shard-id", 0, "--json")
    assert len(one.document["shards"]) == 1
    twice = statecast("plan", "--node-home", localnet_home(), "--shards", 3)
    assert twice.code == 2 and "not both" in twice.error_line


def test_a_source_that_does_not_tell_its_sizes_is_refused(tmp_path: Path) -> None:
    """What to give instead is said."""
    (tmp_path / "records.jsonl").write_text("")
    outcome = statecast("plan", "--from", f"records://{tmp_path / 'records.jsonl'}")
    assert outcome.code == 2 and "--state-gib" in outcome.error_line
