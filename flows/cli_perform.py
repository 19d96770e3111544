"""Runs a command's work so that Ctrl-C and SIGTERM cancel it: what it has begun is undone, and no traceback is shown.

The work has a thread of its own, for two reasons. Prefect answers SIGTERM with an exception thrown into the main thread,
at any line; here it is a cancel like any other. And SIGINT is blocked in that thread, so that the temporary server
Prefect starts from it inherits the mask: a Ctrl-C of the terminal reaches it too, and would end it before the run is.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

import typer

T = TypeVar("T")


def perform(prepare: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of the coroutine that ``prepare`` returns; exits with 128 + the signal that cancelled it.

    ``prepare`` runs outside an event loop: the place to read files and load blocks.
    """
    work = _Work(prepare)
    with work.listening():
        done = work.start()
        try:
            return done.result()
        except asyncio.CancelledError:
            if work.received is None:
                raise
            typer.echo("Cancelled.", err=True)
            raise typer.Exit(128 + work.received) from None


class _Work(Generic[T]):
    def __init__(self, prepare: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._prepare = prepare
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self.received: int | None = None

    def start(self) -> Future[T]:
        done: Future[T] = Future()
        context = contextvars.copy_context()
        # A daemon, so that a second Ctrl-C can end the process.
        threading.Thread(target=context.run, args=(self._fulfil, done), name="headrace", daemon=True).start()
        return done

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals, where this is the main thread (elsewhere they are not ours to take)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._cancel) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _cancel(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:  # asked twice, by a person
                os._exit(128 + number)
            return
        self.received = number
        os.write(2, b"\nCancelling: unfinished uploads are aborted (Ctrl-C again: stop at once) ...\n")
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _fulfil(self, done: Future[T]) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            coroutine = self._prepare()
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                done.set_result(runner.run(self._main(coroutine)))
        except BaseException as error:  # handed over to the thread that waits for it
            done.set_exception(error)

    async def _main(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.create_task(coroutine)
        if self.received is not None:
            self._task.cancel()
        return await self._task


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return None
    return uvloop.new_event_loop
