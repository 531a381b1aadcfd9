"""The settings of a case for training a candidate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tasks.core.config import Duration, Section, digest_of
from tasks.data.config import Embedder


def _name_nan(value: Any) -> Any:
    """Write YAML's .nan as the text 'nan': no JSON holds the number, and a section has a digest over its JSON."""
    if isinstance(value, dict):
        return {key: _name_nan(each) for key, each in value.items()}
    return "nan" if isinstance(value, float) and value != value else value


Parameters = Annotated[dict[str, Any], BeforeValidator(_name_nan)]
Calibration = Literal["sigmoid", "isotonic"]


class Target(Section):
    """Column to predict."""

    column: str = Field(description="Column of examples to predict.")
    task: Literal["classification", "regression"] = Field(description="classification: two classes or more.")
    positive: bool | int | str | None = Field(
        None, description="The one of two classes whose probability is predicted; empty: the last in sorted order."
    )

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json", exclude_none=True))

    @model_validator(mode="after")
    def _has_classes(self) -> Target:
        if self.task == "regression" and self.positive is not None:
            raise ValueError("positive names a class, and a regression has none: remove it")
        return self


class Encoder(Section):
    """A scikit-learn transformer for some columns; columns without one go to the model as they are.

    A column named by several encoders goes through them one after the other: an imputer, then a scaler.
    """

    columns: tuple[str, ...] = Field(min_length=1, description="Columns to encode.")
    family: str = Field(
        pattern=r"^(sklearn\.[\w.]+|driftline\.(DateParts|CharacterNgrams))$",
        description="Class, such as sklearn.preprocessing.OneHotEncoder; driftline.DateParts, of ISO dates; or "
        "driftline.CharacterNgrams, of texts as the classifiers of guardrails read them.",
    )
    parameters: Parameters = Field({}, description="Its arguments; nan for a missing value.")


class Split(Section):
    """Which examples are held out to evaluate on."""

    by: Literal["time", "hash"] = Field(description="time: the latest examples; hash: those by hashed example_id.")
    holdout: Duration | None = Field(None, description="For time: how much at the end is held out, such as 14d.")
    share: float | None = Field(None, gt=0, lt=1, description="Which share of the rows is held out.")

    @model_validator(mode="after")
    def _has_its_size(self) -> Split:
        if (self.holdout is None) == (self.share is None) or (self.by == "hash" and self.share is None):
            raise ValueError("by: time needs share (such as 0.2) or holdout (such as 14d), one of them; by: hash share")
        return self


class Member(Section):
    """A further model of an ensemble, with its own encoders."""

    family: str = Field(pattern=r"^sklearn\.[\w.]+$", description="Estimator class.")
    parameters: Parameters = Field({}, description="Its arguments; nan for a missing value.")
    encoders: tuple[Encoder, ...] = Field((), description="How columns are encoded, in this order, before the others.")
    target_transform: Literal["log1p"] | None = Field(None, description="As in train.")
    calibration: Calibration | None = Field(None, description="As in train.")
    weight: float = Field(1.0, gt=0, description="Its weight in the mean of all predictions.")


class Mitigation(Section):
    """A bound on the difference between groups of people, of decisions between two classes."""

    columns: tuple[str, ...] = Field(
        min_length=1, max_length=3, description="Sensitive columns of the examples; several are crossed."
    )
    metric: Literal["selection_rate", "true_positive_rate", "false_positive_rate", "equalized_odds"] = Field(
        "equalized_odds", description="What differs between groups, as in evaluate.fairness.gates."
    )
    at_most: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Largest difference on the training rows; below the gate's, since it must be shown.",
    )


class Reductions(Mitigation):
    """A mixture of models, each fitted on other weights of the rows (fairlearn's exponentiated gradient)."""

    iterations: int = Field(10, ge=5, le=100, description="Models that are fitted at most; few of them have a weight.")


class Thresholds(Mitigation):
    """A decision threshold for each group. It decides by the group of a person, which the law often forbids."""

    basis: str = Field(
        min_length=10, description="Why deciding by group is lawful in this case; verdict and card show it."
    )


