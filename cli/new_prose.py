"""Write the case.yaml of a language case whose answers are prose: a base model with a prompt, without tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cli.new_files import DataFiles
from cli.yaml_line import flow
from tasks.data.language.pairs import Pair
from tasks.language.answer_scoring import is_refusal

MAX_ANSWER_TOKENS = 512
LEAST_F1 = 0.2  # bounds to begin with: a base model rarely words an answer as the reference does
LEAST_RECALL = 0.5


def prose_case(data: DataFiles, pairs: Sequence[Pair], base: str) -> tuple[list[str], str]:
    """The lines of the file, and a one-line summary of the answers."""
    has_facts = any(pair.required_facts for pair in pairs)
    metric, least, loss = (
        ("required_facts_recall", LEAST_RECALL, "missing_facts")
        if has_facts
        else ("token_f1", LEAST_F1, "token_distance")
    )
    answer = _tokens(max(len(pair.answer) for pair in pairs))
    longest = _tokens(max(len(pair.text) for pair in pairs)) + answer
    refusals = [pair.answer for pair in pairs if is_refusal(pair.answer)]
    abstain = max(set(refusals), key=lambda each: (refusals.count(each), each)) if refusals else None
    lines = [
        "kind: llm",
        f"description: {flow(f'Answers the messages of {data.name} in prose.')}",
        "",
        "model:",
        f"  source: {base}  # or file://FOLDER, file://X.gguf, hf://ORG/NAME",
        f"  context: {max(512, 64 * math.ceil((longest + 128) / 64))}",
        "",
        "prompt:",
        "  system: Answer the message in few words.  # what improves the answers most",
        "",
        "answer:",
        "  format: text",
        *([f"  abstain: {flow(abstain)}  # the answer when no other one applies"] if abstain else []),
        "",
        "data:",
        "  sources:",
        f"    pairs: {{uri: {flow(data.uri)}, key: [pair], sql: 'SELECT row_number() OVER () AS pair, * FROM raw'}}",
        "",
        "pairs: {sources: [pairs]}  # without `train`, nothing is tuned; three of four lines evaluate",
        "",
        f"serve: {{answer_tokens: {min(MAX_ANSWER_TOKENS, max(32, answer))}}}",
        "",
        "evaluate:",
        f"  bounds: [{{metric: {metric}, at_least: {least}}}]  # a beginning: raise it to your requirement",
        f"  champion_gate: {{loss: {loss}, margin: 0.02, min_rows: 30}}",
    ]
    return lines, f"{len(pairs):,} pairs, answers in prose" + (", with required facts" if has_facts else "")


def _tokens(characters: int) -> int:
    """Tokens of a text, with room."""
    return 16 * math.ceil((characters / 3 + 8) / 16)
