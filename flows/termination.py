"""SIGTERM, as a worker sends it to cancel a run, ends a flow at its next await, whatever line the signal hits.

Prefect's handler throws `TerminationSignal` into the main thread, at any line. While rows stream in, that line is most
often in a callback of the event loop, which reports the exception and goes on: the run would not end, or wait for ever
for a connection that the exception has broken. So the signal is taken by a second way as well, and becomes a cancel.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from prefect.exceptions import TerminationSignal


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Cancel the current task on SIGTERM, and raise `TerminationSignal` from here, which Prefect's engine acts on.

    Prefect's own handler stays in place: by it the engine knows that a worker's cancel will be heard. Does nothing
    outside the main thread, which alone has signals, on Windows, which has no SIGTERM, and inside a flow that listens already.
    """
    task = asyncio.current_task()
    if task is None or sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    receiving, sending = socket.socketpair()
    with closing(receiving), closing(sending):
        receiving.setblocking(False)
        sending.setblocking(False)
        before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            yield
            return
        with _listening(receiving, task):
            yield


@contextmanager
def _listening(receiving: socket.socket, task: asyncio.Task[object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    received = False

    def listen() -> None:
        nonlocal received
        # The interpreter writes the number of each signal, as one byte.
        if not received and signal.SIGTERM in receiving.recv(4096):
            received = True
            task.cancel()

    loop.add_reader(receiving, listen)
    try:
        yield
    except asyncio.CancelledError:
        if received:
            raise TerminationSignal(signal.SIGTERM) from None
        raise
    finally:
        loop.remove_reader(receiving)
        signal.set_wakeup_fd(-1)
