"""The child process of an engine: llama.cpp's server, which runs until its standard input ends."""

from __future__ import annotations

import json
import os
import sys

MAX_CALLS = 240  # concurrent, including queued ones


def _serve() -> None:
    """Serve until the input ends, which the death of the parent also causes, even by kill -9."""
    settings = json.loads(sys.stdin.readline())
    to_parent = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # all other output goes to the log

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.model_alias = {settings["name"]}  # the model name in responses; by default the path
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [settings["key"]]
    # each call holds a thread until its end; health checks need free ones
    params.n_threads_http = MAX_CALLS + 16
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cont_batching = params.cache_prompt = True
    params.cache_ram_mib = 0  # by default it caches up to 8 GB of old prompts besides the slots
    params.fit_params = False  # by default it may silently reduce the context
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.ui = False
    params.endpoint_slots = True  # served by its main loop, so that a probe detects a hang
    params.offline = True
    server = xllamacpp.Server(params)
    print(server.listening_address, file=to_parent, flush=True)
    sys.stdin.read()
    os._exit(0)  # at once, even during calls


if __name__ == "__main__":
    try:
        _serve()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
