"""What calls used lately, so that a call reserves from its budgets about what it will cost."""

from __future__ import annotations

from collections import OrderedDict, deque

from services.gateway.call import Call

FIRST_SECONDS = {"predict": 0.25, "chat": 2.0, "embeddings": 0.5}  # that a release's first calls are taken to need
FIRST_TOKENS = 64  # of answer, likewise
BYTES = 4  # of a token of prompt, likewise
TEMPLATE = 64  # tokens that a chat template adds to messages, at most
RECENT, QUANTILE, MARGIN = 100, 0.95, 1.5  # calls looked at, the share of them that must fit, and times that
MOST_KINDS = 1_000  # releases and interfaces remembered
REFRESH = 25  # calls after which what is known is summed up anew


class CallKind:
    """The latest calls of one release by one interface."""

    def __init__(self) -> None:
        self._used: deque[tuple[float, float, float, float]] = deque(maxlen=RECENT)
        self._new = 0
        self.seconds = self.tokens_out = self.answered_share = self.tokens_a_byte = 0.0

    def learn(self, call: Call) -> None:
        share = call.tokens_out / call.most_out if call.most_out else 0.0
        self._used.append((call.engine_seconds, call.tokens_out, share, call.tokens_in / max(call.size, 1)))
        self._new += 1
        if self._new >= REFRESH or len(self._used) <= REFRESH:
            self._new = 0
            place = int(QUANTILE * len(self._used))
            high = [MARGIN * sorted(column)[place] for column in zip(*self._used, strict=True)]
            self.seconds, self.tokens_out, self.answered_share, self.tokens_a_byte = high


class CostEstimates:
    """The latest calls of each release and interface, in the memory of this process."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[str, str], CallKind] = OrderedDict()

    def learn(self, call: Call) -> None:
        """Take note of what a call used that was answered."""
        name = (call.share.route.digest, call.interface)
        if name not in self._kinds:
            self._kinds[name] = CallKind()
            if len(self._kinds) > MOST_KINDS:
                self._kinds.popitem(last=False)
        self._kinds[name].learn(call)

    def estimate(self, call: Call, most_in: int) -> int:
        """What a call will hardly cost more than, in billionths; `most_in` bounds its tokens of prompt."""
        price, kind = call.share.route.price, self._kinds.get((call.share.route.digest, call.interface))
        if kind is None:
            tokens_in = call.size // BYTES + TEMPLATE
            return price.of(min(tokens_in, most_in), 0, min(call.most_out, FIRST_TOKENS), FIRST_SECONDS[call.interface])
        out = min(max(kind.tokens_out, kind.answered_share * call.most_out), call.most_out)
        return price.of(min(round(kind.tokens_a_byte * call.size), most_in), 0, round(out), kind.seconds)
