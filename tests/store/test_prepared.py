"""Promise: a prepared statement does what the statement itself does."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.store.database import Store, budgets, predictions, teams
from services.store.prepared import execute_prepared
from tasks.core.settings import Settings

ADD, ADD_CLASSES = insert(budgets), insert(predictions)
FREE = budgets.c.amount - budgets.c.spent
SPEND = (
    update(budgets)
    .where(budgets.c.owner == bindparam("b_owner"), FREE > 0)
    .values(spent=budgets.c.spent + bindparam("price"))
)
ADD_TEAM = insert(teams)


@pytest.fixture
def store(tmp_path):
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def test_rows_are_inserted_and_changed(store):
    """One row or several, constants of the statement, and the number of rows that were changed."""
    rows = [{"owner": f"key:{n}", "amount": 10 * n, "spent": 0, "reserved": 0} for n in range(3)]
    with store.writing() as connection:
        execute_prepared(connection, ADD, *rows)
        counts = [execute_prepared(connection, SPEND, {"b_owner": f"key:{n}", "price": 4}).rowcount for n in range(4)]
    with store.reading() as connection:
        assert connection.execute(select(budgets.c.owner, budgets.c.spent)).all() == [
            ("key:0", 0),
            ("key:1", 4),
            ("key:2", 4),
        ]
    assert counts == [0, 1, 1, 0]


def test_json_is_stored_as_json(store):
    classes = {"a": 1, "": "Wien ß \ud800"}
    with store.writing() as connection:
        execute_prepared(connection, ADD_CLASSES, {"request_id": "req-1", "classes": classes})
    with store.reading() as connection:
        assert connection.execute(select(predictions.c.classes)).scalar_one() == classes


def test_columns_that_a_row_lacks_are_empty(store):
    with store.writing() as connection:
        execute_prepared(connection, ADD_TEAM, {"team": "ops"})
        execute_prepared(connection, ADD_TEAM, {"team": "web", "rpm": 5})
    with store.reading() as connection:
        assert connection.execute(select(teams)).all() == [("ops", None, None), ("web", 5, None)]


def test_an_error_is_sqlalchemys_own(store):
    """The writer of records tells a broken database from a broken record by its class."""
    row = {"owner": "key:a", "amount": 1, "spent": 0, "reserved": 0}
    with pytest.raises(IntegrityError), store.writing() as connection:
        execute_prepared(connection, ADD, row, row)
