"""Many at once: everybody is served, and nobody's bytes depend on who else is there."""
import pytest

from client import FINISHES, Refused, bits
from conftest import count_of, wait_until
from test_streams import run_all

pytestmark = pytest.mark.tsan

CROWD = 64


def play(daemon, index, results):
    """One client's whole conversation, kept as bytes and bits."""
    with daemon.client() as client:
        node = client.complete(f"Stranger {index} says".encode(), seed=index, ignore_end=True,
                               max_tokens=20 + index % 17, temperature=1.0, top_count=2)
        results[index] = (node.text, bits(node.numbers))


def test_64_clients_at_once_get_the_bytes_that_each_gets_alone(daemon):
    together, alone = {}, {}
    run_all([lambda i=i: play(daemon, i, together) for i in range(CROWD)])
    assert len(together) == CROWD
    for index in range(0, CROWD, 7):
        play(daemon, index, alone)
        assert alone[index] == together[index]
    assert len({text for text, _ in together.values()}) > CROWD // 2, "strangers differ"


def test_another_seed_gives_other_bytes(daemon):
    """The twin of the test above: its comparison can fail."""
    with daemon.client() as client:
        one = client.complete(b"Stranger", seed=1, ignore_end=True, max_tokens=30)
        other = client.complete(b"Stranger", seed=2, ignore_end=True, max_tokens=30)
    assert bits(one.numbers) != bits(other.numbers)


def test_siblings_equal_what_each_seed_gives_alone(daemon):
    with daemon.client() as client:
        session = client.open()
        client.append(session, b"Siblings")
        made = client.generate(session, n=32, raw_seed=1000, max_tokens=24, ignore_end=True,
                               numbers=True, temperature=1.0)
        for k in (0, 13, 31):
            alone = client.generate(client_session(client), raw_seed=1000 + k, max_tokens=24,
                                    ignore_end=True, numbers=True, temperature=1.0).replies()[0]
            assert bits(alone.numbers) == bits(made.replies()[k].numbers)


def client_session(client):
    session = client.open()
    client.append(session, b"Siblings")
    return session


def test_one_prompt_is_computed_once_for_64_sessions(daemon):
    """A persona of its own, so that nobody has played it before."""
    words = " ".join(f"word{i}" for i in range(120))
    card = ('{"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "Shared", '
            f'"description": "{words}"}}}}').encode()
    with daemon.client() as client:
        persona = client.call("persona_put", card=card).persona_put.persona.id
        before = client.call("stats").stats

        def talk(index):
            with daemon.client() as one:
                session = one.call("session_open", persona=persona, seed=index,
                                   no_greeting=True).session_open.session.id
                one.stream("say", session=session, text=b"Hi", delivery=1)

        run_all([lambda i=i: talk(i) for i in range(CROWD)])
        after = client.call("stats").stats
    asked = after.context_token_count - before.context_token_count
    computed = after.context_computed_count - before.context_computed_count
    assert asked > CROWD * 400
    assert computed < asked / 8, "the prompt was computed about once"


def is_welcome(daemon):
    try:
        daemon.client().close()
        return True
    except Refused:
        return False


def test_connections_past_the_limit_are_told_so(start):
    daemon = start("--connections", "8")
    clients = [daemon.client() for _ in range(8)]
    for client in clients:
        assert client.call("info").info.pid
    with pytest.raises(Refused) as refused:
        daemon.client()
    assert refused.value.limit_name == "CONNECTION_COUNT_MAX"
    assert refused.value.limit_value == 8
    for client in clients:
        assert client.call("info").info.pid, "those inside are served"
        client.close()
    wait_until(lambda: is_welcome(daemon))


def test_a_batch_of_two_serves_a_queue_of_many(start):
    daemon = start("--branches", "2")
    with daemon.client() as client:
        session = client.open()
        client.append(session, b"Queue")
        made = client.generate(session, n=40, max_tokens=10, ignore_end=True)
        assert len(made.finished) == 40


def test_a_pool_that_is_too_small_for_all_at_once_serves_all(start):
    """Pages run out, branches are preempted and go on: the bytes stay those of a large pool."""
    small = start("--kv-memory", "1", "--context", "512")
    with small.client() as client:
        pages = client.call("info").info.kv_page_count
        results = {}

        def one(index):
            with small.client() as other:
                node = other.complete(b"Room", seed=index, max_tokens=300, ignore_end=True)
                results[index] = bits(node.numbers)

        run_all([lambda i=i: one(i) for i in range(24)])
        alone = client.complete(b"Room", seed=5, max_tokens=300, ignore_end=True)
    assert pages < 24 * 19, "the pool cannot hold all of them"
    assert len(results) == 24
    assert results[5] == bits(alone.numbers)


def test_a_context_that_never_fits_is_refused(client):
    session = client.open(context_tokens=64)
    text = b"word " * 400
    with pytest.raises(Refused) as refused:
        client.append(session, text)
        client.generate(session, max_tokens=16)
    assert refused.value.text


def test_a_batch_job_lets_the_interactive_pass(daemon):
    """A crowd of batch work is queued first; a person's short reply does not wait for its end."""
    with daemon.client() as batch, daemon.client() as person:
        session = batch.open()
        batch.append(session, b"Work")
        request = batch.send_generate(session, n=200, max_tokens=60, ignore_end=True, priority=1,
                                      delivery=1)
        node = person.complete(b"Quick", max_tokens=4, ignore_end=True)
        assert node.content_tokens == 4
        left = count_of(daemon, "branch_waiting_count") + count_of(daemon, "branch_running_count")
        assert left > 0, "the batch is still at work"
        batch.call("cancel", session=session)
        assert len(batch.finish(request).finished) == 200


def test_pipelined_requests_are_all_answered(client):
    session = client.open()
    client.append(session, b"Pipeline")
    opened = [client.send_generate(session, max_tokens=3, ignore_end=True, delivery=1)
              for _ in range(120)]
    finished = [client.finish(request) for request in opened]
    nodes = {made.replies()[0].id for made in finished}
    assert len(nodes) == 120


def test_a_full_table_of_branches_is_named_and_empties_again(daemon):
    with daemon.client() as client:
        session = client.open()
        client.append(session, b"Full")
        limits = {limit.name.decode(): limit.value for limit in client.call("info").info.limits}
        allowed = min(limits["BRANCH_PER_USER_COUNT_MAX"], limits["BRANCH_COUNT_MAX"])
        opened = [client.send_generate(session, n=1024, max_tokens=500, ignore_end=True,
                                       delivery=1) for _ in range(allowed // 1024)]
        with pytest.raises(Refused) as refused:
            client.generate(session, n=1024, max_tokens=500)
        assert refused.value.limit_name in limits
        client.call("cancel", session=session)
        ends = [end.node.finish for request in opened
                for end in client.finish(request).finished.values()]
        assert len(ends) == 1024 * len(opened)
        # Few of them run at a time; those that wait have nothing but their cut to end by.
        assert ends.count(FINISHES["CUT"]) > len(ends) // 2
        assert client.complete(b"Room again", max_tokens=3, ignore_end=True).content_tokens == 3
