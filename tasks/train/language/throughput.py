"""How fast this machine learns: one layer of the base, with random weights, tried for a moment."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from tasks.data.results import BaseModelFiles
from tasks.language.library_noise import silence_libraries
from tasks.train.config import Tuning
from tasks.train.language.model import Precision, add_adapter

SECONDS, PASSES = 1.0, 20  # whichever comes first
VOCABULARY = 32  # of the layer tried: the scores of words are no part of it


def seconds_of_layer(base: BaseModelFiles, tuning: Tuning, precision: Precision, rows: int, tokens: int) -> float:
    """Seconds that a layer with its adapters takes to learn from `rows` texts of `tokens` each, there and back."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with silence_libraries(tuning.threads), torch.random.fork_rng(), torch.device(device):
        model = _layer(base, tuning, precision)
        read = torch.randint(VOCABULARY, (rows, tokens))
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < 2 or (len(seconds) < PASSES and time.perf_counter() - began < SECONDS):
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(input_ids=read, use_cache=False).logits.float().mean()
            loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return median(seconds[1:])  # the first prepares


def _layer(base: BaseModelFiles, tuning: Tuning, precision: Precision) -> Any:
    """A model of one of the base's layers and hardly any words, its adapter new; whatever enters wants a gradient."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.folder)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, VOCABULARY, None
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = kinds[-1:]
    attention = "sdpa" if tuning.attention == "flash_attention_2" else tuning.attention  # which may not be installed
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.enable_input_require_grads()  # as of a layer in the middle
    return add_adapter(model, tuning.lora.model_copy(update={"layers": None}), seed=0)
