"""Every way in for bytes from outside gives a value or an error of ours, soon and in little memory; none is left out of the table."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest

from schemas.errors import IntegrityError
from tests.fuzz import run
from tests.fuzz.decoder import Decoder, corpus_of, input_of
from tests.fuzz.http_answers import mutate_answer
from tests.fuzz.table import decoders

ROOT = Path(__file__).resolve().parents[2]

_READER_NAME = re.compile(r"(parse|from_json|from_bytes|from_payload|(parse|decode|read)_\w+|\w+_from_(json|bytes))")
_READING_CALLS = frozenset(
    {
        *("json.loads", "tomllib.loads", "ijson.parse", "ijson.items", "decode_json", "parse_summary", "read_note", "BorshReader"),
        *(
            "struct.unpack",
            "struct.unpack_from",
            "pa.ipc.open_file",
            "pa.ipc.read_message",
            "pq.ParquetFile",
            "bdecode",
            "load_torrent_buffer",
        ),
    }
)

_OWN = "reads what this very process or run has written into a folder of its own"
_PART = "a part of a reader in its module, which is in the table"

NOT_FUZZED = {
    "jobs.configuration:read_configuration": "reads a file of the user's own, by the standard library's TOML",
    "jobs.inspect:_is_envelope": "tells kinds of documents apart; those that read them are in the table",
    "jobs.inspect:_restored": "reads the note that a restore leaves, for people",
    "jobs.prove:_finish": "reads the proof that it has just encoded",
    "pipelines.bittorrent.torrents:_read_back": "reads the torrent that it has just encoded",
    "pipelines.dataset.delta.find_delta:DeltaWork.noted": "reads a note, whose reader is in the table",
    "pipelines.dataset.delta.find_delta:DeltaWork.read_piece": _OWN,
    "pipelines.dataset.export.references:read_own_references": "reads with `read_table`'s handling of damage a file of the same run",
    "pipelines.dataset.tables.table_writer:_row_groups": "reads a file that has the sha256 of one that this program wrote",
    "pipelines.dataset.tables.verify_tables:ReadTablesTask._edge": "reads Parquet that has the sha256 of its summary; what is not as it should be is a finding",
    "pipelines.near.epoch.sync_block:_database_blocks": "reads eight bytes, padded",
    "pipelines.near.files.external_sort:_read_run": _OWN,
    "pipelines.producing.build.boundary_nodes:get_boundary_nodes": _OWN,
    "pipelines.producing.build.plan_parts:LocateTask.run": _OWN,
    "pipelines.producing.deltas.state_diff:ShardDiff.tables": _OWN,
    "pipelines.producing.build.work_folder:WorkFolder.note": "reads a note, whose readers are in the table",
    "pipelines.restoring.merge_state:MergeStateTask._batch": _OWN,
    "pipelines.restoring.state_rows:_references": "what `check_state_rows`, which is in the table, does without native code",
    "schemas.dataset.decoded_record:_numbers": _PART,
    "schemas.dataset.decoded_record:_one_hash": _PART,
    "schemas.dataset.tables_summary:_parse": _PART,
    "schemas.dataset.decoded_record:_timeout_columns": _PART,
    "schemas.dataset.tables_summary:TablesShard.decode_errors": "counts, in spite of its name",
    "schemas.ids:ShardUId.from_bytes": "takes eight bytes or refuses",
}
"""Readers that the table lacks, and why."""


@pytest.mark.parametrize("decoder", decoders().values(), ids=decoders())
def test_genuine_documents_reach_what_the_table_says(decoder: Decoder) -> None:
    """Each is a value, and together they call every function that the entry claims to cover."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    corpus = corpus_of(decoder)
    # What is imported at first use is not to be noted too.
    run.outcome_of(decoder, corpus[0])
    for data in corpus:
        sys.setprofile(note)
        try:
            outcome = run.outcome_of(decoder, data)
        finally:
            sys.setprofile(None)
        assert outcome == "value"
    missed = [function.__qualname__ for function in decoder.covers if _code(function) not in called]
    assert not missed


