"""What scripts may rely on: the commands of `persona`, their JSON and their exit statuses."""
import os
import signal
import socket
import struct
import subprocess

import pytest

from cli import environment, objects, persona, program
from client import NO_FOLLOW, NODE, ROOT, position
from conftest import count_of, wait_until

COMMANDS = ["chat", "say", "complete", "tree", "tokenize", "personas", "info", "bench",
            "batch",
            "dist", "score", "compare", "group", "verify", "walk", "expand"]
CHILD_FIELDS = ["session", "node", "ordinal", "seed", "prompt_tokens", "tokens", "logprobs",
                "entropies", "top", "text", "finish"]


def float_bits(value):
    return struct.pack("<f", value)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_and_takes_socket_and_json(command):
    page = persona(None, command, "--help")
    assert page.startswith(f"Usage: persona {command}")
    for option in ("--socket PATH", "--json", "--help"):
        assert option in page


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["info", "--nonsense"], ["info", "extra"], ["tree", "extra"], ["tree", "0"],
    ["tree", "--at", "1"], ["tree", "1", "2"], ["chat", "--at", "1"], ["say", "--at", "1", "x"],
    ["dist", "--at", "1"], ["personas", "--public"], ["verify", "--session", "1", "--at", "2"],
    ["say", "--session", "1", "--persona", "plain", "x"], ["chat", "--session", "1", "--user", "A"],
    ["chat", "extra"], ["personas", "extra"], ["bench", "extra"], ["bench", "--users", "0"],
    ["complete", "-n", "0", "x"], ["complete", "--temperature", "warm", "x"],
    ["complete", "--seed", "-1", "x"], ["say", "--at", ":", "x"], ["info", "--socket"],
    ["complete", "--bias", "5", "x"], ["tree", "--session", "0"], ["dist", "extra"],
    ["dist", "--top", "33"], ["score"], ["compare"], ["group"], ["verify"], ["verify", "x"],
    ["verify", "--all", "5"], ["verify", "--path", "--all"], ["verify", "5", "6"]])
def test_wrong_usage_ends_with_2_and_prints_nothing(daemon, arguments):
    assert persona(daemon, *arguments, status=2) == ""


@pytest.mark.parametrize("command", [["info"], ["tree"], ["personas"], ["say", "x"], ["bench"],
                                     ["complete", "x"], ["tokenize", "x"], ["chat"]])
def test_no_daemon_ends_with_1_and_says_where_it_looked(folder, command):
    path = os.path.join(folder, "nobody")
    made = subprocess.run([program(), *command, "--socket", path], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env=environment(), timeout=30, check=False)
    assert made.returncode == 1 and made.stdout == ""
    assert path in made.stderr and "no daemon answers" in made.stderr
    assert "start personad" in made.stderr and "--socket" in made.stderr


def test_a_daemon_that_hangs_does_not_hang_a_health_check(folder):
    path = os.path.join(folder, "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        made = subprocess.run([program(), "info", "--socket", path], capture_output=True, text=True,
                              env=environment(), timeout=30, check=False)
    assert made.returncode == 1 and "no daemon answers within" in made.stderr


def test_the_daemon_says_no_and_the_status_is_1(daemon):
    persona(daemon, "say", "--persona", "nobody", "x", status=1)
    persona(daemon, "complete", "--temperature", "500", "x", status=1)
    persona(daemon, "tree", "--session", "999999", status=1)
    persona(daemon, "tree", "--session", "999999", "--json", status=1)
    persona(daemon, "personas", "--put", "/nonexistent", status=1)


def test_the_socket_option_wins_over_the_environment(daemon):
    persona(None, "info", "--socket", daemon.socket, PERSONAD_SOCKET="/nonexistent")


def test_complete_goes_on_behind_a_byte(daemon, client):
    session = client.open(seed=1)
    text = b"The quick brown fox"
    node = client.append(session, text)
    place = ["complete", "--json", "--session", str(session), "--at", str(node.id),
             "--max-tokens", "4", "--ignore-end", "--at-byte", "6"]

    def path_of(told):
        nodes = client.call("walk", session=session, position=position(told["node"]),
                            content=True).walk.nodes
        ends = [after.parent.offset for after in nodes[1:]] + [nodes[-1].content_tokens]
        tokens = [token for one, end in zip(nodes, ends) for token in one.content[:end]]
        return client.call("detokenize", tokens=tokens).detokenize.text

    free, = objects(persona(daemon, *place, ""))
    assert path_of(free).startswith(text[:6])
    given, = objects(persona(daemon, *place, "X and"))
    assert path_of(given).startswith(text[:6] + b"X and")
    persona(daemon, "complete", "--at-byte", "6", "x", status=2)
    persona(daemon, *place[:-1], "200", "x", status=1)


