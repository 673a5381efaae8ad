"""personad, measured through its socket."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import workload

START_SECONDS_MAX = 120
BENCH_SECONDS_MAX = 300
REST_SECONDS = 2.5  # after so many without a step the daemon has given scratch back
PROMPT_WORDS_EXTRA = 3  # the words that `persona bench` puts first, in tokens


def persona_card():
    return {
        "spec": "chara_card_v2",
        "spec_version": "2.0",
        "data": {"name": "Measure", "description": workload.PERSONA_TEXT, "first_mes": ""},
    }


class Daemon:
    """A daemon on a private socket, stopped at the end. load_seconds: from its start to ready."""

    def __init__(self, options, model, *arguments):
        self.options = options
        self.model = model
        self.folder = tempfile.TemporaryDirectory(prefix="personad-bench-")
        self.socket = os.path.join(self.folder.name, "socket")
        self.log = os.path.join(self.folder.name, "log")
        command = [options.programs / "bin" / "personad", "--model", model]
        command += ["--socket", self.socket, "--data", os.path.join(self.folder.name, "data")]
        command += ["--personas", self.personas(), "--threads", str(options.threads)]
        self.begin = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def personas(self):
        folder = pathlib.Path(self.folder.name) / "personas"
        folder.mkdir()
        shutil.copy(self.options.root / "personas" / "plain.json", folder)
        (folder / "measure.json").write_text(json.dumps(persona_card()), encoding="utf-8")
        return folder

    def __enter__(self):
        end = time.monotonic() + START_SECONDS_MAX
        while "personad: ready on " not in pathlib.Path(self.log).read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > end:
                log = pathlib.Path(self.log).read_text(errors="replace")
                self.__exit__()
                sys.exit(f"dev: the daemon did not get ready:\n{log}")
            time.sleep(0.01)
        self.load_seconds = time.monotonic() - self.begin
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def bench(self, **fields):
        command = [self.options.programs / "bin" / "persona", "bench"]
        command += ["--socket", self.socket, "--json"]
        for name, value in fields.items():
            command += [f"--{name}", str(value)]
        out = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=BENCH_SECONDS_MAX
        )
        return json.loads(out.stdout.strip().splitlines()[-1])

    def held_bytes(self):
        """Of keys and values: all pages that a branch or the cache holds."""
        command = [self.options.programs / "bin" / "persona", "info", "--socket", self.socket]
        out = subprocess.run(
            [*command, "--json"], check=True, stdout=subprocess.PIPE, text=True, timeout=60
        )
        info = json.loads(out.stdout)
        page_bytes = info["kv_bytes"] // info["kv_pages"]
        return (info["kv_pages"] - info["stats"]["kv_pages_free"]) * page_bytes

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    # ---- one figure each

    def memory(self):
        """Resident bytes at rest over those of the file and of the pages of keys and values."""
        time.sleep(REST_SECONDS)
        whole = os.path.getsize(self.model) + self.held_bytes()
        return self.resident_bytes() / whole

    def decode(self, streams, tokens=0):
        """Tokens a second while all were generating, greedy."""
        tokens = tokens or workload.DECODE_TOKENS[streams]
        return self.bench(users=streams, words=8, tokens=tokens, temperature=0)[
            "steady_tokens_per_second"
        ]

    def prefill(self, tokens):
        """Context tokens a second to the first token of the reply."""
        words = tokens - PROMPT_WORDS_EXTRA - 2
        result = self.bench(users=1, words=words, tokens=1, temperature=0)
        return result["context_computed"] / result["first_token_ms"]["p50"] * 1000

    def persona(self):
        """Seconds until all sessions of the persona have their replies."""
        result = self.bench(
            persona="Measure", users=workload.SESSION_COUNT, words=16,
            tokens=workload.PERSONA_REPLY_TOKENS, temperature=0,
        )
        return result["seconds"]

    def persona_warm(self):
        self.bench(persona="Measure", users=1, words=4, tokens=1)

    def served(self, clients):
        """What so many clients found, each with a connection of its own."""
        return self.bench(
            users=clients, connections=clients, words=8, tokens=workload.SERVED_TOKENS,
            temperature=workload.SERVED_TEMPERATURE,
        )

    def tree(self):
        """Seconds to the last reply of the tree workload."""
        sys.path.insert(0, str(self.options.root / "tests" / "flow"))
        import client  # pylint: disable=import-outside-toplevel

        wanted = {"max_tokens": workload.TREE_REPLY_TOKENS, "temperature": 0.8, "ignore_end": True}
        with client.Client(self.socket) as connection:
            begin = time.monotonic()
            session = connection.open(seed=1)
            node = connection.append(session, workload.TREE_ROOT.encode())
            for turn in range(workload.TREE_TURNS):
                place = client.position(node.id)
                text = workload.tree_ask(turn).encode()
                node = connection.append(session, text, position=place)
                place = client.position(node.id)
                replies = connection.generate(
                    session, position=place, n=workload.TREE_SIBLINGS, **wanted
                ).replies()
                connection.generate(session, position=place, n=workload.tree_again(turn), **wanted)
                node = replies[workload.tree_choice(turn)]
            return time.monotonic() - begin


def engine_alone(options, model, users, context):
    """Tokens a second of so many replies at once without socket and journal."""
    command = [options.programs / "bin" / "personad-bench", "--engine", "--json"]
    command += ["--backend", "cpu", "--threads", str(options.threads), "--model", model]
    command += ["--users", str(users)]
    command += ["--context", str(context), "--tokens", str(workload.SERVED_TOKENS)]
    command += ["--temperature", str(workload.SERVED_TEMPERATURE), "--rounds", "1"]
    out = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=BENCH_SECONDS_MAX
    )
    return json.loads(out.stdout.strip().splitlines()[-1])["tokens_per_second"]


def machine(options, threads):
    """What so many threads together read and compute: the floors of the cases."""
    out = subprocess.run(
        [options.programs / "tests" / "bench_machine", str(threads)],
        check=True, stdout=subprocess.PIPE, text=True,
    )
    return json.loads(out.stdout)
