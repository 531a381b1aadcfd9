"""Tries each rule on known-bad and known-good inputs, plain and disguised, and compares with the rule's bounds."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tasks.core.config import Result
from tasks.guard.config import Guardrails, Rule, Stage
from tasks.guard.engine import GuardEngine
from tasks.guard.examples import examples_of
from tasks.guard.mutations import mutations_for
from tasks.guard.stream import GuardedText
from tasks.statistics.proportion import wilson_interval

STREAMED = 5  # known-bad inputs that are cut at every byte of a stream
MUTATED = 60  # known-bad inputs that are disguised in each way
SHOWN = 5  # inputs that were missed, or found wrongly


@dataclass(frozen=True)
class GuardPlaces:
    """Where the files lie that rules read."""

    classifiers: Path  # a folder for each
    data: Path  # the data folder, which may hold labelled texts
    embedder: tuple[Path, Path | None] | None = None  # and its tokenizer


class Share(Result):
    """How many of some inputs a rule found, with the 95 % interval of the share."""

    found: int
    of: int

    @property
    def value(self) -> float:
        return self.found / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.found, self.of)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.found} of {self.of} ({self.value:.1%}, {low:.1%} to {high:.1%})"


class RuleTrial(Result):
    """What a rule found of its known-bad and known-good inputs."""

    stage: Stage
    rule: str
    inputs: str  # where they come from
    caught: Share
    false_alarms: Share
    mutations: dict[str, Share] = Field(default_factory=dict)
    streamed: Share = Share(found=0, of=0)  # streams of two pieces that pass what a check of the whole text passes
    missed: tuple[str, ...] = ()  # the first of them
    alarmed: tuple[str, ...] = ()
    catch_rate: float | None = None  # bounds of the rule
    false_alarm_rate: float | None = None

    @property
    def mutated(self) -> Share:
        """All disguised inputs together."""
        shares = self.mutations.values()
        return Share(found=sum(each.found for each in shares), of=sum(each.of for each in shares))

    @property
    def lost(self) -> float:
        """The share of the catch that disguises take away."""
        return 1 - self.mutated.value if self.mutated.of else 0.0

    @property
    def problems(self) -> list[str]:
        """The bounds that the rule misses."""
        problems = []
        if self.catch_rate is not None and self.caught.value < self.catch_rate:
            problems.append(f"{self.stage}.{self.rule} caught {self.caught}; required: at least {self.catch_rate:.1%}")
        if self.false_alarm_rate is not None and self.false_alarms.value > self.false_alarm_rate:
            problems.append(
                f"{self.stage}.{self.rule} had false alarms on {self.false_alarms}; "
                f"required: at most {self.false_alarm_rate:.1%}"
            )
        return problems


def try_rules(guardrails: Guardrails, places: GuardPlaces, *, only_bounded: bool = False) -> Iterator[RuleTrial]:
    """The trial of each rule; only_bounded: of those with a bound, and without disguises, as the gate needs them."""
    for stage, rules in guardrails.stages():
        for rule in rules:
            is_bounded = rule.catch_rate is not None or rule.false_alarm_rate is not None
            if is_bounded or not only_bounded:
                yield _try_rule(rule, stage, places, with_mutations=not only_bounded)


def _try_rule(rule: Rule, stage: Stage, places: GuardPlaces, *, with_mutations: bool) -> RuleTrial:
    alone = Guardrails.model_validate({stage: [rule.model_dump()]})
    engine = GuardEngine(alone, places.classifiers, places.embedder)
    examples = examples_of(rule, places.data)
    found = [_finds(engine, text, stage) for text in examples.bad]
    alarms = [_finds(engine, text, stage) for text in examples.good]
    some = [text for text, hit in zip(examples.bad, found, strict=True) if hit][:MUTATED]
    mutations = {
        name: _share([_finds(engine, mutate(text), stage) for text in some])
        for name, mutate in (mutations_for(rule.check) if with_mutations else {}).items()
    }
    return RuleTrial(
        stage=stage,
        rule=rule.label,
        inputs=examples.source,
        caught=_share(found),
        false_alarms=_share(alarms),
        mutations=mutations,
        streamed=_share(_streamed(engine, some[:STREAMED], stage) if rule.is_local and with_mutations else []),
        missed=_first(examples.bad, [not hit for hit in found]),
        alarmed=_first(examples.good, alarms),
        catch_rate=rule.catch_rate,
        false_alarm_rate=rule.false_alarm_rate,
    )


def _streamed(engine: GuardEngine, texts: Sequence[str], stage: Stage) -> list[bool]:
    """Whether a stream cut at each byte passes what a check of the whole text passes, for each cut."""
    equal = []
    for text in texts:
        whole, raw = engine.check(text, stage), text.encode()
        for at in range(1, len(raw)):
            decoder, guarded = codecs.getincrementaldecoder("utf-8")(), GuardedText(engine, stage)
            sent = guarded.push(decoder.decode(raw[:at])) + guarded.push(decoder.decode(raw[at:])) + guarded.finish()
            equal.append(guarded.refusal is not None if whole.action == "refuse" else sent == whole.text)
    return equal


def _finds(engine: GuardEngine, text: str, stage: Stage) -> bool:
    return any(outcome.fired for outcome in engine.check(text, stage).outcomes)


def _share(hits: Sequence[bool]) -> Share:
    return Share(found=sum(hits), of=len(hits))


def _first(texts: Sequence[str], chosen: Sequence[bool]) -> tuple[str, ...]:
    return tuple(text[:200] for text, is_one in zip(texts, chosen, strict=True) if is_one)[:SHOWN]