class Train(Section):
    """Estimator, encoders and hold-out split."""

    family: str = Field(
        pattern=r"^sklearn\.[\w.]+$",
        description="Estimator class, such as sklearn.ensemble.HistGradientBoostingClassifier.",
    )
    parameters: Parameters = Field({}, description="Its arguments; nan for a missing value.")
    encoders: tuple[Encoder, ...] = Field((), description="How columns are encoded, in this order, before the others.")
    target_transform: Literal["log1p"] | None = Field(
        None, description="log1p: a regression fits log(1 + target) and predicts in the target's own unit."
    )
    calibration: Calibration | None = Field(
        None,
        description="Corrects the probabilities of a classification by a curve, fitted on predictions of five folds of "
        "the training rows: sigmoid of few rows, isotonic of thousands.",
    )
    weight: float = Field(1.0, gt=0, description="Weight of this model in the mean with those of `ensemble`.")
    ensemble: tuple[Member, ...] = Field(
        (), description="Further models: the prediction is the weighted mean of all. Empty: one model."
    )
    split: Split
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    threads: int = Field(2, ge=1, le=256, description="OpenMP threads while fitting and scoring.")
    rows: int | None = Field(None, ge=100, description="Train on at most so many of the newest rows; empty: on all.")
    reweigh: tuple[str, ...] = Field(
        (),
        max_length=3,
        description="Sensitive columns of the examples. Training rows are weighed so that the class does not depend "
        "on them, and the verdict shows the same model without the weights.",
    )
    reductions: Reductions | None = Field(None, description="A mixture of models that keeps a bound. Empty: none.")
    thresholds: Thresholds | None = Field(
        None, description="Thresholds by group, where that is lawful. Empty: one threshold, 0.5."
    )

    @model_validator(mode="after")
    def _mitigates_once(self) -> Train:
        if sum(map(bool, (self.reweigh, self.reductions, self.thresholds))) > 1:
            raise ValueError("reweigh, reductions and thresholds exclude one another: keep one")
        if self.reductions and self.ensemble:
            raise ValueError("reductions make an ensemble of their own: remove ensemble, or reductions")
        return self

    @property
    def mitigation(self) -> str:
        """The key of the mitigation; empty: none."""
        return next((name for name in ("reweigh", "reductions", "thresholds") if getattr(self, name)), "")

    @property
    def sensitive(self) -> tuple[str, ...]:
        """The columns that the mitigation reads beside the features."""
        mitigation = self.reductions or self.thresholds
        return mitigation.columns if mitigation else self.reweigh

    @property
    def unmitigated(self) -> Train:
        return self.model_copy(update={"reweigh": (), "reductions": None, "thresholds": None})

    @property
    def members(self) -> tuple[Train, ...]:
        """Each model of an ensemble as if it were alone, in their order; or this one."""
        alone = self.model_copy(update={"ensemble": ()})
        names = ("family", "parameters", "encoders", "target_transform", "calibration", "weight")
        others = [self.model_copy(update={**{n: getattr(m, n) for n in names}, "ensemble": ()}) for m in self.ensemble]
        return (alone, *others)


class Lora(Section):
    """Low-rank adapters (LoRA) on the matrices of the base's layers."""

    layers: int | None = Field(None, ge=1, description="Number of upper layers to train; empty: all.")
    rank: int = Field(16, ge=1, le=512, description="Rank of the adapters.")
    alpha: float = Field(32, gt=0, description="Scale of the adapters, divided by the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the adapters during training.")


LEARNING_RATE = "Highest learning rate, reached after the warm-up."


class Stage(Section):
    """The settings that all stages of a tuning share."""

    learning_rate: float = Field(gt=0, lt=1, description=LEARNING_RATE)
    epochs: float = Field(1.0, gt=0, le=100, description="Passes over the training examples.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps; empty: by `epochs`.")
    batch: int = Field(8, ge=1, description="Examples per optimizer step.")
    micro_batch: int | None = Field(
        None, ge=1, description="Examples in memory at once; empty: the process's whole batch."
    )
    warmup: int = Field(5, ge=0, description="Warm-up steps of the learning rate, before its cosine decay.")
    clip: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    checkpoint_every: int = Field(50, ge=1, description="Steps between checkpoints; a killed run loses at most these.")
    evaluate_every: int = Field(50, ge=1, description="Steps between evaluations on the validation pairs.")
    patience: int | None = Field(
        None, ge=1, description="Early stopping after this many evaluations without a lower loss; empty: none."
    )
    minutes: float | None = Field(None, gt=0, description="Time budget in minutes; at its end the adapter is saved.")


class Sft(Stage):
    """Supervised fine-tuning on the answers of the training pairs."""

    learning_rate: float = Field(1e-3, gt=0, lt=1, description=LEARNING_RATE)


