"""What a search of a language case starts from: a few pairs, and a model behind an address of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.mlflow import Tracking
from tasks.data.config import ChatSpec
from tasks.data.language.pairs import PairFormat, read_pairs, write_pairs
from tasks.data.results import BaseModelFiles, Snapshot
from tasks.language.prompts import Prompt
from tasks.language.upstream import UPSTREAM
from tasks.release.config import Price
from tasks.search.language.bench import LanguageTask
from tasks.search.language.problem import LanguageProblem, questions_of
from tasks.search.language.prompt_space import PromptSpace
from tasks.search.language.space import LanguageSpace
from tasks.train.config import Serving
from tasks.train.results import LanguageSpec, Origin
from tests.language.upstreams import Misbehaving, Reply, completion, whole
from tests.place_pairs import ROWS, TEXT

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def follows_examples(request: Mapping[str, Any], _: int) -> Reply:
    """A model that answers rightly once it has seen two examples, and half of the time with an instruction alone."""
    messages = request["messages"]
    thing = messages[-1]["content"].removeprefix("Where is ").rstrip("?")
    shown = sum(each["role"] == "assistant" for each in messages)
    instructed = messages[0]["role"] == "system" and len(thing) == len("thing1")
    return whole(completion(f"In {thing}'s room." if shown >= 2 or instructed else "No idea."))


def language_task(folder: Path, base: BaseModelFiles, rows: Sequence[dict[str, Any]] = ROWS) -> LanguageTask:
    """A task whose pairs are these rows."""
    snapshot = folder / "snapshot"
    (snapshot / "pairs").mkdir(parents=True)
    write_pairs(read_pairs("things", list(rows), PairFormat(TEXT)), snapshot / "pairs" / "train.parquet")
    state = folder / "state"
    chat = ChatSpec(prompt=Prompt(system="Answer."), answer=TEXT, context=256)
    return LanguageTask(
        origin=Origin(case="things", as_of=MOMENT, lineage={}, state=state, tracking=Tracking.in_folder(state)),
        snapshot=Snapshot(case="things", as_of=MOMENT, digest="data", path=snapshot, rows={}, quarantined={}, docs={}),
        spec=LanguageSpec(base=base, chat=chat, serving=Serving(slots=2, answer_tokens=8)),
        threads=1,
        loss="missing_facts",
        price=Price(tokens_in=1.0, tokens_out=4.0, machine_hour=0.0),
    )


def remote_base(folder: Path, server: Misbehaving) -> BaseModelFiles:
    """The server as the base model of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    server.upstream.write(folder / UPSTREAM)
    return BaseModelFiles(
        source=server.upstream.source,
        digest="0" * 64,
        folder=folder,
        template_digest="",
        parameters=0,
        context=256,
        upstream=server.upstream,
    )


def language_problem(task: LanguageTask, instructions: Sequence[str] = ("Be brief.",), **more: Any) -> LanguageProblem:
    """The problem of a task; `more` goes to its space."""
    prompts = PromptSpace(task.spec.chat.prompt, TEXT.texts, tuple(instructions), questions_of(task)[1])
    return LanguageProblem(task, LanguageSpace(prompts, **more))
