# mypy: ignore-errors
"""dlt's rest_api source into CSV files of a local folder. Prints the seconds of the pipeline's run as JSON.

The environment names SOURCE_URL. A program of its own virtual environment, run by path; nothing of the project is imported.
"""

import json
import os
import time
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source

started = time.perf_counter()
paginator = {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": "pages"}
orders = {"name": "orders", "endpoint": {"path": "orders", "params": {"per_page": 100}, "data_selector": "data"}}
source = rest_api_source(
    {"client": {"base_url": os.environ["SOURCE_URL"], "paginator": paginator}, "resources": [orders]}
)
pipeline = dlt.pipeline(
    pipeline_name="bench",
    pipelines_dir=str(Path("pipelines").resolve()),
    destination=dlt.destinations.filesystem(Path("out").resolve().as_uri()),
    dataset_name="bench",
)
pipeline.run(source, loader_file_format="csv", write_disposition="replace")
print(json.dumps({"seconds": time.perf_counter() - started}))
