"""`headrace load-sql`: the statements that load one commit, for a person or a scheduler to send to a warehouse.

The script may be sent twice, and does nothing the second time; nor does it do anything behind a gap, or where
rows changed their key and the log does not have all their columns (`Warehouse.moved`). Its last statement
tells where the stream stands. It expects to be the only one that loads the stream at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tasks.commits import Commit
from tasks.loads.sql import Warehouse, drop
from tasks.loads.targets import How, Naming, Target, begins, targets_of
from tasks.loads.warehouses import BigQuery, DuckDB, Postgres, Redshift, Snowflake

Into = Literal["redshift", "snowflake", "bigquery", "duckdb", "postgres"]


def warehouse_of(into: Into, naming: Naming, access: str, manifest: str) -> Warehouse:
    """``access``: by what the warehouse reads the bucket, in its own terms; ``manifest``: the commit's URL."""
    match into:
        case "redshift":
            return Redshift(naming, access, manifest)
        case "snowflake":
            return Snowflake(naming, access)
        case "bigquery":
            return BigQuery(naming, access)
        case "duckdb":
            return DuckDB(naming)
        case "postgres":
            return Postgres(naming)


def script(commit: Commit, warehouse: Warehouse, how: How = "by mode") -> str:
    """All statements, each with its semicolon, and a comment above that says what is loaded."""
    targets = targets_of(commit, warehouse.naming, how)
    parts = [
        *_comments(commit, warehouse, targets),
        *(_ended(each) for each in _statements(commit, warehouse, targets)),
    ]
    return "\n".join(parts) + "\n"


def _ended(statement: str) -> str:
    # psql's own commands end with their line.
    return statement if statement.startswith("\\") else f"{statement};"


def _comments(commit: Commit, warehouse: Warehouse, targets: list[Target]) -> Iterator[str]:
    kind = commit.mode if commit.kind == "extract" else "moved by hand"
    yield f"-- {commit.stream}, commit {commit.sequence} ({kind}): {commit.rows:,} rows in {len(commit.entries)} file(s)"
    for target in targets:
        by = f" by {', '.join(target.keys)}" if target.keys else ""
        yield f"-- {target.action} {warehouse.qualified(target.name)}{by}: {target.rows:,} rows"
    if not begins(commit) and commit.sequence > 1:
        yield f"-- Does nothing unless commit {commit.sequence - 1} is loaded."


def _statements(commit: Commit, warehouse: Warehouse, targets: list[Target]) -> Iterator[str]:
    staged = [(f"headrace_stage_{number}", target) for number, target in enumerate(targets, 1)]
    moved = [query for stage, target in staged if (query := warehouse.moved(target, stage))]
    due = " AND ".join([warehouse.due(commit), *(f"NOT EXISTS ({query})" for query in moved)])
    if warehouse.transactional_ddl:
        yield warehouse.begin
    yield warehouse.books()
    for stage, target in staged:
        yield warehouse.create(target)
        yield from warehouse.add_columns(target, target.columns)
        yield warehouse.create_stage(target, stage)
        for shape in target.shapes:
            yield from warehouse.fill(shape, stage, commit)
        yield from warehouse.prepare(target, stage, commit)
    if not warehouse.transactional_ddl:
        yield warehouse.begin
    for stage, target in staged:
        yield from warehouse.apply(target, stage, commit, due)
    yield warehouse.book(commit, due)
    yield warehouse.commit
    for stage, target in staged:
        yield from drop(stage, target)
    yield warehouse.loaded(commit.stream)
