"""How a change stream is laid out in objects: by table, as one log, or as AWS DMS lays out its files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layout = Literal["tables", "log", "dms"]


class DmsFiles(BaseModel):
    """What a task of AWS DMS says of its files; the defaults are those of DMS.

    https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.S3.html#CHAP_Target.S3.Configuring. What DMS calls
    csvNullValue is the NULL marker of the CSV here, and compressionType the destination's compression.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", title="DMS files")

    add_column_name: bool = Field(
        default=False,
        title="addColumnName",
        description="Whether every file begins with a line of column names.",
    )
    timestamp_column_name: str = Field(
        default="",
        title="timestampColumnName",
        description="Name of a column with the time of the commit (of the read, in files of the full load), such as "
        "2026-01-31 12:00:00.000000 in UTC; empty: there is none.",
    )
    include_op_for_full_load: bool = Field(
        default=False,
        title="includeOpForFullLoad",
        description="Whether rows of the full load begin with I, as those of the changes begin with I, U or D.",
    )
    csv_no_sup_value: str = Field(
        default="",
        title="csvNoSupValue",
        description="What stands in an update for a column that the log does not have. Empty: such an update is an error, "
        "as its NULL would be taken for one.",
        pattern=r'^[^",\r\n]*$',
    )
