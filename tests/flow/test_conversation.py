"""What a friendly client does: every family of the protocol once, through a real socket."""
import pytest

from client import (CHILDREN, CODES, EACH_TOKEN, FINAL_ONLY, FINISHES, NO_FOLLOW, NODE, PATH,
                    SUBTREE, Refused, bits, position)

pytestmark = pytest.mark.tsan


def test_hello_tells_credits_and_frame_size(client):
    assert client.hello.protocol == 1
    assert client.hello.daemon_version
    assert client.hello.request_credits >= 64
    assert client.hello.frame_bytes_max == 4 << 20


def test_info_names_model_and_limits(daemon, client):
    info = client.call("info").info
    limits = {limit.name.decode(): limit.value for limit in info.limits}
    assert info.pid == daemon.process.pid
    assert info.socket_path.decode() == daemon.socket
    assert len(info.model_hash) == 32
    assert info.architecture == b"llama"
    assert limits["FRAME_BODY_BYTES_MAX"] == 4 << 20
    assert limits["GENERATE_SIBLING_COUNT_MAX"] == 1024
    assert all(value > 0 for value in limits.values())


def test_stats_count_what_happened(client):
    before = client.call("stats").stats
    client.complete(b"one", max_tokens=5, ignore_end=True)
    after = client.call("stats").stats
    assert after.sample_count - before.sample_count >= 5
    assert after.session_count == before.session_count + 1
    assert after.memory_bytes > 1 << 20
    assert after.connection_count >= 1


def test_personas_are_listed_and_found_by_name(client):
    listed = client.call("persona_list").persona_list
    assert listed.end
    names = [persona.name for persona in listed.personas]
    assert b"plain" in names
    got = client.call("persona_get", name=b"plain").persona_get.persona
    assert got.id == listed.personas[names.index(b"plain")].id
    with pytest.raises(Refused) as refused:
        client.call("persona_get", name=b"nobody of that name")
    assert refused.value.code == CODES["NOT_FOUND"]


def test_a_persona_that_is_put_can_be_played(client):
    card = (b'{"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "Flow", '
            b'"description": "A tester.", "first_mes": "Hello {{user}}.", '
            b'"alternate_greetings": ["Good day {{user}}."]}}')
    put = client.call("persona_put", card=card).persona_put.persona
    again = client.call("persona_put", card=card).persona_put.persona
    assert (put.id, put.version) == (again.id, again.version)
    opened = client.call("session_open", persona=put.id, user_name=b"Ann").session_open
    assert [node.text for node in opened.greetings] == [b"Hello Ann.", b"Good day Ann."]
    assert [member.name for member in opened.session.cast] == [b"Ann", b"Flow"]
    reply = client.stream("say", session=opened.session.id, text=b"And you?")
    assert len(reply.finished) == 1


def test_a_stream_adds_up_to_the_finished_node(client):
    session = client.open(seed=3)
    client.append(session, b"The tide")
    made = client.generate(session, max_tokens=40, ignore_end=True, numbers=True)
    (node,) = made.replies()
    assert node.finish == FINISHES["LENGTH"]
    assert made.text[node.id] == node.text
    assert made.tokens[node.id] == list(node.numbers.tokens)
    assert len(node.content) == node.content_tokens == 40
    assert len(node.numbers.logprobs) == 40
    assert all(value <= 0 for value in node.numbers.logprobs)


def test_final_only_sends_the_same_node_in_one_piece(client):
    each = client.complete(b"Same", seed=9, max_tokens=30, delivery=EACH_TOKEN)
    session = client.open(seed=9)
    client.append(session, b"Same")
    made = client.generate(session, max_tokens=30, delivery=FINAL_ONLY, numbers=True)
    assert made.pieces == 0
    assert bits(made.replies()[0].numbers) == bits(each.numbers)
    assert made.replies()[0].text == each.text


def test_siblings_have_ordinals_and_differ(client):
    session = client.open(seed=5)
    client.append(session, b"Once")
    made = client.generate(session, n=8, max_tokens=20, ignore_end=True, temperature=1.0)
    nodes = made.replies()
    assert [node.ordinal for node in nodes] == list(range(8))
    assert len({node.text for node in nodes}) > 1
    assert len({node.seed for node in nodes}) == 8


def test_alternatives_come_with_each_token(client):
    node = client.complete(b"Alt", max_tokens=6, ignore_end=True, top_count=3, temperature=0)
    numbers = node.numbers
    assert numbers.top_count == 3
    assert len(numbers.top_tokens) == len(numbers.top_logprobs) == 18
    assert numbers.top_tokens[0] == numbers.tokens[0], "greedy takes the likeliest"
    assert numbers.top_logprobs[0] == numbers.logprobs[0]


