"""The text of a configuration file: its sections, its ``${VARIABLES}``, and who may read it. Knows no block."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.references import without_references

_VARIABLE = re.compile(r"\$(?P<escape>\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Value:
    """One right-hand side, as it stands in the file."""

    raw: str

    def resolve(self, environment: Mapping[str, str]) -> str:
        """The text with ``${NAME}`` and ``${NAME:-default}`` filled in and ``$${`` turned into ``${``.

        As in a shell, an empty variable takes the default. Raises `KeyError` with the name of one that is not set.
        """

        def fill(match: re.Match[str]) -> str:
            if match["escape"]:
                return "${"
            if match["default"] is not None:
                return environment.get(match["name"]) or match["default"]
            return environment[match["name"]]

        return _VARIABLE.sub(fill, self.raw)

    @property
    def is_literal(self) -> bool:
        """Whether the file itself gives the value away: anything but variables and references, a default included."""
        given = without_references(self.raw)
        return bool(_VARIABLE.sub(lambda match: match["default"] or match["escape"] or "", given))


Section = dict[str, Value]


def read_sections(path: Path) -> dict[str, Section]:
    """The sections of an INI file in file order; `ConfigurationError` names the line of what cannot be read.

    No interpolation (passwords hold ``%``), no comments behind a value (they hold ``#`` and ``;``), no DEFAULT section.
    """
    parser = configparser.RawConfigParser(
        delimiters=("=",), default_section="", empty_lines_in_values=False, comment_prefixes=("#", ";")
    )
    # The documented way to keep the case of keys; the stubs know a method only.
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the stubs know a method only
    try:
        parser.read_string(_text(path))
    except configparser.Error as error:
        raise ConfigurationError(f"{path}: {_reason(error)}") from None
    return {name: {key: Value(raw) for key, raw in parser.items(name)} for name in parser.sections()}


def is_readable_by_others(path: Path) -> bool:
    """Whether the file's group or anyone may read it: the rule PostgreSQL has for ``~/.pgpass``."""
    return os.name == "posix" and bool(path.stat().st_mode & 0o044)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist: copy pipeline.example.conf to {path} and fill it in"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        # The decoder's own sentence may quote bytes of a password.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{path} cannot be read: {reason}") from None


def _reason(error: configparser.Error) -> str:
    """What is wrong and where. The parser's own sentences quote the line, which may hold a password."""
    match error:
        case configparser.DuplicateSectionError(section=section, lineno=line):
            return f"line {line}: section [{section}] is there twice; merge the two"
        case configparser.DuplicateOptionError(section=section, option=key, lineno=line):
            return f"line {line}: [{section}] {key} is there twice; keep one"
        case configparser.MissingSectionHeaderError(lineno=line):
            return f"line {line}: a value before the first section; begin with a line like [postgres:shop]"
        case configparser.ParsingError(errors=errors):
            lines = ", ".join(str(line) for line, _ in errors)
            return f"line {lines}: neither [section] nor key = value; put # before a comment"
    return type(error).__name__
