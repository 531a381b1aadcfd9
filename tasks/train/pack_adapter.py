"""A LoRA adapter for the CPU engine, so that several of one base can share one process."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.data.pack import heads_of, name_in_gguf, permute
from tasks.foundation.errors import DataError
from tasks.foundation.files import whole

_PREFIX, _HALVES = "base_model.model.", {".lora_A.weight": ".weight.lora_a", ".lora_B.weight": ".weight.lora_b"}


def pack_adapter(adapter: Path, base: Path, out: Path) -> Path:
    """Write an adapter, as peft saves one, as a GGUF for the checkpoint `base`; equal input gives equal bytes.

    Raises: DataError when it is no plain LoRA over that base's linear layers.
    """
    import gguf
    from safetensors import safe_open

    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    odd = [name for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if settings.get(name)]
    if settings["peft_type"] != "LORA" or settings.get("bias", "none") != "none" or odd:
        raise _unknown(adapter, f"{settings['peft_type']}, bias {settings.get('bias')} {' '.join(odd)}")
    with whole(out) as temporary, safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        writer = gguf.GGUFWriter(temporary, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", settings["lora_alpha"])
        for name in sorted(tensors.keys()):
            half = next((half for half in _HALVES if name.startswith(_PREFIX) and name.endswith(half)), "")
            weight = name.removeprefix(_PREFIX).removesuffix(half) + ".weight"
            theirs = name_in_gguf(weight)
            if not half or theirs is None:
                raise _unknown(adapter, f"a tensor {name}")
            values, heads = tensors.get_tensor(name).float().numpy(), heads_of(weight, config)
            if heads and half == ".lora_B.weight":  # only these rows are the matrix's own
                values = permute(values, heads)
            writer.add_tensor(theirs.removesuffix(".weight") + _HALVES[half], values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out


def _unknown(adapter: Path, found: str) -> DataError:
    return DataError(
        "This adapter can't be written for the CPU engine.",
        where=str(adapter),
        found=found,
        allowed="plain LoRA over linear layers of a llama",
        todo="Serve its merged weights, or train a plain one.",
    )
