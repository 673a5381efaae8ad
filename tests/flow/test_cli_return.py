"""Goal: a chat goes on in a session that is there, says where it is, and fits its terminal.
Method: sessions that the flow's client made, long ones too, and chats in terminals of known width.
"""
import fcntl
import re
import struct
import termios
import unicodedata

import pytest

from cli import Terminal, objects, persona
from client import position

SEEDED = ["--seed", "1", "--ignore-end", "--max-tokens", "3"]
AT_THE_END = b", its end]\r\nUser: "


@pytest.fixture
def chat(daemon):
    opened = []

    def open_one(*arguments, columns=80, prompt=b"User: "):
        made = Terminal(daemon, *arguments, NO_COLOR="1")
        opened.append(made)
        fcntl.ioctl(made.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        made.wait_for(prompt)
        return made

    yield open_one
    for made in opened:
        made.kill()


def test_a_chat_goes_on_where_it_was_left(daemon, chat):
    first = chat("--persona", "keeper", *SEEDED)
    first.say("Who lit the lamp?")
    first.wait_for(b"/continue goes on]")
    first.say("/quit")
    session = re.search(rb"kept as session (\d+); --session \1 goes on there",
                        first.wait_for(b" goes on there]")).group(1).decode()
    assert first.end() == 0
    second = chat("--session", session, *SEEDED[2:], prompt=AT_THE_END)
    assert b"Marta: Come in" in second.seen and b"User: Who lit the lamp?" in second.seen
    second.say("/again")
    second.wait_for(b"/continue goes on]")
    second.say("Tell me.")
    second.wait_for(b"/continue goes on]")
    nodes = objects(persona(daemon, "tree", "--json", session))
    replies = [node for node in nodes if node["sampled"]]
    assert [node["ordinal"] for node in replies] == [0, 0, 1] or \
        [node["ordinal"] for node in replies] == [0, 1, 0]
    # At another place of it, and as objects.
    third = objects(persona(daemon, "chat", "--json", "--session", session, "--at",
                            f"{nodes[0]['node']}:2", *SEEDED[2:], text="Here.\n"))
    assert third[0]["node"] == nodes[0]["node"]
    told, = [node for node in objects(persona(daemon, "tree", "--json", session))
             if node["text"] == "Here."]
    assert (told["parent"], told["offset"]) == (nodes[0]["node"], 2)
    persona(daemon, "chat", "--session", "999999", status=1)


def test_one_turn_is_taken_back_however_long_the_way_is(daemon, client, chat):
    session = client.open(b"keeper", no_greeting=True)
    for turn in range(1100):
        client.append(session, str(turn).encode(), speaker=turn % 2)
    terminal = chat("--session", str(session), prompt=AT_THE_END)
    terminal.say("/back")
    terminal.wait_for(b"Taken back: 1098")
    terminal.wait_for(b"Marta: 1097")
    terminal.say("/back")
    terminal.wait_for(b"Taken back: 1096")


def columns_of(line):
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_tree_fits_the_terminal(client, chat, columns):
    session = client.open()
    client.append(session, b"A long line of words. " * 20, position=position(0))
    client.append(session, "\u96e8\u304c\u964d\u308b\u3002".encode() * 40, position=position(0))
    terminal = chat("--session", str(session), columns=columns, prompt=AT_THE_END)
    terminal.say("/tree")
    # What was typed may be echoed once or twice before.
    drawn = [line for line in terminal.wait_for(b"<- head").decode().splitlines()
             if line.startswith(("|- ", "`- "))]
    assert len(drawn) == 2
    for line in drawn:
        assert 0.8 * columns <= columns_of(line) <= columns, line
        assert "\u2026" in line and "\ufffd" not in line


def test_an_empty_reply_is_said_to_be_one(daemon, chat):
    end, = objects(persona(daemon, "tokenize", "--json", "--special", "<|im_end|>"))[0]["tokens"]
    terminal = chat("--persona", "keeper", "--seed", "1", "--bias", f"{end}=100")
    terminal.say("Hello?")
    terminal.wait_for(b"[nothing came; /again tries another]")


def test_settings_are_shown_as_they_were_set(chat):
    terminal = chat("--persona", "keeper", "--seed", "1", "--top-k", "7")
    terminal.say("/set temperature 0.25")
    terminal.wait_for(b"User: ")
    terminal.say("/set temperature hot")
    terminal.wait_for(b"no good value")
    terminal.say("/set")
    terminal.wait_for(b"always the likeliest token [now 0.25]")
    terminal.wait_for(b"[now 7]")
    assert b"[now" not in terminal.wait_for(b"batch ")
