"""What Prefect's pages and automations are told of a run beside its commit: its name, its failure, its memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.runtime import flow_run as this_run

from tasks.run import Run, Work


def peak_memory() -> int:
    """The most bytes of this process that were resident at once; 0 where the system does not tell (Windows)."""
    if sys.platform == "win32":
        return 0
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    import resource

    # Linux counts in it what the process held that this one was started by.
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def name_run(run: Run, work: Work) -> None:
    """Add the number of the commit to a name that the flow gave its run; one that a person gave stays."""
    given = f"{run.stream} · {work.plan.mode}"
    if this_run.get_name() == given:
        async with get_client() as client:
            await client.update_flow_run(UUID(str(this_run.get_id())), name=f"{given} · {work.sequence}")


async def failed(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook for runs that failed or crashed: the event ``headrace.stream.failed``.

    Payload: stream, mode, state (Failed, Crashed), reason (its message), flow_run and the flow's name. Parameters that
    are no valid ones name no stream, and are told nobody but the run's own page.
    """
    stream = flow_run.parameters.get("stream")
    if not isinstance(stream, str):
        return
    emit_event(
        event="headrace.stream.failed",
        resource={"prefect.resource.id": f"headrace.stream.{stream}", "prefect.resource.name": stream},
        payload={
            "stream": stream, "mode": flow_run.parameters.get("mode"), "state": state.name, "reason": state.message,
            "flow_run": str(flow_run.id), "flow": flow.name,
        },
    )  # fmt: skip
