"""One run of `extract` as a process of its own, to be killed: ``python -m tests.flows.one_run PARAMETERS_AS_JSON``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from flows.extract import extract


async def _main(parameters: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(await extract(**parameters)))


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
