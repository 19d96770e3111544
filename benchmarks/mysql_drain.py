"""The floor of reading MySQL: sends one SELECT, and drops the bytes of its answer as they come. Prints JSON.

    python -m benchmarks.mysql_drain "SELECT * FROM orders"

The server is named by MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_USER, MYSQL_PWD and MYSQL_DATABASE. No packet is looked at but
the last one, which says whether the answer is whole.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

import pymysql
from pymysql.constants import COMMAND

QUIT = b"\x01\x00\x00\x00" + bytes([COMMAND.COM_QUIT])
END_BYTES = 9
"""Of the packet that ends a result: length, number, 0xFE, warnings, status."""


def drained(connection: socket.socket) -> tuple[int, bytes]:
    """How many bytes came until the server hung up, and the last of them."""
    total, tail, scratch = 0, b"", memoryview(bytearray(1 << 20))
    while got := connection.recv_into(scratch):
        total += got
        tail = (tail + bytes(scratch[max(0, got - END_BYTES) : got]))[-END_BYTES:]
    return total, tail


def is_end(tail: bytes) -> bool:
    return len(tail) == END_BYTES and tail[:3] == b"\x05\x00\x00" and tail[4] == 0xFE


def main() -> None:
    connection = pymysql.connect(
        host=os.environ["MYSQL_HOST"],
        port=int(os.environ["MYSQL_TCP_PORT"]),
        user=os.environ["MYSQL_USER"],
        password=os.environ["MYSQL_PWD"],
        database=os.environ["MYSQL_DATABASE"],
        charset="utf8mb4",
    )
    started = time.perf_counter()
    connection._execute_command(COMMAND.COM_QUERY, sys.argv[1])
    # The server takes the next command when it has sent the whole answer, so this closes the connection behind it.
    connection._sock.sendall(QUIT)
    total, tail = drained(connection._sock)
    seconds = time.perf_counter() - started
    if not is_end(tail):
        sys.exit("the answer was cut off, or is an error")
    print(json.dumps({"seconds": seconds, "bytes": total}))


if __name__ == "__main__":
    main()