class Preference(Stage):
    """DPO: prefer the chosen answer to the rejected one."""

    learning_rate: float = Field(5e-5, gt=0, lt=1, description=LEARNING_RATE)
    beta: float = Field(0.1, gt=0, description="Strength of the penalty for deviating from the reference model.")
    pairs: int = Field(
        200, ge=8, description="Maximum pairs; if there are fewer, wrong answers of the model are added."
    )


class Reward(Stage):
    """GRPO or RLOO: sample several answers to each message and reward the better ones."""

    method: Literal["grpo", "rloo"] = Field("grpo", description="Algorithm: GRPO or RLOO.")
    reward: Literal["scorers", "model"] = Field(
        "scorers", description="scorers: the case's metrics; model: a reward model trained on preferences."
    )
    learning_rate: float = Field(1e-5, gt=0, lt=1, description=LEARNING_RATE)
    answers: int = Field(4, ge=2, description="Sampled answers per message.")
    temperature: float = Field(0.9, gt=0, le=2, description="Temperature of the sampled answers.")


class Stages(Section):
    """Training stages in this order; each starts from the previous adapter."""

    sft: Sft
    preference: Preference | None = None
    reward: Reward | None = None


class Budget(Section):
    """Budget of all stages together. At its end the adapter is saved and further stages are skipped."""

    minutes: float | None = Field(None, gt=0, description="Time budget in minutes.")
    cost: float | None = Field(None, gt=0, description="Cost budget, in the currency of `price_per_hour`.")
    price_per_hour: float = Field(0.10, gt=0, description="Price of an hour of the machine.")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Budget:
        if self.minutes is None and self.cost is None:
            raise ValueError("set minutes, or cost, or both")
        return self

    @property
    def seconds(self) -> float:
        """The tighter of the two limits."""
        limits = [60 * self.minutes] if self.minutes else []
        limits += [3600 * self.cost / self.price_per_hour] if self.cost else []
        return min(limits)


class Tuning(Section):
    """Fine-tuning of a language model."""

    lora: Lora = Lora()
    quantize: Literal["none", "nf4"] = Field("none", description="nf4: load the base in four bits (QLoRA).")
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="Number format of the base and of the computation; adapters are always fp32."
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation of transformers."
    )
    packing: bool = Field(False, description="Pack several pairs into one sequence; for GPUs with flash attention.")
    max_tokens: int = Field(
        512, ge=32, description="Maximum tokens of a pair; a longer pair is an error, never truncated."
    )
    stages: Stages
    budget: Budget | None = Field(None, description="Time and cost of all stages together; empty: no limit.")
    memory_gb: float | None = Field(None, gt=0, description="Memory limit in GB; empty: all free memory.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    threads: int = Field(2, ge=1, le=256, description="CPU threads of each process.")
    processes: int = Field(
        1, ge=1, le=64, description="Training processes, which share each batch; on GPUs, one per GPU."
    )

    def up_to(self, stage: str) -> Tuning:
        """The same without the stages after this one."""
        names = list(Stages.model_fields)
        later = dict.fromkeys(names[names.index(stage) + 1 :])
        return self.model_copy(update={"stages": self.stages.model_copy(update=later)})


class Serving(Section):
    """Serving of the tuned model."""

    engine: Literal["llama.cpp", "vllm"] = Field(
        "llama.cpp",
        description="llama.cpp: within the service, on CPUs; vllm: a server on a GPU, at DRIFTLINE_VLLM_URL.",
    )
    weights: Literal["q8_0", "q4_1", "f16"] = Field(
        "q8_0", description="Number format of the served weights; the evaluation measures what rounding costs."
    )
    slots: int = Field(4, ge=1, le=64, description="Concurrent requests.")
    answer_tokens: int = Field(128, ge=8, description="Maximum tokens of an answer.")
    embedder: Embedder | None = Field(
        None, description="Sentence-embedding model for /v1/embeddings (a folder saved by transformers); empty: none."
    )

    @property
    def digest(self) -> str:
        """Digest of what answers depend on; the embedder is not part of it, so evaluations stay valid."""
        return digest_of(self.model_dump(mode="json", exclude={"embedder"}))

    @model_validator(mode="after")
    def _judges_what_it_serves(self) -> Serving:
        if self.engine == "vllm" and self.weights != "f16":
            raise ValueError("vllm serves unrounded weights: set weights: f16, so that these are evaluated")
        return self
