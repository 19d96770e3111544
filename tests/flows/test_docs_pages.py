"""What the pages of the docs say holds without a server: options, commands, links, and that no block is left untested."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prefect.blocks.core import Block as PrefectBlock
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blocks.conf_keys import _members
from blocks.kafka import Kafka
from blocks.kafka_connect import KafkaConnect
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from flows.cli import app
from flows.follow import follow
from tasks.extractors import _MODELS
from tests.flows.pages import PAGES, ROOT, anchors, blocks, commands, lines, prose, rows, text_of

DESCRIBED: dict[tuple[str, ...], tuple[type[BaseModel], ...]] = {
    ("docs/postgres.md",): (Postgres, _MODELS["postgres-table"], _MODELS["postgres-query"]),
    ("docs/mysql.md",): (MySQL, _MODELS["mysql-table"], _MODELS["mysql-query"], _MODELS["mysql-changes"]),
    ("docs/mongodb.md",): (MongoDB, _MODELS["mongodb-collection"]),
    ("docs/rest.md",): (RestApi, _MODELS["rest-endpoint"]),
    ("docs/kafka.md", "docs/debezium.md", "docs/rest.md"): (Kafka, KafkaConnect, _MODELS["kafka-topics"]),
}

TESTED = {
    "README.md": "sh ini yaml",
    "CONTRIBUTING.md": "sh",
    "docs/adding-a-source.md": "python diff sh ini yaml",
    "docs/changes.md": "ini",
    "docs/debezium.md": "",
    "docs/kafka.md": "sh ini yaml",
    "docs/loading.md": "sh ini yaml sql",
    "docs/mongodb.md": "sh ini yaml js",
    "docs/mysql.md": "sh ini yaml sql",
    "docs/operations.md": "sh ini yaml",
    "docs/postgres.md": "sh ini yaml sql",
    "docs/rest.md": "sh ini yaml",
    "docs/scaling.md": "python text",
}
"""By page the languages of its blocks, which `test_docs*.py` run or check. A new one needs a test, and then a word here."""


def options(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a model and of the models in it; not those of a block, which is named."""
    for name, field in model.model_fields.items():
        if name not in ("connection", "kind") and not name.startswith("_"):
            yield name, field
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel) and not issubclass(member, PrefectBlock):
                yield from options(member)


def shown(default: Any) -> str | None:
    """How a page writes a default; None for what is empty."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float):
        return f"{default:g}" if default < 1_000_000 else str(default)
    return default if isinstance(default, str) and default else None


def test_every_kind_of_source_has_its_page() -> None:
    """A source is not there before a page says what can be set."""
    described = {model for models in DESCRIBED.values() for model in models}
    assert set(_MODELS.values()) <= described


@pytest.mark.parametrize("pages", DESCRIBED, ids=lambda pages: pages[0])
def test_every_option_stands_on_its_page_with_its_default(pages: tuple[str, ...]) -> None:
    """As rows of tables: what is new in a model, or has another default, is missed there."""
    there: dict[str, str] = {}
    for page in pages:
        for name, line in rows(page).items():
            there[name] = there.get(name, "") + line
    missing, otherwise = set(), set()
    for model in DESCRIBED[pages]:
        for name, field in options(model):
            default = shown(field.default)
            if name not in there:
                missing.add(name)
            elif default is not None and f"`{default}`" not in there[name]:
                otherwise.add(f"{name}: {default}")
    assert (sorted(missing), sorted(otherwise)) == ([], [])


def test_parameters_of_the_flows_stand_on_their_pages() -> None:
    """With the defaults that the flows have."""
    from flows.extract import extract

    for flow, page in ((extract, "README.md"), (follow, "docs/changes.md")):
        there = rows(page)
        for name, parameter in flow.parameters.properties.items():
            if name in ("stream", "source", "to"):
                continue
            default = shown(parameter.get("default"))
            assert default is None or f"`{default}`" in there[name], (page, name, default)


def test_every_block_is_tested() -> None:
    """A page or a language that no test looks at is an error here."""
    assert {page: {block.language for block in blocks(page)} for page in PAGES} == {
        page: set(languages.split()) for page, languages in TESTED.items()
    }


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_program(page: str) -> None:
    """Each line that is typed is taken by the command line: its words, options and their values."""
    for words in commands(page):
        _accepted(typer.main.get_command(app), words)
    targets = set(re.findall(r"^([a-z.%/]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in lines(page, "make"):
        for target in line.partition(" && ")[0].split()[1:]:
            assert {target, target.replace("demo", "%").replace("test", "%")} & targets, line


def _accepted(command: Any, words: list[str]) -> None:
    context = command.make_context("headrace", list(words))
    with context:
        if hasattr(command, "commands"):
            name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert inner is not None, name
            _accepted(inner, rest)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files and headings that a page links to are there, and so are the tests and benchmarks that it names."""
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (here / path).resolve() if path else ROOT / page
        assert file.exists(), (page, target)
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), (page, target)
    for named in re.findall(r"`((?:tests|benchmarks|flows|tasks|blocks|docs)/[\w/.*-]+)", text_of(page)):
        assert list(ROOT.glob(named)), (page, named)
    for module in re.findall(r"`?python -m (benchmarks\.\w+)", text_of(page)):
        assert Path(ROOT, *module.split(".")).with_suffix(".py").exists(), (page, module)


def test_the_estimate_is_computed() -> None:
    """The code of the page prints what stands there, from figures that are those of the benchmarks' results."""
    (code,), (told,) = blocks("docs/scaling.md", "python"), blocks("docs/scaling.md", "text")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.text, "docs/scaling.md", "exec"), {})
    assert said.getvalue() == told.text
    results = text_of("benchmarks/results/postgres.md")
    ours = next(line for line in results.splitlines() if line.startswith("| **headrace** |")).split("|")
    assert "626 MB of CSV" in results
    assert (ours[2].strip(), ours[8].strip()) == ("4.21", "3.8")
    assert "| client CPU inside the flow, own process | ≤ 2.5 s | 1.21 s |" in results


def test_shell_lines_are_known() -> None:
    """No page has a line that begins with a program of which no test knows."""
    known = {"headrace", "make", "prefect", "python", "export", "cp", "chmod", "docker"}
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                assert not words or words[0] in known, (page, line)
