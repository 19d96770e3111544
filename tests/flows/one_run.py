"""One run of `extract`, or of `follow`, as a process of its own, to be killed, signalled or limited.

``python -m tests.flows.one_run PARAMETERS_AS_JSON [BYTES]``: with BYTES the process can have no more memory than that
(RLIMIT_DATA). ``"flow": "follow"`` among the parameters runs that flow. Prints what the flow said and the most memory
that was resident.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from typing import Any


async def _main(parameters: dict[str, Any]) -> None:
    from flows.extract import extract
    from flows.follow import follow
    from tasks.telling import peak_memory

    flow: Any = follow if parameters.pop("flow", "extract") == "follow" else extract
    outcome: dict[str, Any] = await flow(**parameters)
    sys.stdout.write(json.dumps({**outcome, "peak": peak_memory()}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]), int(sys.argv[2])))
    # Ignored by what a shell runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(_main(json.loads(sys.argv[1])))
