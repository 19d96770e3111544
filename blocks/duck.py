"""A DuckDB database that commits are loaded into: a file on the machine that runs the flow."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field

from blocks.schema import SchemaOnce


class DuckDB(SchemaOnce, Block):
    """A file of DuckDB's. One process can write to it at a time: let its loads run one after the other."""

    _block_type_name = "DuckDB"
    _block_type_slug = "duckdb"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://duckdb.org/images/logo-dl/DuckDB_Logo-stacked.png"  # type: ignore[assignment]  # a plain string serves
    _description = "A DuckDB database to load commits into."
    _code_example = """```python
from blocks.duck import DuckDB

warehouse = DuckDB(path="/data/warehouse.duckdb")
warehouse.save("warehouse", overwrite=True)
```"""

    path: str = Field(
        title="Path",
        description="The file, on the machine that runs the flow; it is made where it is not there yet.",
        min_length=1,
    )

    def describe(self) -> str:
        """The database as people write it."""
        return f"duckdb://{self.path}"
