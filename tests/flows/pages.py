"""The pages of the docs taken apart: their blocks of code, the commands in them, the options that they name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    text: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Those of a page, in order."""
    found = [Block(*each) for each in _BLOCK.findall(text_of(page))]
    return [block for block in found if language in (None, block.language)]


def prose(page: str) -> str:
    """The page without them."""
    return _BLOCK.sub("", text_of(page))


def lines(page: str, program: str = "headrace") -> list[str]:
    """What is typed that begins with that word, without comments."""
    typed = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    return [line.partition(" #")[0].strip() for line in typed if line.split(" ")[0] == program]


def commands(page: str) -> list[list[str]]:
    """The words behind `headrace`, without a redirection."""
    return [shlex.split(line.partition(" > ")[0])[1:] for line in lines(page)]


def settings(page: str) -> str:
    """All its sections of a `pipeline.conf`."""
    return "\n".join(block.text for block in blocks(page, "ini"))


def streams(page: str) -> list[dict[str, Any]]:
    """The parameters of `extract` that its blocks of YAML are."""
    return [found for block in blocks(page, "yaml") if "stream" in (found := yaml.safe_load(block.text))]


def rows(page: str) -> dict[str, str]:
    """Its rows of tables by each name in the first cell."""
    found: dict[str, str] = {}
    for line in prose(page).splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            first = re.split(r"(?<!\\)\|", line)[1]
            for name in re.findall(r"`([^`]+)`", first):
                found[name] = f"{found.get(name, '')}{line}\n"
    return found


def anchors(page: str) -> set[str]:
    """What links to its headings end in, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
