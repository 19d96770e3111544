"""The rows that PostgreSQL contenders extract: `orders`, twelve columns of different types, the same in every run."""

from __future__ import annotations

from benchmarks.cluster import Server

ROWS = 2_000_000

CREATE = """
CREATE TABLE orders (
    id          bigint PRIMARY KEY,
    customer_id integer NOT NULL,
    status      varchar(12) NOT NULL,
    email       text,
    total       numeric(12, 2) NOT NULL,
    weight      double precision,
    note        text,
    paid        boolean NOT NULL,
    order_date  date,
    updated_at  timestamp NOT NULL,
    attrs       jsonb,
    uid         uuid NOT NULL
)
"""

# Every value comes from the row's number alone: no clock, no random(). The note holds what makes CSV hard (separators,
# quotes, line ends, characters of two to four bytes, NULL and the empty string) and is as long as a short message.
FILL = """
INSERT INTO orders
SELECT
    i,
    ((i * 7919) % 500000)::integer,
    (ARRAY['new', 'paid', 'packed', 'shipped', 'returned'])[1 + (i % 5)::integer],
    CASE WHEN i % 11 = 0 THEN NULL ELSE 'user' || (i * 7919) % 500000 || '@example.com' END,
    ((i * 104729) % 10000000) / 100.0,
    CASE WHEN i % 13 = 0 THEN NULL ELSE sqrt(i::float8) END,
    CASE i % 8
        WHEN 0 THEN NULL
        WHEN 1 THEN ''
        WHEN 2 THEN 'Leave it with "Mr. Smith", the porter, ' || hash || '; ring twice, please.'
        WHEN 3 THEN E'two\\nlines ' || hash || E'\\nand a third, for the courier: behind the house'
        WHEN 4 THEN 'größer, schöner → 日本語 😀 ' || hash
        ELSE 'plain words about order ' || i || ' with nothing to quote in them at all ' || hash || hash
    END,
    i % 3 = 0,
    CASE WHEN i % 17 = 0 THEN NULL ELSE date '2020-01-01' + (i % 1800)::integer END,
    timestamp '2024-01-01' + (i % 31536000) * interval '1 second' + (i % 1000) * interval '1 millisecond',
    CASE WHEN i % 19 = 0 THEN NULL
         ELSE jsonb_build_object(
             'channel', 'web', 'items', i % 9, 'tags', jsonb_build_array('a', 'b,c'), 'ref', left(hash, 12))
    END,
    hash::uuid
FROM (SELECT i, md5(i::text) AS hash FROM generate_series({first}::bigint, {last}) AS i) AS numbered
"""

STEP = 500_000


def seed(server: Server, rows: int) -> None:
    """Create the table with `rows` rows, and leave nothing for a reader to tidy up."""
    server.ask(CREATE)
    for first in range(1, rows + 1, STEP):
        server.ask(FILL.format(first=first, last=min(first + STEP - 1, rows)))
    server.ask("VACUUM (FREEZE, ANALYZE) orders", "CHECKPOINT")
