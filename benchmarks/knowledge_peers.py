"""The peers of the benchmark of knowledge: bm25s merged with numpy by hand, and LanceDB, a vector database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PACKAGES = ("bm25s>=0.3,<0.4", "lancedb>=0.40,<0.41", "numpy>=2")
SCRIPT = """
import json, sys, time
from pathlib import Path
from statistics import median
import bm25s, lancedb, numpy as np, pyarrow as pa
folder = Path(sys.argv[1])
texts, questions = (json.loads((folder / f"{name}.json").read_text()) for name in ("texts", "questions"))
vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
words = bm25s.BM25()
words.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
table = lancedb.connect(folder / "lance").create_table(
    "passages", pa.table({"n": np.arange(len(vectors)), "vector": column})
)

def by_hand(question, vector):
    tokens = bm25s.tokenize(question, stopwords="en", show_progress=False)
    found, _ = words.retrieve(tokens, k=100, show_progress=False)
    scores = {}
    for ranked in (found[0], np.argsort(-(vectors @ vector), kind="stable")[:100]):
        for rank, n in enumerate(ranked, 1):
            scores[int(n)] = scores.get(int(n), 0) + 1 / (60 + rank)
    return sorted(scores, key=lambda n: -scores[n])[:5]

def by_database(question, vector):
    return table.search(vector).metric("cosine").limit(5).to_list()

medians = {}
for name, search in (("bm25s_and_numpy_ms", by_hand), ("lancedb_ms", by_database)):
    seconds = []
    for question, vector in zip(questions, queries):
        calls = []
        for _ in range(5):
            start = time.perf_counter()
            search(question, vector)
            calls.append(time.perf_counter() - start)
        seconds.append(min(calls))
    medians[name] = 1000 * median(seconds)
print(json.dumps(medians))
"""


class PeersUnavailable(Exception):
    """The peers can't be installed on this machine."""


def peers(
    folder: Path, texts: Sequence[str], vectors: np.ndarray, questions: tuple[Sequence[str], np.ndarray]
) -> dict[str, float]:
    """Median milliseconds of a search by each peer; `questions` with their vectors. Raises: PeersUnavailable."""
    import numpy as np

    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    (folder / "questions.json").write_text(json.dumps(questions[0]), encoding="utf-8")
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", questions[1])
    (folder / "peer.py").write_text(SCRIPT, encoding="utf-8")
    uv = [str(Path(sys.executable).with_name("uv")), "run", "-q", "--isolated", "--no-project"]
    uv += ["--python", sys.executable, *(text for package in PACKAGES for text in ("--with", package)), "python"]
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    probe = subprocess.run([*uv, "-c", "import bm25s, lancedb"], env=environment, capture_output=True, text=True)
    if probe.returncode:
        reason = probe.stderr.strip().splitlines()[-1:]
        raise PeersUnavailable(f"bm25s and LanceDB can't be installed here: {' '.join(reason)}".rstrip(".") + ".")
    command = [*uv, str(folder / "peer.py"), str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    medians: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return medians
