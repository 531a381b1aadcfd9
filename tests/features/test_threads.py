"""Only queries that give the same in any order run on several threads."""

from __future__ import annotations

import duckdb
import pytest

from tasks.features.determinism import is_order_independent


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT k, v + 1 FROM t WHERE v > 0", True),
        ("SELECT k, avg(n), sum(n), count(v), max(v) FROM t GROUP BY k", True),
        ("WITH a AS (SELECT k, sum(n) AS s FROM t GROUP BY k) SELECT * FROM a JOIN t USING (k)", True),
        ("SELECT k, avg(n) FILTER (v > 0) FROM t GROUP BY ALL ORDER BY k", True),
        ("SELECT avg(v) FROM t", False),
        ("SELECT k, sum(v) FROM t GROUP BY k", False),
        ("SELECT first(n) FROM t", False),
        ("SELECT string_agg(k, ',') FROM t", False),
        ("SELECT sum(n) OVER (ORDER BY v) FROM t", False),
        ("SELECT * FROM t LIMIT 3", False),
        ("SELECT DISTINCT ON (k) k, v FROM t", False),
        ("SELECT * FROM t a ASOF JOIN t b ON a.k = b.k AND a.n >= b.n", False),
        ("SELECT k FROM t WHERE v = (SELECT avg(v) FROM t)", False),
    ],
)
def test_a_query_is_judged_by_its_plan(sql, expected):
    """Sums of floats and what depends on the order of rows stay on one thread; counts and whole numbers need not."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (k VARCHAR, n INTEGER, v DOUBLE)")
        assert is_order_independent(connection, f"FROM ({sql})") is expected
