"""``python -m flows.child``: extracts partitions for a run, one after the other, until that closes the socket.

Started by `flows.processes`. It speaks to no Prefect server: states, retries, progress and the commit are the run's.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import Any

from blocks.watermark import Watermark
from flows.frames import Advanced, Broken, Job, Setup, receive, send
from tasks.failures import explained_by
from tasks.objects import made
from tasks.run import Run, Work

_TELL_SECONDS = 0.2


async def serve(connection: socket.socket) -> None:
    """Do the jobs that come over the connection."""
    reader, writer = await asyncio.open_connection(sock=connection)
    setup: Setup = await receive(reader)
    job: Job = await receive(reader)
    try:
        async with setup.to.client() as client, setup.source.open(setup.options) as extractor:
            await _work(Run(setup.stream, extractor, setup.options, setup.to, client), job, reader, writer)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # what was not opened is the run's to judge, as what was not read
        await send(writer, Broken.of(error))


async def _work(run: Run, job: Job, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        # While a job is done, only the end of the connection can come: then nobody waits for the record.
        following = asyncio.ensure_future(receive(reader))
        working = asyncio.ensure_future(_done(run, job, writer))
        await asyncio.wait((following, working), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
        else:
            await send(writer, working.result())
        job = await following


async def _done(run: Run, job: Job, writer: asyncio.StreamWriter) -> Any:
    work = Work(job.plan, Watermark(stream=run.stream, sequence=job.sequence - 1), resumed=False, spread=True)
    waiting, told = 0, time.monotonic()

    async def tell(size: int) -> None:
        nonlocal waiting, told
        waiting += size
        if time.monotonic() - told >= _TELL_SECONDS:
            await send(writer, Advanced(waiting))
            waiting, told = 0, time.monotonic()

    try:
        with explained_by(run.destination, run.stream):
            record = await made(run, work, job.plan.partitions[-1], tell)
    except Exception as error:  # every one is the run's to judge
        return Broken.of(error)
    await send(writer, Advanced(waiting))
    return record


def main() -> None:
    """Serve the socket whose number is the argument."""
    try:
        asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
    except (EOFError, ConnectionError):  # the run is over, or gone
        return


if __name__ == "__main__":
    main()
