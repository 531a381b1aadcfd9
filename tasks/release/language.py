"""The parts of a language release, and the command that serves releases with vLLM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError, InputError
from tasks.core.files import file_digest
from tasks.data.language.base_model import CONTENTS
from tasks.data.results import GGUF, BaseModelFiles
from tasks.evaluate.language.inference import REMOTE_GOLDEN, REPEATED
from tasks.evaluate.results import Verdict
from tasks.knowledge.answers.answerer import INDEX, SETTINGS
from tasks.knowledge.results import KnowledgeSpec
from tasks.language.open_engine import model_file
from tasks.language.prompts import PROMPT, render, sealed_text
from tasks.language.upstream import NOT_PINNED, UPSTREAM, Upstream
from tasks.release.seal import EMBEDDER, ReleaseParts, digest_mismatch, verify
from tasks.train.results import Candidate, LanguageSpec

SCHEMA = "schema.json"
ADAPTER = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
TOKENIZER = ("tokenizer.json", "chat_template.jinja")  # of the base
PACKAGES = ("mlflow", "bentoml", "xllamacpp", "gguf", "torch", "transformers", "peft", "trl")
REMOTE_PACKAGES = ("mlflow", "bentoml", "httpx", "aiohttp")  # of a model behind an address
BASE = "base"  # folder of the base for vLLM, and the name of the untuned base there
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the allowed values of --max-lora-rank
GOLDEN = 8
REMOTE = "openai"  # in place of serve.engine


def language_parts(candidate: Candidate, verdict: Verdict, spec: LanguageSpec) -> ReleaseParts:
    """Served weights, adapter, tokenizer, chat template, prompt and schema, embedder, golden conversations.

    Raises: DriftlineError when the weights are not the candidate's.
    """
    base, chat, serving, embedder = spec.base, spec.chat, spec.serving, spec.embedder
    longest = chat.prompt.parameters.max_tokens or serving.answer_tokens
    path = candidate.folder / ADAPTER[0]
    tuned = path.is_file()
    if tuned:
        found = digest_of([file_digest(path), base.digest])
    else:
        path = model_file(candidate.folder)
        found = file_digest(path)
    if found != candidate.weights_digest:
        raise digest_mismatch(path, found, candidate.weights_digest)
    upstream = Upstream.read(path) if path.name == UPSTREAM else None
    if upstream != base.upstream:
        raise DriftlineError(
            "The model's server is another one than at the beginning of the run.",
            where=base.source,
            found=f"{base.upstream.fingerprints or base.upstream.facts}" if base.upstream else "weights",
            allowed=f"{upstream.fingerprints or upstream.facts}" if upstream else "weights",
            todo="Run the case again.",
        )
    return ReleaseParts(
        kind="llm",
        sealed={
            "base": {"source": base.source, "digest": base.digest, "template": base.template_digest}
            | ({"upstream": upstream.model_dump(mode="json"), "not_pinned": NOT_PINNED} if upstream else {}),
            "prompt": {"name": chat.prompt.name, "digest": chat.prompt.digest},
            "answer": chat.answer.model_dump(mode="json"),
            "serving": serving.model_dump(mode="json")
            | {"answer_tokens": longest}
            | ({"engine": REMOTE, "weights": None} if upstream else {}),
            "context": chat.context,
            **({"knowledge": _sealed_knowledge(spec.knowledge)} if spec.knowledge else {}),
        },
        golden=_golden(verdict, spec),
        files={
            **{path.name: path for path in [model_file(candidate.folder)]},
            **({name: candidate.folder / name for name in ADAPTER} if tuned else {}),
            **({} if upstream else {name: base.folder / name for name in TOKENIZER}),
            **(_checkpoint(base) if serving.engine == "vllm" else {}),
            **({f"{EMBEDDER}/{name}": path for name, path in embedder.files.items()} if embedder else {}),
            **_knowledge_files(candidate, spec.knowledge),
            PROMPT: sealed_text(chat.prompt),
            **(
                {SCHEMA: json.dumps(chat.answer.json_schema, indent=1, ensure_ascii=False)}
                if chat.answer.json_schema is not None
                else {}
            ),
        },
        packages=REMOTE_PACKAGES if upstream else PACKAGES,
    )


def _sealed_knowledge(knowledge: KnowledgeSpec) -> dict[str, Any]:
    """What names the knowledge base in the manifest; its settings are in a file of the release."""
    index = knowledge.index
    counts = {"documents": index.documents, "passages": index.passages}
    return {"index": index.digest, "embedder": knowledge.embedder.digest, **counts}


def _knowledge_files(candidate: Candidate, knowledge: KnowledgeSpec | None) -> dict[str, Path | str]:
    """Index, embedder and settings of the answers."""
    if knowledge is None:
        return {}
    folder = candidate.folder
    return {
        SETTINGS: folder / SETTINGS,
        **{f"{INDEX}/{path.name}": path for path in sorted((folder / INDEX).iterdir())},
        **{f"{EMBEDDER}/{name}": path for name, path in knowledge.embedder.files.items()},
    }


def _checkpoint(base: BaseModelFiles) -> dict[str, Path | str]:
    """The files of the base for vLLM, which adds the adapter, so that several releases share one base."""
    files = [path for path in sorted(base.folder.iterdir()) if path.name not in (GGUF, CONTENTS)]
    return {f"{BASE}/{path.name}": path for path in files}


def vllm_command(folders: Sequence[Path]) -> list[str]:
    """The command of a vLLM server for these releases: one base, and each release's adapter under its tag.

    Raises: InputError when they can't share a server; DriftlineError when a file differs from what was sealed.
    """
    manifests = [verify(folder) for folder in folders]
    sealed = [manifest["sealed"] for manifest in manifests]
    tags = [f"{each['case']}:{manifest['digest'][:12]}" for each, manifest in zip(sealed, manifests, strict=True)]
    if others := [tag for tag, each in zip(tags, sealed, strict=True) if each["serving"]["engine"] != "vllm"]:
        raise InputError(
            "These releases are served by another engine.",
            found=", ".join(others),
            allowed="releases of a case with serve.engine: vllm",
            todo="Set serve: {engine: vllm, weights: f16} in the case, and run it.",
        )
    bases = {(each["base"]["digest"], each["base"]["template"]) for each in sealed}
    if len(bases) > 1:
        raise InputError(
            "One server holds one base, with one chat template.",
            found=f"{len(bases)} among {', '.join(tags)}",
            todo="Start a server for each base, or tune on the same base.",
        )
    base = folders[0] / BASE
    ranks = [json.loads((folder / ADAPTER[1]).read_text(encoding="utf-8"))["r"] for folder in folders]
    flags: dict[str, object] = {
        "served-model-name": f"{BASE}-{sealed[0]['base']['digest'][:12]}",
        "chat-template": base / "chat_template.jinja",
        "max-model-len": max(each["context"] for each in sealed),
        "max-num-seqs": sum(each["serving"]["slots"] for each in sealed),
        "generation-config": "vllm",  # else vLLM takes sampling defaults from the base
        "max-loras": len(folders) + 1,  # one more for a challenger
        "max-lora-rank": next((rank for rank in VLLM_RANKS if rank >= max(ranks)), max(ranks)),
    }
    options = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    modules = [f"{tag}={(folder / ADAPTER[0]).parent}" for tag, folder in zip(tags, folders, strict=True)]
    return ["vllm", "serve", str(base), *options, "--enable-lora", "--lora-modules", *modules]


def _golden(verdict: Verdict, spec: LanguageSpec) -> list[dict[str, Any]]:
    """Conversations with their answers, right ones first; of a local model that answers also the token ids of their
    prompts, of one behind an address its own answers, without passages, from two times.
    """
    import pandas as pd

    base, prompt, knowledge = spec.base, spec.chat.prompt, spec.knowledge
    scores = pd.read_parquet(verdict.scores)
    served = scores[scores["variant"] == "served"].sort_values(["exact", "pair_id"], ascending=[False, True])
    if "passages" in served:  # an abstention is exact, too: as many answers as abstentions
        half = GOLDEN // 2
        abstained = served["abstained"].astype(bool)
        served = pd.concat([served[~abstained].head(half), served[abstained].head(half)])
    repeated = scores[scores["variant"] == REPEATED].set_index("pair_id")
    if base.upstream:
        served = scores[(scores["variant"] == "served") & scores["pair_id"].isin(repeated.index)]
    if served.empty:
        raise DriftlineError("No answer was scored.", where=str(verdict.scores), todo="Run the evaluation again.")
    golden = []
    for row in served.head(REMOTE_GOLDEN if base.upstream else GOLDEN).to_dict("records"):
        messages = render(prompt, json.loads(row["messages"]))
        golden.append({"example_id": row["pair_id"], "messages": messages, "answer": row["text"]})
        if base.upstream:
            golden[-1]["of_model"] = repeated.loc[row["pair_id"], ["text", "again"]].tolist()
    by_model = knowledge is None or knowledge.settings.answer_by == "model"
    return _with_tokens(golden, base) if by_model and not base.upstream else golden


def _with_tokens(golden: list[dict[str, Any]], base: BaseModelFiles) -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(base.folder))
    for each in golden:
        ids = tokenizer.apply_chat_template(each["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
        each["tokens"] = list(ids)
    return golden
