"""Keeps a connection's TCP honest: a server that vanished without a word would leave a reader waiting for ever."""

from __future__ import annotations

import asyncio
import socket


def keep_alive(transport: asyncio.BaseTransport | None) -> None:
    """Have the kernel ask a silent peer after 30 s and give it up after 60 s. Does nothing to a Unix socket."""
    raw = transport.get_extra_info("socket") if transport is not None else None
    if raw is None or raw.family == getattr(socket, "AF_UNIX", None):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
