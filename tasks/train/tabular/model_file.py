"""The model file: a skops archive whose bytes depend on the model alone, and which runs no code when read."""

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
from tasks.train.tabular.scoring import Model, predict, prepare
from tasks.train.tabular.skops_archive import check_archive

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["ALLOWED", "Model", "load", "predict", "read", "save"]

# What skops does not trust by itself and our families need: plain data holders of scikit-learn and numpy.
ALLOWED = (
    "functools.partial",  # what it calls must be on the list too
    "numpy.dtype",
    "sklearn._loss.link.BaseLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",  # its node numbers are followed unchecked, so load() checks them
)

UNREADABLE = "The model file can't be read."
READABLE = "a file written by this version of scikit-learn and skops, of types on our list; never a pickle"
TODO = "Train the candidate again; a model of your own, write with skops.io.dump."


def save(model: Model | Pipeline, path: Path) -> str:
    """Write a fitted pipeline whole, and give the SHA-256 of the file; equal models give equal bytes, everywhere."""
    skops_io = import_skops()
    pipeline = model.pipeline if isinstance(model, Model) else model
    with atomic_path(path) as temporary:
        temporary.write_bytes(_canonical(skops_io.dumps(pipeline)))
    return file_digest(path)


def load(path: Path) -> Model:
    """Read a model file of ours, building only types on our list.

    Raises: DataError when the file is missing, no model file, or asks for other types.
    """
    pipeline = read(path)
    if not hasattr(pipeline, "columns_") or not hasattr(pipeline, "steps"):
        raise _unreadable(path, f"a {type(pipeline).__name__} that the train room did not write")
    return prepare(pipeline)


def read(path: Path) -> Any:
    """Whatever a skops archive holds, if it is made of types on our list and its trees are sound.

    Raises: DataError.
    """
    skops_io = import_skops()
    from skops.io.exceptions import UntrustedTypesFoundException

    if not path.is_file():
        raise _unreadable(path, "no such file")
    with reading_untrusted(UNREADABLE, path, allowed=READABLE, todo=TODO):
        check_archive(path)
        try:
            made = skops_io.load(path, trusted=list(ALLOWED))
        except UntrustedTypesFoundException as error:
            raise _unreadable(path, str(error).split("\n")[0]) from error
        _check_trees(made)
    return made


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(UNREADABLE, where=str(path), found=found, allowed=READABLE, todo=TODO)


def _check_trees(made: Any) -> None:
    """Refuse trees that point outside of themselves: scikit-learn follows their numbers without looking.

    Raises: ValueError.
    """
    import numpy as np

    def check(nodes: np.ndarray, left: str, right: str, feature: str, leaf: np.ndarray, features: int) -> None:
        numbers = np.arange(len(nodes))[~leaf]
        inner = nodes[~leaf]
        for child in (inner[left].astype(np.int64), inner[right].astype(np.int64)):
            if ((child <= numbers) | (child >= len(nodes))).any():  # a child stands after its parent: no circles
                raise ValueError("a tree whose nodes point to no node")
        if ((inner[feature] < 0) | (inner[feature] >= features)).any():
            raise ValueError("a tree that asks for a column that there is not")

    for part in _parts_of(made):
        for predictor in [each for group in getattr(part, "_predictors", ()) for each in group]:
            nodes = predictor.nodes
            check(nodes, "left", "right", "feature_idx", nodes["is_leaf"].astype(bool), part.n_features_in_)
            rows = nodes["bitset_idx"][nodes["is_categorical"].astype(bool)]
            if (rows >= min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))).any():
                raise ValueError("a tree that points to no set of categories")
        for owner in (part, *np.ravel(getattr(part, "estimators_", np.empty(0, object)))):
            if (tree := getattr(owner, "tree_", None)) is not None:
                nodes = tree.__getstate__()["nodes"]
                features = min(tree.n_features, part.n_features_in_)  # an ensemble hands its own columns on
                check(nodes, "left_child", "right_child", "feature", nodes["left_child"] == -1, features)


def _parts_of(made: Any) -> Iterator[Any]:
    """Everything that a model is made of, however deep: an estimator may hold others."""
    import numpy as np

    seen, left = set(), [made]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            left.extend(part.values())
        elif isinstance(part, list | tuple | set):
            left.extend(part)
        elif isinstance(part, np.ndarray):
            left.extend(part.ravel() if part.dtype == object else ())
        elif isinstance(part, partial):  # asked for its __dict__, it makes one, and has other bytes
            left.extend([*part.args, *part.keywords.values()])
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            yield part
            left.extend(vars(part).values())


def import_skops() -> Any:
    """skops.io, imported without torch and dask: it visits every package of scikit-learn, bridges to those included.

    They would cost each process that reads a model three seconds and 200 MB.
    """
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        return importlib.import_module("skops.io")
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Makes `import torch` an ImportError, which those who look for it expect; what is imported already stays."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in ("torch", "dask"):
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)


def _canonical(archive: bytes) -> bytes:
    """Rewrite a skops archive without what differs from run to run: addresses as ids and names, and the clock."""
    with ZipFile(io.BytesIO(archive)) as source:
        schema = json.loads(source.read("schema.json"))
        names = _renumber(schema)
        members = {new: _without_gaps(source.read(old)) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as target:  # stored: what a compressor writes depends on its version
        for name in sorted(members):
            target.writestr(ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), members[name])
    return buffer.getvalue()


def _without_gaps(member: bytes) -> bytes:
    """Blank the unused bytes between the fields of a tree's nodes: they are whatever the memory held before.

    numpy adds garbage of its own whenever it copies such an array, so the copy is made of plain bytes.
    """
    import numpy as np

    if b"('', '|V" not in member[:1000]:  # how numpy's header writes such gaps
        return member
    array = np.load(io.BytesIO(member))
    clean = np.zeros(array.nbytes, np.uint8)
    fields = clean.view(array.dtype)
    for name in array.dtype.names:
        fields[name] = array.reshape(-1)[name]
    return member[: len(member) - array.nbytes] + clean.tobytes()


def _renumber(schema: dict[str, Any]) -> dict[str, str]:
    """Number nodes and member files in order of appearance, in place; give the members' new names by old ones.

    Plain values lose their id: whether two equal ones are the same object is an accident of the process.
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
                node["content"].sort(key=_text_of)
            for value in node.values():
                visit(value)

    visit(schema)
    return names


def _text_of(node: Any) -> str:
    """A node's text without ids, to order the members of a set by."""
    if isinstance(node, dict):
        return json.dumps({k: _text_of(v) for k, v in node.items() if k != "__id__"}, sort_keys=True)
    return json.dumps([_text_of(item) for item in node]) if isinstance(node, list) else json.dumps(node)
