"""ik_llama.cpp by its Python binding; runs inside the peers' environment.

    ik_runs.py MODEL.gguf THREADS TOKENS     prints one JSON object
"""

import json
import sys
import time

import ik_llama_cpp
from ik_llama_cpp.llama import make_batch_range, make_batch_single

WARM_TOKENS = 8


def main():
    model, threads, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llama = ik_llama_cpp.IkLlama(model, n_ctx=1024, n_threads=threads, verbose=False)
    context = llama._context  # pylint: disable=protected-access
    prompt = llama.tokenize("Once there was a lamp")
    context.decode(make_batch_range(prompt, pos_start=0))
    token = prompt[-1]
    begin = 0.0
    for i in range(WARM_TOKENS + tokens):
        if i == WARM_TOKENS:
            begin = time.perf_counter()
        if context.decode(make_batch_single(token, len(prompt) + i)) != 0:
            sys.exit("ik_llama.cpp did not decode")
        # The same token again: its choice is no part of what is measured.
        context.get_logits(0)
    print(json.dumps({"decode": tokens / (time.perf_counter() - begin)}))


if __name__ == "__main__":
    main()
