"""The model file: a skops archive. Equal models give equal bytes, and loading one runs no code."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest
from tasks.core.untrusted import reading_untrusted
from tasks.train.compat import TRUSTED_TYPES, boosting_trees
from tasks.train.tabular.scoring import Model, predict, prepare
from tasks.train.tabular.skops_archive import check_archive

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["Model", "load", "predict", "read", "save"]

UNREADABLE = "The model file can't be read."
READABLE = "a file written by this version of scikit-learn and skops, of trusted types; never a pickle"
TODO = "Train the candidate again; write an own model with skops.io.dump."


def save(model: Model | Pipeline, path: Path) -> str:
    """Write a fitted pipeline atomically and return the SHA-256 of the file."""
    skops_io = import_skops()
    pipeline = model.pipeline if isinstance(model, Model) else model
    with atomic_path(path) as temporary:
        temporary.write_bytes(_canonical(skops_io.dumps(pipeline)))
    return file_digest(path)


def load(path: Path) -> Model:
    """Read a model file that this package wrote.

    Raises: DataError when the file is missing, is not a model file, or holds types that are not trusted.
    """
    pipeline = read(path)
    if not hasattr(pipeline, "columns_") or not any(
        hasattr(pipeline, name) for name in ("steps", "pipelines", "pipeline")
    ):
        raise _unreadable(path, f"a {type(pipeline).__name__} that the train package did not write")
    return prepare(pipeline)


def read(path: Path) -> Any:
    """The object in a skops archive, if all its types are trusted and its trees are valid.

    Raises: DataError.
    """
    skops_io = import_skops()
    from skops.io.exceptions import UntrustedTypesFoundException

    if not path.is_file():
        raise _unreadable(path, "no such file")
    with reading_untrusted(UNREADABLE, path, allowed=READABLE, todo=TODO):
        check_archive(path)
        try:
            model = skops_io.load(path, trusted=list(TRUSTED_TYPES))
        except UntrustedTypesFoundException as error:
            raise _unreadable(path, str(error).split("\n")[0]) from error
        _check_trees(model)
    return model


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(UNREADABLE, where=str(path), found=found, allowed=READABLE, todo=TODO)


def _check_trees(model: Any) -> None:
    """Refuse trees whose node numbers are out of range: scikit-learn follows them unchecked.

    Raises: ValueError.
    """
    import numpy as np

    def check(nodes: np.ndarray, left: str, right: str, feature: str, leaf: np.ndarray, features: int) -> None:
        numbers = np.arange(len(nodes))[~leaf]
        inner = nodes[~leaf]
        for child in (inner[left].astype(np.int64), inner[right].astype(np.int64)):
            if (
                (child <= numbers) | (child >= len(nodes))
            ).any():  # children come after their parent, so there are no cycles
                raise ValueError("a tree with a child out of range")
        if ((inner[feature] < 0) | (inner[feature] >= features)).any():
            raise ValueError("a tree with a column out of range")

    for part in _parts_of(model):
        for predictor in boosting_trees(part):
            nodes = predictor.nodes
            check(nodes, "left", "right", "feature_idx", nodes["is_leaf"].astype(bool), part.n_features_in_)
            rows = nodes["bitset_idx"][nodes["is_categorical"].astype(bool)]
            if (rows >= min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))).any():
                raise ValueError("a tree with a category set out of range")
        for owner in (part, *np.ravel(getattr(part, "estimators_", np.empty(0, object)))):
            if (tree := getattr(owner, "tree_", None)) is not None:
                nodes = tree.__getstate__()["nodes"]
                features = min(tree.n_features, part.n_features_in_)  # an ensemble passes its own columns on
                check(nodes, "left_child", "right_child", "feature", nodes["left_child"] == -1, features)


def _parts_of(model: Any) -> Iterator[Any]:
    """All objects within a model, at any depth."""
    import numpy as np

    seen, pending = set(), [model]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            pending.extend(part.values())
        elif isinstance(part, list | tuple | set):
            pending.extend(part)
        elif isinstance(part, np.ndarray):
            pending.extend(part.ravel() if part.dtype == object else ())
        elif isinstance(part, partial):  # reading its __dict__ would create one and change its bytes
            pending.extend([*part.args, *part.keywords.values()])
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            yield part
            pending.extend(vars(part).values())


def import_skops() -> Any:
    """Import skops.io without torch and dask, which scikit-learn's bridges import if they are installed.

    They cost each process that reads a model three seconds and 200 MB.
    """
    blocker = _ImportBlocker()
    sys.meta_path.insert(0, blocker)
    try:
        return importlib.import_module("skops.io")
    finally:
        sys.meta_path.remove(blocker)


class _ImportBlocker(MetaPathFinder):
    """Turns `import torch` into an ImportError, which optional importers handle; imported modules stay."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in ("torch", "dask"):
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)


def _canonical(archive: bytes) -> bytes:
    """Rewrite a skops archive without what differs between runs: memory addresses in ids and names, and times."""
    with ZipFile(io.BytesIO(archive)) as source:
        schema = json.loads(source.read("schema.json"))
        names = _renumber(schema)
        members = {new: _zero_padding(source.read(old)) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as target:  # stored: what a compressor writes depends on its version
        for name in sorted(members):
            target.writestr(ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), members[name])
    return buffer.getvalue()


def _zero_padding(member: bytes) -> bytes:
    """Zero the padding between the fields of a tree's nodes, which holds random memory.

    numpy copies such an array with random padding, so the copy consists of plain bytes.
    """
    import numpy as np

    if b"('', '|V" not in member[:1000]:  # padding in numpy's header
        return member
    array = np.load(io.BytesIO(member))
    clean = np.zeros(array.nbytes, np.uint8)
    fields = clean.view(array.dtype)
    for name in array.dtype.names:
        fields[name] = array.reshape(-1)[name]
    return member[: len(member) - array.nbytes] + clean.tobytes()


def _renumber(schema: dict[str, Any]) -> dict[str, str]:
    """Number nodes and member files in order of appearance, in place; return the members' new names by old ones.

    Plain values lose their id: whether two equal ones are one object differs between processes.
    """
    ids: dict[int, int] = {}
    names: dict[str, str] = {}

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                visit(item)
        elif isinstance(node, dict):
            loader = node.get("__loader__")
            if isinstance(node.get("__id__"), int):
                if loader == "JsonNode":
                    del node["__id__"]
                else:
                    node["__id__"] = ids.setdefault(node["__id__"], len(ids) + 1)
            if loader is not None and isinstance(node.get("file"), str):
                old = node["file"]
                node["file"] = names.setdefault(old, f"{len(names):06d}{Path(old).suffix}")
            if loader == "SetNode":
                node["content"].sort(key=_sort_key)
            for value in node.values():
                visit(value)

    visit(schema)
    return names


def _sort_key(node: Any) -> str:
    """A node's text without ids, by which the members of a set are sorted."""
    if isinstance(node, dict):
        return json.dumps({k: _sort_key(v) for k, v in node.items() if k != "__id__"}, sort_keys=True)
    return json.dumps([_sort_key(item) for item in node]) if isinstance(node, list) else json.dumps(node)
