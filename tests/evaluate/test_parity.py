"""The serving stack must say what the training stack would; each way to differ is planted and found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.core.errors import DataError
from tasks.data.config import Answer, ChatSpec
from tasks.data.results import GGUF, BaseModelFiles
from tasks.evaluate.language.logprobs import perplexity, token_logprobs
from tasks.evaluate.language.parity import Parity, ServedModel, check_parity, parity_criteria
from tasks.language.gguf_writer import write_gguf
from tasks.language.prompts import Prompt
from tasks.train.config import Lora, Serving
from tasks.train.language.model import Example, add_adapter, load_base, merge, save_adapter
from tasks.train.results import LanguageSpec
from tests.language_case import smollm_base

SYSTEM = "Answer in one word."
PROMPTS = [[{"role": "user", "content": text}] for text in ("Is UA 1545 late on 2013-01-05?", "Say hello")]
BOUND = 0.25
NAMES = ("parity_rendered_otherwise", "parity_chosen_otherwise", "parity_logprob_difference")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An adapter that does something, and the model that it makes."""
    import torch

    base, folder = smollm_base(), tmp_path_factory.mktemp("tuned")
    model = add_adapter(load_base(base, "fp32", "sdpa"), Lora(rank=4, alpha=8), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02, generator=generator)
    save_adapter(model, folder / "adapter", base)
    merged = merge(base, folder / "adapter", folder / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base.folder / name, merged / name)
    return folder / "adapter", write_gguf(merged, folder / "model.gguf", "q8_0")


def found(adapter: Path | None, gguf: Path, base: BaseModelFiles | None = None, served: str | None = None) -> Parity:
    chat = ChatSpec(prompt=Prompt(system=SYSTEM, baseline="{schema}"), answer=Answer(json_schema={}), context=256)
    spec = LanguageSpec(base=base or smollm_base(), chat=chat, serving=Serving(answer_tokens=16))
    model = ServedModel(gguf, Prompt(system=SYSTEM if served is None else served))
    return check_parity(spec, adapter, model, PROMPTS, threads=1, bound=BOUND)


def failing(parity: Parity) -> set[str]:
    return {criterion.name for criterion in parity_criteria(parity, BOUND) if not criterion.passed}


def test_what_was_tuned_and_what_is_served_agree(tuned: tuple[Path, Path]) -> None:
    """Same token ids, same greedy answers, log-probabilities within the bound though weights are rounded."""
    adapter, gguf = tuned
    parity = found(adapter, gguf)
    assert failing(parity) == set()
    assert parity.prompts == len(PROMPTS)
    assert parity.tokens >= len(PROMPTS)


def test_a_missing_adapter_is_found(tuned: tuple[Path, Path]) -> None:
    """The base served in the tuned model's place renders the same, and says something else."""
    assert "parity_logprob_difference" in failing(found(tuned[0], smollm_base().folder / GGUF))


def test_an_adapter_that_is_not_served_by_mistake_is_found(tuned: tuple[Path, Path]) -> None:
    """The other way round: served is an adapter that the candidate does not have."""
    assert "parity_logprob_difference" in failing(found(None, tuned[1]))


def test_another_chat_template_is_found(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    """A template that differs by one word renders other token ids."""
    base = smollm_base()
    shutil.copytree(base.folder, tmp_path / "base")
    template = (base.folder / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "base" / "chat_template.jinja").write_text(template.replace("<|im_end|>", "<|im_end|> "), "utf-8")
    other = base.model_copy(update={"folder": tmp_path / "base"})
    assert "parity_rendered_otherwise" in failing(found(tuned[0], tuned[1], other))


def test_another_system_prompt_is_found(tuned: tuple[Path, Path]) -> None:
    """A release that holds another prompt than the candidate was tuned with."""
    assert "parity_rendered_otherwise" in failing(found(*tuned, served=SYSTEM + " "))


def test_another_revision_of_the_base_is_found(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    """The same adapter on weights that differ a little."""
    from safetensors.torch import load_file, save_file

    base = smollm_base()
    shutil.copytree(base.folder, tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.layers.10.mlp.down_proj.weight"] *= 0.5
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    other = base.model_copy(update={"folder": tmp_path / "base"})
    assert "parity_logprob_difference" in failing(found(tuned[0], tuned[1], other))


def test_what_can_not_be_compared_fails(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    """No finding, no answer, no golden prompt: not one of the criteria passes. A damaged adapter is told."""
    lines = parity_criteria(None, BOUND, "the engine did not start")
    assert [line.name for line in lines] == list(NAMES)
    assert {(line.passed, line.observed, line.note) for line in lines} == {(False, None, "the engine did not start")}
    assert failing(Parity(0, 0, 0, 0, None)) == set(NAMES)
    shutil.copytree(tuned[0], tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="adapter can't be read"):
        token_logprobs(smollm_base(), tmp_path / "adapter", [Example([1, 2], [3])], 1)


def test_token_logprobs_do_not_depend_on_what_prompts_share() -> None:
    """Computed together over a shared beginning, or each alone: the same; and the best is never below what was said."""
    start = [1, 9690, 198, 2683, 359]
    examples = [Example([*start, *more], [504, 514, 49]) for more in ([30], [30, 2, 198], [9690])]
    together = token_logprobs(smollm_base(), None, examples, 1)
    for example, tokens in zip(examples, together, strict=True):
        (alone,) = token_logprobs(smollm_base(), None, [example], 1)
        assert [token.logprob for token in tokens] == pytest.approx([token.logprob for token in alone], abs=1e-3)
        assert all(token.best >= token.logprob for token in tokens)
    assert perplexity(together) > 1