def test_complete_prints_one_object_a_child_with_these_fields(daemon):
    arguments = ["complete", "--json", "-n", "3", "--temperature", "0.8", "--seed", "7",
                 "--max-tokens", "6", "--ignore-end", "--logprobs", "4", "Once upon"]
    made = objects(persona(daemon, *arguments))
    ids = objects(persona(daemon, "tokenize", "--json", "Once upon"))[0]["tokens"]
    assert sorted(child["ordinal"] for child in made) == [0, 1, 2]
    for child in made:
        assert list(child) == CHILD_FIELDS
        assert child["prompt_tokens"][-len(ids):] == ids
        assert child["finish"] == "length"
        assert len(child["tokens"]) == 6
        assert [len(pairs) for pairs in child["top"]] == [4] * 6
        for name in ("logprobs", "entropies"):
            assert len(child[name]) == 6
        for pairs in child["top"]:
            assert [p[1] for p in pairs] == sorted((p[1] for p in pairs), reverse=True)
    assert len({child["session"] for child in made}) == 1
    again = objects(persona(daemon, *arguments))
    for child in made + again:
        child.pop("session"), child.pop("node")
    by_ordinal = {child["ordinal"]: child for child in again}
    assert all(by_ordinal[child["ordinal"]] == child for child in made), "a seed repeats a run"
    other = objects(persona(daemon, *arguments, "--seed", "8"))
    assert {tuple(c["tokens"]) for c in other} != {tuple(c["tokens"]) for c in made}


def test_floats_are_printed_so_that_their_bits_can_be_read_back(daemon):
    child = objects(persona(daemon, "complete", "--json", "--max-tokens", "9", "--logprobs", "3",
                            "--ignore-end", "Bits"))[0]
    with daemon.client() as client:
        node = client.call("walk", session=child["session"], what=NODE, numbers=True,
                           position=position(child["node"])).walk.nodes[0]
    for name, values in (("logprobs", node.numbers.logprobs),
                         ("entropies", node.numbers.entropies)):
        assert [float_bits(v) for v in child[name]] == [float_bits(v) for v in values]
    tops = [pair for pairs in child["top"] for pair in pairs]
    assert [p[0] for p in tops] == list(node.numbers.top_tokens)
    assert [float_bits(p[1]) for p in tops] == [float_bits(v) for v in node.numbers.top_logprobs]
    assert child["tokens"] == list(node.numbers.tokens)


def test_say_prints_the_same_object_for_a_reply(daemon):
    made = objects(persona(daemon, "say", "--json", "--persona", "keeper", "-n", "2",
                           "--max-tokens", "4", "Hello"))
    assert len(made) == 2
    for child in made:
        assert list(child) == CHILD_FIELDS
        assert child["prompt_tokens"], "who owns the persona sees what the model saw"


def test_a_session_goes_on_where_it_is_told_to(daemon):
    first = objects(persona(daemon, "complete", "--json", "--max-tokens", "3", "--ignore-end",
                            "One"))[0]
    more = objects(persona(daemon, "complete", "--json", "--max-tokens", "3", "--ignore-end",
                           "--session", str(first["session"]), "--at", f"{first['node']}:2",
                           " two"))[0]
    expected = first["prompt_tokens"] + first["tokens"][:2]
    assert more["session"] == first["session"]
    assert more["prompt_tokens"][:len(expected)] == expected


def test_text_comes_from_standard_input_too(daemon):
    wanted = objects(persona(daemon, "tokenize", "--json", "a b\nc"))
    assert objects(persona(daemon, "tokenize", "--json", text="a b\nc")) == wanted
    assert objects(persona(daemon, "tokenize", "--json", "-", text="a b\nc")) == wanted
    assert objects(persona(daemon, "tokenize", "--json", "a", "b\nc")) == wanted


def test_hostile_text_makes_valid_json_and_cannot_steer_a_terminal(daemon, folder):
    hostile = "\x1b[31m\x07\"\\\u202e\x9b"
    made = objects(persona(daemon, "tokenize", "--json", hostile))[0]
    assert "".join(made["pieces"]).startswith("\x1b") or "\ufffd" in "".join(made["pieces"])
    seen = persona(daemon, "tokenize", hostile)
    session = objects(persona(daemon, "complete", "--json", "--max-tokens", "1", hostile))[0]
    seen += persona(daemon, "tree", str(session["session"]))
    objects(persona(daemon, "tree", "--session", str(session["session"]), "--json"))
    card = os.path.join(folder, "card.json")
    with open(card, "w", encoding="utf-8") as file:
        file.write('{"name": "\\u001b[2Jx", "description": "y", "bad": ')
    made = subprocess.run([program(), "personas", "--put", card, "--socket", daemon.socket],
                          capture_output=True, text=True, env=environment(), check=False)
    assert made.returncode == 1
    seen += made.stdout + made.stderr
    for sign in "\x1b\x07\u202e\x9b":
        assert sign not in seen


