"""GGUF, the file that the CPU engine loads: written from a checkpoint, and read back into one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import DataError
from tasks.core.files import atomic_path
from tasks.core.untrusted import read_json_object

if TYPE_CHECKING:
    import gguf
    import numpy as np

Weights = Literal["f16", "bf16", "q8_0", "q4_1"]
ARCHITECTURES = ("llama", "mistral")  # names in transformers; llama.cpp calls both llama

# Pre-tokenizers: llama.cpp's name, and the entry in tokenizer.json.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, BYTE_LEVEL]},
    "gpt-2": BYTE_LEVEL,
}
SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # name in a checkpoint: in a GGUF
_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "model.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
}


def write_gguf(checkpoint: Path, out: Path, weights: Weights) -> Path:
    """Write a transformers folder with its tokenizer and chat template as one GGUF; equal input gives equal bytes.

    Raises: DataError when the architecture or the tokenizer is none that is known to come out right.
    """
    import gguf

    config = read_json_object(checkpoint / "config.json")
    _check_architecture(checkpoint, config)
    with atomic_path(out) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _describe_model(writer, config, weights)
        _describe_tokenizer(writer, checkpoint, config)
        for name, values in _tensors(checkpoint, config):
            data, kind = _encode(values, name, weights)
            renamed = gguf_name(name)
            if renamed is None:
                raise _unsupported(checkpoint, f"a tensor {name}")
            writer.add_tensor(renamed, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out


def is_supported(checkpoint: Path) -> bool:
    """Whether `write_gguf` can write this checkpoint."""
    try:
        config = read_json_object(checkpoint / "config.json")
        _check_architecture(checkpoint, config)
        _read_tokenizer(checkpoint)
    except DataError:
        return False
    return True


def permute(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix from transformers' order (halves of a head) into llama.cpp's (pairs)."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """The way back."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def head_count(name: str, config: dict[str, Any]) -> int | None:
    """Heads of a tensor whose rows are permuted; None of any other."""
    if ".q_proj." in name:
        return int(config["num_attention_heads"])
    return config["num_key_value_heads"] if ".k_proj." in name else None


def gguf_name(name: str) -> str | None:
    """The GGUF name of a checkpoint's tensor; None when there is no such tensor."""
    return _rename(name, _TENSORS)


def checkpoint_name(name: str) -> str | None:
    """The transformers name of a GGUF tensor; None when there is no such tensor."""
    return _rename(name, {gguf_stem: transformers_name for transformers_name, gguf_stem in _TENSORS.items()})


def _rename(name: str, table: dict[str, str]) -> str | None:
    stem, _, suffix = name.rpartition(".")
    layer = next((part for part in stem.split(".") if part.isdigit()), "")
    renamed = table.get(stem.replace(f".{layer}.", ".{}.") if layer else stem)
    return renamed and f"{renamed.format(layer)}.{suffix}"


def _check_architecture(checkpoint: Path, config: dict[str, Any]) -> None:
    if config.get("model_type") not in ARCHITECTURES:
        raise _unsupported(checkpoint, f"model_type {config.get('model_type')}")
    if config.get("sliding_window"):
        raise _unsupported(checkpoint, f"sliding_window {config['sliding_window']}")
    if (rope := _rope(config)).get("rope_type", "default") != "default":
        raise _unsupported(checkpoint, f"rope type {rope['rope_type']}")
    if config.get("quantization_config"):
        raise _unsupported(checkpoint, "quantized weights")


def _unsupported(checkpoint: Path, found: str) -> DataError:
    return DataError(
        "This model can't be written for the CPU engine.",
        where=str(checkpoint),
        found=found,
        allowed=f"model_type {' or '.join(ARCHITECTURES)} with plain rope and full attention; a byte-level BPE "
        f"tokenizer cut as {' or '.join(PRE_TOKENIZERS)}",
        todo="Take a model of that kind.",
    )


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Older checkpoints say `rope_theta` and `rope_scaling`, newer ones `rope_parameters`."""
    rope = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
    return rope | (config.get("rope_parameters") or {})


def _describe_model(writer: gguf.GGUFWriter, config: dict[str, Any], weights: Weights) -> None:
    import gguf

    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_type("model")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{weights.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _describe_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, config: dict[str, Any]) -> None:
    from gguf import TokenType

    tokenizer, pre = _read_tokenizer(checkpoint)
    model = tokenizer["model"]
    tokens = {index: (token, TokenType.NORMAL) for token, index in model["vocab"].items()}
    for added in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind)
    filled = [tokens.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in filled])
    writer.add_token_types([kind for _, kind in filled])
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in model["merges"]])

    settings = read_json_object(checkpoint / "tokenizer_config.json")
    index_of = {token: index for index, (token, _) in tokens.items()}
    for role, name in SPECIAL_TOKENS.items():
        token = settings.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token in index_of:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index_of[token])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(bool(settings.get("add_bos_token", False)))
    writer.add_chat_template((checkpoint / "chat_template.jinja").read_text(encoding="utf-8"))


def _read_tokenizer(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """The content of tokenizer.json, and llama.cpp's name of its pre-tokenizer."""
    tokenizer = read_json_object(checkpoint / "tokenizer.json")
    kind, cut = tokenizer["model"].get("type"), tokenizer.get("pre_tokenizer")
    pre = next((name for name, each in PRE_TOKENIZERS.items() if each == cut), None)
    special = [name for name in ("ignore_merges", "byte_fallback") if tokenizer["model"].get(name)]
    if kind != "BPE" or pre is None or special or tokenizer.get("normalizer"):
        raise _unsupported(checkpoint, f"a {kind} tokenizer cut by {json.dumps(cut)[:200]} {' '.join(special)}")
    return tokenizer, pre


def _tensors(checkpoint: Path, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by name, float32, rows of queries and keys in llama.cpp's order."""
    from safetensors import safe_open

    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                values = tensors.get_tensor(name).float().numpy()
                heads = head_count(name, config)
                yield name, permute(values, heads) if heads else values


def _encode(values: np.ndarray, name: str, weights: Weights) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """Norms and biases stay float32; four bits are too few for the embedding, which is also the output layer."""
    import gguf

    kind = gguf.GGMLQuantizationType[weights.upper()]
    if values.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif weights.startswith("q4") and name in ("model.embed_tokens.weight", "lm_head.weight"):
        kind = gguf.GGMLQuantizationType.Q8_0
    if values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:  # rows that don't divide into blocks
        kind = gguf.GGMLQuantizationType.F16
    return gguf.quantize(values, kind), kind
