"""``--dataset``: where the exported records go, or ``none`` for a run that exports none."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.look import RunPlace, disk_holds_dataset, run_size
from pipelines.stores.open_store import open_store
from pipelines.stores.read_only import check_destination
from schemas.errors import InvalidInputError

NO_DATASET: Final = "none"
"""Each part is read from the source, and no dataset is written."""

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="URL|none",
        help="Where the exported records go and stay; all workers must share it. Default: in the work folder, and removed in the end. "
        "none: write no dataset; each part is read from the node, which is read twice, and its snapshot is needed until the last part is out. "
        "So it is done by itself where the work folder's disk would not hold the dataset.",
    ),
]


def dataset_url(dataset: str | None) -> str | None:
    """Return where the option says that the dataset goes; None for the work folder, or nowhere.

    Raises:
        InvalidInputError: it is no store's URL, or of one that is only read.
    """
    if dataset is None or dataset == NO_DATASET:
        return None
    check_destination(dataset, "--dataset")
    open_store(dataset)
    return dataset


def refuse_tables_without_dataset(dataset: str | None, tables: str | None) -> None:
    """Refuse options that exclude each other: tables are made of a dataset.

    Raises:
        InvalidInputError: both are given.
    """
    if dataset == NO_DATASET and tables is not None:
        raise InvalidInputError(
            problem="tables are made of a dataset",
            where=f"--tables, --dataset {NO_DATASET}",
            remedy="Leave --dataset out; or publish without --tables, and make them later of the "
            "published epoch: statecast fetch, restore --to dataset://…, tables.",
        )


def writes_dataset(dataset: str | None, place: RunPlace, found: EpochInput, tables: str | None = None) -> bool:
    """Decide whether a run writes a dataset: not where the option says none, or where the work folder's disk would not hold it.

    Args:
        place: of the run; whether it writes a dataset is not looked at.
        tables: where tables go; they are made of a dataset in any case.
    """
    if tables is not None:
        return True
    return dataset != NO_DATASET and disk_holds_dataset(place, found, run_size(found, place.encoding))
