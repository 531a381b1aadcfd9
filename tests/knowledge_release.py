"""A small sealed release with a knowledge base of pages, of which some need a label."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.files import file_digest, write_text
from tasks.data.results import GGUF
from tasks.knowledge.answers.abstention import AbstentionRule
from tasks.knowledge.answers.answerer import INDEX, SETTINGS, AnswerSettings
from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.results import KnowledgeIndex
from tasks.release.seal import release_folder
from tests.knowledge_base import EMBEDDER, embedder_files, indexed, write_pages
from tests.language_case import tiny_opened

ABSTAIN = "The documentation does not say."
PAGES = {
    "open": "# Cats\n\nCats purr when they are content.\n\n## Food\n\nA cat eats fish and meat, 2 times a day.\n",
    "crew": "# Boats\n\nA boat floats.\n\n## Sails\n\nThe jib has an area of 12 square metres.\n",
    "pay": "# Wages\n\nThe captain earns 4711 crowns a month.\n",
}


def small_index(
    folder: Path, pages: Mapping[str, str] = PAGES, embedder: str = EMBEDDER
) -> tuple[Knowledge, KnowledgeIndex]:
    """An index of a page a collection; all but the collection `open` need the label of its name."""
    write_pages(folder, {f"{name}.md": text for name, text in pages.items()})
    documents = {}
    for name in pages:
        labels = () if name == "open" else (name,)
        uri, url = f"file://pages/{name}.md", "https://example.com/{path}"
        documents[name] = Documents(uri=uri, labels=labels, url=url)
    knowledge = Knowledge(documents=documents, embedder=embedder)
    return knowledge, indexed(folder, knowledge)


def knowledge_release(
    state: Path, *, case: str = "pets", pages: Mapping[str, str] = PAGES, system: str = "Answer.", **changes: Any
) -> Path:
    """Its folder, as a sealed release's; `changes` go to the settings of the knowledge base.

    The model is a random one: it says what a `response_format` makes it say.
    """
    work = state / "documents" / case
    knowledge, index = small_index(work, pages, changes.get("embedder", EMBEDDER))
    embedder = embedder_files(knowledge.embedder)
    settings = AnswerSettings(
        knowledge=knowledge.model_copy(update=changes), abstain=ABSTAIN, threshold=AbstentionRule(), tokens=900
    )
    texts = {
        SETTINGS: settings.model_dump_json(),
        "system.txt": system,
        "golden.json": "[]",
    }
    files = {
        "model.gguf": tiny_opened(work, 1024).folder / GGUF,
        **{f"{INDEX}/{path.name}": path for path in sorted(index.folder.iterdir())},
        **{f"embedder/{name}": path for name, path in embedder.files.items()},
    }
    draft = state / "draft" / case
    shutil.rmtree(draft, ignore_errors=True)
    for name, source in files.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft / name)
    for name, text in texts.items():
        write_text(draft / name, text)
    names = [name for name in (*files, *texts) if name != "golden.json"]
    sealed = {
        "case": case,
        "kind": "llm",
        "as_of": "2013-04-01T00:00:00+00:00",
        "context": 1024,
        "serving": {"slots": 2, "answer_tokens": 24},
        "price": {"tokens_in": 1.0, "tokens_cached": 0.5, "tokens_out": 4.0, "machine_hour": 0.0},
        "knowledge": {"index": index.digest, "embedder": embedder.digest},
        "files": {name: file_digest(draft / name) for name in names} | {"golden.json": digest_of([])},
    }
    write_text(
        draft / "manifest.json",
        json.dumps({"digest": digest_of(sealed), "sealed": sealed, "recorded": {"run_id": "none"}}),
    )
    folder = release_folder(state, case, digest_of(sealed))
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(folder)
    return folder
