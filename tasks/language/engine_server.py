"""The child process of an engine: llama.cpp's server, until its standard input ends."""

from __future__ import annotations

import json
import os
import sys

MAX_CALLS = 240  # at once, those that wait for a slot included


def _serve() -> None:
    """Serve until the input ends: that the starter is gone, even by kill -9, closes it too."""
    settings = json.loads(sys.stdin.readline())
    to_starter = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # all else that is written goes to the log

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.model_alias = {settings["name"]}  # what answers name as their model: else the path
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [settings["key"]]
    # each call holds a thread until its end: with no thread free, nobody hears that the engine lives
    params.n_threads_http = MAX_CALLS + 16
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cont_batching = params.cache_prompt = True
    params.cache_ram_mib = 0  # else it keeps up to 8 GB of old prompts besides the slots' own
    params.fit_params = False  # else it may quietly serve a shorter context
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.ui = False
    params.endpoint_slots = True  # only its main loop answers there: whoever gets no answer knows that it hangs
    params.offline = True
    server = xllamacpp.Server(params)
    print(server.listening_address, file=to_starter, flush=True)
    sys.stdin.read()
    os._exit(0)  # at once, whatever is being answered


if __name__ == "__main__":
    try:
        _serve()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
