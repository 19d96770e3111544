"""What a loader asks of an open destination, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from tasks.commits import Commit
from tasks.extractors.contract import Column
from tasks.loads.sql import Warehouse


class Session(Protocol):
    """One connection. What is executed between entry and exit of `transaction` counts as a whole, or not at all."""

    @property
    def warehouse(self) -> Warehouse: ...

    def transaction(self) -> AbstractAsyncContextManager[Any]: ...

    async def execute(self, statement: str) -> None: ...

    async def value(self, query: str) -> Any:
        """The first value of the first row; None where there is none."""
        ...

    async def lock(self, name: str) -> None:
        """Keep other loaders out of what is called so until the transaction ends."""
        ...

    async def types_of(self, table: str) -> dict[str, str]:
        """The columns of a table (a quoted name) and their types; none where it is not there."""
        ...

    async def fill(self, columns: Sequence[Column], file: Path, stage: str, commit: Commit) -> None:
        """Copy an object, which holds these columns, into a stage."""
        ...
