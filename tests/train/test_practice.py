"""A model practises on questions that documents answer, with passages as they are served."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.data.config import Answer, ChatSpec
from tasks.data.language.pairs import PairFormat, read_pairs, write_pairs
from tasks.knowledge.config import Documents, Knowledge, Splitter
from tasks.knowledge.documents.document import Document, write_documents
from tasks.knowledge.index.build import build_index
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import KnowledgeSpec, Passage
from tasks.language.embedder import Embedder
from tasks.language.prompts import Prompt
from tasks.train.language.practice import UNANSWERED, practise, write_practice
from tasks.train.language.questions_on import questions_on
from tests.knowledge_base import EMBEDDER, embedder_files

ABSTAIN = "The documents do not say."
CHAT = ChatSpec(prompt=Prompt(system="Answer."), answer=Answer(format="text", abstain=ABSTAIN), context=1024)
PARTS = ["pump", "valve", "filter", "boiler", "sensor", "burner", "tank", "meter", "switch", "clock", "lamp", "belt"]
BY_HAND = {
    "prompt": "my pump drips, what now?",
    "completion": "Close its tap 3.",
    "evidence": [{"document": "manual/pump.md", "quote": "If the pump leaks, close its tap"}],
    "part": "train",
}


def manual(folder: Path, sentences: int = 5) -> Path:
    """A Parquet file of documents with sentences of all patterns."""
    documents = [
        Document(
            document_id=f"manual/{part}.md",
            title=part.capitalize(),
            url="",
            text="\n\n".join(
                [
                    f"# {part.capitalize()}",
                    f"The {part} handle is made of steel and weighs {number} kilograms.",
                    f"If the {part} leaks, close its tap {number} and call the service.",
                    f"Use the red lever to empty the {part} completely, and wait {number} minutes.",
                    f"When the {part} starts, its display {number} shows the pressure.",
                    f"To clean the {part}, use a dry cloth of size {number} only.",
                ][: 1 + sentences]
            ),
        )
        for number, part in enumerate(PARTS, start=3)
    ]
    path = folder / "manual.parquet"
    write_documents(documents, path)
    return path


def knowledge_spec(documents: Path, state: Path) -> KnowledgeSpec:
    settings = Knowledge(
        documents={"manual": Documents(uri="file://manual")},
        embedder=EMBEDDER,
        passages=2,
        split=Splitter(tokens=32),
        practice_pairs=50,
    )
    index = build_index("manual", {"manual": documents}, settings, embedder_files(), state)
    return KnowledgeSpec(settings=settings, index=index, embedder=embedder_files())


@pytest.mark.parametrize(
    ("sentence", "questions"),
    [
        ("If the pump leaks, close its tap.", {"What happens if the pump leaks?", "What do I do if the pump leaks?"}),
        ("The red lever is made of cold steel.", {"What is the red lever?"}),
        ("The worker writes its log to the disk.", {"What does the worker write?"}),
        ("When the lamp is red, the door stays shut.", {"What happens when the lamp is red?"}),
        ("It is made of very cold steel.", set()),
        ("Too short.", set()),
    ],
    ids=["if", "is", "verb", "when", "no-subject", "short"],
)
def test_a_sentence_answers_a_question(sentence: str, questions: set[str]) -> None:
    """A question is made of the subject or the condition; a sentence without its own subject gives none."""
    generated = questions_on([Passage("p", "manual/a.md", "A", "", "", sentence)], 10)
    assert {each.text for each in generated} <= questions
    assert bool(generated) == bool(questions)
    assert all(each.answer == sentence for each in generated)


def test_answers_are_short_grounded_and_cited(tmp_path: Path) -> None:
    """The cited passage holds the answer; where none does, the answer abstains; each pair has a worse answer."""
    spec = knowledge_spec(manual(tmp_path), tmp_path / "state")
    search = KnowledgeSearch(spec.index.folder, Embedder(spec.embedder.folder))
    generated = questions_on(search.passages(), 60)
    pairs = practise(search, generated, spec, CHAT)
    assert len(pairs) > 0.5 * len(generated)
    abstaining = [pair for pair in pairs if pair.answer == ABSTAIN]
    assert 0 < len(abstaining) < 2 * UNANSWERED * len(pairs)
    for pair in pairs:
        assert pair.rejected is not None
        assert pair.rejected != pair.answer
        content = pair.messages[-1]["content"]
        assert "<passage number=" in content
        sentence, _, number = pair.answer.removesuffix("]").rpartition(" [")
        if pair in abstaining:
            assert pair.rejected.removesuffix(" [1]") not in " ".join(content.split())
        else:
            cited = content.split("<passage number=")[int(number)].split("</passage>")[0]
            assert sentence in " ".join(cited.split())


def test_practice_comes_from_documents_and_by_hand(tmp_path: Path) -> None:
    """Pairs by hand get the passage of their evidence; equal inputs give one folder; too few questions are an error."""
    documents = manual(tmp_path)
    spec = knowledge_spec(documents, tmp_path / "state")
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    write_pairs(read_pairs("practice", [BY_HAND], PairFormat(CHAT.answer)), pairs / "train.parquet")
    folder = write_practice("manual", pairs, [documents], spec=spec, chat=CHAT, state=tmp_path / "state")
    assert {path.stem for path in folder.iterdir()} == {"train", "validation"}
    practice = pd.concat(pd.read_parquet(path) for path in folder.iterdir())
    assert len(practice) >= 40
    by_hand = practice[practice["messages"].str.contains("my pump drips")]
    assert by_hand["answer"].item() in ("Close its tap 3. [1]", "Close its tap 3. [2]", ABSTAIN)
    assert "close its tap 3" in json.loads(by_hand["messages"].item())[-1]["content"]
    again = write_practice("manual", pairs, [documents], spec=spec, chat=CHAT, state=tmp_path / "state")
    assert again == folder
    few = manual(pairs, sentences=1)
    with pytest.raises(DataError, match="too few questions"):
        write_practice("manual", pairs, [few], spec=spec, chat=CHAT, state=tmp_path / "state")
