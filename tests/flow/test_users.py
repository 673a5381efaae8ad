"""Who is asking: other system users see what is theirs and no more. Needs root, which can become
them."""
import json
import os
import struct

import pytest

from client import CODES, MESSAGES, Client, Refused
from test_export import export, import_file

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")

GROUP = 4712
ANN, BOB = 4801, 4802
OVERFLOW = 65534
CARD = b'{"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "%s"}}'


def as_user(uid, function, *arguments):
    """Runs in a child process that is that user; its answer, or its failure as a string."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"child failed"
        try:
            os.close(reader)
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(uid)
            answer = str(function(*arguments)).encode()
        except BaseException as failure:  # told to the parent, which judges it
            answer = f"{type(failure).__name__}: {failure}".encode()
        finally:
            os.write(writer, struct.pack("<I", len(answer)) + answer)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        size = struct.unpack("<I", pipe.read(4))[0]
        answer = pipe.read(size).decode()
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def shared(folder, start, request):
    """A daemon whose socket a group may use."""
    name = f"pdflow{os.getpid()}"
    with open("/etc/group", "r+", encoding="ascii") as file:
        before = file.read()
        file.write(f"{name}:x:{GROUP}:\n")

    def restore():
        with open("/etc/group", "w", encoding="ascii") as file:
            file.write(before)

    request.addfinalizer(restore)
    os.chmod(folder, 0o755)
    return start("--socket-group", name)


def test_the_group_may_connect_and_others_may_not(shared):
    info = os.stat(shared.socket)
    assert info.st_gid == GROUP and info.st_mode & 0o777 == 0o660

    def greet():
        with shared.client() as client:
            return client.call("info").info.pid

    assert as_user(ANN, greet) == str(shared.process.pid)


def test_the_overflow_user_could_be_anybody_and_is_refused(shared):
    def greet():
        try:
            shared.client()
        except Refused as refused:
            return refused.code

    assert as_user(OVERFLOW, greet) == str(CODES["DENIED"])


def test_sessions_of_others_are_denied_whatever_is_asked(shared):
    def make():
        with shared.client() as client:
            session = client.open(label=b"private")
            node = client.append(session, b"Ann's words")
            return f"{session} {node.id}"

    session, node = (int(word) for word in as_user(ANN, make).split())

    def pry():
        codes = []
        joining = MESSAGES["CastEntry"](name=b"Bob")
        with shared.client() as client:
            for op, fields in [("walk", dict(session=session)),
                               ("append", dict(session=session, text=b"mine")),
                               ("say", dict(session=session, text=b"mine")),
                               ("generate", dict(session=session)),
                               ("head", dict(session=session)),
                               ("note", dict(session=session)),
                               ("note", dict(session=session, text=b"mine")),
                               ("session_set", dict(session=session, add=[joining])),
                               ("follow", dict(node=node)),
                               ("cancel", dict(nodes=[node])),
                               ("cancel", dict(session=session))]:
                try:
                    client.call(op, **fields)
                    codes.append(0)
                except Refused as refused:
                    codes.append(refused.code)
            listed = client.call("session_list").session_list.sessions
            codes.append(len(listed))
        return codes

    denied = CODES["DENIED"]
    assert as_user(BOB, pry) == str([denied] * 11 + [0])
    assert as_user(ANN, lambda: Client(shared.socket).call("walk", session=session)
                   .walk.nodes[0].id) == str(node)


def test_a_private_persona_is_nobody_else_s(shared):
    card = CARD % b"Hers"

    def put(visibility):
        with shared.client() as client:
            return client.call("persona_put", card=card,
                               visibility=visibility).persona_put.persona.id

    def play(persona):
        with shared.client() as client:
            try:
                client.call("session_open", persona=persona)
            except Refused as refused:
                return refused.code
            return "card" if client.call("persona_get", id=persona).persona_get.card else "played"

    private = int(as_user(ANN, put, 0))
    assert as_user(ANN, play, private) == "card"
    assert as_user(BOB, play, private) in (str(CODES["DENIED"]), str(CODES["NOT_FOUND"]))
    public = int(as_user(ANN, put, 1))
    assert as_user(BOB, play, public) == "played", "but its prompt stays hidden"


def test_what_another_s_persona_is_told_stays_hidden_in_a_group(shared):
    """Its preamble, its lore and its note; in a joint group, where all is in one prompt, nobody's
    prompt is shown."""
    def put(name, visibility, secret):
        card = {"spec": "chara_card_v2", "data": {
            "name": name, "description": secret,
            "character_book": {"entries": [{"keys": ["lamp"], "content": secret}]},
            "extensions": {"depth_prompt": {"prompt": secret, "depth": 0}}}}
        with shared.client() as client:
            return client.call("persona_put", card=json.dumps(card).encode(),
                               visibility=visibility).persona_put.persona.id

    hers = int(as_user(ANN, put, "Hers", 1, "her secret"))
    locked = int(as_user(ANN, put, "Locked", 0, "her secret"))

    def play():
        told = []
        his = put("His", 0, "his own")
        with shared.client() as client:
            for mode in (0, 1):
                session = client.call("session_open", persona=his, group_mode=mode, cast=[
                    MESSAGES["CastEntry"](persona=hers)]).session_open.session.id
                client.append(session, b"The lamp")
                for speaker in (1, 2):
                    node = client.generate(session, speaker=speaker, max_tokens=2,
                                           context=True)
                    reply = client.call("context", node=node.replies()[0].id, text=True,
                                        tokens=True).context
                    text = b"".join(part.text for part in reply.segments)
                    told.append((b"her secret" in text, b"his own" in text,
                                 len(node.context) > 0))
                try:
                    client.call("session_set", session=session,
                                add=[MESSAGES["CastEntry"](persona=locked)])
                    told.append("joined")
                except Refused as refused:
                    told.append(refused.code in (CODES["DENIED"], CODES["NOT_FOUND"]))
        return told

    assert as_user(BOB, play) == str([(False, True, True), (False, False, False), True,
                                      (False, False, False), (False, False, False), True])


def test_nobody_looks_into_what_is_another_s(shared):
    def make():
        with shared.client() as client:
            session = client.open(seed=1)
            client.append(session, b"Ann's words")
            node = client.generate(session, max_tokens=5).replies()[0]
            persona = client.call("persona_put", card=CARD % b"Hers").persona_put.persona
            return f"{session} {node.id} {persona.id}"

    session, node, persona = (int(word) for word in as_user(ANN, make).split())

    def pry():
        codes = []
        with shared.client() as client:
            own = client.open(seed=1)
            client.append(own, b"Bob's words")
            item = MESSAGES["ScoreItem"](session=session,
                                         options=[MESSAGES["ScoreOption"](text=b"a")])
            for op, fields in [("distribution", dict(session=session)),
                               ("score", dict(session=own, items=[item])),
                               ("compare", dict(session=session)),
                               ("compare", dict(session=own, personas=[persona])),
                               ("group", dict(session=session)),
                               ("group", dict(session=own, nodes=[node])),
                               ("verify", dict(session=session)), ("verify", dict(node=node))]:
                try:
                    client.call(op, **fields)
                    codes.append(0)
                except Refused as refused:
                    codes.append(refused.code)
            codes.append(client.call("verify", all=True).verify.node_count)
        return codes

    denied, hidden = CODES["DENIED"], CODES["NOT_FOUND"]
    told = as_user(BOB, pry)
    assert told in (str([denied] * 8 + [0]), str([denied] * 3 + [hidden] + [denied] * 4 + [0]))


def test_client_keys_of_users_do_not_meet(shared):
    def put(name):
        card = CARD % name
        with shared.client() as client:
            put = client.call("persona_put", card=card, client_key=b"same").persona_put
            return put.persona.id

    assert as_user(ANN, put, b"One") != as_user(BOB, put, b"Two")


def test_exports_of_others_are_denied_and_their_personas_stay_hidden(shared):
    def make():
        with shared.client() as client:
            session = client.open(b"keeper")
            client.finish(client.send_generate(session, op="say", text=b"Hello", max_tokens=9))
            data = export(client, session)
            assert export(client, import_file(client, data).id).count(b"\n") == data.count(b"\n")
            group = client.open(b"keeper", group_mode=1, cast=[
                MESSAGES["CastEntry"](persona_name=b"twenty-questions")])
            whole = export(client, group)
            made = import_file(client, whole)
            assert made.group_mode == 1 and len(made.cast) == 3 and b"prompt" not in whole
            assert client.generate(made.id, max_tokens=3).replies()
            return f"{session} {data.decode()}"

    session, data = as_user(ANN, make).split(" ", 1)
    items = [json.loads(line) for line in data.splitlines()]
    # The keeper is the daemon's: neither its card, nor its prompt, nor a frame that may quote it.
    assert items[2]["persona"] == "keeper" and items[2]["hidden"]
    assert "card" not in items[2] and "prompt" not in items[2]
    nodes = [item for item in items if item["record"] == "node"]
    assert all("context" not in item and "seed" not in item for item in nodes)
    assert nodes[-1]["origin"] == "imported" and nodes[-1]["text"]

    def pry():
        with shared.client() as client:
            try:
                export(client, int(session))
            except Refused as refused:
                return refused.code

    assert as_user(BOB, pry) == str(CODES["DENIED"])
    with shared.client() as client:  # who owns it may see it
        mine = client.open(b"keeper")
        assert b'"card"' in export(client, mine) and b'"prompt"' in export(client, mine)
