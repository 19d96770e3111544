"""librdkafka's errors in words that say what to mend, and what of them may pass by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from blocks.errors import ConfigurationError, SnapshotLost
from blocks.kafka import Kafka

T = TypeVar("T")

_MEND = {
    KafkaError._AUTHENTICATION: "the log-in is refused; check sasl, and user and password or the fields oauth_…",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the log-in is refused; check sasl, and user and password or the fields oauth_…",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "the brokers do not know this way to log in; check sasl",
    KafkaError._SSL: "TLS cannot be agreed on; check tls and tls_ca_file",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the user may not read the topic; grant READ and DESCRIBE on it",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the user may not ask the cluster; grant DESCRIBE on it",
    KafkaError._INVALID_ARG: "the client takes no such option; check client_options and the tls files",
}
_GONE = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._NOENT,
)
PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    # Groups are not used here, so the right to one is not needed; the client asks for its group all the same.
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)
"""What the client itself goes on trying for."""


class UnreachableError(ConnectionError):
    """The brokers did not answer in time; may pass by itself."""


class Told:
    """The errors that a client was told of while it worked: why a question was not answered."""

    def __init__(self) -> None:
        self._errors: dict[int, KafkaError] = {}

    def __call__(self, error: KafkaError) -> None:
        """librdkafka's ``error_cb``."""
        self._errors[error.code()] = error

    def cause(self) -> KafkaError | None:
        """The one that a person can mend, if there is one."""
        ranks = {
            code: 0 if code in _MEND else 2 if code == KafkaError._ALL_BROKERS_DOWN else 1 for code in self._errors
        }
        return self._errors[min(ranks, key=lambda code: ranks[code])] if ranks else None


def explained(error: KafkaError, block: Kafka, told: Told) -> Exception:
    """What to raise for an error of a client of ``block``."""
    if error.code() in _GONE:
        return SnapshotLost(f"what was to be read is not there any more: {error.str()}")
    cause = error if error.code() in _MEND else told.cause() or error
    if (mend := _MEND.get(cause.code())) is not None:
        return ConfigurationError(f"{block.describe()}: {mend} ({cause.str()})")
    if error.code() in PASSING or error.retriable():
        return UnreachableError(
            f"{block.describe()} does not answer within {block.timeout:g} s ({cause.str()}); check bootstrap_servers, "
            "tls and sasl, and whether the brokers run"
        )
    return KafkaException(error)


def asking(block: Kafka, told: Told, question: Callable[[], T]) -> T:
    """What ``question`` gives; its error explained."""
    try:
        return question()
    except KafkaException as error:
        raise explained(error.args[0], block, told) from error
