"""Measure how fast this machine trains one layer of the base, with random weights."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from tasks.data.results import BaseModelFiles
from tasks.language.library_noise import silence_libraries
from tasks.train.config import Tuning
from tasks.train.language.model import Precision, add_adapter

SECONDS, PASSES = 1.0, 20  # whichever comes first
VOCABULARY = 32  # small, so that the output layer takes no time


def seconds_of_layer(base: BaseModelFiles, tuning: Tuning, precision: Precision, *, rows: int, tokens: int) -> float:
    """Seconds of a forward and backward pass of one layer with adapters, over `rows` texts of `tokens` tokens."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with silence_libraries(tuning.threads), torch.random.fork_rng(), torch.device(device):
        model = _layer(base, tuning, precision)
        tokens_in = torch.randint(VOCABULARY, (rows, tokens))
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < 2 or (len(seconds) < PASSES and time.perf_counter() - began < SECONDS):
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(input_ids=tokens_in, use_cache=False).logits.float().mean()
            loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return median(seconds[1:])  # the first is a warm-up


def _layer(base: BaseModelFiles, tuning: Tuning, precision: Precision) -> Any:
    """A model of one layer of the base with a tiny vocabulary and new adapters; its input needs a gradient."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.folder)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, VOCABULARY, None
    if layer_types := getattr(config, "layer_types", None):
        config.layer_types = layer_types[-1:]
    attention = "sdpa" if tuning.attention == "flash_attention_2" else tuning.attention  # flash may not be installed
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.enable_input_require_grads()  # as in a middle layer
    return add_adapter(model, tuning.lora.model_copy(update={"layers": None}), seed=0)
