"""Estimates of what a call will cost, from the recent calls of its release."""

from __future__ import annotations

from collections import OrderedDict, deque

from services.gateway.call import Call

# assumed for a release's first calls
DEFAULT_SECONDS = {"predict": 0.25, "chat": 2.0, "embeddings": 0.5, "search": 0.1}
DEFAULT_TOKENS = 64  # of a response, likewise
BYTES_PER_TOKEN = 4  # of the prompt, likewise
TEMPLATE_TOKENS = 64  # tokens that a chat template adds to messages, at most
RECENT, QUANTILE, MARGIN = 100, 0.95, 1.5  # calls observed, the share of them that must fit, and a factor on top
MAX_HISTORIES = 1_000  # pairs of release and interface
REFRESH = 25  # calls after which the quantiles are computed again


class UsageHistory:
    """The usage of the latest calls of one release and interface."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float, float]] = deque(maxlen=RECENT)
        self._new_samples = 0
        self.seconds = self.tokens_out = self.answered_share = self.tokens_a_byte = 0.0

    def observe(self, call: Call) -> None:
        share = call.tokens_out / call.max_tokens_out if call.max_tokens_out else 0.0
        self._samples.append((call.engine_seconds, call.tokens_out, share, call.tokens_in / max(call.size, 1)))
        self._new_samples += 1
        if self._new_samples >= REFRESH or len(self._samples) <= REFRESH:
            self._new_samples = 0
            place = int(QUANTILE * len(self._samples))
            high = [MARGIN * sorted(column)[place] for column in zip(*self._samples, strict=True)]
            self.seconds, self.tokens_out, self.answered_share, self.tokens_a_byte = high


class CostEstimates:
    """The usage histories of all releases, in the memory of this process."""

    def __init__(self) -> None:
        self._histories: OrderedDict[tuple[str, str], UsageHistory] = OrderedDict()

    def observe(self, call: Call) -> None:
        """Add the usage of an answered call."""
        name = (call.share.route.digest, call.interface)
        if name not in self._histories:
            self._histories[name] = UsageHistory()
            if len(self._histories) > MAX_HISTORIES:
                self._histories.popitem(last=False)
        self._histories[name].observe(call)

    def estimate(self, call: Call, max_tokens_in: int) -> int:
        """An upper estimate of a call's cost, in billionths; `max_tokens_in` bounds its prompt."""
        price, history = call.share.route.price, self._histories.get((call.share.route.digest, call.interface))
        if history is None:
            tokens_in = call.size // BYTES_PER_TOKEN + TEMPLATE_TOKENS
            tokens_out = min(call.max_tokens_out, DEFAULT_TOKENS)
            return price.of(min(tokens_in, max_tokens_in), 0, tokens_out, DEFAULT_SECONDS[call.interface])
        out = min(max(history.tokens_out, history.answered_share * call.max_tokens_out), call.max_tokens_out)
        return price.of(min(round(history.tokens_a_byte * call.size), max_tokens_in), 0, round(out), history.seconds)
