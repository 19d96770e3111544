"""What both proxies are built on: a listener in a thread of its own, so that it serves tests that block as well."""

import asyncio
import queue
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from tests.servers.support import free_port

T = TypeVar("T")

CHUNK = 1 << 16
_LIMIT = 1 << 20  # the longest request head, and what is buffered of a connection


class Proxy:
    """Listens on `port` between `__enter__` and `__exit__`; subclasses say what happens to a connection.

    What goes wrong in the proxy itself, or in a callback it was given, is raised by `__exit__`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._listener: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.port = free_port()

    def __enter__(self) -> Self:
        self._thread.start()
        if error := self._ready.get(timeout=10):
            raise error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=30)
        if self._errors and error is None:
            raise ExceptionGroup("the proxy or a callback of a rule failed", self._errors)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; both ends of it are closed on return."""
        raise NotImplementedError

    def connect(self) -> Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to the real server."""
        return asyncio.open_connection(*self._upstream, limit=_LIMIT)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the proxy's thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_LIMIT)

    async def refuse(self) -> None:
        """Close the port; connections that are open stay open."""
        if self._listener:
            self._listener.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self.listen()
        except OSError as error:
            self._ready.put(error)
            return
        self._ready.put(None)
        await self._stop.wait()
        await self.refuse()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._guarded(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _guarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A peer that goes away is the normal end of a connection here; any other error is kept for `__exit__`."""
        try:
            await self.handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            await closed(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a peer does that died or a firewall that lost its state; what is buffered is lost."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        # no time to linger; see SO_LINGER in socket(7)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close, sending what is buffered, and wait until that is done; a peer that does not read is not waited for."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), timeout=5)
    except TimeoutError:
        reset(writer)
    except OSError:
        pass  # it was closed from the other side


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on whatever comes, until the end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel what still runs; errors that are not a peer's going away are raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, (OSError, asyncio.IncompleteReadError)):
            raise result
