"""Conversations from pairs, the scores of models' responses, and both as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tasks.core.display import escape_markdown
from tasks.data.config import Answer
from tasks.evaluate.custom_scorer import CustomFunction
from tasks.language.answer_scoring import Score, Scorer
from tasks.language.messages import ASSISTANT, USER, chat_message, user_message
from tasks.language.prompts import Prompt, render

if TYPE_CHECKING:
    import pandas as pd

    from tasks.evaluate.language.responses import Conversation

REMOTE_GOLDEN = 24  # golden questions of a model behind an address, which monitoring asks again
REPEATED = "repeated"  # variant of the second answers to them
Shot = tuple[str, str]  # an example in a prompt: message and answer


@dataclass(frozen=True)
class Scoring:
    """Everything that scores the answers of a case."""

    scorer: Scorer
    custom: Mapping[str, CustomFunction] = field(default_factory=dict)  # the case's own, by name
    similarities: Callable[[Sequence[str], Sequence[str]], Sequence[float]] | None = None  # of answers and references


def score(pairs: pd.DataFrame, responses: pd.DataFrame, scoring: Scoring, variant: str) -> pd.DataFrame:
    """The pairs with a model's responses and their scores, a row a pair."""
    import pandas as pd

    table = pairs.reset_index(drop=True).drop(columns=["rejected", "tokens"], errors="ignore")
    rows, texts = table.to_dict("records"), responses["text"].tolist()
    references = [row["answer"] for row in rows]
    similar: Sequence[float] = scoring.similarities(texts, references) if scoring.similarities else [0.0] * len(rows)
    scores = []
    for row, text, similarity in zip(rows, texts, similar, strict=True):
        message, (required, forbidden) = message_in(row["messages"]), facts_of(row)
        scored = scoring.scorer.score(text, row["answer"], message, required, forbidden)
        custom = {name: function(message, text, row["answer"], required) for name, function in scoring.custom.items()}
        if row.get("unanswerable"):
            scored = replace(scored, should_abstain=True)
        elif scored.should_abstain is None and (required or json.loads(row.get("evidence") or "[]")):
            scored = replace(scored, should_abstain=False)
        known = scoring.similarities is not None and scored.has_reference
        scores.append(replace(scored, custom=custom or None, similarity=similarity if known else None))
    return pd.concat([table.assign(variant=variant), responses, pd.DataFrame(map(asdict, scores))], axis=1)


def facts_of(pair: Mapping[Any, Any]) -> tuple[list[str], list[str]]:
    """The facts that an answer to a pair must state, and those that it must not; rows of earlier versions have none."""
    return json.loads(pair.get("required_facts") or "[]"), json.loads(pair.get("forbidden_facts") or "[]")


def scores_of(scored: pd.DataFrame) -> list[Score]:
    """The scores in the rows of a table; those of earlier versions lack the scores of prose."""
    names = [name for name in Score.__dataclass_fields__ if name in scored]
    table = scored[names].astype(object)
    rows = table.where(table.notna(), None).to_numpy().tolist()
    return [Score(**dict(zip(names, row, strict=True))) for row in rows]


def build_conversation(messages: str, prompt: Prompt, shots: Sequence[Shot] = ()) -> Conversation:
    """A pair's messages after a prompt and further examples."""
    examples = [each for text, answer in shots for each in (chat_message(USER, text), chat_message(ASSISTANT, answer))]
    return render(prompt, [*examples, *json.loads(messages)])


def baseline_prompt(prompt: Prompt, answer: Answer) -> Prompt:
    """The prompt of the untuned base: the case's text with the answer's schema in it."""
    return Prompt(system=prompt.baseline.replace("{schema}", json.dumps(answer.json_schema, ensure_ascii=False)))


def few_shot_examples(pairs: pd.DataFrame, count: int) -> list[Shot]:
    """Messages and answers for the prompt, ordered by id: one of each intent before a second of any."""
    ordered = pairs.sort_values("pair_id", kind="stable")
    ordered = ordered.assign(turn=ordered.groupby("intent", sort=False).cumcount())
    chosen = ordered.sort_values(["turn", "intent", "pair_id"]).head(count)
    return [(message_in(each), answer) for each, answer in zip(chosen["messages"], chosen["answer"], strict=True)]


def message_in(messages: str) -> str:
    """The user's message in messages stored as JSON."""
    return user_message(json.loads(messages))


def golden_rows(scores: pd.DataFrame, count: int) -> pd.DataFrame:
    """The scored answers that a release seals as golden ones: right ones first."""
    served = scores[scores["variant"] == "served"]
    return served.sort_values(["exact", "pair_id"], ascending=[False, True]).head(count)


def stratified_sample(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` pairs, evenly over intents and templates; equal sets give equal samples."""
    import numpy as np

    ordered = pairs.sort_values(["intent", "template", "pair_id"], kind="stable").reset_index(drop=True)
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int))]


def wrong_answers(scored: pd.DataFrame, most: int = 20) -> str:
    """Some of the answers that were not exactly the right ones, as a Markdown table."""
    wrong = scored[~scored["exact"].astype(bool) & scored["has_reference"]]
    lines = ["| variant | intent | message | expected | given |", "|---|---|---|---|---|"]
    for row in wrong.groupby("variant", sort=False).head(most).itertuples():
        cells = (row.variant, row.intent, message_in(str(row.messages)), row.answer, row.text)
        lines.append("| " + " | ".join(_cell(str(each)) for each in cells) + " |")
    return "\n".join(lines) + "\n"


def answer_table(scores: pd.DataFrame, most: int = 500) -> str:
    """Answers for MLflow's table view, as JSON, wrong ones first."""
    shown = scores.sort_values("exact", kind="stable").head(most)
    columns = ["variant", "intent", "messages", "answer", "text", "exact", "schema_valid", "hallucinated", "seconds"]
    return shown[columns].to_json(orient="split", index=False, force_ascii=False)


def _cell(text: str) -> str:
    flat = " ".join(text.split())
    return escape_markdown(flat if len(flat) <= 160 else flat[:157] + "...")
