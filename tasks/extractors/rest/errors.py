"""What goes wrong between here and an API; messages hold no secrets."""

from __future__ import annotations

import httpx

_SECRET_PARAMS = ("key", "token", "secret", "sig", "password", "auth", "credential")


class ApiError(Exception):
    """The API did not answer as it should: it may do so another time."""

    def __init__(self, message: str, *, wait: float | None = None, is_sent: bool = True) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds after which the server wants to be asked again."""
        self.is_sent = is_sent
        """Whether the server may have acted upon the request."""


class BadResponse(ApiError):
    """A response that was received and makes no sense: cut off, of another format, an error page."""


class PagesMoved(ApiError):
    """Records were added or removed between two pages: some may have been passed over. Reading again helps."""


def shown(url: httpx.URL) -> str:
    """A URL for people: parameters that look like secrets are masked."""
    query = [
        (name, "***" if any(word in name.lower() for word in _SECRET_PARAMS) else value)
        for name, value in url.params.multi_items()
    ]
    plain = url.copy_with(query=None, fragment=None, userinfo=b"")
    return str(plain) + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
