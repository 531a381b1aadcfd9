"""What can be said of a language case's gates before anything is trained: those that could never be computed."""

from __future__ import annotations

from tasks.core.errors import CaseError
from tasks.data.config import ChatSpec, Pairs
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.tabular.gates import check_gates

COLUMNS = ("intent", "template", "origin", "day")  # of pairs, that make slices
WHOLE = ("refusal_rate", "over_refusal_rate", "perplexity", "latency_p50_ms", "cost_per_1k_answers", "judge_score")


def check_language_evaluation(config: LanguageEvaluation, talk: ChatSpec, pairs: Pairs) -> None:
    """Check that each gate's metric fits answers, and that the case has what it is computed from.

    Raises: CaseError naming all that is missing.
    """
    check_gates(config, "answers", COLUMNS)
    needs = {
        "hallucination_rate": (talk.answer.stated, "answer.stated, the keys whose values a message must say"),
        "abstention_recall": (talk.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "wrong_abstention_rate": (talk.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "refusal_rate": (pairs.safety, "pairs.safety, the source of unsafe prompts"),
        "judge_score": (config.judge, "evaluate.judge, the endpoint that is asked"),
    }
    named = [(f"evaluate.bounds[{at}]", bound.metric) for at, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate", config.slice_gate.metric)] if config.slice_gate else []
    missing = [
        f"{where}: {metric} needs {needs[metric][1]}"
        for where, metric in named
        if metric in needs and not needs[metric][0]
    ]
    if config.slice_gate and config.slice_gate.metric in WHOLE:
        missing.append(f"evaluate.slice_gate: {config.slice_gate.metric} is of all answers, no slice has one")
    if "{schema}" not in talk.prompt.baseline:
        missing.append("prompt.baseline: it lacks {schema}, and the base can't be compared fairly without")
    if missing:
        raise CaseError(
            f"The gates of the case could never be computed: {len(missing)} to correct.",
            where="evaluate",
            found="".join(f"\n    {sentence}" for sentence in missing),
            todo="Add what is missing to case.yaml, or leave the gate out.",
        )
