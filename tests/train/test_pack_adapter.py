from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.data.checkpoint import GGUF
from tasks.foundation.engine import engine
from tasks.foundation.errors import DataError
from tasks.foundation.files import file_digest
from tasks.train.pack_adapter import pack_adapter
from tests.language import smollm_base

ASK = [{"role": "user", "content": "Name three colours."}]


def adapted(folder: Path, seed: int):
    """The base with a random adapter on every linear layer, saved as peft saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    base = AutoModelForCausalLM.from_pretrained(smollm_base().folder, dtype=torch.float32)
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    model.save_pretrained(folder)
    return model.eval()


def test_an_adapter_in_the_engine_computes_what_it_computes_in_training(tmp_path):
    """Several adapters share one engine, a request names the one it wants, and each answers as in transformers."""
    import torch

    base = smollm_base()
    models = {name: adapted(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))}
    packed = {name: pack_adapter(tmp_path / name, base.folder, tmp_path / f"{name}.gguf") for name in models}
    with engine(base.folder / GGUF, threads=1, slots=1, context=256, adapters=packed) as running:
        replies = {name: running.chat(ASK, max_tokens=8, logprobs=True, adapter=name) for name in (None, *models)}
        prompt = running.tokens(ASK)
        with pytest.raises(DataError, match="no such adapter"):
            running.chat(ASK, max_tokens=1, adapter="three")
    with engine(base.folder / GGUF, threads=1, slots=1, context=256) as alone:
        assert alone.chat(ASK, max_tokens=8).text == replies[None].text
    assert len({reply.text for reply in replies.values()}) == 3
    for name, model in models.items():
        said = replies[name].logprobs
        with torch.no_grad():
            logits = model(torch.tensor([prompt + [token for token, _ in said]])).logits[0]
        known = torch.log_softmax(logits.float(), -1)
        gaps = [abs(known[len(prompt) - 1 + i, token].item() - value) for i, (token, value) in enumerate(said)]
        assert max(gaps) < 0.05


@pytest.mark.parametrize("change", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"peft_type": "LOHA"}])
def test_another_kind_of_adapter_is_refused(tmp_path, change):
    """What the engine would compute otherwise is not written."""
    adapter = tiny_adapter(tmp_path)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(DataError, match="can't be written"):
        pack_adapter(adapter, smollm_base().folder, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_equal_input_gives_equal_bytes(tmp_path):
    """An adapter's file has one digest."""
    adapter = tiny_adapter(tmp_path)
    digests = {
        file_digest(pack_adapter(adapter, smollm_base().folder, tmp_path / name)) for name in ("a.gguf", "b.gguf")
    }
    assert len(digests) == 1


def tiny_adapter(folder: Path) -> Path:
    """An adapter of one matrix, without a model."""
    import torch
    from safetensors.torch import save_file

    (folder / "adapter").mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 576), f"{name}.lora_B.weight": torch.ones(576, 4)}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "lora_alpha": 8, "bias": "none"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    return folder / "adapter"
