"""llama.cpp, by its own benchmarks and its server."""

import json
import os
import socket
import subprocess
import threading
import time
import urllib.request

import workload

START_SECONDS_MAX = 120
RUN_SECONDS_MAX = 300


def environment(options):
    return dict(os.environ, LD_LIBRARY_PATH=str(options.peer))


def run(options, program, model, *arguments):
    command = [options.peer / program, "-m", model, "-t", str(options.threads), *arguments]
    out = subprocess.run(
        command, check=True, env=environment(options), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, timeout=RUN_SECONDS_MAX,
    )
    return out.stdout


def decode(options, model, tokens):
    out = run(options, "llama-bench", model, "-p", "0", "-n", str(tokens), "-r", "1", "-o", "json")
    return json.loads(out)[0]["avg_ts"]


def prefill(options, model, tokens):
    out = run(options, "llama-bench", model, "-p", str(tokens), "-n", "0", "-r", "1", "-o", "json")
    return json.loads(out)[0]["avg_ts"]


def batched(options, model, streams):
    """Tokens a second of so many streams together; a list gives a dictionary."""
    tokens = 64
    out = run(
        options, "llama-batched-bench", model, "-c", str(max(streams) * (16 + tokens) + 256), "-b",
        "2048", "-ub", "512", "-npp", "16", "-ntg", str(tokens), "-npl",
        ",".join(map(str, streams)), "--output-format", "jsonl",
    )
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {row["pl"]: row["speed_tg"] for row in rows}


class Server:
    def __init__(self, options, model, slots, context):
        with socket.socket() as probe:  # a port that is free now
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [options.peer / "llama-server", "-m", model, "-t", str(options.threads)]
        command += ["-np", str(slots), "-c", str(slots * context), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=environment(options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self):
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def complete(self, prompt, tokens, temperature):
        body = {
            "prompt": prompt, "n_predict": tokens, "temperature": temperature, "ignore_eos": True,
            "cache_prompt": True,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/completion", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=RUN_SECONDS_MAX) as answer:
            return json.load(answer)["content"]

    def together(self, prompts, tokens, temperature):
        replies = [None] * len(prompts)

        def client(i):
            replies[i] = self.complete(prompts[i], tokens, temperature)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if None in replies:
            raise RuntimeError("llama-server left a request unanswered")
        return replies


def served(options, model):
    """Tokens a second of 64 clients at once."""
    with Server(options, model, workload.SERVED_CLIENTS, 256) as server:
        server.complete("Hi", 4, 0)
        prompts = [f"{i} of 64: lamp harbour seven quiet" for i in range(workload.SERVED_CLIENTS)]
        begin = time.monotonic()
        server.together(prompts, workload.SERVED_TOKENS, workload.SERVED_TEMPERATURE)
        seconds = time.monotonic() - begin
    return workload.SERVED_CLIENTS * workload.SERVED_TOKENS / seconds


def tree(options, model):
    context = 6 * 333 + workload.TREE_TURNS * (workload.TREE_REPLY_TOKENS + 40) + 256
    with Server(options, model, workload.TREE_SIBLINGS, context) as server:
        server.complete("Hi", 4, 0)
        path = workload.TREE_ROOT
        begin = time.monotonic()
        for turn in range(workload.TREE_TURNS):
            path += workload.tree_ask(turn)
            tokens = workload.TREE_REPLY_TOKENS
            replies = server.together([path] * workload.TREE_SIBLINGS, tokens, 0.8)
            server.together([path] * workload.tree_again(turn), tokens, 0.8)
            path += replies[workload.tree_choice(turn)]
        return time.monotonic() - begin
