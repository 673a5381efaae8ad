"""The cases: what is measured of whom, what it is compared with, and what it should reach.

A measure is a name and a function that gives figures by key; a case compares keys. Keys of ours
begin with "ours/", a peer's with its name. "engine" is our own engine alone, in turns with a
daemon: what serving costs.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess

import llama
import ours
import workload

DEFAULT = "default"
FILES = {
    "q4_0": "smol-Q4_0.gguf",
    "q8_0": "smol-Q8_0.gguf",
    "f16": "smol-F16.gguf",
    "bf16": "smol-BF16.gguf",
    "1b-q4_0": "random-1b-Q4_0.gguf",
    "1b-q8_0": "random-1b-Q8_0.gguf",
    "1b-q4_k_m": "random-1b-Q4_K_M.gguf",
}
# Of the default model and of the random one.
LAYER_WEIGHTS = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
OUTPUT_WEIGHTS = 49152 * 576
RANDOM_EMBEDDING_WEIGHTS = 49152 * 2048  # a row of it is read, not all
BITS_A_WEIGHT = {"1b-q4_0": 4.5, "1b-q8_0": 8.5, "1b-q4_k_m": 4.5}
SCRIPT_SECONDS_MAX = 420
LONG_TOKENS = 96  # of a stream of the 1.1B model


@dataclasses.dataclass
class Case:
    name: str
    text: str
    mine: str
    peers: tuple = ()
    target: float = 0.0
    lower_is_better: bool = False
    unit: str = "tokens/s"
    floor: object = None  # of the machine's rates and the options, in the unit
    quick: bool = False
    against_floor: bool = False  # the target is a share of the floor
    target_text: str = ""


def file_of(options, model):
    return options.model if model == DEFAULT else str(options.models / FILES[model])


def decode_floor(model):
    def floor(rates, options):
        size = os.path.getsize(file_of(options, model))
        if model in BITS_A_WEIGHT:
            size -= RANDOM_EMBEDDING_WEIGHTS * BITS_A_WEIGHT[model] / 8
        return rates["memory_gb_s"] * 1e9 / size

    return floor


def batch_floor(rates, _):
    return rates["int8_gop_s"] * 1e9 / (2 * (LAYER_WEIGHTS + OUTPUT_WEIGHTS))


def prefill_floor(rates, _):
    return rates["int8_gop_s"] * 1e9 / (2 * LAYER_WEIGHTS)


def float_floor(rates, _):
    return rates["fp32_gflop_s"] * 1e9 / (2 * LAYER_WEIGHTS)


FOUR_BIT = ("llama/q4_0/", f"openvino/{DEFAULT}/")


def four_bit(key):
    return tuple(name + key for name in FOUR_BIT)


CASES = [
    Case("decode-1", "decode, 1 stream, default file", "ours/default/decode/1",
         ("llama/default/decode/1", "openvino/default/decode/1"), 2.0, floor=decode_floor(DEFAULT),
         quick=True),
    Case("decode-1-q4_0", "decode, 1 stream, Q4_0", "ours/q4_0/decode/1",
         ("llama/q4_0/decode/1", "ik/q4_0/decode/1"), 1.35, floor=decode_floor("q4_0")),
    Case("decode-1-q8_0", "decode, 1 stream, Q8_0", "ours/q8_0/decode/1",
         ("llama/q8_0/decode/1", "ik/q8_0/decode/1"), floor=decode_floor("q8_0")),
    *(
        Case(f"decode-{name}", f"decode, 1 stream, 1.1B in {name[3:].upper()}",
             f"ours/{name}/decode/1", (f"llama/{name}/decode/1",), 0.85, floor=decode_floor(name),
             against_floor=True)
        for name in BITS_A_WEIGHT
    ),
    Case("decode-4", "decode, 4 streams, default file", "ours/default/decode/4",
         four_bit("decode/4"), floor=batch_floor),
    Case("decode-16", "decode, 16 streams, default file", "ours/default/decode/16",
         four_bit("decode/16"), 2.5, floor=batch_floor, quick=True),
    Case("decode-64", "decode, 64 streams, default file", "ours/default/decode/64",
         four_bit("decode/64"), 2.2, floor=batch_floor, quick=True),
    Case("prefill-64", "prefill 64, default file", "ours/default/prefill/64",
         ("openvino/default/prefill/64", "llama/q4_0/prefill/64"), floor=prefill_floor),
    Case("prefill-512", "prefill 512, default file", "ours/default/prefill/512",
         ("openvino/default/prefill/512", "llama/q4_0/prefill/512"), 1.8, floor=prefill_floor,
         quick=True),
    Case("prefill-2048", "prefill 2048, default file", "ours/default/prefill/2048",
         ("openvino/default/prefill/2048",), 1.3, floor=prefill_floor, quick=True),
    Case("prefill-512-bf16", "prefill 512, BF16", "ours/bf16/prefill/512",
         ("llama/bf16/prefill/512",), 1.4, floor=float_floor),
    Case("prefill-512-f16", "prefill 512, F16", "ours/f16/prefill/512",
         ("llama/f16/prefill/512",), 1.3, floor=float_floor),
    Case("persona-cached", "persona workload, 64 sessions, cached", "ours/default/persona/cached",
         ("openvino/default/persona/cached",), 3.0, lower_is_better=True, unit="s"),
    Case("persona-fresh", "the same, not cached", "ours/default/persona/fresh",
         ("openvino/default/persona/fresh",), 15.0, lower_is_better=True, unit="s"),
    Case("tree", "tree workload, to the last reply", "ours/default/tree",
         ("llama/q4_0/tree", "openvino/default/tree"), 5.0, lower_is_better=True, unit="s"),
    Case("served-64", "64 clients over the socket, temperature 0.8", "ours/default/served",
         ("llama/q4_0/served",), 3.5, floor=batch_floor),
    *(
        Case(f"served-share-{count}", f"served over the engine alone, {count} at temperature 0.8",
             f"engine/default/served/{count}", (f"engine/default/alone/{count}",), 0.97,
             floor=decode_floor(DEFAULT) if count == 1 else batch_floor)
        for count in workload.SHARE_CLIENTS
    ),
    Case("memory", "resident memory at rest over file + KV pages held", "ours/default/memory",
         target=1.15, lower_is_better=True, unit="times", target_text="at most 1.15"),
    Case("memory-1b", "the same, 1.1B in Q4_0", "ours/1b-q4_0/memory", target=1.15,
         lower_is_better=True, unit="times", target_text="at most 1.15"),
    Case("load", "from start to ready", "ours/default/load", lower_is_better=True, unit="s"),
]

# Once in a run: what takes a peer a minute and varies little beside its distance from ours.
ONCE = {
    "openvino/default/persona/fresh", "openvino/default/persona/cached", "openvino/default/tree",
    "llama/q4_0/tree", "llama/q4_0/served",
}


def measure_ours(options, model, keys):
    """One daemon's life; of the keys of that model those that are wanted."""
    figures = {}
    # No peer guesses tokens, and greedy replies to a few words repeat themselves.
    with ours.Daemon(options, file_of(options, model), "--speculation", "off") as daemon:
        figures["load"] = daemon.load_seconds
        if "persona/fresh" in keys:
            figures["persona/fresh"] = daemon.persona()
        daemon.decode(1, 16)  # touches all memory
        if "memory" in keys:
            daemon.decode(1, 256)
            figures["memory"] = daemon.memory()
        for key in keys:
            kind, _, value = key.partition("/")
            if kind == "decode":
                tokens = LONG_TOKENS if model.startswith("1b") else 0
                figures[key] = daemon.decode(int(value), tokens)
            elif kind == "prefill":
                figures[key] = daemon.prefill(int(value))
            elif key == "persona/cached":
                daemon.persona_warm()
                figures[key] = daemon.persona()
            elif key == "tree":
                figures[key] = daemon.tree()
        if "served" in keys:
            figures["served"] = daemon.served(workload.SERVED_CLIENTS)["tokens_per_second"]
    return figures


