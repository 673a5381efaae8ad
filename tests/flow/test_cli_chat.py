"""The chat as a person has it: in a terminal, with Ctrl-C, siblings and the tree."""
import json
import os
import re

import pytest

from cli import Terminal, objects, persona
from client import NO_FOLLOW, ROOT

CTRL_C = b"\x03"
CTRL_D = b"\x04"
# With this seed no reply of these tests meets the persona's stop string.
SEEDED = ["--persona", "keeper", "--seed", "3"]


@pytest.fixture
def chat(daemon):
    opened = []

    def open_one(*arguments, **more):
        made = Terminal(daemon, *arguments, **more)
        opened.append(made)
        made.wait_for(b"User: ")
        return made

    yield open_one
    for made in opened:
        made.kill()


def session_of(terminal):
    return re.search(rb"Session (\d+)\.", terminal.seen).group(1).decode()


def nodes_of(daemon, session):
    return objects(persona(daemon, "tree", "--json", "--session", session))


def sampled_of(daemon, session):
    return [node for node in nodes_of(daemon, session) if node["sampled"]]


@pytest.fixture
def endless(daemon, folder):
    """Options of a chat whose replies end by length alone: the keeper without its stop string."""
    with open(os.path.join(ROOT, "personas/keeper.json"), encoding="utf-8") as file:
        card = json.load(file)
    card["data"]["name"] = "endless"
    del card["data"]["extensions"]["personad"]["sampler"]["stop"]
    path = os.path.join(folder, "endless.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(card, file)
    persona(daemon, "personas", "--put", path)
    return ["--persona", "endless", "--ignore-end", "--max-tokens", "3000"]


def test_ctrl_c_stops_the_reply_and_not_the_program(daemon, chat, endless):
    terminal = chat(*endless)
    with daemon.client() as crowd:  # so that the reply takes its time
        session = crowd.open()
        crowd.send_generate(session, n=60, max_tokens=3000, ignore_end=True, delivery=NO_FOLLOW)
        terminal.say("Go on and on.")
        terminal.wait_for(b"Marta:")
        terminal.type(CTRL_C)
        terminal.wait_for(b"[stopped]")
        terminal.wait_for(b"User: ")
        crowd.call("cancel", session=session)
    assert terminal.is_alive()
    reply, = sampled_of(daemon, session_of(terminal))
    assert reply["finish"] == "cut" and reply["content_tokens"] < 3000
    terminal.wait_until_reading()
    terminal.type("half a li" + CTRL_C.decode())
    terminal.wait_for(b"User: ")
    assert terminal.is_alive()
    terminal.say("/quit")
    assert terminal.end() == 0


def test_again_gives_a_sibling_and_the_tree_shows_both(daemon, chat):
    terminal = chat(*SEEDED, "--ignore-end", "--max-tokens", "6", NO_COLOR="1")
    terminal.say("Who are you?")
    terminal.wait_for(b"/continue goes on]")
    terminal.say("/again")
    terminal.wait_for(b"/continue goes on]")
    first, second = sampled_of(daemon, session_of(terminal))
    assert first["parent"] == second["parent"] and first["offset"] == second["offset"]
    assert {first["ordinal"], second["ordinal"]} == {0, 1}
    terminal.say("/tree")
    drawn = terminal.wait_for(b"<- head").decode()
    assert re.search(rf"\|- .*\b{first['node']}\b", drawn)
    assert re.search(rf"`- .*\b{second['node']}\b", drawn)
    terminal.say("/prev")
    terminal.wait_for(b"[1 of 2]")
    terminal.say("/next")
    terminal.wait_for(b"[2 of 2]")
    terminal.say("/continue")
    terminal.wait_for(b"/continue goes on]")
    terminal.say("/probs")
    terminal.wait_for(b"nats")
    terminal.say("/back")
    terminal.wait_for(b"Taken back: Who are you?")
    terminal.say("/raw")
    terminal.wait_for(b"say something first")
    terminal.say("/nonsense")
    terminal.wait_for(b"/help lists them")
    terminal.wait_until_reading()
    terminal.type(CTRL_D)
    assert terminal.end() == 0
    assert len(sampled_of(daemon, session_of(terminal))) == 3, "nothing was lost"


def test_what_the_model_saw_is_shown(chat):
    terminal = chat(*SEEDED, "--ignore-end", "--max-tokens", "3")
    terminal.say("A question")
    terminal.wait_for(b"/continue goes on]")
    terminal.say("/raw")
    raw = terminal.wait_for(b" tokens]")
    assert b"A question" in raw and b"Marta" in raw


def test_settings_and_personas_change(daemon, chat):
    terminal = chat(*SEEDED, "--ignore-end")
    terminal.say("/set max_tokens 4")
    terminal.wait_for(b"User: ")
    terminal.say("Short, please.")
    terminal.wait_for(b"/continue goes on]")
    reply, = sampled_of(daemon, session_of(terminal))
    assert reply["content_tokens"] == 4
    terminal.say("/set max-tokens many")
    terminal.wait_for(b"no good value")
    terminal.say("/set warmth 3")
    terminal.wait_for(b"is no key")
    terminal.say("/persona nobody")
    terminal.wait_for(b'no persona "nobody"')
    terminal.say("/persona twenty-questions")
    terminal.wait_for(b"Session ")
    terminal.wait_for(b"User: ")
    assert terminal.is_alive()


def test_letters_beyond_ascii_arrive_whole(daemon, chat):
    terminal = chat(*SEEDED, "--ignore-end", "--max-tokens", "2")
    terminal.type("Größe, 雨?\r")
    terminal.wait_for(b"/continue goes on]")
    assert "Größe, 雨?" in [node["text"] for node in nodes_of(daemon, session_of(terminal))]


def test_colours_are_for_terminals_and_can_be_forbidden(daemon, chat):
    coloured = chat("--persona", "keeper")
    assert b"\x1b[1;32m" in coloured.seen
    plain = chat("--persona", "keeper", NO_COLOR="1")
    assert b"\x1b[1;32m" not in plain.seen
    piped = persona(daemon, "chat", "--persona", "keeper", text="/tree\n")
    assert "\x1b" not in piped


def test_piped_input_is_a_conversation_too(daemon):
    seen = persona(daemon, "chat", "--persona", "keeper", "--ignore-end", "--max-tokens", "3",
                   text="Hello\n\n/again\n/quit\nnever said\n")
    assert seen.count("Marta: ") == 3, "the greeting and two replies"
    assert "User: " not in seen, "no prompts for nobody"


def test_scripts_get_one_object_a_reply(daemon):
    made = objects(persona(daemon, "chat", "--json", "--persona", "keeper", "--ignore-end",
                           "--max-tokens", "3", text="Hello\n/again\n/prev\n/tree\n"))
    greeting, first, second, shown = made
    assert greeting["finish"] == "whole" and greeting["tokens"] == []
    assert [first["ordinal"], second["ordinal"]] == [0, 1]
    assert len(first["tokens"]) == 3 and first["prompt_tokens"] == second["prompt_tokens"]
    assert shown["node"] == first["node"]


def talk(daemon, text, *options):
    """The objects of a chat whose replies are three tokens."""
    return objects(persona(daemon, "chat", "--json", *SEEDED, "--ignore-end", "--max-tokens", "3",
                           *options, text=text))


def by_id(daemon, session):
    return {node["node"]: node for node in nodes_of(daemon, str(session))}


def test_go_moves_the_place_and_the_next_turn_forks_there(daemon):
    _, first, _, shown, second = talk(daemon, "One\n/save here\nLost\n/go here\nTwo\n")
    nodes = by_id(daemon, second["session"])
    turn = nodes[nodes[second["node"]]["parent"]]
    assert turn["text"] == "Two" and turn["parent"] == shown["node"]
    assert shown["text"] == first["text"]
    lost, = [node for node in nodes.values() if node["text"] == "Lost"]
    assert lost["parent"] == shown["node"], "the branch that was left stays"


def test_go_into_a_node_forks_behind_that_token(daemon, chat):
    terminal = chat(*SEEDED, "--ignore-end", "--max-tokens", "6", NO_COLOR="1")
    terminal.say("Who are you?")
    terminal.wait_for(b"/continue goes on]")
    session = session_of(terminal)
    reply, = sampled_of(daemon, session)
    terminal.say(f"/go {reply['node']}:2")
    terminal.wait_for(f"[at node {reply['node']}, token 2 of 6]".encode())
    terminal.say("/fork")
    terminal.wait_for(f"[at node {reply['node']}, token 2 of 6]".encode())
    terminal.say("/continue")
    terminal.wait_for(b"/continue goes on]")
    _, other = sampled_of(daemon, session)
    assert (other["parent"], other["offset"]) == (reply["node"], 2)
    terminal.say(f"/fork {reply['node']}")
    terminal.wait_for(f"[at node {reply['node']}, its end]".encode())
    terminal.say("/go 0")
    terminal.wait_for(b"[at the root")
    for line, told in (("/go 99999999", b"persona: "), (f"/go {reply['node']}:7", b"persona: "),
                       ("/go nowhere", b"neither NODE"), ("/fork nowhere", b"is no NODE"),
                       ("/go", b"/saved show them"), ("/save 12", b"is no number"),
                       ("/saved", b"no bookmarks")):
        terminal.say(line)
        terminal.wait_for(told)
        terminal.wait_for(b"User: ")
    terminal.say("/fork")
    terminal.wait_for(b"[at the root")  # what was refused moved nothing
    terminal.say("/save start")
    terminal.wait_for(b"/go start comes back")
    terminal.say("/saved")
    terminal.wait_for(b"start  at node 0")


def test_edit_gives_the_turn_other_words_and_another_reply(daemon):
    greeting, first, second = talk(daemon, "Hello\n/edit Good bye\n/edit\n")
    nodes = by_id(daemon, second["session"])
    turns = {node["text"]: node for node in nodes.values() if node["speaker"] == 0}
    assert set(turns) == {"Hello", "Good bye"}
    assert turns["Hello"]["parent"] == turns["Good bye"]["parent"] == greeting["node"]
    assert nodes[second["node"]]["parent"] == turns["Good bye"]["node"]
    carried, = [node for node in nodes.values() if node["parent"] == turns["Good bye"]["node"]
                and node["node"] != second["node"]]
    assert carried["text"] == first["text"] and not carried["sampled"]
    assert len(talk(daemon, "/edit Nothing is here yet\n")) == 1, "only the greeting"


def test_a_prefill_begins_one_reply(daemon, chat):
    _, first, second, third = talk(daemon, "/prefill Well, \nHello\n/again\nMore\n")
    nodes = by_id(daemon, first["session"])
    given = nodes[nodes[first["node"]]["parent"]]
    assert given["text"].rstrip() == "Well," and given["opens_turn"] and not given["sampled"]
    assert nodes[second["node"]]["parent"] == given["node"], "/again keeps what was given"
    assert nodes[nodes[third["node"]]["parent"]]["text"] == "More", "once"
    _, free = talk(daemon, "/prefill Well, \n/prefill\nHello\n")
    nodes = by_id(daemon, free["session"])
    assert nodes[nodes[free["node"]]["parent"]]["text"] == "Hello"
    terminal = chat(*SEEDED, "--ignore-end", "--max-tokens", "3", NO_COLOR="1")
    terminal.say("/prefill Hark!")
    terminal.say("Hello")
    assert b"Marta: Hark!" in terminal.wait_for(b"/continue goes on]")


def test_choices_are_the_replies(daemon):
    words = ["yes", "no"]
    options = [word for choice in words for word in ("--choice", choice)]
    for command in ("say", "complete"):
        made = objects(persona(daemon, command, "--json", "-n", "8", *options, "Sure?"))
        assert len(made) == 8 and {reply["text"] for reply in made} <= set(words)
    free = objects(persona(daemon, "complete", "--json", "-n", "8", "--max-tokens", "3", "Sure?"))
    assert not {reply["text"] for reply in free} <= set(words)
    wide = ["complete", "--json", "-n", "12", "--max-tokens", "1", "--top-k", "12", "--top-p", "1",
            "--min-p", "0", "--ignore-end", "--seed", "5", "Pick: "]
    distinct = [reply["tokens"][0] for reply in objects(persona(daemon, *wide, "--distinct"))]
    assert len(set(distinct)) == 12
    assert len({reply["tokens"][0] for reply in objects(persona(daemon, *wide))}) < 12
    persona(daemon, "say", "--choice", "", "Sure?", status=2)


def test_a_daemon_that_goes_away_ends_the_chat_with_1(start):
    daemon = start()
    terminal = Terminal(daemon, *SEEDED, "--resume", "0")
    terminal.wait_for(b"User: ")
    daemon.end()
    terminal.say("Still there?")
    assert terminal.end() == 1
    assert b"persona: " in terminal.seen
