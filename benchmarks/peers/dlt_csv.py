# mypy: ignore-errors
"""dlt into CSV files of a local folder. Prints the seconds of the pipeline's run as JSON.

The environment names SOURCE_URL, and where it differs SOURCE_SCHEMA and DLT_BACKEND: `connectorx` or `sqlalchemy`.

A program of its own virtual environment, run by path; nothing of the project is imported.
"""

import json
import os
import time
from pathlib import Path

import dlt
from dlt.sources.sql_database import sql_table

backend = os.environ.get("DLT_BACKEND", "connectorx")
started = time.perf_counter()

table = sql_table(
    credentials=os.environ["SOURCE_URL"],
    table="orders",
    schema=os.environ.get("SOURCE_SCHEMA", "public"),
    backend=backend,
    chunk_size=100_000,
    reflection_level="full",
    backend_kwargs={"return_type": "arrow_stream"} if backend == "connectorx" else None,
)
pipeline = dlt.pipeline(
    pipeline_name="bench",
    pipelines_dir=str(Path("pipelines").resolve()),
    destination=dlt.destinations.filesystem(Path("out").resolve().as_uri()),
    dataset_name="bench",
)
pipeline.run(table, loader_file_format="csv", write_disposition="replace")
print(json.dumps({"seconds": time.perf_counter() - started}))
