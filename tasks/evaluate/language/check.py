"""Checks of a language case's gates before training: those that could never be computed are errors."""

from __future__ import annotations

from tasks.core.errors import CaseError
from tasks.data.config import ChatSpec, Pairs
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.custom_scorer import CustomScorer
from tasks.evaluate.tabular.gates import check_slices
from tasks.evaluate.waivers import check_waivers
from tasks.language.answer_scoring import LOSSES, METRICS

SLICE_COLUMNS = ("intent", "template", "origin", "day", "unanswerable")  # of pairs
UNSLICED = ("refusal_rate", "over_refusal_rate", "perplexity", "latency_p50_ms", "cost_per_1k_answers", "judge_score")
JSON_METRICS = tuple(metric.name for metric in METRICS if metric.format == "json")
TEXT_METRICS = tuple(metric.name for metric in METRICS if metric.format == "text")
JUDGING = tuple(metric.name for metric in METRICS if metric.judges)
FREE_LOSSES = ("degenerate",)  # that need no right answer
PASSAGE_METRICS = tuple(metric.name for metric in METRICS if metric.format == "passages")
TEXT_LOSSES = ("token_distance", "semantic_distance", "missing_facts")


def check_language_evaluation(
    config: LanguageEvaluation, chat: ChatSpec, pairs: Pairs, *, tuned: bool, knowledge: bool = False
) -> None:
    """Check that each gate names a metric of answers, and that the case has what the metric is computed from.

    Raises: CaseError with everything that is missing.
    """
    check_slices(config, SLICE_COLUMNS)
    check_waivers(config)
    for code in config.scorers.values():
        CustomScorer.of(code).load()
    is_json = chat.answer.format == "json"
    needs = {
        "hallucination_rate": (chat.answer.stated, "answer.stated, the keys whose values must occur in the message"),
        "abstention_recall": (chat.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "wrong_abstention_rate": (chat.answer.abstain, "answer.abstain, the answer to what is out of scope"),
        "refusal_rate": (pairs.safety, "pairs.safety, the source of unsafe prompts"),
        "judge_score": (config.judge, "evaluate.judge, the endpoint of the judge"),
        "perplexity": (tuned, "train, since only a tuned model's perplexity is computed"),
        **dict.fromkeys(PASSAGE_METRICS, (knowledge, "knowledge, the documents that answers come from")),
        **dict.fromkeys(TEXT_METRICS, (not is_json, "answer.format: text")),
    }
    if not is_json:
        needs |= dict.fromkeys(JSON_METRICS, (False, "answer.format: json"))
    if pairs.none:
        needs |= dict.fromkeys(JUDGING, (False, "pairs, the right answers or facts"))
    named = [(f"evaluate.bounds[{at}]", bound.metric) for at, bound in enumerate(config.bounds)]
    named += [("evaluate.slice_gate", config.slice_gate.metric)] if config.slice_gate else []
    missing = [
        f"{where}: {metric} needs {needs[metric][1]}"
        for where, metric in named
        if metric in needs and not needs[metric][0]
    ]
    if knowledge and chat.answer.abstain is None:
        missing.append("answer.abstain: without it there is no answer to a question that no passage answers")
    if config.slice_gate and config.slice_gate.metric in UNSLICED:
        missing.append(f"evaluate.slice_gate: {config.slice_gate.metric} is computed over all answers, not by slice")
    if config.champion_gate.loss in TEXT_LOSSES and is_json:
        missing.append(f"evaluate.champion_gate: {config.champion_gate.loss} needs answer.format: text")
    elif config.champion_gate.loss in LOSSES and config.champion_gate.loss not in FREE_LOSSES and pairs.none:
        missing.append(f"evaluate.champion_gate: {config.champion_gate.loss} needs pairs, the right answers or facts")
    if not chat.prompt.baseline and ((tuned and not knowledge) or config.above_few_shot is not None):
        missing.append("prompt.baseline: without it the base can't be compared with")
    if chat.prompt.baseline and is_json and "{schema}" not in chat.prompt.baseline:
        missing.append("prompt.baseline: it lacks {schema}, without which the base can't be compared fairly")
    if missing:
        raise CaseError(
            f"The gates of the case could never be computed: {len(missing)} to correct.",
            where="evaluate",
            found="".join(f"\n    {sentence}" for sentence in missing),
            todo="Add what is missing to case.yaml, or leave the gate out.",
        )
