"""The configuration file: what becomes of its blocks, what a person reads when it is wrong, and what nobody reads."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from prefect_aws import AwsCredentials

from blocks.conf_keys import Keys
from blocks.connect import find
from blocks.errors import ConfigurationError
from blocks.pipeline_conf import BLOCKS, Change, configure
from blocks.postgres import Postgres
from blocks.s3 import S3Destination

EXAMPLE = Path(__file__).parent.parent.parent / "pipeline.example.conf"
SHOP = "[postgres:NAME]\nhost = db.example\ndatabase = shop\nuser = reader\n"


class Conf:
    """A file of the test's own, private to its user, whose blocks are named apart from other tests'."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def run(self, text: str, mode: int = 0o600, environment: dict[str, str] | None = None, **options: Any) -> Change:
        """Configure from ``text``, in which NAME stands for the block's name; the first change."""
        return self.run_all(text, mode, environment, **options)[0]

    def run_all(
        self, text: str, mode: int = 0o600, environment: dict[str, str] | None = None, **options: Any
    ) -> list[Change]:
        self.path.write_text(text.replace("NAME", self.name), encoding="utf-8")
        self.path.chmod(mode)
        return configure(self.path, environment=environment or {}, **options)

    def fails(self, text: str, mode: int = 0o600, **options: Any) -> str:
        """The error of a configuration that must fail, and save nothing."""
        with pytest.raises(ConfigurationError) as caught:
            self.run_all(text, mode, **options)
        assert find(Postgres, self.name) is None
        return str(caught.value)

    def stored(self) -> Postgres:
        block = find(Postgres, self.name)
        assert block is not None
        return block

    def stored_destination(self) -> S3Destination:
        block = find(S3Destination, self.name)
        assert block is not None
        return block


