"""The warehouses: what each calls its types, how it reads CSV from S3, and where its SQL differs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from blocks.errors import ConfigurationError
from tasks.commits import Commit, Entry
from tasks.extractors.contract import Column
from tasks.loads.sql import Warehouse
from tasks.loads.targets import Naming, Shape, Target
from tasks.loads.types import Kind


class Postgres(Warehouse):
    """PostgreSQL, by psql on a machine that has the ``aws`` program: the server itself cannot read S3.

    https://www.postgresql.org/docs/current/sql-copy.html: in CSV an unquoted NULL marker is NULL, a quoted one is not.
    """

    text = "text"
    decimals = 1000
    types: ClassVar = {
        "boolean": "boolean", "integer": "bigint", "number": "numeric", "double": "double precision", "date": "date",
        "time": "time without time zone", "timestamp": "timestamp without time zone",
        "timestamptz": "timestamp with time zone", "interval": "interval", "bytes": "bytea", "json": "jsonb", "uuid": "uuid",
    }  # fmt: skip

    def decimal(self, kind: Kind) -> str:
        return f"numeric({kind.precision},{kind.scale})"

    def bytes_of(self, expression: str, binary: str) -> str:
        return f"decode({expression}, '{binary}')"

    def position(self, expression: str) -> str:
        return f'{expression} COLLATE "C"'

    def constraints(self, target: Target) -> list[str]:
        """The primary key makes an index, by which rows are found and replaced."""
        return [f"PRIMARY KEY ({', '.join(map(self.identifier, target.keys))})"] if target.keys else []

    def copy_options(self, commit: Commit) -> str:
        return f"FORMAT csv, HEADER {str(commit.csv.header).lower()}, NULL {self.literal(commit.csv.null)}"

    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        columns = ", ".join(self.identifier(column.name) for column in shape.columns)
        unpack = {"gzip": " | gzip -dc", "zstd": " | zstd -dc"}.get(commit.compression, "")
        # psql takes what is on one line, with single quotes doubled.
        return [
            f"\\copy {stage} ({columns}) FROM PROGRAM "
            f"{self.literal(f'aws s3 cp {_shell(entry.url)} -{unpack}')} WITH ({self.copy_options(commit)})"
            for entry in shape.entries
        ]


class DuckDB(Warehouse):
    """DuckDB, which reads S3 by its extension httpfs (``LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain)``).

    https://duckdb.org/docs/stable/data/csv/overview: ``allow_quoted_nulls`` would make NULL of an empty string.
    """

    text = "VARCHAR"
    types: ClassVar = {
        "boolean": "BOOLEAN", "integer": "BIGINT", "double": "DOUBLE", "date": "DATE", "time": "TIME",
        "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE", "bytes": "BLOB", "json": "JSON", "uuid": "UUID",
    }  # fmt: skip

    def decimal(self, kind: Kind) -> str:
        return f"DECIMAL({kind.precision},{kind.scale})"  # as DuckDB itself writes it

    def bytes_of(self, expression: str, binary: str) -> str:
        return f"{'unhex' if binary == 'hex' else 'from_base64'}({expression})"

    def add_columns(self, target: Target, columns: Iterable[Column]) -> list[str]:
        """One statement for each: https://duckdb.org/docs/stable/sql/statements/alter_table."""
        return [statement for column in columns for statement in super(DuckDB, self).add_columns(target, [column])]

    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        return [self.copy(shape.columns, [entry.url for entry in shape.entries], stage, commit)]

    def copy(self, columns: Sequence[Column], files: Sequence[str], stage: str, commit: Commit) -> str:
        """Copies files, here or on S3, into a stage."""
        names = ", ".join(self.identifier(column.name) for column in columns)
        types = ", ".join(f"{self.literal(column.name)}: 'VARCHAR'" for column in columns)
        options = (
            f"header = {str(commit.csv.header).lower()}, delim = ',', quote = '\"', escape = '\"', "
            f"nullstr = {self.literal(commit.csv.null)}, allow_quoted_nulls = false, auto_detect = false, "
            # A line may be longer than its 2 MB; one thread a file, so that quoted line ends never mislead it.
            f"max_line_size = 268435456, parallel = false, compression = {self.literal(commit.compression)}"
        )
        listed = ", ".join(map(self.literal, files))
        return f"INSERT INTO {stage} ({names})\nSELECT * FROM read_csv([{listed}], {options},\n  columns = {{{types}}})"


