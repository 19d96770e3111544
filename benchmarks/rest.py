"""`make bench`: headrace beside other ways to bring an API into CSV, with the targets it has to meet.

    python -m benchmarks.rest [--rows 200000] [--rounds 3] [--only headrace --only dlt]

Writes `results/rest.md` and `results/rest.svg` after a full run; a run with fewer contenders or other rows prints its table
only, unless `--results` names a folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import contest, shop_api
from benchmarks.contest import IDLE, OURS, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import REPOSITORY, Contender, Result, Target, find, ratio

ROWS = 200_000
EIGHT, SIXTEEN = OURS, "headrace, 16 at once"
DLT, LOOP = "dlt rest_api", "requests, one by one"
_PAGES_A_SECOND = 8 / shop_api.LATENCY


def headrace(bench: Bench, url: str, loop: str) -> list[Contender]:
    ours = Headrace(bench, loop, ["--database", "rest"], {"REST_URL": url})
    note = "eight requests at once, one partition, to S3 by multipart, uncompressed; from plan to commit."
    return [
        ours.idle(),
        ours.contender(EIGHT, note),
        ours.contender(SIXTEEN, "the same with sixteen.", "--concurrency", "16"),
    ]


def peers(bench: Bench, url: str) -> list[Contender]:
    env = {"SOURCE_URL": url}
    return [
        Contender(
            DLT,
            "its `rest_api` source, page numbers with the total told, into local CSV files, compression off; no S3.",
            contest.script("dlt", "dlt_rest.py"),
            contest.csv_files(bench, "out/bench/orders/*.csv"),
            env | contest.DLT_ENVIRONMENT,
            most_rounds=1,
        ),
        Contender(
            LOOP,
            "a `requests.Session`, page after page, `csv.writer` to a local file; no S3.",
            contest.script("dlt", "requests_csv.py"),
            contest.by_its_words(bench),
            env,
            most_rounds=1,
        ),
    ]


def targets(results: list[Result]) -> list[Target]:
    ours = find(results, OURS)
    least = _rows(results) / shop_api.PAGE / _PAGES_A_SECOND
    return [
        Target("headrace over 8 ÷ 20 ms", 0.9, least / ours.seconds if ours else None),
        Target("headrace over requests, one by one", 5.0, ratio(find(results, LOOP), ours)),
        Target("headrace over dlt", 1.0, ratio(find(results, DLT), ours)),
        contest.memory(results, 100),
    ]


def _rows(results: list[Result]) -> int:
    ours = find(results, OURS)
    return (ours.samples[0].outcome.rows or 0) if ours else 0


@contextmanager
def line_up(base: Path, sink: str, options: Options) -> Iterator[LineUp]:
    """The API in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.shop_api", str(options.rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as api:
        try:
            assert api.stdout is not None
            url = f"http://127.0.0.1:{int(api.stdout.readline())}"
            size, header = shop_api.csv_bytes(options.rows), len(",".join(shop_api.COLUMNS)) + 1
            bench = Bench(sink, base / "prefect", options.rows, size + header, size, header)
            contenders = headrace(bench, url, options.loop) + peers(bench, url)
            server = ("API", f"asyncio, pages of {shop_api.PAGE}, {shop_api.LATENCY * 1000:.0f} ms each")
            yield LineUp(bench, contenders, (api.pid,), contest.versions(server, "httpx", ("dlt",)))
        finally:
            api.kill()


def main() -> None:
    contest.run(Contest("A REST API to CSV", "rest", __doc__ or "", [IDLE], line_up, targets, ROWS))


if __name__ == "__main__":
    main()