@pytest.fixture
def conf(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    """A file to configure from, and a name no other test uses."""
    # Not tmp_path: that has the test's parameters in it, and made-up secrets with them.
    return Conf(tmp_path_factory.mktemp("conf") / "pipeline.conf", f"conf-{secrets.token_hex(4)}")


def test_blocks_are_created_updated_and_left(conf: Conf) -> None:
    """The first run creates, the same again changes nothing, a change is reported with the value before and after."""
    assert str(conf.run(SHOP)) == f"postgres/{conf.name}: created"
    assert str(conf.run(SHOP)) == f"postgres/{conf.name}: unchanged"
    changed = conf.run(SHOP + "port = 5433\ntls = require\n")
    assert str(changed) == f"postgres/{conf.name}: updated (port: 5432 → 5433, tls: nothing → require)"
    assert conf.stored().port == 5433


def test_left_out_keys_go_back_to_their_default(conf: Conf) -> None:
    """The file is the whole truth: a key that is taken out has its default again."""
    conf.run(SHOP + "port = 5433\n")
    assert conf.run(SHOP).fields == ("port: 5433 → 5432",)


def test_secrets_change_out_of_sight(conf: Conf) -> None:
    """That a secret changed is reported, its value never."""
    conf.run(SHOP + "password = before%(x)s#;\n")
    assert conf.stored().password.get_secret_value() == "before%(x)s#;"
    changed = conf.run(SHOP + "password = after\n")
    assert changed.fields == ("password: changed",)
    assert "after" not in repr(changed)
    assert conf.stored().password.get_secret_value() == "after"


def test_secret_left_out_stays_and_given_empty_goes(conf: Conf) -> None:
    """A secret typed into the Blocks page survives a file without it; an empty one in the file removes it."""
    conf.run(SHOP + "password = kept\n")
    assert conf.run(SHOP).action == "unchanged"
    assert conf.stored().password.get_secret_value() == "kept"
    assert conf.run(SHOP + "password =\n").fields == ("password: changed",)
    assert conf.stored().password.get_secret_value() == ""


def test_destination_with_nested_keys(conf: Conf) -> None:
    """Dotted keys reach nested fields, tags take any name, and nothing of the credentials is shown."""
    text = (
        "[s3-destination:NAME]\nbucket = lake\ncsv.null = \\N\ncsv.header = false\ntags.cost.center = 42\n"
        "tags.Team = data\ncredentials.aws_access_key_id = AKIAPLAIN\ncredentials.aws_secret_access_key = s3cret\n"
        "credentials.assume_role_arn = arn:aws:iam::1:role/r\ncredentials.assume_role_kwargs.ExternalId = tenant\n"
        'credentials.assume_role_kwargs.Tags = [{"Key": "a", "Value": "b"}]\ncompression_level =\n'
    )
    assert conf.run(text).action == "created"
    assert conf.run(text).action == "unchanged"
    stored = conf.stored_destination()
    assert (stored.csv.null, stored.csv.header) == ("\\N", False)
    assert stored.tags == {"cost.center": "42", "Team": "data"}
    assert stored.credentials.assume_role_kwargs.Tags == [{"Key": "a", "Value": "b"}]
    changed = conf.run(text.replace("AKIAPLAIN", "AKIAOTHER").replace("s3cret", "0ther").replace("data", "shop"))
    assert set(changed.fields) == {
        "credentials.aws_access_key_id: changed",
        "credentials.aws_secret_access_key: changed",
        "tags.Team: data → shop",
    }


def test_keys_are_taken_out_of_a_destination(conf: Conf) -> None:
    """Keys given empty are removed, so that a destination can go from keys to the credentials of its surroundings."""
    section = "[s3-destination:NAME]\nbucket = lake\n"
    keys = "credentials.aws_access_key_id = {0}\ncredentials.aws_secret_access_key = {0}\n"
    conf.run(section + keys.format("x"))
    conf.run(section + keys.format(""))
    credentials = conf.stored_destination().credentials
    assert (credentials.aws_access_key_id, credentials.aws_secret_access_key) == (None, None)


def test_credentials_by_name(conf: Conf) -> None:
    """A nested block may be one that is saved already, and stays a reference to it."""
    AwsCredentials(profile_name="loader").save(conf.name, overwrite=True, _sync=True)  # type: ignore[call-arg]
    text = "[s3-destination:NAME]\nbucket = lake\n"
    conf.run(text + "credentials.aws_access_key_id = a\ncredentials.aws_secret_access_key = b\n")
    by_name = text + "credentials = aws-credentials/NAME\n"
    assert f"credentials: nothing → aws-credentials/{conf.name}" in conf.run(by_name).fields
    assert conf.run(by_name).action == "unchanged"
    assert conf.stored_destination().credentials.profile_name == "loader"


async def test_works_for_coroutines(conf: Conf) -> None:
    """Called for a coroutine it does the same, not half of it as a coroutine nobody awaits."""
    assert (await asyncio.to_thread(conf.run, SHOP)).action == "created"


def test_environment_variables(conf: Conf) -> None:
    """Variables are filled in, empty and unset ones take their default, and a doubled dollar is a plain one."""
    text = SHOP.replace("db.example", "${HOST}.example") + "password = a${UNSET:-b}${EMPTY:-c}$${d}\n"
    conf.run(text, environment={"HOST": "db", "EMPTY": ""})
    assert conf.stored().host == "db.example"
    assert conf.stored().password.get_secret_value() == "abc${d}"


def test_missing_variable_is_named(conf: Conf) -> None:
    """A variable that is not set is an error that names file, section, key and variable."""
    error = conf.fails(SHOP + "password = ${SHOP_PASSWORD}\n")
    assert error == (
        f"{conf.path}: [postgres:{conf.name}] password: the environment variable SHOP_PASSWORD is not set; "
        "set it, or write ${SHOP_PASSWORD:-default}"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SHOP + "pasword = x\n", ["[postgres:", "pasword", "did you mean password?"]),
        (SHOP + "qqqq = x\n", ["qqqq", "keys: host, port"]),
        (SHOP + "port = s3cret\n", ["port: Input should be a valid integer"]),
        (SHOP + "tls = s3cret\n", ["tls: Input should be 'verify-full'"]),
        (SHOP + "tls_key_file = /key.pem\n", ["tls_key_file needs tls_cert_file"]),
        ("[postgres:NAME]\nhost = h\n", ["database: is missing", "user: is missing"]),
        ("[postgress:NAME]\n", ["'postgress', did you mean postgres?", "kinds: postgres, mysql, "]),
        ("[postgres]\nhost = h\n", ["[postgres]: write [postgres:name]"]),
        ("[postgres:A_B]\nhost = h\n", ["the name in a-z, 0-9 and -"]),
        (SHOP + SHOP, ["line 5: section [postgres:", "is there twice"]),
        (SHOP + "host = s3cret\n", ["line 5: [postgres:", "host is there twice"]),
        ("password = s3cret\n" + SHOP, ["line 1: a value before the first section"]),
        (SHOP + "password s3cret\n", ["line 5: neither [section] nor key = value"]),
        ("# nothing\n", ["has no sections"]),
        ("[s3-destination:x]\nbucket = b\ncsv.nul = x\n", ["csv.nul", "did you mean csv.null?"]),
        ("[s3-destination:x]\nbucket = b\ncsv.null = s3cret,\n", ["csv.null: the NULL marker"]),
        ("[s3-destination:x]\nbucket = b\ntags = {s3cret\n", ["tags: is not valid JSON"]),
        ("[s3-destination:x]\nbucket = b\ntags = {}\ntags.a = b\n", ["tags.a: tags is given as a whole too"]),
        ("[s3-destination:x]\nbucket = b\ncredentials = nobody\n", ["there is no block 'nobody'", "aws-credentials"]),
    ],
)
def test_mistakes_are_named(conf: Conf, text: str, parts: list[str]) -> None:
    """A mistake is an error that names the file, the place and the way out, and does not repeat what was written."""
    error = conf.fails(text)
    assert all(line.startswith(f"{conf.path}: ") or line.startswith(f"{conf.path} ") for line in error.splitlines())
    assert [part for part in parts if part not in error] == []
    assert "s3cret" not in error