def _code(function: object) -> CodeType:
    code = inspect.unwrap(function).__code__  # type: ignore[arg-type]
    assert isinstance(code, CodeType)
    return code


def _let_go(decoder: Decoder) -> None:
    """Have what clients left of broken answers complain here, where it is ignored, and not in a later test."""
    if decoder.mutate is mutate_answer:
        gc.collect()


# What libraries warn of in odd input is no result.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoder", decoders().values(), ids=decoders())
def test_made_up_inputs_give_a_value_or_an_error_of_ours(decoder: Decoder) -> None:
    """A few of those that `make fuzz` tries, always the same."""
    for number in range(decoder.smoke_inputs):
        assert run.own_time_s(decoder, input_of(decoder, 0, number)) < run.INPUT_S_MAX, number
    _let_go(decoder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("decoder", "path"), [pytest.param(*kept, id=f"{kept[1].parent.name}/{kept[1].name}") for kept in run.kept_inputs()]
)
def test_what_once_failed_does_so_no_more(decoder: Decoder, path: Path) -> None:
    """Inputs that `make fuzz` left."""
    assert run.own_time_s(decoder, path.read_bytes()) < run.INPUT_S_MAX
    _let_go(decoder)


def test_kept_inputs_belong_to_a_decoder() -> None:
    """A folder whose decoder was renamed would not be tried any more; the kernel's are for its own test in Rust."""
    known = {run.folder_of(decoder).name for decoder in decoders().values()} | {"kernel"}
    assert {folder.name for folder in run.FAILURES.glob("*/")} <= known


def _readers() -> Iterator[str]:
    """Yield the project's functions that read bytes or documents from outside, as far as their names and calls tell."""
    for room in ("schemas", "pipelines", "jobs", "statecast"):
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for name, function in _functions(ast.parse(path.read_text()), ""):
                named = room == "schemas" and not name.split(".")[-1].startswith("_") and _READER_NAME.fullmatch(name.split(".")[-1])
                calls = {_dotted(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
                reads = any(call in _READING_CALLS or call.rpartition(".")[2] in ("bdecode", "load_torrent_buffer") for call in calls)
                if named or reads:
                    yield f"{module}:{name}"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield f"{prefix}{child.name}", child


def test_no_reader_is_left_out() -> None:
    """A new decoder gets an entry in the table, or a reason here why it needs none."""
    covered = {f"{function.__module__}:{function.__qualname__}" for decoder in decoders().values() for function in decoder.covers}
    readers = set(_readers())
    assert sorted(readers - covered - NOT_FUZZED.keys()) == []
    assert sorted(NOT_FUZZED.keys() - readers) == [], "reasons for what is not there"


def _refuse(data: bytes) -> object:
    match data[:1]:
        case b"f":
            raise KeyError("foreign")
        case b"s":
            until = time.thread_time() + run.INPUT_S_MAX * 1.1
            while time.thread_time() < until:
                pass
        case b"m":
            return bytes(2 * run.INPUT_MEMORY_MAX)
        case b"k":
            os.kill(os.getpid(), signal.SIGKILL)
    raise IntegrityError(problem="as it should be")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("first", "kind"),
    [(b"i", None), (b"f", "KeyError in the test"), (b"s", "slow"), (b"m", "memory"), (b"k", "ended by signal 9")],
)
def test_a_run_keeps_what_fails(first: bytes, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign exception, an input that takes long or much memory, and one that ends the process."""
    monkeypatch.setattr(run, "FAILURES", tmp_path)
    monkeypatch.setattr(run, "INPUT_S_MAX", 0.05)
    decoder = Decoder("an example", _refuse, lambda: [first + b"x"], (), lambda random, data, corpus: data)
    tally = run.run([decoder], seed=0, inputs=2, seconds=60, at_once=1)["an example"]
    assert list(tally.failures) == ([] if kind is None else [kind])
    kept = [path.read_bytes() for path in tmp_path.glob("an-example/*")]
    assert [data[:1] for data in kept] == ([] if kind is None else [first])
    assert kind is not None or tally.outcomes == {"IntegrityError": 2}