class Redshift(Warehouse):
    """Amazon Redshift. ``access``: the ARN of the role by which it reads the bucket (empty: its default role).

    COPY: https://docs.aws.amazon.com/redshift/latest/dg/r_COPY.html; a commit is a manifest it takes as it is:
    https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html. NULL AS:
    https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html#copy-null-as. Texts of more than
    65,535 bytes do not fit: https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html.
    """

    text = "VARCHAR(65535)"
    types: ClassVar = {
        "boolean": "BOOLEAN", "integer": "BIGINT", "double": "DOUBLE PRECISION", "date": "DATE", "time": "TIME",
        "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "bytes": "VARBYTE", "json": "SUPER",
    }  # fmt: skip

    def __init__(self, naming: Naming = Naming(), access: str = "", manifest: str = "") -> None:  # noqa: B008
        super().__init__(naming)
        self._role = self.literal(access) if access else "default"
        self._manifest = manifest

    def bytes_of(self, expression: str, binary: str) -> str:
        """https://docs.aws.amazon.com/redshift/latest/dg/r_TO_VARBYTE.html."""
        return f"TO_VARBYTE({expression}, '{binary}')"

    def json_of(self, expression: str) -> str:
        """https://docs.aws.amazon.com/redshift/latest/dg/JSON_PARSE.html."""
        return f"JSON_PARSE({expression})"

    def alias(self, name: str) -> str:
        return name

    def add_columns(self, target: Target, columns: Iterable[Column]) -> list[str]:
        """Nothing: ADD COLUMN has no IF NOT EXISTS here, and an error would end the script."""
        del target, columns
        return []

    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        columns = ", ".join(self.identifier(column.name) for column in shape.columns)
        compression = {"gzip": "GZIP ", "zstd": "ZSTD "}.get(commit.compression, "")
        header = "IGNOREHEADER 1 " if commit.csv.header else ""
        options = f"IAM_ROLE {self._role}\n  FORMAT CSV {compression}{header}NULL AS {self.literal(commit.csv.null)}"
        if self._manifest and len(shape.entries) == len(commit.entries):
            return [f"COPY {stage} ({columns})\n  FROM {self.literal(self._manifest)} MANIFEST\n  {options}"]
        return [f"COPY {stage} ({columns})\n  FROM {self.literal(entry.url)}\n  {options}" for entry in shape.entries]


class Snowflake(Warehouse):
    """Snowflake. ``access``: the storage integration by which it reads the bucket.

    COPY INTO: https://docs.snowflake.com/en/sql-reference/sql/copy-into-table; with EMPTY_FIELD_AS_NULL an empty field is
    NULL and a quoted empty one is not. DDL ends a transaction: https://docs.snowflake.com/en/sql-reference/transactions.
    """

    text = "VARCHAR"
    transactional_ddl = False
    types: ClassVar = {
        "boolean": "BOOLEAN", "integer": "NUMBER(38, 0)", "double": "DOUBLE", "date": "DATE", "time": "TIME",
        "timestamp": "TIMESTAMP_NTZ", "timestamptz": "TIMESTAMP_TZ", "bytes": "BINARY", "json": "VARIANT",
    }  # fmt: skip

    _FILES: ClassVar = 1000
    """The most that FILES takes."""

    def __init__(self, naming: Naming = Naming(), access: str = "") -> None:  # noqa: B008
        super().__init__(naming)
        self._access = self.identifier(access or "storage_integration")

    def identifier(self, name: str) -> str:
        """Names that need no quotes are as they would be without: in upper case."""
        return super().identifier(name.upper() if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name) else name)

    def literal(self, value: str) -> str:
        """A backslash escapes: https://docs.snowflake.com/en/sql-reference/data-types-text#escape-sequences."""
        return super().literal(value.replace("\\", "\\\\"))

    def alias(self, name: str) -> str:
        return name

    def bytes_of(self, expression: str, binary: str) -> str:
        return f"TO_BINARY({expression}, '{binary.upper()}')"

    def json_of(self, expression: str) -> str:
        return f"PARSE_JSON({expression})"

    def holds(self, expression: str, needle: str) -> str:
        return f"CONTAINS({expression}, {self.literal(needle)})"

    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        columns = ", ".join(self.identifier(column.name) for column in shape.columns)
        compression = {"gzip": "GZIP", "zstd": "ZSTD"}.get(commit.compression, "NONE")
        folder = _folder(shape.entries)
        marker = f"NULL_IF = ({self.literal(commit.csv.null)})" if commit.csv.null else "NULL_IF = ()"
        options = (
            f"STORAGE_INTEGRATION = {self._access}\n  FILE_FORMAT = (TYPE = CSV COMPRESSION = {compression} "
            f"SKIP_HEADER = {int(commit.csv.header)} FIELD_OPTIONALLY_ENCLOSED_BY = '\"' ESCAPE_UNENCLOSED_FIELD = NONE "
            f"{marker} EMPTY_FIELD_AS_NULL = {str(not commit.csv.null).upper()})"
        )
        files = [self.literal(entry.url.removeprefix(folder)) for entry in shape.entries]
        return [
            f"COPY INTO {stage} ({columns})\n  FROM {self.literal(folder)}\n  {options}\n"
            f"  FILES = ({', '.join(files[at : at + self._FILES])})"
            for at in range(0, len(files), self._FILES)
        ]


