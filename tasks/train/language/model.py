"""A language model as training sees it: pairs as token ids, the base with its adapter, answers, and what is saved."""

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
from tasks.language.messages import ASSISTANT, SYSTEM, chat_message
from tasks.train.config import Lora

if TYPE_CHECKING:
    import pandas as pd

Precision = Literal["bf16", "fp32"]
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class Example:
    """A pair as token ids: what is read, and what is to be answered."""

    prompt: list[int]
    completion: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


def open_tokenizer(base: BaseModelFiles) -> Any:
    """The base's tokenizer with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base.folder)


def render(tokenizer: Any, system: str, messages: Sequence[dict[str, str]], answer: str | None = None) -> str:
    """The text that the model reads; with an answer, also what it should then write.

    Raises: CaseError when the chat template can't render it.
    """
    from jinja2 import TemplateError

    turns = [chat_message(SYSTEM, system), *messages]
    turns += [] if answer is None else [chat_message(ASSISTANT, answer)]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    except (TemplateError, ValueError, TypeError) as error:
        raise CaseError(
            "The chat template can't render a message with this system prompt.",
            where="model.chat_template",
            found=str(error).split("\n")[0],
            todo="Name a template that takes the three roles of a chat.",
        ) from error


def encode(tokenizer: Any, system: str, messages: Sequence[dict[str, str]], answer: str) -> Example:
    """A pair as token ids, the answer's up to the token that ends it, as when it is generated.

    Raises: CaseError when the template writes an answer otherwise than it asks for one.
    """
    prompt, whole = render(tokenizer, system, messages), render(tokenizer, system, messages, answer)
    if not whole.startswith(prompt):
        raise CaseError(
            "The chat template asks for an answer otherwise than it writes one.",
            where="model.chat_template",
            found=f"asks {prompt[-40:]!r}, writes {whole[-60:]!r}",
            todo="Mend the template, so that add_generation_prompt ends where the model's words begin.",
        )
    completion = ids_of(tokenizer, whole[len(prompt) :])
    end = tokenizer.eos_token_id
    completion = completion[: completion.index(end) + 1] if end in completion else [*completion, end]
    return Example(ids_of(tokenizer, prompt), completion)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text: the template has written the special tokens already."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def read_pairs(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of pairs, messages as lists.

    Raises: DataError when it is missing or empty.
    """
    table = table_of_pairs(file)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")  # whatever pandas has for "none"
    return [{**{str(k): v for k, v in row.items()}, "messages": json.loads(row["messages"])} for row in rows]


def table_of_pairs(file: Path) -> pd.DataFrame:
    """A file of pairs as it is.

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
            todo="Make more pairs: see the case's pairs section.",
        )
    return rows


def arithmetic(asked: Precision) -> Precision:
    """bf16 where the processor computes in it; elsewhere it is several times slower than fp32, so fp32."""
    import torch

    if asked == "bf16":
        on_gpu = torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported() if on_gpu else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return "bf16" if fast else "fp32"
    return asked


def load_base(base: BaseModelFiles, precision: Precision, attention: str, quantize: str = "none") -> Any:
    """The base model in memory, on the GPU where there is one.

    Raises: CaseError when what `quantize` or `attention` needs is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if quantize == "nf4":
        _need("bitsandbytes", "train.quantize: nf4")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if attention == "flash_attention_2":
        _need("flash_attn", "train.attention: flash_attention_2")
    model = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=dtype, attn_implementation=attention, use_safetensors=True, **options
    )
    if torch.cuda.is_available() and quantize == "none":
        model.to(torch.device("cuda"))  # type: ignore[arg-type]
    return model


def _need(package: str, where: str) -> None:
    if find_spec(package) is None:
        raise CaseError(
            f"{where.split(': ')[-1]} needs a package that is not installed.",
            where=where,
            found=f"no {package}",
            todo=f"Install it (uv pip install {package}), or leave this setting at its default.",
        )


def add_adapter(model: Any, lora: Lora, seed: int) -> Any:
    """The model with new adapters in fp32 on every matrix of its layers, or of the upper ones.

    No gradient is wanted of what lies below the lowest adapter, so nothing is kept for it and nothing goes back there.
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
    except Exception as error:  # peft raises what it comes to in an adapter of a stranger
        raise _bad_adapter(folder, " ".join(str(error).split())[:300]) from error
    with safe_open(folder / ADAPTER, framework="pt") as file:
        if others := set(file.keys()) ^ set(get_peft_model_state_dict(loaded, save_embedding_layers=False)):
            raise _bad_adapter(
                folder, f"weights missing, or of layers that there are not: {', '.join(sorted(others)[:3])}"
            )
    loaded.peft_config["default"].base_model_name_or_path = model.name_or_path  # not the source, which is no path
    return loaded


def _bad_adapter(folder: Path, found: str) -> DataError:
    return DataError(
        "The adapter can't be read.",
        where=str(folder),
        found=found,
        allowed=f"{ADAPTER} and adapter_config.json, made for this base; pickles are refused",
        todo="Remove the folder and train again, or bring back a whole copy.",
    )


def save_adapter(model: Any, folder: Path, base: BaseModelFiles) -> None:
    """Write the adapter: equal weights give equal bytes, and no path of this machine is in them."""
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
    tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 16,
    precision: Precision = "fp32",
) -> list[str]:
    """Answers to rendered prompts: greedy, or sampled when a temperature is given; the model's mode is kept."""
    import torch

    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # alike in length: little padding
    answers = [""] * len(prompts)
    trained, device = model.training, model.device.type
    model.eval()
    try:
        with torch.random.fork_rng():  # looking at answers must not change how the training goes on
            torch.manual_seed(seed)
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                read = tokenizer(
                    [prompts[i] for i in chosen],
                    add_special_tokens=False,
                    padding=True,
                    padding_side="left",
                    return_tensors="pt",
                ).to(model.device)
                with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                    written = model.generate(
                        input_ids=read["input_ids"],
                        attention_mask=read["attention_mask"],
                        max_new_tokens=tokens,
                        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                        **sampling,
                    )
                texts = tokenizer.batch_decode(written[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
                for i, text in zip(chosen, texts, strict=True):
                    answers[i] = text
    finally:
        model.train(trained)
    return answers
