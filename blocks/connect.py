"""Flow parameters that take a block or its name: ``connection: BlockOrName[Postgres]``, then ``postgres/shop``."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from blocks.errors import ConfigurationError

B = TypeVar("B", bound=Block)

WAY_OUT = "create it with `headrace configure` or on the Blocks page of the Prefect UI"


class LoadedByName:
    """Turns a name into the saved block of the annotated kind, inside a running event loop or without one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = kinds_of(source)
        return no_info_before_validator_function(lambda value: _resolve(kinds, value), handler(source))


# To a type checker the parameter is what it becomes: the block.
if TYPE_CHECKING:
    BlockOrName = Annotated[B, LoadedByName()]
else:
    BlockOrName = Annotated[
        B | Annotated[str, Field(title="Name", description="The name of a saved block, such as postgres/shop.")],
        LoadedByName(),
    ]


def kinds_of(annotation: Any) -> tuple[type[Block], ...]:
    """The block classes an annotation names, through unions and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return (annotation,)
    return tuple(kind for part in get_args(annotation) for kind in kinds_of(part))


def load_by_name(kinds: tuple[type[B], ...], name: str) -> B:
    """The saved block called ``slug/name``, or ``name`` where the slug is clear; `ConfigurationError` otherwise.

    ``_sync=True`` throughout: parameters are validated by synchronous code inside the flow's event loop, where Prefect
    would otherwise hand back coroutines.
    """
    slug, _, document = name.rpartition("/")
    candidates = [kind for kind in kinds if slug in ("", kind.get_block_type_slug())]
    if not candidates:
        raise ConfigurationError(f"block {name!r} is of the wrong kind: {_choices(kinds)}")
    found = {kind: block for kind in candidates if (block := find(kind, document)) is not None}
    if len(found) > 1:
        choices = " or ".join(f"{kind.get_block_type_slug()}/{document}" for kind in found)
        raise ConfigurationError(f"more than one block is called {document!r}: write {choices}")
    if not found:
        raise ConfigurationError(f"there is no block {name!r}: {_choices(kinds)}")
    return found.popitem()[1]


def find(kind: type[B], name: str) -> B | None:
    """The saved block of that kind and name, None when there is none; `ConfigurationError` when it is not valid."""
    try:
        # The declared type covers the coroutine that _sync=True rules out.
        return kind.load(name, _sync=True)  # type: ignore[call-arg, return-value]  # _sync is the decorator's
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            return None
        raise
    except RuntimeError as error:
        # Prefect's word for "the stored fields do not pass validation"; the reason is in the cause.
        reason = error.__cause__ or error
        raise ConfigurationError(f"{kind.get_block_type_slug()}/{name} has to be configured anew: {reason}") from None


def names_of(kind: type[Block]) -> list[str]:
    """``slug/name`` of every saved block of a kind, sorted; none when the kind was never registered."""
    slug = kind.get_block_type_slug()
    with get_client(sync_client=True) as client:
        try:
            documents = client.read_block_documents_by_type(slug, include_secrets=False)
        except PrefectHTTPStatusError as error:
            # The one call of the client that does not turn 404 into ObjectNotFound.
            if error.response.status_code == HTTPStatus.NOT_FOUND:
                return []
            raise
    return sorted(f"{slug}/{document.name}" for document in documents)


def _resolve(kinds: tuple[type[Block], ...], value: Any) -> Any:
    if isinstance(value, str):
        return load_by_name(kinds, value)
    if isinstance(value, Block) and not isinstance(value, kinds):
        raise ConfigurationError(f"a {value.get_block_type_name()} block is of the wrong kind: {_choices(kinds)}")
    if isinstance(value, dict):
        return _referenced(kinds, value)
    return value


def _referenced(kinds: tuple[type[Block], ...], value: dict[str, Any]) -> Any:
    # Prefect resolves references in a flow's parameters itself; this one serves models used without a flow.
    if isinstance(reference := value.get("$ref"), dict) and (slug := reference.get("block_document_slug")):
        return load_by_name(kinds, slug)
    raise ConfigurationError(
        f"give the name of a saved block, not its fields, which Prefect would store readable: {_choices(kinds)}"
    )


def _choices(kinds: tuple[type[Block], ...]) -> str:
    wanted = " or ".join(kind.get_block_type_slug() for kind in kinds)
    known = [name for kind in kinds for name in names_of(kind)]
    return f"wanted is {wanted} ({', '.join(known) or 'none is saved yet'}); {WAY_OUT}"
