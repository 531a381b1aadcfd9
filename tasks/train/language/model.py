"""The model in training: pairs as token ids, the base with its adapter, generated answers, and saved files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import CaseError, DataError
from tasks.data.results import BaseModelFiles
from tasks.language.messages import ASSISTANT, chat_message
from tasks.train.config import Lora

if TYPE_CHECKING:
    import pandas as pd

Precision = Literal["bf16", "fp32"]
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class Example:
    """A pair as token ids."""

    prompt: list[int]
    completion: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated: greedily at temperature 0, else sampled."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    batch: int = 16
    precision: Precision = "fp32"


def open_tokenizer(base: BaseModelFiles) -> Any:
    """The base's tokenizer with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base.folder)


def render(tokenizer: Any, conversation: Sequence[dict[str, str]], answer: str | None = None) -> str:
    """The conversation as text, up to where the answer begins; or with an answer.

    Raises: CaseError when the chat template can't render it.
    """
    from jinja2 import TemplateError

    turns = [*conversation, *([] if answer is None else [chat_message(ASSISTANT, answer)])]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None))
    except (TemplateError, ValueError, TypeError) as error:
        raise CaseError(
            "The chat template can't render a message with this system prompt.",
            where="model.chat_template",
            found=str(error).split("\n")[0],
            todo="Name a template that takes the three roles of a chat.",
        ) from error


def encode(tokenizer: Any, conversation: Sequence[dict[str, str]], answer: str) -> Example:
    """A pair as token ids; the answer ends with its end token, as a generated one does.

    Raises: CaseError when the template renders an answer differently from the prompt for one.
    """
    prompt, text = render(tokenizer, conversation), render(tokenizer, conversation, answer)
    if not text.startswith(prompt):
        raise CaseError(
            "The chat template renders the prompt of an answer differently from the answer itself.",
            where="model.chat_template",
            found=f"prompt ends {prompt[-40:]!r}, answer ends {text[-60:]!r}",
            todo="Correct the template, so that add_generation_prompt ends where the answer begins.",
        )
    completion = token_ids(tokenizer, text[len(prompt) :])
    end = tokenizer.eos_token_id
    completion = completion[: completion.index(end) + 1] if end in completion else [*completion, end]
    return Example(token_ids(tokenizer, prompt), completion)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text, which already contains the special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def read_pairs(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of pairs, messages as lists.

    Raises: DataError when it is missing or empty.
    """
    table = read_pairs_table(file)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")  # NaN and NA become None
    return [{**{str(k): v for k, v in row.items()}, "messages": json.loads(row["messages"])} for row in rows]


def read_pairs_table(file: Path) -> pd.DataFrame:
    """A file of pairs as a table.

    Raises: DataError when it is missing or empty.
    """
    import pandas as pd

    rows = pd.read_parquet(file) if file.is_file() else pd.DataFrame()
    if rows.empty:
        raise DataError(
            f"There are no {file.stem} pairs.",
            where=str(file),
            found="no rows" if file.is_file() else "no such file",
            allowed="at least one pair",
            todo="Add pairs: see the case's pairs section.",
        )
    return rows


def supported_precision(requested: Precision) -> Precision:
    """bf16 where the hardware supports it; elsewhere fp32, since bf16 would be several times slower."""
    import torch

    from tasks.train.compat import cpu_supports_bf16

    if requested == "bf16":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_supports_bf16()
        return "bf16" if fast else "fp32"
    return requested


def load_base(base: BaseModelFiles, precision: Precision, attention: str, quantize: str = "none") -> Any:
    """Load the base model, onto the GPU if there is one.

    Raises: CaseError when a package that `quantize` or `attention` needs is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if quantize == "nf4":
        _require("bitsandbytes", "train.quantize: nf4")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if attention == "flash_attention_2":
        _require("flash_attn", "train.attention: flash_attention_2")
    model = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=dtype, attn_implementation=attention, use_safetensors=True, **options
    )
    if torch.cuda.is_available() and quantize == "none":
        model.to(torch.device("cuda"))  # type: ignore[arg-type]
    return model


def _require(package: str, where: str) -> None:
    if find_spec(package) is None:
        raise CaseError(
            f"{where.split(': ')[-1]} needs a package that is not installed.",
            where=where,
            found=f"no {package}",
            todo=f"Install it (uv pip install {package}), or leave this setting at its default.",
        )


def add_adapter(model: Any, lora: Lora, seed: int) -> Any:
    """The model with new adapters in fp32 on every matrix of its layers, or of the upper ones.

    Layers below the lowest adapter need no gradients, so neither their activations nor a backward pass.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(seed)
    below = range(model.config.num_hidden_layers - lora.layers) if lora.layers else ()
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # fractions work
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        exclude_modules=rf"\D*\.({'|'.join(map(str, below))})\..*" if below else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """The model with the adapter in this folder.

    Raises: DataError when it is damaged, does not fit the base, or comes as a pickle, which is never read.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    if not (folder / ADAPTER).is_file():
        found = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else ["no such folder"]
        raise _bad_adapter(folder, ", ".join(found) or "nothing")
    try:
        loaded = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except Exception as error:  # peft raises anything on a damaged adapter
        raise _bad_adapter(folder, " ".join(str(error).split())[:300]) from error
    with safe_open(folder / ADAPTER, framework="pt") as file:
        if others := set(file.keys()) ^ set(get_peft_model_state_dict(loaded, save_embedding_layers=False)):
            raise _bad_adapter(
                folder, f"missing weights, or weights of unknown layers: {', '.join(sorted(others)[:3])}"
            )
    loaded.peft_config["default"].base_model_name_or_path = model.name_or_path  # peft needs a path; the source is none
    return loaded


def _bad_adapter(folder: Path, found: str) -> DataError:
    return DataError(
        "The adapter can't be read.",
        where=str(folder),
        found=found,
        allowed=f"{ADAPTER} and adapter_config.json of this base; pickles are refused",
        todo="Remove the folder and train again, or restore a complete copy.",
    )


def save_adapter(model: Any, folder: Path, base: BaseModelFiles) -> None:
    """Write the adapter; equal weights give equal bytes, and the files hold no local path."""
    model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.source, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def merge(base: BaseModelFiles, adapter: Path, out: Path) -> Path:
    """Write base and adapter as one fp32 checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, use_safetensors=True)
    load_adapter(model, adapter).merge_and_unload().save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(base.folder / name, out / name)
    return out


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: GenerationSettings,
) -> list[str]:
    """Answers to rendered prompts. The model's training mode is restored."""
    import torch

    sampling = (
        {"do_sample": True, "temperature": settings.temperature} if settings.temperature else {"do_sample": False}
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # similar lengths need little padding
    answers = [""] * len(prompts)
    training, device = model.training, model.device.type
    model.eval()
    try:
        with torch.random.fork_rng():  # sampling must not change the random numbers of the training
            torch.manual_seed(settings.seed)
            for start in range(0, len(order), settings.batch):
                chosen = order[start : start + settings.batch]
                encoded = tokenizer(
                    [prompts[i] for i in chosen],
                    add_special_tokens=False,
                    padding=True,
                    padding_side="left",
                    return_tensors="pt",
                ).to(model.device)
                with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16"):
                    output = model.generate(
                        input_ids=encoded["input_ids"],
                        attention_mask=encoded["attention_mask"],
                        max_new_tokens=settings.max_tokens,
                        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                        **sampling,
                    )
                texts = tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
                for i, text in zip(chosen, texts, strict=True):
                    answers[i] = text
    finally:
        model.train(training)
    return answers
