"""An endpoint that gives tokens for OAUTHBEARER (OAuth 2.0, client credentials), which the broker of the tests believes.

The broker's validator is Kafka's own for tests: it looks at a token's times and subject, and wants no signature.
"""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLIENT, SECRET = "headrace-reader", "secret; of a 'client'"


def token(subject: str, seconds: int = 3600) -> str:
    """An unsecured JSON Web Signature (RFC 7515, appendix A.5)."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {expected}":
            self._answer(401, {"error": "invalid_client"})
            return
        self._answer(200, {"access_token": token(CLIENT), "token_type": "Bearer", "expires_in": 3600})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: what is asked for is in the tests."""


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The URL of the endpoint, which ends with the test."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