def test_all_mistakes_are_told_at_once_and_nothing_is_saved(conf: Conf) -> None:
    """One run tells every mistake of every section, and a good section is not saved beside bad ones."""
    error = conf.fails(SHOP + "[postgres:other]\nhots = h\nprot = 1\n[oracle:x]\n")
    assert len(error.splitlines()) == 3
    error = conf.fails(SHOP + "[postgres:other]\nhost = h\nport = x\n[s3-destination:x]\n")
    assert len(error.splitlines()) == 4


def test_missing_file_tells_what_to_copy(tmp_path: Path) -> None:
    """Without a file the error says which sample to copy where."""
    with pytest.raises(ConfigurationError, match=r"copy pipeline\.example\.conf to .*absent\.conf"):
        configure(tmp_path / "absent.conf")


def test_unreadable_files(tmp_path: Path) -> None:
    """A folder, and a file that is not UTF-8, are errors that name the file and show nothing of it."""
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        configure(tmp_path)
    file = tmp_path / "latin.conf"
    file.write_bytes(b"[postgres:x]\npassword = s3cret\xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        configure(file)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
@pytest.mark.parametrize("secret", ["s3cret", "${UNSET:-s3cret}", "$${s3cret}"])
def test_readable_secrets_are_refused(conf: Conf, mode: int, secret: str) -> None:
    """A secret in a file that its group or anyone may read is refused, with the three ways out."""
    error = conf.fails(SHOP + f"password = {secret}\n", mode)
    assert "password" in error
    assert all(way in error for way in ("chmod 600", "${VARIABLE}", "--allow-readable"))
    assert "s3cret" not in error


@pytest.mark.parametrize("key", ["aws_secret_access_key", "aws_session_token"])
def test_readable_aws_secrets_are_refused(conf: Conf, key: str) -> None:
    """The session token is as secret as the key, though its block keeps it in plain text."""
    error = conf.fails(f"[s3-destination:NAME]\nbucket = b\ncredentials.{key} = s3cret\n", 0o644)
    assert f"credentials.{key}: a secret" in error


def test_readable_files_without_secrets_are_taken(conf: Conf) -> None:
    """Anyone may read a file whose secrets come from the environment, or where it is allowed."""
    text = SHOP + "password = ${P}\n"
    assert conf.run(text, 0o644, {"P": "s3cret"}).action == "created"
    assert conf.run(SHOP + "password = s3cret\n", 0o644, allow_readable=True).action == "unchanged"


def test_stored_block_that_is_no_longer_valid_is_replaced(conf: Conf) -> None:
    """Configuring mends a stored block that does not load any more."""
    conf.run(SHOP)
    broken = conf.stored()
    broken.port = 0
    broken.save(conf.name, overwrite=True, _sync=True)  # type: ignore[call-arg]
    conf.run(SHOP)
    assert conf.stored().port == 5432


def test_the_example_is_complete_and_true(conf: Conf) -> None:
    """The sample works as it is, names every key of every kind, and shows the defaults there are."""
    text = EXAMPLE.read_text()
    environment = {"SHOP_PASSWORD": "x", "SHOP_TOKEN": "x", "KAFKA_PASSWORD": "x"}
    assert [str(c) for c in conf.run_all(text.replace(":shop]", ":NAME]"), environment=environment)]
    for slug, kind in BLOCKS.items():
        section = text.partition(f"[{slug}:")[2].partition("\n[")[0]
        shown = dict(re.findall(r"^(?:# )?([\w.]+) =(.*)$", section, re.MULTILINE))
        for key in Keys(kind):
            if key.startswith(("credentials.aws_client", "credentials.assume_role_kwargs")) or key == "csv":
                continue
            assert any(name == key or name.startswith(f"{key}.") for name in shown), f"{slug}: {key}"
        for key, value in shown.items():
            field = kind.model_fields.get(key)
            if field and not field.is_required() and f"\n# {key} =" in section and "=" not in value:
                assert value.strip() == default_text(field.get_default(call_default_factory=True)), f"{slug}: {key}"


def default_text(default: Any) -> str:
    if default is None or isinstance(default, AwsCredentials):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)
