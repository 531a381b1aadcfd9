"""Contract: Feast still has the private parts that tasks/features relies on. A failure here means: Feast changed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

LIGHT = """
import sys
from tasks.features.feast_import import import_feast
import_feast()
import typeguard, feast.torch_wrapper
from feast.infra.offline_stores.offline_store import RetrievalJob
assert "torch" not in sys.modules, "feast imports torch by another way than feast.torch_wrapper"
assert typeguard.typechecked.__module__.startswith("typeguard")
assert feast.torch_wrapper.get_torch().__name__ == "torch"
"""


def test_feast_is_imported_without_torch():
    """The import of torch takes seconds and is deferred; typeguard is unchanged for other packages."""
    completed = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("infra.offline_stores.offline_store.RetrievalJob", ["_to_arrow_internal", "_to_df_internal"]),
        ("infra.online_stores.sqlite.SqliteOnlineStore", ["_conn", "_get_conn", "_versioned_read_supported"]),
    ],
)
def test_feast_has_the_overridden_private_members(base, names):
    """A renamed member would silently lose its override."""
    import importlib

    module, _, name = base.rpartition(".")
    parent = getattr(importlib.import_module(f"feast.{module}"), name)
    missing = [member for member in names if not hasattr(parent, member)]
    assert not missing, f"feast's {name} lacks {', '.join(missing)}: adapt tasks/features/compat.py"


def test_feast_encodes_keys_names_and_texts_as_its_online_table():
    """Our online store finds what Feast's own `update` and `online_read` use."""
    from feast import Entity, FeatureView, Field, FileSource, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.types import Float64, String

    from tasks.features.compat import entity_key_bytes, table_name, text_value

    config = RepoConfig(project="p", provider="local", registry="r.db", entity_key_serialization_version=3)
    view = FeatureView(
        name="v",
        entities=[Entity(name="user", join_keys=["user"])],
        schema=[Field(name="user", dtype=String), Field(name="a", dtype=Float64)],
        source=FileSource(path="x.parquet", timestamp_field="at"),
    )
    view.created_timestamp = datetime(2020, 1, 1, tzinfo=UTC)
    assert table_name(config, view) == "p_v"
    key = EntityKey(join_keys=["user"], entity_values=[Value(string_val="u1")])
    assert b"u1" in entity_key_bytes(config, key)
    assert text_value(Value(string_val="word")) == "word"
