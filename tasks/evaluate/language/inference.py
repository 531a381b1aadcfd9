"""The questions of a set of pairs, the scores of what models reply to them, and both as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tasks.core.display import escape_markdown
from tasks.data.config import Answer, Prompt
from tasks.language.answer_scoring import Score, Scorer
from tasks.language.messages import ASSISTANT, SYSTEM, USER, chat_message, user_message

if TYPE_CHECKING:
    import pandas as pd

    from tasks.evaluate.language.responses import Conversation

Shown = tuple[str, str]  # an example: message and answer


def score(pairs: pd.DataFrame, replies: pd.DataFrame, scorer: Scorer, variant: str) -> pd.DataFrame:
    """The pairs with a model's replies and what each is worth, one row each."""
    import pandas as pd

    told = pairs.reset_index(drop=True).drop(columns=["rejected", "tokens"], errors="ignore")
    scores = [
        asdict(scorer.score(text, answer, message_in(messages)))
        for text, answer, messages in zip(replies["text"], told["answer"], told["messages"], strict=True)
    ]
    return pd.concat([told.assign(variant=variant), replies, pd.DataFrame(scores)], axis=1)


def scores_of(scored: pd.DataFrame) -> list[Score]:
    """The scores that stand in the rows of a table."""
    names = list(Score.__dataclass_fields__)
    table = scored[names].astype(object)
    rows = table.where(table.notna(), None).to_numpy().tolist()
    return [Score(*row) for row in rows]


def build_conversation(messages: str, system: str, shown: Sequence[Shown] = ()) -> Conversation:
    """A pair's messages under a system prompt, after examples if they are shown."""
    examples = [each for asked, said in shown for each in (chat_message(USER, asked), chat_message(ASSISTANT, said))]
    return [chat_message(SYSTEM, system), *examples, *json.loads(messages)]


def baseline_prompt(prompt: Prompt, answer: Answer) -> str:
    """What the untuned base is told: the case's words with the schema in them."""
    return prompt.baseline.replace("{schema}", json.dumps(answer.json_schema, ensure_ascii=False))


def examples_of(pairs: pd.DataFrame, count: int) -> list[Shown]:
    """Questions and answers to show the base: by id, one of each intent before a second of any."""
    ordered = pairs.sort_values("pair_id", kind="stable")
    ordered = ordered.assign(turn=ordered.groupby("intent", sort=False).cumcount())
    chosen = ordered.sort_values(["turn", "intent", "pair_id"]).head(count)
    return [(message_in(each), said) for each, said in zip(chosen["messages"], chosen["answer"], strict=True)]


def message_in(messages: str) -> str:
    """What the user said in messages kept as JSON."""
    return user_message(json.loads(messages))


def stratified_sample(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` pairs, evenly over intents and wordings, the same for the same set."""
    import numpy as np

    ordered = pairs.sort_values(["intent", "template", "pair_id"], kind="stable").reset_index(drop=True)
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int))]


def wrong_answers(scored: pd.DataFrame, most: int = 20) -> str:
    """Some of the answers that were not exactly right, as a Markdown table that a person can read."""
    wrong = scored[~scored["exact"].astype(bool)]
    lines = ["| variant | intent | message | expected | given |", "|---|---|---|---|---|"]
    for row in wrong.groupby("variant", sort=False).head(most).itertuples():
        cells = (row.variant, row.intent, message_in(str(row.messages)), row.answer, row.text)
        lines.append("| " + " | ".join(_cell(str(each)) for each in cells) + " |")
    return "\n".join(lines) + "\n"


def answer_table(scores: pd.DataFrame, most: int = 500) -> str:
    """Answers for MLflow's page of tables, as JSON, wrong ones first."""
    shown = scores.sort_values("exact", kind="stable").head(most)
    columns = ["variant", "intent", "messages", "answer", "text", "exact", "schema_valid", "hallucinated", "seconds"]
    return shown[columns].to_json(orient="split", index=False, force_ascii=False)


def _cell(text: str) -> str:
    flat = " ".join(text.split())
    return escape_markdown(flat if len(flat) <= 160 else flat[:157] + "...")
