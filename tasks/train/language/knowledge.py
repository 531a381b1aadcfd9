"""The knowledge base in a candidate: its index, and the settings of its answers, fitted on development questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.files import link_or_copy, write_text
from tasks.core.progress import progress_step
from tasks.data.language.splits import DEVELOPMENT
from tasks.knowledge.answers.abstention import AbstentionRule, Observation, default_rule, fit_rule
from tasks.knowledge.answers.answerer import INDEX, SETTINGS, Answerer, AnswerSettings
from tasks.knowledge.index.manifest import read_manifest
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import KnowledgeIndex, KnowledgeSpec
from tasks.language.embedder import Embedder
from tasks.language.messages import user_message
from tasks.train.results import LanguageSpec


def knowledge_inputs(spec: LanguageSpec) -> dict[str, Any]:
    """What the knowledge base adds to the inputs of a candidate; empty without one."""
    knowledge = spec.knowledge
    if knowledge is None:
        return {}
    return {"knowledge": [knowledge.index.digest, knowledge.settings.digest, knowledge.embedder.digest]}


def add_knowledge(spec: LanguageSpec, pairs: Path, folder: Path) -> None:
    """Put the index and the settings of answers into a candidate's folder. `pairs` has the development questions."""
    if (knowledge := spec.knowledge) is None:
        return
    for file in sorted(knowledge.index.folder.iterdir()):
        link_or_copy(file, folder / INDEX / file.name)
    settings = AnswerSettings(
        knowledge=knowledge.settings,
        abstain=abstention_text(spec),
        threshold=fit_abstention(knowledge, abstention_text(spec), pairs),
        tokens=spec.chat.context - spec.serving.answer_tokens,
    )
    write_text(folder / SETTINGS, settings.model_dump_json(indent=1))


def candidate_index(folder: Path) -> KnowledgeIndex:
    """The index in a candidate's folder."""
    return read_manifest(folder / INDEX)


def abstention_text(spec: LanguageSpec) -> str:
    """The answer where no passage answers, as it is served."""
    abstain = spec.chat.answer.abstain
    return abstain if isinstance(abstain, str) else json.dumps(abstain, separators=(",", ":"), ensure_ascii=False)


def fit_abstention(
    knowledge: KnowledgeSpec, abstain: str, pairs: Path, embedder: Embedder | None = None
) -> AbstentionRule:
    """The rule of abstention, by the development questions; evaluation questions are never read."""
    import pandas as pd

    path, default = pairs / f"{DEVELOPMENT}.parquet", default_rule(knowledge.settings.method)
    if not path.is_file():
        return default
    with progress_step("fit the abstention") as step:
        embedder = embedder or Embedder(knowledge.embedder.folder, knowledge.embedder.tokenizer)
        search = KnowledgeSearch(knowledge.index.folder, embedder, word_weight=knowledge.settings.word_weight)
        answerer = Answerer(search, knowledge.settings, abstain, default)
        questions = pd.read_parquet(path, columns=["messages", "unanswerable"])
        rule = fit_rule(
            [
                Observation(answerer.signals(user_message(json.loads(messages))), not unanswerable)
                for messages, unanswerable in zip(questions["messages"], questions["unanswerable"], strict=True)
            ],
            default,
        )
        step.figure = f"{rule.questions} questions" if rule.questions else "the default, for want of questions"
        search.close()
    return rule
