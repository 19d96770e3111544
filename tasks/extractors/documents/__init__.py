"""JSON documents → CSV records: declared columns by path, everything else in `_extra`; numbers keep their digits.

Used so::

    made = Documents(declared, dialect)      # or DeclaredColumn…; compiles the columns into one function
    made.columns                             # what the CSV holds, `_extra` included
    data = b"".join(made.rows(map(parse, texts)))
    made.counted                             # goes into `Read.counted`
"""

from tasks.extractors.documents.parse import DocumentError, json_text, parse
from tasks.extractors.documents.paths import MISSING, Getter, getter
from tasks.extractors.documents.rows import Documents

__all__ = ["MISSING", "DocumentError", "Documents", "Getter", "getter", "json_text", "parse"]