def test_no_follow_answers_at_once_and_follow_reads_later(client):
    session = client.open(seed=1)
    client.append(session, b"Later")
    made = client.generate(session, max_tokens=25, ignore_end=True, delivery=NO_FOLLOW)
    assert len(made.nodes) == 1 and not made.finished
    node = made.nodes[0].id
    whole = client.stream("follow", node=node)
    assert whole.finished[node].node.text == whole.text[node]
    rest = client.stream("follow", node=node, from_token=10, from_byte=7)
    assert rest.text[node] == whole.text[node][7:]
    final = client.stream("follow", node=node, delivery=FINAL_ONLY)
    assert final.pieces == 0 and final.finished[node].node.text == whole.text[node]


def test_a_walk_shows_path_children_and_subtree_in_pages(client):
    session = client.open()
    first = client.append(session, b"root text")
    for _ in range(5):
        client.append(session, b"child", position=position(first.id))
    path = client.call("walk", session=session, what=PATH, text=True).walk
    assert path.end and path.nodes[0].text == b"root text"
    children = client.call("walk", session=session, what=CHILDREN,
                           position=position(first.id)).walk
    assert [node.ordinal for node in children.nodes] == list(range(5))
    tree = client.call("walk", session=session, what=SUBTREE, position=position(0)).walk
    assert len(tree.nodes) == 6 and tree.end
    seen = []
    while True:
        page = client.call("walk", session=session, what=SUBTREE, position=position(0),
                           skip=len(seen), count=2).walk
        seen += [node.id for node in page.nodes]
        if page.end:
            break
    assert seen == [node.id for node in tree.nodes]
    one = client.call("walk", session=session, what=NODE, position=position(first.id)).walk
    assert [node.id for node in one.nodes] == [first.id]


def test_the_head_moves_and_can_be_set(client):
    session = client.open()
    first = client.append(session, b"one")
    second = client.append(session, b"two")
    assert client.call("head", session=session).head.position.node == second.id
    client.call("head", session=session, position=position(first.id))
    assert client.call("head", session=session).head.position.node == first.id


def test_a_fork_inside_a_node_shares_its_beginning(client):
    session = client.open(seed=2)
    client.append(session, b"Fork")
    (node,) = client.generate(session, max_tokens=20, ignore_end=True).replies()
    made = client.generate(session, position=position(node.id, 10), continuing=True,
                           max_tokens=5, ignore_end=True)
    (fork,) = made.replies()
    assert (fork.parent.node, fork.parent.offset) == (node.id, 10)
    assert fork.content_tokens == 5


@pytest.mark.parametrize("text", [b"", b"plain words", "Gr\u00fc\u00dfe \u2603 \U0001f600".encode(),
                                  b"a\x00b", b"  two  spaces\n\n\ttab", b"<|im_end|>"])
def test_text_survives_tokenising_and_back(client, text):
    made = client.call("tokenize", text=text, pieces=True).tokenize
    assert b"".join(made.pieces) == text
    assert len(made.pieces) == len(made.tokens)
    assert client.call("detokenize", tokens=list(made.tokens)).detokenize.text == text


def test_special_tokens_need_the_flag(client):
    plain = client.call("tokenize", text=b"<|im_end|>").tokenize.tokens
    special = client.call("tokenize", text=b"<|im_end|>", special=True).tokenize.tokens
    assert len(plain) > 1 and len(special) == 1


def test_sessions_are_listed_in_pages(client):
    made = {client.open(label=b"listed") for _ in range(5)}
    seen, after = [], 0
    while True:
        page = client.call("session_list", after=after, count=2).session_list
        seen += [session.id for session in page.sessions]
        if page.end:
            break
        after = page.sessions[-1].id
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


def test_a_client_key_gives_the_same_nodes_again(client):
    session = client.open()
    first = client.call("append", session=session, text=b"once", client_key=b"key 1").created
    again = client.call("append", session=session, text=b"once", client_key=b"key 1").created
    assert [node.id for node in first.nodes] == [node.id for node in again.nodes]
    other = client.call("append", session=session, text=b"once", client_key=b"key 2").created
    assert [node.id for node in other.nodes] != [node.id for node in first.nodes]
    tree = client.call("walk", session=session, what=SUBTREE, position=position(0)).walk
    assert len(tree.nodes) == 2


def test_a_repeated_generation_is_followed_to_its_end(client):
    session = client.open()
    client.append(session, b"Again")
    first = client.finish(client.send_generate(session, max_tokens=30, ignore_end=True,
                                               context=True, client_key=b"generation"))
    again = client.finish(client.send_generate(session, max_tokens=30, ignore_end=True,
                                               context=True, client_key=b"generation"))
    assert first.context and list(first.context) == list(again.context)
    assert [node.id for node in first.nodes] == [node.id for node in again.nodes]
    assert first.replies()[0].text == again.replies()[0].text


def test_a_repeat_that_asks_for_less_gets_what_there_is(client):
    session = client.open()
    client.append(session, b"Again")
    first = client.finish(client.send_generate(session, n=4, max_tokens=8, ignore_end=True,
                                               client_key=b"four"))
    try:
        again = client.finish(client.send_generate(session, n=1, max_tokens=8, ignore_end=True,
                                                   client_key=b"four"))
        assert [node.id for node in first.nodes] == [node.id for node in again.nodes]
    except Refused as refused:
        assert refused.code == CODES["CONFLICT"]
