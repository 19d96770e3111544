"""TLS of a connection: its modes, the one in force by default, and the context that does what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from ssl import CERT_NONE, PROTOCOL_TLS_CLIENT, SSLContext, create_default_context
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from blocks.errors import ConfigurationError
from blocks.hosts import is_local

Tls = Literal["verify-full", "verify-ca", "require", "prefer", "disable"]

_BlankIsNone = BeforeValidator(lambda value: None if value == "" else value)

Choice = Annotated[
    Tls | None,
    _BlankIsNone,
    Field(
        title="TLS",
        description="verify-full: encrypted, certificate and host name checked; verify-ca: certificate checked; "
        "require: encrypted, unchecked; prefer: encrypted if the server can; disable: in clear. "
        "Empty: prefer on this machine when no TLS file is given, verify-full otherwise.",
    ),
]
CaFile = Annotated[
    str | None,
    _BlankIsNone,
    Field(
        title="CA file",
        description="PEM file of the authorities that may sign the server's certificate; empty: those the system "
        "trusts. The files have to lie on the machine that runs the flow.",
    ),
]
CertificateFile = Annotated[
    str | None,
    _BlankIsNone,
    Field(
        title="Client certificate",
        description="PEM file of the certificate to log in with.",
    ),
]
KeyFile = Annotated[
    str | None,
    _BlankIsNone,
    Field(
        title="Client key",
        description="PEM file of its private key, without a passphrase; empty: it is in the certificate's file.",
    ),
]


@dataclass(frozen=True)
class TlsSettings:
    """The TLS fields of a connection to ``host``."""

    host: str
    chosen: Tls | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    @property
    def mode(self) -> Tls:
        """The mode in force: the one chosen, or the default for this host."""
        if self.chosen:
            return self.chosen
        return "prefer" if is_local(self.host) and not (self.ca_file or self.cert_file) else "verify-full"

    def check(self) -> None:
        """Raise `ValueError` for a file that the mode would not use."""
        if self.ca_file and not self.mode.startswith("verify"):
            raise ValueError(f"tls_ca_file has no effect with tls {self.mode}; choose verify-full or verify-ca")
        if self.cert_file and self.mode in ("prefer", "disable"):
            raise ValueError(f"tls_cert_file has no effect with tls {self.mode}; choose verify-full")
        if self.key_file and not self.cert_file:
            raise ValueError("tls_key_file needs tls_cert_file")

    def context(self, connection: str) -> SSLContext:
        """A context as strict as the mode. Reads the files; `ConfigurationError` names the bad one of ``connection``."""
        if self.mode.startswith("verify"):
            context = self._verifying(connection)
        else:
            # Without the system's authorities, which take 20 ms to load: most of what a connection costs.
            context = SSLContext(PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = CERT_NONE
        if self.cert_file:
            self._load_certificate(context, connection, self.cert_file)
        return context

    def _verifying(self, connection: str) -> SSLContext:
        try:
            context = create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise _bad_file(connection, "tls_ca_file", self.ca_file, error) from None
        context.check_hostname = self.mode == "verify-full"
        return context

    def _load_certificate(self, context: SSLContext, connection: str, certificate: str) -> None:
        try:
            # A passphrase that is wrong keeps OpenSSL from asking for one on the terminal of a worker.
            context.load_cert_chain(certificate, self.key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise self._bad_certificate(connection, certificate, error) from None

    def _bad_certificate(self, connection: str, certificate: str, error: Exception) -> ConfigurationError:
        # OpenSSL does not say which of the two files it means, so a file that cannot be read is looked for first.
        files = {"tls_cert_file": certificate} | ({"tls_key_file": self.key_file} if self.key_file else {})
        for field, file in files.items():
            try:
                Path(file).read_bytes()
            except OSError as unreadable:
                return _bad_file(connection, field, file, unreadable)
        return _bad_file(connection, " or ".join(files), " or ".join(files.values()), error)


def _bad_file(connection: str, field: str, file: str | None, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{field} of {connection} cannot be used: {file}: {error}")
