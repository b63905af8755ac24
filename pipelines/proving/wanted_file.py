"""Files that say what is looked up: a line a record."""

from __future__ import annotations

from pathlib import Path

from pipelines.proving.answer_table import AnswerKind
from pipelines.proving.get_records import WANTED_MAX
from pipelines.proving.wanted_record import WantedRecord, wanted_record
from schemas.errors import InvalidInputError

_FORMS = {
    AnswerKind.ACCOUNT: "an account id",
    AnswerKind.ACCESS_KEY: "an account id and a public key",
    AnswerKind.CONTRACT_DATA: "an account id and a key of its contract",
}


def wanted_of_kind(kind: AnswerKind, account_id: str, key: str | None = None) -> WantedRecord:
    """Return one record of a kind; ``key`` is the public key, or the contract's own.

    Raises:
        InvalidInputError: a form that is none.
    """
    if kind is AnswerKind.ACCESS_KEY:
        return wanted_record(account_id, access_key=key)
    return wanted_record(account_id, contract_key=key)


def read_wanted_file(path: Path, kind: AnswerKind) -> list[WantedRecord]:
    """Read a file of wanted records: account ids, or account id and key with white space between them; # begins a comment.

    Raises:
        InvalidInputError: the file can't be read, or a line is of another form; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInputError(problem=f"the file can't be read: {problem}", where=str(path)) from None
    wanted: list[WantedRecord] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        # A contract's key may hold spaces and hashes.
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        has_key = len(words) == 2 and not (kind is AnswerKind.ACCOUNT and words[1].startswith("#"))
        if has_key is (kind is AnswerKind.ACCOUNT):
            raise InvalidInputError(problem=f"a line is {_FORMS[kind]}", where=f"{path}, line {number}")
        try:
            wanted.append(wanted_of_kind(kind, words[0], words[1].strip() if has_key else None))
        except InvalidInputError as error:
            raise InvalidInputError(problem=error.problem, where=f"{path}, line {number}", remedy=error.remedy) from None
    return wanted


def unrepeated(wanted: list[WantedRecord]) -> tuple[WantedRecord, ...]:
    """Return each record once, in their order.

    Raises:
        InvalidInputError: none, or more than ``WANTED_MAX``.
    """
    once = tuple(dict.fromkeys(wanted))
    if not once:
        raise InvalidInputError(problem="nothing is asked for", remedy="Name accounts, access keys or contract keys.")
    if len(once) > WANTED_MAX:
        raise InvalidInputError(problem=f"{len(once):,} records are asked for, at most {WANTED_MAX:,} at once", remedy="Cut the list.")
    return once