def test_personas_lists_and_adds(daemon, folder):
    names = [row["name"] for row in objects(persona(daemon, "personas", "--json"))]
    assert {"plain", "keeper", "twenty-questions", "conductor"} <= set(names)
    card = os.path.join(ROOT, "personas/keeper.json")
    made = objects(persona(daemon, "personas", "--json", "--put", card))
    assert len(made) == 1 and made[0]["play"] == "chat" and made[0]["built_in"] is False
    assert "keeper" in persona(daemon, "personas")


def test_info_is_one_object_with_limits_and_counters(daemon):
    made = objects(persona(daemon, "info", "--json"))
    assert len(made) == 1
    assert made[0]["pid"] == daemon.process.pid
    assert len(made[0]["model_hash"]) == 64
    assert {"FRAME_BODY_BYTES_MAX"} <= {limit["name"] for limit in made[0]["limits"]}
    assert made[0]["stats"]["personas"] >= 4


def test_bench_measures_what_it_was_told_to(daemon):
    made = objects(persona(daemon, "bench", "--json", "--users", "3", "--turns", "2", "--tokens",
                           "5", "--words", "4"))[0]
    assert (made["users"], made["turns"], made["replies"]) == (3, 2, 6)
    assert made["tokens"] == 30
    for name in ("first_token_ms", "inter_token_ms"):
        assert made[name]["p50"] <= made[name]["p90"] <= made[name]["p99"]
    assert "tokens/s" in persona(daemon, "bench", "--tokens", "3")


def test_bench_gives_its_users_connections_of_their_own(daemon):
    made = objects(persona(daemon, "bench", "--json", "--users", "5", "--connections", "3",
                           "--tokens", "40", "--words", "4"))[0]
    assert (made["users"], made["replies"], made["tokens"]) == (5, 5, 200)
    assert made["context_tokens"] == made["context_computed"] + made["context_cached"] > 0
    opened = daemon.log().count(" opened uid=")
    persona(daemon, "bench", "--users", "5", "--connections", "9", "--tokens", "2")
    # A connection each and the one that measures.
    assert daemon.log().count(" opened uid=") == opened + 6


def test_a_tree_of_thousands_of_nodes_is_drawn_in_a_few_lines(daemon):
    with daemon.client() as client:
        session = client.open(persona=b"plain")
        node = client.append(session, b"root").id
        for _ in range(5):
            made = client.stream("generate", session=session, position=position(node), n=1000,
                                 delivery=NO_FOLLOW)
            client.call("cancel", session=session)
            node = client.append(session, b"on", position=position(made.nodes[0].id)).id
    seen = persona(daemon, "tree", "--session", str(session))
    assert len(seen.splitlines()) < 100 and "... 988 more" in seen
    assert len(objects(persona(daemon, "tree", "--session", str(session), "--json"))) == 5006
    whole = persona(daemon, "tree", "--session", str(session), "--children", "0")
    assert len(whole.splitlines()) == 5006


def test_a_tree_of_forks_in_forks_is_drawn_without_a_deep_stack(daemon):
    """With 256 KiB of stack: a call for each fork would not fit."""
    depth = 1500
    with daemon.client() as client:
        session = client.open(persona=b"plain")
        node = 0
        for _ in range(depth):
            client.append(session, b"a", position=position(node))
            node = client.append(session, b"b", position=position(node)).id
    made = subprocess.run(["sh", "-c", 'ulimit -s 256; exec "$@"', "sh", program(), "tree",
                           "--session", str(session), "--socket", daemon.socket],
                          capture_output=True, text=True, env=environment(), check=False)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.splitlines()) == 2 * depth
    assert max(len(line) for line in made.stdout.splitlines()) < 120


def test_an_output_that_cannot_be_written_is_a_failure(daemon):
    with open("/dev/full", "wb") as full:
        made = subprocess.run([program(), "info", "--socket", daemon.socket], stdout=full,
                              stderr=subprocess.PIPE, env=environment(), check=False)
    assert made.returncode == 1


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_a_daemon_that_stops_in_mid_reply_is_a_failure_for_scripts(start, seconds):
    daemon = start()
    child = subprocess.Popen([program(), "say", "--persona", "plain", "--max-tokens", "3000",
                              "-n", "64", "--ignore-end", "--resume", seconds, "--socket",
                              daemon.socket, "x"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    wait_until(lambda: count_of(daemon, "branch_running_count") > 0)
    daemon.kill()
    _, complaints = child.communicate(timeout=60)
    assert child.returncode == 1 and complaints.startswith(b"persona: ")


def test_stopping_and_resuming_a_command_ends_nothing(daemon):
    child = subprocess.Popen([program(), "say", "--persona", "plain", "--max-tokens", "300",
                              "--json", "--ignore-end", "--socket", daemon.socket, "x"],
                             stdout=subprocess.PIPE, env=environment())
    for _ in range(3):
        child.send_signal(signal.SIGSTOP)
        child.send_signal(signal.SIGCONT)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert len(objects(output.decode())[0]["tokens"]) == 300
