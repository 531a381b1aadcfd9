from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import CaseError, DataError
from tasks.data.results import BaseModelFiles
from tasks.language.messages import chat_message
from tasks.train.config import Lora
from tasks.train.language.model import (
    ADAPTER,
    GenerationSettings,
    add_adapter,
    encode,
    generate,
    load_adapter,
    load_base,
    merge,
    open_tokenizer,
    read_pairs,
    render,
    save_adapter,
    supported_precision,
)
from tests.language_case import smollm_base
from tests.train.pairs import tiny_base

MESSAGES = [{"role": "user", "content": "Is UA123 on time?"}]
CONVERSATION = [{"role": "system", "content": "Answer in JSON."}, *MESSAGES]
ANSWER = '{"function":"flight_status","flight":"UA123"}'


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return open_tokenizer(smollm_base())


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return tiny_base(tmp_path_factory.getbasetemp() / "tiny")


def test_a_pair_has_the_tokens_of_serving(tokenizer: Any) -> None:
    """The prompt's ids are those that the serving side makes; the answer's end with the token that stops it."""
    example = encode(tokenizer, CONVERSATION, ANSWER)
    assert example.prompt == tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=True)["input_ids"]
    assert example.completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(example.completion[:-1]) == ANSWER
    assert tokenizer.eos_token_id not in example.completion[:-1]


def test_a_missing_rejected_answer_is_none(tmp_path: Path) -> None:
    """A column of nothing comes back as NaN from some files, which would pass for an answer to be rejected."""
    import pandas as pd

    row = {"messages": json.dumps(MESSAGES), "answer": ANSWER, "rejected": float("nan")}
    pd.DataFrame([row]).to_parquet(tmp_path / "train.parquet")
    assert read_pairs(tmp_path / "train.parquet")[0]["rejected"] is None


def test_a_template_of_two_renderings_is_refused(tokenizer: Any) -> None:
    """Learning answers in another place than they will be asked for would go unnoticed."""
    changed = open_tokenizer(smollm_base())
    changed.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    with pytest.raises(CaseError, match="renders the prompt of an answer differently"):
        encode(changed, CONVERSATION, ANSWER)


def test_a_template_without_a_system_role_is_refused(tokenizer: Any) -> None:
    """What the template itself says is passed on."""
    changed = open_tokenizer(smollm_base())
    changed.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    with pytest.raises(CaseError, match="can't render") as caught:
        render(changed, CONVERSATION)
    assert "no system role" in caught.value.found


def test_answers_do_not_depend_on_their_batch(base: BaseModelFiles) -> None:
    """Batched and padded, each prompt gets the greedy answer that it gets alone; the training's chance is untouched."""
    import torch

    tokenizer, model = open_tokenizer(base), load_base(base, "fp32", "sdpa")
    prompts = [render(tokenizer, [chat_message("system", "s" * n), *MESSAGES]) for n in (1, 40, 9)]
    model.train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    together = generate(model, tokenizer, prompts, GenerationSettings(8))
    assert together == [generate(model, tokenizer, [prompt], GenerationSettings(8))[0] for prompt in prompts]
    settings = [GenerationSettings(8, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    sampled = [generate(model, tokenizer, prompts, each) for each in settings]
    assert sampled[0] == sampled[1] != sampled[2]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training


def test_an_adapter_is_written_the_same_each_time_and_merges(tmp_path: Path, base: BaseModelFiles) -> None:
    """Equal weights give equal bytes; merged, the model says what base and adapter say together."""
    import torch
    from transformers import AutoModelForCausalLM

    model = add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.02)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    for name in ("one", "two"):
        save_adapter(model, tmp_path / name, base)
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    merged = AutoModelForCausalLM.from_pretrained(merge(base, tmp_path / "one", tmp_path / "merged"), dtype="float32")
    ids = torch.tensor([[1, 500, 900, 77]])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, model.eval()(ids).logits, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, load_base(base, "fp32", "sdpa")(ids).logits, atol=1e-2)


def test_only_the_upper_layers_learn_when_the_case_says_so(tmp_path: Path, base: BaseModelFiles) -> None:
    """Of two layers the upper one: the file holds its matrices alone, and no gradient is wanted of the lower one."""
    import torch
    from safetensors.torch import load_file

    model = add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4, layers=1), seed=1)
    save_adapter(model, tmp_path / "upper", base)
    names = {name.partition(".layers.")[2].split(".")[0] for name in load_file(tmp_path / "upper" / ADAPTER)}
    assert names == {"1"}
    assert load_adapter(load_base(base, "fp32", "sdpa"), tmp_path / "upper").get_model_status().num_adapter_layers == 7
    seen: dict[str, bool] = {}
    for name, module in model.get_base_model().model.layers.named_children():
        module.register_forward_hook(lambda *hook, name=name: seen.update({name: hook[2].requires_grad}))
    model(torch.tensor([[1, 500, 900, 77]]))
    assert seen == {"0": False, "1": True}


def test_a_damaged_adapter_or_a_pickle_is_refused(tmp_path: Path, base: BaseModelFiles) -> None:
    """Neither is read: a pickle would run code."""
    import torch

    model = add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4), seed=1)
    save_adapter(model, tmp_path, base)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="adapter can't be read"):
        load_adapter(load_base(base, "fp32", "sdpa"), tmp_path)
    path.unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(DataError, match="adapter can't be read") as caught:
        load_adapter(load_base(base, "fp32", "sdpa"), tmp_path)
    assert "adapter_model.bin" in caught.value.found
    assert "pickles are refused" in caught.value.allowed


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: BaseModelFiles) -> None:
    """Shapes that don't fit are told in our words."""
    save_adapter(add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4), seed=1), tmp_path, base)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"r": 8}), encoding="utf-8")
    with pytest.raises(DataError, match="adapter can't be read"):
        load_adapter(load_base(base, "fp32", "sdpa"), tmp_path)


def test_bf16_is_used_where_the_processor_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it would be several times slower than fp32."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("about processors")
    for fast, used in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda fast=fast: fast)
        assert supported_precision("bf16") == used
        assert supported_precision("fp32") == "fp32"
