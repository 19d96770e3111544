"""An endpoint of an API → CSV. The window ends by the server's own clock, which its responses tell (the header Date).

A row that is stamped by the server, and shown to every reader within `lag` of its stamp, is brought once: windows are closed and
do not overlap, and rows outside of one are left out by their cursor, whatever the API takes for its bounds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.rest import RestApi
from tasks.extractors.contract import NOT_ASKED, Partition, Plan, Read, ReadOptions, Write
from tasks.extractors.documents import Documents
from tasks.extractors.fields import Declared
from tasks.extractors.rest.errors import ApiError
from tasks.extractors.rest.planner import Planner
from tasks.extractors.rest.reading import Reading
from tasks.extractors.rest.rows import Rows
from tasks.extractors.rest.session import Session
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.times import Window

_NO_COLUMNS = "no column is declared: each record is JSON in _extra; name columns in the field fields"


class RestExtractor:
    """See `tasks.extractors.contract.Extractor`."""

    def __init__(self, block: RestApi, spec: Spec, declared: Declared, options: ReadOptions) -> None:
        self._block = block
        self._spec = spec
        self._declared = Declared(**{name: getattr(declared, name) for name in Declared.model_fields})
        self._options = options
        self._session = Session(block)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._spec.times.timezone)  # read from a file, once
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.__aexit__(kind, error, trace)

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        asked = [self._block.describe(), self._spec.model_dump(mode="json"), self._declared.model_dump(mode="json")]
        options = self._options.model_dump(exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is ``{"cursor": path, "value": time}``."""
        blank = Plan(
            id=uuid.uuid4().hex,
            mode=self._options.mode,
            asked=self.asked,
            since=since,
            until=since,
            columns=self._documents().columns,
            statement=self._statement(),
            notes=() if self._declared.fields else (_NO_COLUMNS,),
        )
        try:
            return await Planner(self._reading(), self._options).plan(blank)
        except ApiError as error:
            if error.is_sent:
                raise
            raise ConfigurationError(f"{error}; check base_url and proxy of the rest-api block") from error

    async def read(self, plan: Plan, partition: Partition, write: Write) -> Read:
        """See `Extractor.read`."""
        times = self._spec.times
        window = Window(
            since=None if partition.lower is None else times.moment(str(partition.lower)),
            until=None if partition.upper is None else times.moment(str(partition.upper)),
        )
        # All that is there, also what has no time: that no window would bring it is no matter in mode full.
        passed = times.model_copy(update={"null_cursor": "include"}) if plan.mode == "full" else times
        rows = Rows(self._spec.model_copy(update={"times": passed}), self._documents(), window, write)
        await self._reading().run(window, rows.take)
        return await rows.finish()

    def _reading(self) -> Reading:
        return Reading(self._session, self._block.base_url, self._spec)

    def _documents(self) -> Documents:
        return Documents(self._declared, self._options.dialect, self._options.columns)

    def _statement(self) -> str:
        spec = self._spec
        query = "&".join(f"{name}={value}" for name, value in spec.params.items())
        own = f"{spec.method} {self._block.describe()}/{spec.path.lstrip('/')}" + (f"?{query}" if query else "")
        return f"{own}, for each record of {spec.parent.path}" if spec.parent else own
