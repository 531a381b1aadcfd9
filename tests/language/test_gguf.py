from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.language.gguf_reader import GgufFile, gguf_to_checkpoint
from tasks.language.gguf_writer import is_supported, write_gguf
from tests.language_case import tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("weights", ["f16", "q8_0", "q4_1"])
def test_equal_input_gives_equal_bytes(tiny, tmp_path, weights):
    """A release's digest is over this file: writing it twice gives the same, and nothing else is left in the folder."""
    first = write_gguf(tiny, tmp_path / "a.gguf", weights)
    second = write_gguf(tiny, tmp_path / "b.gguf", weights)
    assert file_digest(first) == file_digest(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b.gguf"]


def test_what_is_packed_unpacks_to_the_same(tiny, tmp_path):
    """Weights, shape, tokenizer, special tokens and template survive the way there and back."""
    import torch
    from safetensors.torch import load_file

    packed = GgufFile(write_gguf(tiny, tmp_path / "a.gguf", "bf16"))
    gguf_to_checkpoint(packed, tmp_path)
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (tiny, tmp_path))
    for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "vocab_size", "tie_word_embeddings", "head_dim"):
        assert old[key] == new[key]
    assert (tiny / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert packed.fields["tokenizer.chat_template"] == (tiny / "chat_template.jinja").read_text()


def test_an_output_layer_of_its_own_is_written(tmp_path):
    """Where output and embedding are not tied, both are there."""
    folder = tiny_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    assert "output.weight" in GgufFile(write_gguf(folder, tmp_path / "a.gguf", "q8_0")).names()


def test_our_reader_reads_what_the_formats_own_reads(tmp_path):
    """The quick reader gives the same fields and values as the gguf package's, for each kind of either."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_uint8("a.byte", 200)
    writer.add_int32("a.number", -7)
    writer.add_uint64("a.large", 2**40)
    writer.add_float32("a.float", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_array("a.texts", ["ü", "", "☃"])
    writer.add_array("a.floats", [0.5, -1.0])
    values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(f"blk.0.{name}", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, reference = GgufFile(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    fields = {name: each.contents() for name, each in reference.fields.items() if not name.startswith("GGUF.")}
    assert file.fields == fields
    assert file.names() == [each.name for each in reference.tensors]
    for each in reference.tensors:
        assert file.tensor(each.name).shape == (3, 64)
        assert np.array_equal(file.tensor(each.name), gguf.dequantize(each.data, each.tensor_type))


@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("config.json", {"model_type": "gpt_neox"}, "gpt_neox"),
        ("config.json", {"sliding_window": 128}, "sliding_window"),
        ("config.json", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "yarn"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "BPE"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
    ],
)
def test_what_would_come_out_wrong_is_refused(tmp_path, file, change, found):
    """Each kind of model that is not known to be served right is named, and nothing is written."""
    folder = tiny_checkpoint(tmp_path / "model")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    assert not is_supported(folder)
    with pytest.raises(DataError, match="can't be written for the CPU engine") as caught:
        write_gguf(folder, tmp_path / "out" / "a.gguf", "f16")
    assert re.search(found, caught.value.found)
    assert not list((tmp_path / "out").glob("*"))
