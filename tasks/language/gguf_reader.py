"""Read a GGUF, and unpack it into a checkpoint as transformers keeps one."""

from __future__ import annotations

import json
import math
import mmap
import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.core.untrusted import reading_untrusted
from tasks.language.gguf_writer import (
    BYTE_LEVEL,
    PRE_TOKENIZERS,
    SPECIAL_TOKENS,
    checkpoint_name,
    head_count,
    unpermute,
)

if TYPE_CHECKING:
    import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST = {kind: struct.calcsize(form) for kind, form in _SCALARS.items()} | {_STRING: 8, _ARRAY: 12}  # bytes of a value
MAX_VALUES = 4_000_000  # in all arrays together; a tokenizer of 256,000 tokens has under a million
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16
_CONTROL, _USER_DEFINED = 3, 4  # types of tokens


class GgufFile:
    """The header of a GGUF, and its tensors on demand; the gguf package's own reader takes 6 s for 50,000 tokens.

    Raises: DataError when the file is none, is cut short or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, Any] = {}
        self._infos: dict[str, tuple[tuple[int, ...], int, int]] = {}  # shape, type, offset
        self._values = 0  # in arrays
        with reading_untrusted("The model is no GGUF that can be read.", path, allowed="a whole GGUF, version 2 or 3"):
            with path.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._read_header()

    def names(self) -> list[str]:
        return list(self._infos)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's exact values, float32."""
        import gguf
        import numpy as np

        shape, kind, offset = self._infos[name]
        size, bytes_each = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        count = int(np.prod(shape)) // size * bytes_each
        data = np.frombuffer(self._bytes, np.uint8, count, offset)
        return gguf.dequantize(data.reshape(*shape[:-1], -1), gguf.GGMLQuantizationType(kind)).reshape(shape)

    def _read_header(self) -> None:
        self._at = 0
        if self._bytes[:4] != b"GGUF" or self._take("<4xI") not in (2, 3):
            raise ValueError("it does not begin as one")
        tensors, fields = self._take("<Q"), self._take("<Q")
        for _ in range(fields):
            name = self._text()
            self.fields[name] = self._value(self._take("<I"))
        for _ in range(tensors):
            name, dimensions = self._text(), self._take("<I")
            if name in self._infos or not 0 < dimensions <= MAX_DIMENSIONS:
                raise ValueError(f"tensor {name[:80]!r} of {dimensions:,} dimensions, or twice")
            shape = tuple(self._take("<Q") for _ in range(dimensions))[::-1]
            self._infos[name] = (shape, self._take("<I"), self._take("<Q"))
        self._place_tensors()

    def _place_tensors(self) -> None:
        """Count offsets from the beginning of the file, and see that tensors lie in it and apart from each other."""
        import gguf

        alignment = self.fields.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT:
            raise ValueError(f"an alignment of {alignment!r}"[:80])
        start = -(-self._at // alignment) * alignment
        spans = []
        for name, (shape, kind, offset) in self._infos.items():
            size, bytes_each = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
            count = math.prod(shape)
            end = start + offset + count // size * bytes_each
            if shape[-1] % size or not count:
                raise ValueError(f"tensor {name[:80]!r} has a shape that does not fit its type")
            if end > len(self._bytes):
                raise ValueError(f"it ends before the end of {name[:80]}")
            self._infos[name] = (shape, kind, start + offset)
            spans.append((start + offset, end))
        spans.sort()
        if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
            raise ValueError("its tensors overlap")

    def _take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return value

    def _text(self) -> str:
        length = self._take("<Q")
        self._check_left(length, 1)
        text = self._bytes[self._at : self._at + length].decode("utf-8")
        self._at += length
        return text

    def _check_left(self, count: int, least: int) -> None:
        """Raises: ValueError when the file has no room for so many values of at least so many bytes."""
        if count * least > len(self._bytes) - self._at:
            raise ValueError(f"{count:,} values announced with {len(self._bytes) - self._at:,} bytes left")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            inner, length = self._take("<I"), self._take("<Q")
            self._check_left(length, _LEAST[inner])
            self._values += length
            if self._values > MAX_VALUES or inner == _ARRAY:
                raise ValueError(f"arrays of arrays, or of more than {MAX_VALUES:,} values")
            return [self._value(inner) for _ in range(length)]
        return self._take(f"<{_SCALARS[kind]}")


def gguf_to_checkpoint(model: GgufFile, folder: Path) -> None:
    """Write config.json, model.safetensors (bfloat16), tokenizer.json, tokenizer_config.json into a folder.

    Raises: DataError when the model or its tokenizer is of a kind that is not known to come out right.
    """
    import torch
    from safetensors.torch import save_file

    try:
        config = _config(model)
        tokenizer, settings = _tokenizer(model)
    except KeyError as error:
        raise _unsupported(model, f"no field {error}") from error
    tensors = {}
    for tensor_name in model.names():
        name = checkpoint_name(tensor_name)
        if name is None:
            raise _unsupported(model, f"a tensor {tensor_name}")
        values, heads = model.tensor(tensor_name), head_count(name, config)
        values = unpermute(values, heads) if heads else values
        tensors[name] = torch.tensor(values).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in {"config": config, "tokenizer": tokenizer, "tokenizer_config": settings}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _config(model: GgufFile) -> dict[str, Any]:
    fields = model.fields
    if fields.get("general.architecture") != "llama" or "llama.rope.scaling.type" in fields:
        raise _unsupported(model, f"architecture {fields.get('general.architecture')} or scaled rope")
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "head_dim": fields.get("llama.attention.key_length", fields["llama.embedding_length"] // heads),
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": _shortest(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": _shortest(fields.get("llama.rope.freq_base", 10000.0)),
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "output.weight" not in model.names(),
        **{
            f"{role}_token_id": fields[f"tokenizer.ggml.{name}_token_id"]
            for role, name in SPECIAL_TOKENS.items()
            if role != "unk" and f"tokenizer.ggml.{name}_token_id" in fields
        },
    }


def _tokenizer(model: GgufFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tokenizer.json and tokenizer_config.json say."""
    fields = model.fields
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise _unsupported(model, f"tokenizer {kind}, cut as {pre}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": index, "content": tokens[index], **flags, "special": type_ == _CONTROL}
        for index, type_ in enumerate(types)
        if type_ in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": fields["tokenizer.ggml.merges"],
        },
    }
    named = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{name}_token_id"]]
        for role, name in SPECIAL_TOKENS.items()
        if f"tokenizer.ggml.{name}_token_id" in fields
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": fields.get("tokenizer.ggml.add_bos_token", False),
        **named,
    }
    return tokenizer, settings


def _shortest(value: float) -> float:
    """The shortest number that is the same float32: 1e-05 rather than 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def _unsupported(model: GgufFile, found: str) -> DataError:
    return DataError(
        "This GGUF can't be turned into a checkpoint to train on.",
        where=str(model.path),
        found=found,
        allowed=f"architecture llama with plain rope; tokenizer gpt2, cut as {' or '.join(PRE_TOKENIZERS)}",
        todo="Name the model's safetensors instead: file://FOLDER or hf://ORG/NAME.",
    )
