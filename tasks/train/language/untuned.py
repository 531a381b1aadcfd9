"""A candidate without training: the base model as it is, with the case's prompt and decoding."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.core.code_digest import cache_key
from tasks.core.files import file_digest, link_or_copy, scratch_folder, write_text
from tasks.core.mlflow import log_batch
from tasks.language.open_engine import WEIGHTS, model_file
from tasks.language.upstream import UPSTREAM
from tasks.train.candidates import CandidateBuilder
from tasks.train.language.knowledge import add_knowledge, knowledge_inputs
from tasks.train.language.mlflow_callback import log_model
from tasks.train.language.model import read_pairs
from tasks.train.results import Candidate, LanguageSpec, Origin


def make_candidate(origin: Origin, pairs: Path, *, data_digest: str, spec: LanguageSpec) -> Candidate:
    """Store and log the base as a candidate, or return the existing one of equal inputs.

    `pairs` is the folder with evaluation.parquet. Raises: DataError when it is missing or empty.
    """
    base = spec.base
    inputs = {
        "case": origin.case,
        "data": data_digest,
        "base": base.digest,
        "definitions": spec.definitions_digest,
        "lengths": [spec.chat.context, spec.serving.answer_tokens],
        "serving": spec.serving.digest,
        **knowledge_inputs(spec),
    }
    builder = CandidateBuilder(origin, cache_key(__name__, inputs), pairs, data_digest, spec.definitions_digest)
    if (existing := builder.load_existing(lambda folder: file_digest(model_file(folder)))) is not None:
        return existing
    rows = len(read_pairs(pairs / "evaluation.parquet"))
    with builder.start_run() as run, scratch_folder(origin.state / "candidates") as work:
        run.folder.mkdir(parents=True, exist_ok=True)
        if base.upstream:  # a copy: the next opening of the base may write another
            base.upstream.write(run.folder / UPSTREAM)
        else:
            link_or_copy(base.served, run.folder / WEIGHTS)
        weights = file_digest(model_file(run.folder))
        add_knowledge(spec, pairs, run.folder)
        params = {"base": base.source, "base_digest": base.digest, "prompt": spec.chat.prompt.label}
        tags = {"driftline.weights_digest": weights}
        log_batch(builder.client, run.run_id, params=params, tags=tags)
        builder.log_dataset(run.run_id, {"num_rows": rows})
        described = Path(work) / "base"
        write_text(described / "base.json", json.dumps({"source": base.source, "digest": base.digest}))
        log_model(builder, run.run_id, described, base)
        return builder.save(run, weights, (), train_rows=0, holdout_rows=rows)
