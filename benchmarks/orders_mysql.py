"""The rows that MySQL and MariaDB contenders extract: `orders` as in `benchmarks.orders`, in the types of MySQL."""

from __future__ import annotations

from benchmarks.mariadb import Server
from benchmarks.orders import STEP

CREATE = """
CREATE TABLE orders (
    id          bigint PRIMARY KEY,
    customer_id int NOT NULL,
    status      varchar(12) NOT NULL,
    email       varchar(255),
    total       decimal(12, 2) NOT NULL,
    weight      double,
    note        text,
    paid        bool NOT NULL,
    order_date  date,
    updated_at  datetime(3) NOT NULL,
    attrs       json,
    uid         char(36) NOT NULL
) ENGINE=InnoDB CHARACTER SET utf8mb4
"""

# Every value comes from the row's number alone: no clock, no RAND(). See `benchmarks.orders` for what is in the note.
FILL = r"""
INSERT INTO orders
SELECT
    i,
    (i * 7919) % 500000,
    ELT(1 + i % 5, 'new', 'paid', 'packed', 'shipped', 'returned'),
    CASE WHEN i % 11 = 0 THEN NULL ELSE CONCAT('user', (i * 7919) % 500000, '@example.com') END,
    ((i * 104729) % 10000000) / 100,
    CASE WHEN i % 13 = 0 THEN NULL ELSE SQRT(i) END,
    CASE i % 8
        WHEN 0 THEN NULL
        WHEN 1 THEN ''
        WHEN 2 THEN CONCAT('Leave it with "Mr. Smith", the porter, ', hash, '; ring twice, please.')
        WHEN 3 THEN CONCAT('two\nlines ', hash, '\nand a third, for the courier: behind the house')
        WHEN 4 THEN CONCAT('größer, schöner → 日本語 😀 ', hash)
        ELSE CONCAT('plain words about order ', i, ' with nothing to quote in them at all ', hash, hash)
    END,
    i % 3 = 0,
    CASE WHEN i % 17 = 0 THEN NULL ELSE DATE '2020-01-01' + INTERVAL (i % 1800) DAY END,
    TIMESTAMP '2024-01-01 00:00:00' + INTERVAL (i % 31536000) SECOND + INTERVAL (i % 1000) * 1000 MICROSECOND,
    CASE WHEN i % 19 = 0 THEN NULL
         ELSE JSON_OBJECT('channel', 'web', 'items', i % 9, 'tags', JSON_ARRAY('a', 'b,c'), 'ref', LEFT(hash, 12))
    END,
    CONCAT_WS('-', LEFT(hash, 8), MID(hash, 9, 4), MID(hash, 13, 4), MID(hash, 17, 4), RIGHT(hash, 12))
FROM (SELECT CAST(seq AS SIGNED) AS i, MD5(seq) AS hash FROM seq_{first}_to_{last}) AS numbered
"""

NUMBERS = ("id", "customer_id", "total", "weight", "paid", "order_date", "updated_at")
TEXTS = ("status", "email", "note", "attrs", "uid")
HEADER = "id,customer_id,status,email,total,weight,note,paid,order_date,updated_at,attrs,uid\n"


def seed(server: Server, rows: int) -> None:
    """Create the table with `rows` rows, all in the buffer pool, and leave nothing to purge or to write out."""
    server.ask(CREATE)
    for first in range(1, rows + 1, STEP):
        server.ask(FILL.format(first=first, last=min(first + STEP - 1, rows)))
    server.ask("ANALYZE TABLE orders")
    # Waits until purge is through with the table, and its pages are on disk.
    server.ask("FLUSH TABLES orders FOR EXPORT", "UNLOCK TABLES")


def csv_size(server: Server) -> int:
    """Bytes of the rows in headrace's dialect, as the server itself counts them: no header."""
    sizes = [f"COALESCE(LENGTH({name}), 0)" for name in NUMBERS] + [_text_size(name) for name in TEXTS]
    separators = len(sizes)  # commas between, and the line end
    return int(server.ask(f"SELECT SUM({separators} + {' + '.join(sizes)}) FROM orders"))


def _text_size(name: str) -> str:
    """The length of a text, with quotes where COPY would quote it, and each quote in it doubled; nothing for NULL."""
    special = " OR ".join(f"LOCATE({character}, {name})" for character in ("','", "'\"'", r"'\n'", r"'\r'"))
    doubled = f"LENGTH({name}) - LENGTH(REPLACE({name}, '\"', ''))"
    return f"COALESCE(LENGTH({name}) + IF(LENGTH({name}) = 0 OR {special}, 2 + {doubled}, 0), 0)"
