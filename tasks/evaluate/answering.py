"""Ask models the questions of a set of pairs, score what they answer, and keep both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from tasks.data.config import Answer, Prompt
from tasks.foundation.config import digest_of
from tasks.foundation.engine import Reply, engine
from tasks.foundation.files import file_digest, whole
from tasks.foundation.progress import step
from tasks.foundation.talk import MODEL, SYSTEM, USER, message_of, turn
from tasks.train.config import Serving
from tasks.train.language.answers import Score, Scorer

if TYPE_CHECKING:
    import pandas as pd

ALONE = 16  # conversations that are asked one at a time, the others as many at once as there are slots
TOLD = 160  # conversations after which it is told how far it has come
Conversation = list[dict[str, str]]
Shown = tuple[str, str]  # an example: message and answer


def ask(
    model: Path,
    conversations: Sequence[Conversation],
    serving: Serving,
    context: int,
    threads: int,
    state: Path,
    schema: dict[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Give a model's replies, a row a conversation; the latency of one alone; and the seconds each takes among many.

    The same model asked the same again is not asked: replies are kept under `state`/answers, for baselines and
    champions answer the same set many times, and a killed run should not ask again either. `context` is in tokens.

    Raises: DataError when a conversation does not fit or the model can't be read; Unavailable when the engine ends.
    """
    import pandas as pd

    key = digest_of(
        {
            "model": file_digest(model) if model.is_file() else str(model),
            "conversations": list(conversations),
            "serving": serving.digest,
            "context": context,
            "schema": schema,
            "code": file_digest(Path(__file__)),
        }
    )
    folder = state / "answers" / key[:16]
    if (kept := _kept(folder)) is not None:
        return kept
    options: dict[str, Any] = {"max_tokens": serving.answer_tokens, "schema": schema}
    with engine(model, threads=threads, slots=serving.slots, context=context) as running:
        running.chat_all([conversations[0]] * serving.slots, max_tokens=1)  # each slot has read what all begin with
        alone = [running.chat(each, **options) for each in conversations[:ALONE]]
        begun = monotonic()
        together: list[Reply] = []
        for start in range(ALONE, len(conversations), TOLD):
            with step(f"answers {start + 1:,} to {min(start + TOLD, len(conversations)):,}") as told:
                together += running.chat_all(conversations[start : start + TOLD], **options)
                told.figure = _pace(together, len(conversations) - ALONE, monotonic() - begun)
        spent = monotonic() - begun
    replies = [*alone, *together]
    latency = median(reply.seconds for reply in alone)
    table = pd.DataFrame([{k: v for k, v in asdict(reply).items() if k != "logprobs"} for reply in replies])
    timing = {"latency_p50_ms": 1000 * latency, "seconds_per_answer": spent / len(together) if together else latency}
    with whole(folder) as work:
        work.mkdir(parents=True)
        table.to_parquet(work / "replies.parquet", index=False)
        (work / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
    return table, timing


def _pace(replies: Sequence[Reply], of: int, seconds: float) -> str:
    left = (of - len(replies)) * seconds / len(replies)
    return f"{sum(reply.tokens_out for reply in replies) / seconds:.0f} tokens/s, {left / 60:.1f} min left"


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


def converse(messages: str, system: str, shown: Sequence[Shown] = ()) -> Conversation:
    """A pair's messages under a system prompt, after examples if they are shown."""
    examples = [each for asked, said in shown for each in (turn(USER, asked), turn(MODEL, said))]
    return [turn(SYSTEM, system), *examples, *json.loads(messages)]


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
    return message_of(json.loads(messages))


def spread(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
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
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= 160 else flat[:157] + "..."


def _kept(folder: Path) -> tuple[pd.DataFrame, dict[str, float]] | None:
    """Replies kept before; a folder that can't be read is cleared."""
    import pandas as pd

    if not folder.exists():
        return None
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
        return pd.read_parquet(folder / "replies.parquet"), timing
    except (OSError, ValueError):
        rmtree(folder)
        return None
