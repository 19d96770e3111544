"""Which hosts are this machine: there plain text on the wire is no risk, anywhere else it is."""

from __future__ import annotations

from ipaddress import ip_address


def is_local(host: str) -> bool:
    """Whether ``host`` is a loopback address, ``localhost`` or the path of a Unix socket. Looks up no name."""
    if host.startswith("/") or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
