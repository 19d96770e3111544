"""The demo: databases to S3 and back to a proof, on a bare machine, in a minute. Nothing of it stays.

PostgreSQL and an API of its own are always there; MySQL or MariaDB where one is installed.

This module keeps the house: it starts the servers, runs the story (`flows.demo_story`) as a process of its own and,
whatever becomes of that, ends all of it and removes the folder. It imports nothing of Prefect: its settings are read
when it is imported, and the user's own must not apply.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from flows.demo_mysql import MySQL
from flows.demo_servers import (
    DemoError,
    Postgres,
    Servers,
    Signals,
    answers,
    find_programs,
    open_servers,
    start_api,
    start_prefect,
    start_s3,
)

_NEEDED = {"moto": "moto[server]", "flask": "moto[server]", "duckdb": "duckdb"}

_FOREIGN = ("PREFECT_", "AWS_", "PG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Variables of the user's that would send the demo elsewhere."""


def main() -> NoReturn:
    """Run the demo; exits with 0, with 1 when anything failed or differed, or with 128 + the signal that ended it.

    ``HEADRACE_DEMO_SCALE`` (default 1: 1.2 million rows in PostgreSQL, 0.2 million in MySQL,
    20,000 events of an API) makes it smaller or larger.
    """
    console = Console(highlight=False)
    signals = Signals()
    try:
        code = _demo(console, signals)
    except DemoError as error:
        console.print("\n[bold red]The demo cannot go on.[/]", escape(str(error)), soft_wrap=True)
        code = 1
    except KeyboardInterrupt:
        console.show_cursor()
        console.print("\nInterrupted. The servers are stopped and their folder is removed.")
        code = 128 + (signals.received or signal.SIGINT)
    sys.exit(code)


def _demo(console: Console, signals: Signals) -> int:
    _check()
    started = time.monotonic()
    with open_servers(signals) as servers:
        with console.status("Starting databases, an S3 server and Prefect …"):
            environment = _environment(servers)
            environment["PREFECT_API_URL"] = start_prefect(servers, environment)
            environment["DEMO_S3"] = start_s3(servers, environment)
            environment["DEMO_API"] = start_api(servers, environment, _events())
            postgres = Postgres(servers)
            postgres.create()
            postgres.start()
            mysql = MySQL(servers)
            mysql.begin()
            servers.wait_until(postgres.is_ready, "PostgreSQL")
            servers.wait_until(lambda: answers(f"{environment['DEMO_S3']}/moto-api/"), "the S3 server")
            servers.wait_until(lambda: answers(f"{environment['DEMO_API']}/events?per_page=1"), "the API")
            servers.wait_until(lambda: answers(f"{environment['PREFECT_API_URL']}/health"), "Prefect")
        environment |= {
            "DEMO_POSTGRES_PORT": str(postgres.port),
            "DEMO_POSTGRES_PASSWORD": postgres.password,
            "DEMO_POSTGRES_VERSION": postgres.version,
            "DEMO_STARTED": str(started),
            **mysql.described(),
        }
        return 1 if servers.run([sys.executable, "-m", "flows.demo_story"], environment) else 0


def _events() -> int:
    """How many the API has to begin with."""
    return max(300, round(20_000 * float(os.environ.get("HEADRACE_DEMO_SCALE", "1"))))


def _check() -> None:
    """Find out what is missing before anything is started."""
    if os.name != "posix":
        raise DemoError("It needs Linux or macOS (on Windows: WSL).")
    missing = sorted({package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None})
    if missing:
        wanted = " ".join(f"'{package}'" for package in missing)
        raise DemoError(f"Missing: {', '.join(missing)}. Get it with\n  {sys.executable} -m pip install {wanted}")
    find_programs()


def _environment(servers: Servers) -> dict[str, str]:
    """The surroundings without what would lead elsewhere, and with every folder the programs write to in ours."""
    home = servers.folder / "home"
    home.mkdir(mode=0o700)
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    return kept | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_CLI_COLORS": "false" if not sys.stdout.isatty() else "true",
        "AWS_CONFIG_FILE": str(home / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "DEMO_FOLDER": str(home),
    }


if __name__ == "__main__":
    main()
