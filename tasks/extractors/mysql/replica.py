"""Whether a server is a replica: then it does not see the transactions that are in flight where the writes are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence


async def is_replica(rows: Callable[[str], Awaitable[Sequence[Sequence[object]]]]) -> bool:
    """Whether the server applies another's changes, where the user may see that, or takes no writes of its own.

    ``rows`` runs a statement.
    """
    processes = await rows("SHOW PROCESSLIST")
    # Receivers and appliers, Galera's too, run under this name; MariaDB's storage engines keep daemons under it.
    applies = any(user == "system user" and command != "Daemon" for _, user, _, _, command, *_ in processes)
    ((read_only,),) = await rows("SELECT @@GLOBAL.read_only")
    return applies or str(read_only) not in ("0", "OFF")
