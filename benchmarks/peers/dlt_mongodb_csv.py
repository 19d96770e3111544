# mypy: ignore-errors
"""dlt into CSV files of a local folder, from pages of documents. Prints the seconds of the pipeline's run as JSON.

A program of its own virtual environment, run by path; nothing of the project is imported.
"""

import json
import os
import time
from pathlib import Path

import dlt
from bson import Decimal128, ObjectId
from pymongo import MongoClient

PAGE = 10_000


def plain(value):
    """As the source that dlt has for MongoDB turns values into what dlt knows."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, Decimal128):
        return value.to_decimal()
    return str(value) if isinstance(value, ObjectId) else value


@dlt.resource(name="orders", write_disposition="replace")
def orders():
    client = MongoClient(os.environ["MONGODB_URL"], uuidRepresentation="standard", tz_aware=True)
    page = []
    for document in client[os.environ["MONGODB_DATABASE"]].orders.find({}, batch_size=PAGE):
        page.append(plain(document))
        if len(page) == PAGE:
            yield page
            page = []
    yield page


started = time.perf_counter()
pipeline = dlt.pipeline(
    pipeline_name="bench",
    pipelines_dir=str(Path("pipelines").resolve()),
    destination=dlt.destinations.filesystem(Path("out").resolve().as_uri()),
    dataset_name="bench",
)
pipeline.run(orders(), loader_file_format="csv")
print(json.dumps({"seconds": time.perf_counter() - started}))
