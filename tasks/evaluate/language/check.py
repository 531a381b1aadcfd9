"""Checks of a language case's gates before training: those that could never be computed are errors."""

from __future__ import annotations

from tasks.core.errors import CaseError
from tasks.data.config import ChatSpec, Pairs
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.tabular.gates import check_gates

SLICE_COLUMNS = ("intent", "template", "origin", "day")  # of pairs
UNSLICED = ("refusal_rate", "over_refusal_rate", "perplexity", "latency_p50_ms", "cost_per_1k_answers", "judge_score")


def check_language_evaluation(config: LanguageEvaluation, chat: ChatSpec, pairs: Pairs) -> None:
    """Check that each gate names a metric of answers, and that the case has what the metric is computed from.

    Raises: CaseError with everything that is missing.
    """
    check_gates(config, "answers", SLICE_COLUMNS)
    needs = {
        "hallucination_rate": (chat.answer.stated, "answer.stated, the keys whose values must occur in the message"),
        "abstention_recall": (chat.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "wrong_abstention_rate": (chat.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "refusal_rate": (pairs.safety, "pairs.safety, the source of unsafe prompts"),
        "judge_score": (config.judge, "evaluate.judge, the endpoint of the judge"),
    }
    named = [(f"evaluate.bounds[{at}]", bound.metric) for at, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate", config.slice_gate.metric)] if config.slice_gate else []
    missing = [
        f"{where}: {metric} needs {needs[metric][1]}"
        for where, metric in named
        if metric in needs and not needs[metric][0]
    ]
    if config.slice_gate and config.slice_gate.metric in UNSLICED:
        missing.append(f"evaluate.slice_gate: {config.slice_gate.metric} is computed over all answers, not by slice")
    if "{schema}" not in chat.prompt.baseline:
        missing.append("prompt.baseline: it lacks {schema}, without which the base can't be compared fairly")
    if missing:
        raise CaseError(
            f"The gates of the case could never be computed: {len(missing)} to correct.",
            where="evaluate",
            found="".join(f"\n    {sentence}" for sentence in missing),
            todo="Add what is missing to case.yaml, or leave the gate out.",
        )