class BigQuery(Warehouse):
    """BigQuery. ``access``: the connection by which it reads S3, such as ``aws-us-east-1.lake``; schema: the dataset.

    LOAD DATA: https://cloud.google.com/bigquery/docs/reference/standard-sql/load-statements, from S3 by a connection:
    https://cloud.google.com/bigquery/docs/load-data-using-cross-cloud-transfer. CSV (gzip or plain; an empty field is NULL,
    a quoted empty one is not): https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-csv. Transactions:
    https://cloud.google.com/bigquery/docs/transactions. All of a script has to run in one session or as one query.
    """

    quote = "`"
    text = "STRING"
    transactional_ddl = False
    begin = "BEGIN TRANSACTION"
    commit = "COMMIT TRANSACTION"
    types: ClassVar = {
        "boolean": "BOOL", "integer": "INT64", "double": "FLOAT64", "date": "DATE", "time": "TIME",
        "timestamp": "DATETIME", "timestamptz": "TIMESTAMP", "bytes": "BYTES", "json": "JSON",
    }  # fmt: skip

    def __init__(self, naming: Naming = Naming(), access: str = "") -> None:  # noqa: B008
        super().__init__(naming)
        self._access = access or "aws-region.connection"

    def identifier(self, name: str) -> str:
        return f"`{name}`"

    def literal(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def decimal(self, kind: Kind) -> str:
        """https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types."""
        fits = kind.scale <= 9 and kind.precision - kind.scale <= 29
        return f"{'NUMERIC' if fits else 'BIGNUMERIC'}({kind.precision}, {kind.scale})"

    def bytes_of(self, expression: str, binary: str) -> str:
        return f"FROM_{binary.upper()}({expression})"

    def json_of(self, expression: str) -> str:
        return f"PARSE_JSON({expression}, wide_number_mode => 'round')"

    def alias(self, name: str) -> str:
        return name

    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        if commit.compression == "zstd":
            raise ConfigurationError(
                "BigQuery reads no CSV in zstd; set compression of the destination to gzip or none"
            )
        columns = ", ".join(self.identifier(column.name) for column in shape.columns)
        typed = ", ".join(f"{self.identifier(column.name)} STRING" for column in shape.columns)
        uris = ", ".join(self.literal(entry.url) for entry in shape.entries)
        # A table of its own for each shape: LOAD DATA gives the columns of its list to the table.
        part = f"{stage}_{shape.entries[0].crc32}"
        return [
            f"LOAD DATA INTO TEMP TABLE {part} ({typed})\n  FROM FILES (format = 'CSV', "
            f"skip_leading_rows = {int(commit.csv.header)}, null_marker = {self.literal(commit.csv.null)}, "
            f"allow_quoted_newlines = true,\n  uris = [{uris}])\n  WITH CONNECTION {self.identifier(self._access)}",
            f"INSERT INTO {stage} ({columns})\nSELECT {columns} FROM {part}",
        ]


def _folder(entries: Sequence[Entry]) -> str:
    """The folder that all objects are in, with its slash."""
    folder = entries[0].url.rpartition("/")[0] + "/"
    while not all(entry.url.startswith(folder) for entry in entries):
        folder = folder.rstrip("/").rpartition("/")[0] + "/"
    return folder


def _shell(text: str) -> str:
    """A word of a shell command, for what stands between single quotes in SQL."""
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'
