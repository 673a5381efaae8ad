"""persona batch: every line is answered once, also over several runs, whatever the file holds."""
import json
import signal
import subprocess

from cli import environment, objects, persona, program
from conftest import count_of, wait_until


def lines(count, turns=2):
    return [{"id": f"p{i}", "persona": "plain", "seed": i,
             "turns": [f"Turn {k} of {i}" for k in range(turns)]} for i in range(count)]


def write(path, items):
    path.write_text("".join(item if isinstance(item, str) else json.dumps(item) + "\n"
                            for item in items))
    return str(path)


def by_line(output):
    made = {item["line"]: item for item in objects(output)}
    assert len(made) == len(objects(output))
    return made


def texts(item):
    return [(reply["text"], reply["finish"], reply["seed"]) for reply in item["replies"]]


def test_each_line_is_a_conversation_of_its_own(daemon, tmp_path):
    path = write(tmp_path / "in.jsonl", lines(9))
    made = by_line(persona(daemon, "batch", "--max-tokens", "5", "--parallel", "4", path))
    assert sorted(made) == list(range(1, 10))
    assert [made[i + 1]["id"] for i in range(9)] == [f"p{i}" for i in range(9)]
    assert all(len(item["replies"]) == 2 for item in made.values())
    assert len({item["session"] for item in made.values()}) == 9
    assert len({str(texts(item)) for item in made.values()}) == 9


def test_a_line_says_what_a_conversation_by_hand_says(daemon, tmp_path):
    path = write(tmp_path / "in.jsonl", [{"text": "By hand", "seed": "7", "persona": "plain"}])
    made = by_line(persona(daemon, "batch", "--max-tokens", "6", path))[1]
    alone = objects(persona(daemon, "say", "--json", "--persona", "plain", "--seed", "7",
                            "--max-tokens", "6", "By hand"))[0]
    assert texts(made) == [(alone["text"], alone["finish"], alone["seed"])]


def test_a_second_run_asks_for_nothing_twice(daemon, tmp_path):
    path, out = write(tmp_path / "in.jsonl", lines(12)), tmp_path / "out.jsonl"
    first = by_line(persona(daemon, "batch", "--max-tokens", "5", "--out", str(out), path)
                    or out.read_text())
    # Half of the results are lost, the last of them in the middle: as after a crash.
    results = out.read_bytes().split(b"\n")
    out.write_bytes(b"\n".join(results[:6]) + b"\n" + results[6][:20])
    nodes = count_of(daemon, "node_count")
    persona(daemon, "batch", "--max-tokens", "5", "--out", str(out), path)
    assert by_line(out.read_text()) == first, "the same sessions and nodes, under the same keys"
    assert count_of(daemon, "node_count") == nodes


def test_a_run_that_was_killed_goes_on(daemon, tmp_path):
    path, out = write(tmp_path / "in.jsonl", lines(40, turns=3)), tmp_path / "out.jsonl"
    run = subprocess.Popen([program(), "batch", "--max-tokens", "40", "--parallel", "3", "--out",
                            str(out), path], env=environment(PERSONAD_SOCKET=daemon.socket))
    wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 3)
    run.send_signal(signal.SIGKILL)
    run.wait()
    persona(daemon, "batch", "--max-tokens", "40", "--out", str(out), path)
    assert sorted(by_line(out.read_text())) == list(range(1, 41))


def test_bad_lines_are_named_and_the_others_answered(daemon, tmp_path):
    path = write(tmp_path / "in.jsonl", [
        lines(1)[0], "{bad\n", "\n", "[]\n", {"turns": []}, {"text": 5}, {"text": "x", "foo": 1},
        {"text": "x", "seed": -1}, {"text": "x", "persona": "nobody at all"}, {"text": "last"}])
    made = by_line(persona(daemon, "batch", "--max-tokens", "3", path, status=1))
    assert sorted(made) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert [i for i in made if "error" in made[i]] == [2, 4, 5, 6, 7, 8, 9]
    assert "foo" in made[7]["error"] and "nobody" in made[9]["error"]


def test_results_of_another_batch_are_left_alone(daemon, tmp_path):
    out = tmp_path / "out.jsonl"
    persona(daemon, "batch", "--max-tokens", "3", "--out", str(out),
            write(tmp_path / "a.jsonl", lines(2)))
    before = out.read_bytes()
    persona(daemon, "batch", "--max-tokens", "3", "--out", str(out),
            write(tmp_path / "b.jsonl", lines(3)), status=1)
    assert out.read_bytes() == before


def test_what_is_no_batch_is_refused(daemon, tmp_path):
    persona(daemon, "batch", status=2)
    persona(daemon, "batch", "--parallel", "0", "x", status=2)
    persona(daemon, "batch", str(tmp_path / "nowhere"), status=1)
    assert persona(daemon, "batch", write(tmp_path / "empty", [])) == ""
