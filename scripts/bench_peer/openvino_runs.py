"""OpenVINO GenAI on a GGUF file; runs inside the peers' environment.

    openvino_runs.py MODEL.gguf THREADS KEY...     prints one JSON object: a figure a key

Keys: decode/STREAMS, prefill/TOKENS, persona/cached, persona/fresh, tree.
"""

import json
import sys
import time

import openvino_genai
import workload

BATCH_TOKENS = 512
CACHE_GB = 3
PREFILL_REPEATS = 3


def make(model, threads, streams):
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = streams
    scheduler.max_num_batched_tokens = BATCH_TOKENS
    scheduler.cache_size = CACHE_GB
    return openvino_genai.LLMPipeline(
        model, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=threads
    )


def settings(tokens, temperature=0.0):
    config = openvino_genai.GenerationConfig()
    config.ignore_eos = True
    config.apply_chat_template = False
    config.max_new_tokens = tokens
    config.do_sample = temperature > 0
    if temperature > 0:
        config.temperature = temperature
    return config


def timed(pipe, prompts, tokens):
    begin = time.perf_counter()
    pipe.generate(prompts, settings(tokens))
    return time.perf_counter() - begin


def decode(model, threads, streams):
    """The difference of a long and a short run, so that prefill is left out."""
    pipe = make(model, threads, streams)
    timed(pipe, ["Hi"], 4)
    prompts = [f"Tale {i}: once" for i in range(streams)]
    short, more = 8, 64
    first = timed(pipe, prompts, short)
    second = timed(pipe, prompts, short + more)
    return streams * more / (second - first)


def prefill(model, threads, tokens):
    pipe = make(model, threads, 1)
    timed(pipe, ["Hi"], 4)
    rates = []
    for i in range(PREFILL_REPEATS):
        prompt = f"{i} " + "lamp " * (tokens - 4)  # a different first token: nothing is cached
        metrics = pipe.generate([prompt], settings(1)).perf_metrics
        rates.append(metrics.get_num_input_tokens() / metrics.get_ttft().mean * 1000)
    return sorted(rates)[len(rates) // 2]


def persona(model, threads, cached):
    pipe = make(model, threads, workload.SESSION_COUNT)
    timed(pipe, ["Hi"], 4)
    if cached:
        timed(pipe, [workload.PERSONA_TEXT], 1)
    asks = [
        workload.PERSONA_TEXT + workload.persona_ask(i) for i in range(workload.SESSION_COUNT)
    ]
    return timed(pipe, asks, workload.PERSONA_REPLY_TOKENS)


def tree(model, threads):
    pipe = make(model, threads, workload.TREE_SIBLINGS)
    timed(pipe, ["Hi"], 4)
    config = settings(workload.TREE_REPLY_TOKENS, 0.8)
    path = workload.TREE_ROOT
    begin = time.perf_counter()
    for turn in range(workload.TREE_TURNS):
        path += workload.tree_ask(turn)
        replies = pipe.generate([path] * workload.TREE_SIBLINGS, config).texts
        pipe.generate([path] * workload.tree_again(turn), config)
        path += replies[workload.tree_choice(turn)]
    return time.perf_counter() - begin


def main():
    model, threads, keys = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    figures = {}
    for key in keys:
        kind, _, value = key.partition("/")
        if kind == "decode":
            figures[key] = decode(model, threads, int(value))
        elif kind == "prefill":
            figures[key] = prefill(model, threads, int(value))
        elif kind == "persona":
            figures[key] = persona(model, threads, value == "cached")
        else:
            figures[key] = tree(model, threads)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
