"""What the release of a language model is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError, InputError
from tasks.core.files import file_digest
from tasks.data.config import ChatSpec
from tasks.data.language.base_model import CONTENTS, GGUF
from tasks.data.results import BaseModelFiles, EmbedderFiles
from tasks.evaluate.results import Verdict
from tasks.language.messages import SYSTEM, chat_message
from tasks.release.seal import EMBEDDER, Parts, digest_mismatch, verify
from tasks.train.config import Serving
from tasks.train.results import Candidate

WEIGHTS, TOLD, SCHEMA = "model.gguf", "system.txt", "schema.json"
ADAPTER = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
TOKENIZER = ("tokenizer.json", "chat_template.jinja")  # of the base
PACKAGES = ("mlflow", "bentoml", "xllamacpp", "gguf", "torch", "transformers", "peft", "trl")
BASE = "base"  # folder of what vLLM loads, and the name that the untuned base has there
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
GOLDEN = 8


def language_parts(
    candidate: Candidate,
    verdict: Verdict,
    base: BaseModelFiles,
    talk: ChatSpec,
    serving: Serving,
    embedder: EmbedderFiles | None = None,
) -> Parts:
    """Served weights, adapter, tokenizer, chat template, system prompt and schema, embedder, golden conversations.

    Raises: DriftlineError when the adapter is not the one that was trained.
    """
    path = candidate.folder / ADAPTER[0]
    if (found := digest_of([file_digest(path), base.digest])) != candidate.weights_digest:
        raise digest_mismatch(path, found, candidate.weights_digest)
    return Parts(
        sealed={
            "base": {"source": base.source, "digest": base.digest, "template": base.template_digest},
            "answer": talk.answer.model_dump(mode="json"),
            "serving": serving.model_dump(mode="json"),
            "context": talk.context,
        },
        golden=_golden(verdict, base, talk.prompt.system),
        files={
            **{name: candidate.folder / name for name in (WEIGHTS, *ADAPTER)},
            **{name: base.folder / name for name in TOKENIZER},
            **(_checkpoint(base) if serving.engine == "vllm" else {}),
            **({f"{EMBEDDER}/{name}": embedder.folder / name for name in embedder.files} if embedder else {}),
            TOLD: talk.prompt.system,
            SCHEMA: json.dumps(talk.answer.json_schema, indent=1, ensure_ascii=False),
        },
        packages=PACKAGES,
    )


def _checkpoint(base: BaseModelFiles) -> dict[str, Path | str]:
    """The base as transformers and vLLM open it; the adapter is put on it there, so that several share one base."""
    files = [path for path in sorted(base.folder.iterdir()) if path.name not in (GGUF, CONTENTS)]
    return {f"{BASE}/{path.name}": path for path in files}


def vllm_command(folders: Sequence[Path]) -> list[str]:
    """What starts a vLLM server that answers for these releases: one base, and each one's adapter under its tag.

    Raises: InputError when they can't share a server; DriftlineError when a file is not what was sealed.
    """
    manifests = [verify(folder) for folder in folders]
    sealed = [manifest["sealed"] for manifest in manifests]
    tags = [f"{each['case']}:{manifest['digest'][:12]}" for each, manifest in zip(sealed, manifests, strict=True)]
    if others := [tag for tag, each in zip(tags, sealed, strict=True) if each["serving"]["engine"] != "vllm"]:
        raise InputError(
            "These releases are served by another engine.",
            found=", ".join(others),
            allowed="releases of a case with serve.engine: vllm, which hold their base",
            todo="Set serve: {engine: vllm, weights: f16} in the case, and run it.",
        )
    bases = {(each["base"]["digest"], each["base"]["template"]) for each in sealed}
    if len(bases) > 1:
        raise InputError(
            "One server holds one base, with one chat template.",
            found=f"{len(bases)} among {', '.join(tags)}",
            todo="Start a server for each base, or tune them on the same one.",
        )
    base = folders[0] / BASE
    ranks = [json.loads((folder / ADAPTER[1]).read_text(encoding="utf-8"))["r"] for folder in folders]
    flags: dict[str, object] = {
        "served-model-name": f"{BASE}-{sealed[0]['base']['digest'][:12]}",
        "chat-template": base / "chat_template.jinja",
        "max-model-len": max(each["context"] for each in sealed),
        "max-num-seqs": sum(each["serving"]["slots"] for each in sealed),
        "generation-config": "vllm",  # else the base's own sampling habits come in
        "max-loras": len(folders) + 1,  # and a challenger's
        "max-lora-rank": next((rank for rank in RANKS if rank >= max(ranks)), max(ranks)),
    }
    told = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    modules = [f"{tag}={(folder / ADAPTER[0]).parent}" for tag, folder in zip(tags, folders, strict=True)]
    return ["vllm", "serve", str(base), *told, "--enable-lora", "--lora-modules", *modules]


def _golden(verdict: Verdict, base: BaseModelFiles, system: str) -> list[dict[str, Any]]:
    """Conversations with the token ids that they are rendered to, and what was answered; right answers first."""
    import pandas as pd
    from transformers import AutoTokenizer

    scores = pd.read_parquet(verdict.scores)
    served = scores[scores["variant"] == "served"].sort_values(["exact", "pair_id"], ascending=[False, True])
    if served.empty:
        raise DriftlineError("No answer was scored.", where=str(verdict.scores), todo="Run the evaluation again.")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(base.folder))
    golden = []
    for row in served.head(GOLDEN).to_dict("records"):
        messages = [chat_message(SYSTEM, system), *json.loads(row["messages"])]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        golden.append({"example_id": row["pair_id"], "messages": messages, "tokens": list(ids), "answer": row["text"]})
    return golden
