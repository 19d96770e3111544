# mypy: ignore-errors
"""pymongoarrow's find_arrow_all and Arrow's CSV writer into a local file. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from bson import Decimal128
from pymongo import MongoClient
from pymongoarrow.api import Schema, find_arrow_all
from pymongoarrow.types import BinaryType

SCHEMA = Schema(
    {
        "_id": int, "customer_id": int, "status": str, "email": str, "total": Decimal128, "weight": float, "note": str,
        "paid": bool, "updated_at": datetime, "attrs": {"channel": str, "ref": str}, "uid": BinaryType(4),
    }
)  # fmt: skip

collection = MongoClient(os.environ["MONGODB_URL"])[os.environ["MONGODB_DATABASE"]].orders
target = Path("orders.csv")
started, cpu = time.perf_counter(), time.process_time()
table = find_arrow_all(collection, {}, schema=SCHEMA).flatten()
columns = []
for column in table.columns:
    if isinstance(column.type, pa.BaseExtensionType):
        # Arrow's CSV has no bytes: they are made text as people do, by a loop.
        column = pa.array([None if value is None else str(value) for value in column.to_pylist()])
    columns.append(column)
pyarrow.csv.write_csv(pa.table(columns, table.column_names), target)
done = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
print(json.dumps(done | {"rows": table.num_rows, "bytes": target.stat().st_size}))
