"""What the release of a language model is made of."""

from __future__ import annotations

import json
from typing import Any

from tasks.data.config import Talk
from tasks.data.results import Base
from tasks.evaluate.results import Verdict
from tasks.foundation.config import digest_of
from tasks.foundation.errors import DriftlineError
from tasks.foundation.files import file_digest
from tasks.foundation.talk import SYSTEM, turn
from tasks.release.seal import Parts, differs
from tasks.train.config import Serving
from tasks.train.results import Candidate

WEIGHTS, TOLD, SCHEMA = "model.gguf", "system.txt", "schema.json"
ADAPTER = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
TOKENIZER = ("tokenizer.json", "chat_template.jinja")  # of the base
PACKAGES = ("mlflow", "bentoml", "xllamacpp", "gguf", "torch", "transformers", "peft", "trl")
GOLDEN = 8


def language_parts(candidate: Candidate, verdict: Verdict, base: Base, talk: Talk, serving: Serving) -> Parts:
    """Served weights, adapter, tokenizer, chat template, system prompt and schema, and golden conversations.

    Raises: DriftlineError when the adapter is not the one that was trained.
    """
    path = candidate.folder / ADAPTER[0]
    if (found := digest_of([file_digest(path), base.digest])) != candidate.weights_digest:
        raise differs(path, found, candidate.weights_digest)
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
            TOLD: talk.prompt.system,
            SCHEMA: json.dumps(talk.answer.json_schema, indent=1, ensure_ascii=False),
        },
        packages=PACKAGES,
    )


def _golden(verdict: Verdict, base: Base, system: str) -> list[dict[str, Any]]:
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
        messages = [turn(SYSTEM, system), *json.loads(row["messages"])]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        golden.append({"example_id": row["pair_id"], "messages": messages, "tokens": list(ids), "answer": row["text"]})
    return golden
