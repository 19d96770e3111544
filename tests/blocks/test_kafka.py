"""The Kafka connection: its TLS by default, what the client is given, which fields fit each other, and what stays secret."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.kafka_connect import KafkaConnect

PASSWORD = "s3cret%pass"


def kafka(**fields: Any) -> Kafka:
    return Kafka(**({"bootstrap_servers": "b1.example:9093,b2.example:9093"} | fields))


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, "verify-full"),
        ({"bootstrap_servers": "localhost:9092"}, "disable"),
        ({"bootstrap_servers": "127.0.0.1:9092, [::1]:9092"}, "disable"),
        ({"bootstrap_servers": "localhost:9092,b2.example:9092"}, "verify-full"),
        ({"bootstrap_servers": "localhost:9092", "tls_ca_file": "ca.pem"}, "verify-full"),
        ({"tls": "require"}, "require"),
        ({"tls": ""}, "verify-full"),
    ],
)
def test_tls_by_default(fields: dict[str, Any], mode: str) -> None:
    """Anywhere but on this machine it is verified; what is chosen counts."""
    assert kafka(**fields).tls_mode == mode


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, {"security.protocol": "SSL", "enable.ssl.certificate.verification": "true",
              "ssl.endpoint.identification.algorithm": "https"}),
        ({"tls": "verify-ca"}, {"enable.ssl.certificate.verification": "true",
                                "ssl.endpoint.identification.algorithm": "none"}),
        ({"tls": "require"}, {"enable.ssl.certificate.verification": "false"}),
        ({"tls": "disable"}, {"security.protocol": "PLAINTEXT"}),
        ({"sasl": "SCRAM-SHA-512", "user": "u", "password": PASSWORD, "tls": "disable"},
         {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512", "sasl.password": PASSWORD}),
        ({"sasl": "OAUTHBEARER", "oauth_token_url": "https://id.example/token", "oauth_client_id": "c"},
         {"security.protocol": "SASL_SSL", "sasl.oauthbearer.method": "oidc"}),
        ({"sasl": "AWS_MSK_IAM", "aws_region": "eu-west-1"}, {"sasl.mechanism": "OAUTHBEARER"}),
        ({"tls_cert_file": "c.pem"}, {"ssl.certificate.location": "c.pem", "ssl.key.location": "c.pem"}),
        ({"client_options": {"client.rack": "a", "client.id": "me"}}, {"client.rack": "a", "client.id": "me"}),
    ],
)  # fmt: skip
def test_what_the_client_is_given(fields: dict[str, Any], told: dict[str, str]) -> None:
    """Each choice is an option of librdkafka's."""
    config = kafka(**fields).client_config()
    assert {name: config.get(name) for name in told} == told
    assert config["allow.auto.create.topics"] == "false"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sasl": "PLAIN"}, "sasl PLAIN needs user"),
        ({"user": "u"}, "user has no effect with sasl none"),
        ({"sasl": "OAUTHBEARER"}, "needs oauth_token_url"),
        ({"sasl": "AWS_MSK_IAM"}, "needs aws_region"),
        ({"sasl": "AWS_MSK_IAM", "aws_region": "r", "tls": "disable"}, "needs TLS"),
        ({"client_options": {"isolation.level": "read_uncommitted"}}, "isolation.level is set by headrace itself"),
        ({"registry_url": "https://key:secret@registry.example"}, "use registry_user and registry_password"),
        ({"client_options": {"enable.ssl.certificate.verification": "false"}}, "is set by headrace itself"),
        ({"tls": "disable", "tls_ca_file": "ca.pem"}, "tls_ca_file has no effect"),
        ({"bootstrap_servers": ""}, "at least 1 character"),
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, Any], told: str) -> None:
    """A field that would have no effect, or that is missing, is named."""
    with pytest.raises(ValidationError, match=told):
        kafka(**fields)


def test_an_aws_token_is_made_of_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of AWS_MSK_IAM is a signed URL, and its end a time in seconds."""
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": PASSWORD}.items():
        monkeypatch.setenv(name, value)
    token, expires = kafka(sasl="AWS_MSK_IAM", aws_region="eu-west-1").client_config()["oauth_cb"]("")
    assert len(token) > 100
    assert 1_600_000_000 < expires < 5_000_000_000


def test_secrets_stay_secret() -> None:
    """In no repr and no description."""
    block = kafka(sasl="PLAIN", user="u", password=PASSWORD, registry_user="r", registry_password=PASSWORD)
    assert PASSWORD not in f"{block!r} {block} {block.describe()}"
    connect = KafkaConnect(url="https://connect.example/", user="u", password=PASSWORD)
    assert PASSWORD not in f"{connect!r} {connect}"
    assert (connect.url, connect.auth()) == ("https://connect.example", ("u", PASSWORD))


def test_a_connect_url_is_one() -> None:
    """A URL of another kind, and a file that is none, are named."""
    with pytest.raises(ValidationError, match="begins with http"):
        KafkaConnect(url="connect.example:8083")
    with pytest.raises(ConfigurationError, match="tls_ca_file"):
        KafkaConnect(url="https://c.example", tls_ca_file="/no/such/file").verify()
