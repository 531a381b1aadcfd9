"""Promise: the labels of a key are valid, audited, and known to gateways; without any it has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.gateway.cache import ResponseCache
from services.store.audit import audit_events
from services.store.database import Store
from services.store.keys import LOCAL_KEY, Key, create_key, list_keys, read_keyring, set_key_labels
from tasks.core.errors import InputError
from tasks.core.settings import Settings
from tasks.knowledge.labels import format_labels, parse_labels
from tests.gateway.in_process import call_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def test_labels_are_set_and_audited(store):
    id_, _ = create_key(store, "team", ["predict"], None, None, None)
    (key,) = read_keyring(store).by_hash.values()
    assert key.labels == frozenset()
    set_key_labels(store, id_, ["sales", "hr", "sales"])
    (key,) = read_keyring(store).by_hash.values()
    assert key.labels == {"hr", "sales"}
    assert list_keys(store)[0]["labels"] == ["hr", "sales"]
    assert audit_events(store)[-1].details == {"labels": ["hr", "sales"]}


@pytest.mark.parametrize("label", ["", "a,b", "*", "hr\r\nx: y", "é", "-a", "a" * 65])
def test_invalid_labels_are_refused(store, label):
    """They travel in a header, where a comma separates them and * stands for all passages."""
    id_, _ = create_key(store, "team", ["predict"], None, None, None)
    with pytest.raises(InputError, match="label is not valid"):
        set_key_labels(store, id_, ["hr", label])
    with pytest.raises(InputError, match="no such key"):
        set_key_labels(store, "other", ["hr"])
    assert list_keys(store)[0]["labels"] == []


@pytest.mark.parametrize("labels", [None, frozenset(), frozenset({"hr"}), frozenset({"hr", "sales"})])
def test_the_header_restores_the_labels(labels):
    assert parse_labels(format_labels(labels)) == labels


@pytest.mark.parametrize("header", [None, "", ",", "* ", "*,*", "\x00"])
def test_other_headers_give_no_labels(header):
    assert parse_labels(header) == frozenset()


def test_keys_of_other_labels_share_no_response():
    """A cached answer is only for keys of the same team with the same labels."""
    cache, body = ResponseCache(), {"query": "pay?"}
    keys = [Key("1", "t", frozenset(), labels=frozenset(labels)) for labels in ((), ("hr",), ("hr", "it"))]
    names = [cache.key_for(call_of(key, interface="search"), body) for key in (*keys, LOCAL_KEY)]
    assert len(set(names)) == 4
    same = Key("2", "t", frozenset({"predict"}), labels=frozenset({"it", "hr"}))
    assert cache.key_for(call_of(same, interface="search"), body) == names[2]