def measure_engine(options, model, keys):
    """A daemon and an engine alone in turns, on the same work; medians of each."""
    figures = {}
    path = file_of(options, model)
    with ours.Daemon(options, path, "--speculation", "off") as daemon:
        for count in sorted({int(key.split("/")[1]) for key in keys}):
            served, alone = [], []
            daemon.served(count)
            for _ in range(workload.SHARE_REPEATS[count]):
                result = daemon.served(count)
                served.append(result["tokens_per_second"])
                context = round(result["context_tokens"] / count)
                alone.append(ours.engine_alone(options, path, count, context))
            figures[f"served/{count}"] = statistics.median(served)
            figures[f"alone/{count}"] = statistics.median(alone)
    return figures


def measure_llama(options, model, keys):
    figures = {}
    path = file_of(options, model)
    streams = [int(key[7:]) for key in keys if key.startswith("decode/") and key != "decode/1"]
    if streams:
        for count, rate in llama.batched(options, path, streams).items():
            figures[f"decode/{count}"] = rate
    for key in keys:
        if key == "decode/1":
            tokens = LONG_TOKENS if model.startswith("1b") else workload.DECODE_TOKENS[1]
            figures[key] = llama.decode(options, path, tokens)
        elif key.startswith("prefill/"):
            figures[key] = llama.prefill(options, path, int(key[8:]))
        elif key == "served":
            figures[key] = llama.served(options, path)
        elif key == "tree":
            figures[key] = llama.tree(options, path)
    return figures


def in_environment(options, script, model, *arguments):
    """The last line that the script prints; its own words go to a file, to be shown if it fails."""
    here = pathlib.Path(__file__).parent
    command = [options.python, here / script, file_of(options, model), str(options.threads)]
    done = subprocess.run(
        [*command, *arguments], text=True, capture_output=True, check=False,
        timeout=SCRIPT_SECONDS_MAX,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_openvino(options, model, keys):
    return in_environment(options, "openvino_runs.py", model, *keys)


def measure_ik(options, model, keys):
    tokens = LONG_TOKENS if model.startswith("1b") else workload.DECODE_TOKENS[1]
    rate = in_environment(options, "ik_runs.py", model, str(tokens))["decode"]
    return {key: rate for key in keys}


MEASURES = {
    "ours": measure_ours,
    "engine": measure_engine,
    "llama": measure_llama,
    "openvino": measure_openvino,
    "ik": measure_ik,
}
