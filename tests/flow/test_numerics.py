"""Goal: --numerics precise reaches every product, has an id of its own, and keeps what was made
under one arithmetic from being continued under the other.
Method: the same seeded conversation under both settings, from the command line and a file; restarts
with the other setting: reading as before, CONFLICT for what adds, verify telling the nodes apart.
"""
import os

import pytest

from client import CODES, FINISHES, FINAL_ONLY, Refused, bits
from conftest import flow_backend, tiny_model
from test_export import export, import_file
from test_look import verify

pytestmark = pytest.mark.skipif(flow_backend() != "cpu", reason="precise products are the CPU's")

FAST, PRECISE = b"cpu/1/kv-bf16", b"cpu/1/kv-f16/x-i16"
HALVES = b"cpu/1/kv-f16"


def info_of(daemon):
    with daemon.client() as client:
        return client.call("info").info


def conversation(client, seed=5):
    session = client.open(seed=seed)
    client.append(session, b"The tide was out.")
    made = client.generate(session, n=2, max_tokens=12, ignore_end=True, numbers=True)
    return session, [(node.finish, node.text, bits(node.numbers)) for node in made.replies()]


def test_both_arithmetics_have_ids_and_replies_of_their_own(folder, start):
    config = os.path.join(folder, "precise.ini")
    with open(config, "w", encoding="ascii") as file:
        file.write("numerics = precise\n")
    replies = {}
    for name, options, numerics_id in (
            ("default", (), FAST), ("fast", ("--numerics", "fast"), FAST),
            ("precise", ("--numerics", "precise"), PRECISE),
            ("file", ("--config", config), PRECISE),
            ("threads", ("--numerics", "precise", "--threads", "3"), PRECISE),
            ("scalar", ("--numerics", "precise", "--isa", "scalar"), PRECISE)):
        daemon = start(*options, "--data", os.path.join(folder, name),
                       socket=os.path.join(folder, "s" + name))
        info = info_of(daemon)
        assert info.numerics_id == numerics_id
        assert info.backend.endswith(b", precise") == (numerics_id == PRECISE)
        with daemon.client() as client:
            replies[name] = conversation(client)[1]
        daemon.end()
    assert replies["default"] == replies["fast"] != replies["precise"]
    assert replies["precise"] == replies["file"] == replies["threads"] == replies["scalar"]
    assert all(finish == FINISHES["LENGTH"] for finish, _, _ in replies["precise"])


def test_keys_are_kept_in_what_suits_the_weights_or_is_asked_for(folder, start):
    replies = {}
    for name, model, options, numerics_id in (
            ("default", "Q4_1-bpe", (), FAST),
            ("bf16", "Q4_1-bpe", ("--kv-type", "bf16"), FAST),
            ("f16", "Q4_1-bpe", ("--kv-type", "f16"), HALVES),
            ("f16-scalar", "Q4_1-bpe", ("--kv-type", "f16", "--isa", "scalar"), HALVES),
            ("bf16-scalar", "Q4_1-bpe", ("--isa", "scalar", "--threads", "3"), FAST),
            ("float", "F16-bpe", (), HALVES),
            ("float-bf16", "F16-bpe", ("--kv-type", "bf16"), FAST),
            ("precise-bf16", "Q4_1-bpe", ("--kv-type", "bf16", "--numerics", "precise"),
             b"cpu/1/kv-bf16/x-i16")):
        daemon = start(*options, "--data", os.path.join(folder, name), model=tiny_model(model),
                       socket=os.path.join(folder, "s" + name))
        assert info_of(daemon).numerics_id == numerics_id
        with daemon.client() as client:
            replies[name] = conversation(client)[1]
        daemon.end()
    assert replies["default"] == replies["bf16"] == replies["bf16-scalar"] != replies["f16"]
    assert replies["f16"] == replies["f16-scalar"]
    assert replies["float"] != replies["float-bf16"]


def test_what_was_kept_in_halves_goes_on_in_halves(start):
    daemon = start("--kv-type", "f16")
    with daemon.client() as client:
        session, _ = conversation(client)
    daemon.end()
    daemon = start()
    with daemon.client() as client:
        with pytest.raises(Refused) as refused:
            client.generate(session)
        assert refused.value.code == CODES["CONFLICT"] and "--kv-type" in refused.value.text
    daemon.end()
    with start("--kv-type", "f16").client() as client:
        assert client.generate(session, max_tokens=4, ignore_end=True).replies()
        last, _ = verify(client, session=session)
        assert last.equal_count == 3


def test_float_weights_have_the_same_bits_either_way(folder, start):
    replies = []
    for name in ("fast", "precise"):
        daemon = start("--numerics", name, "--data", os.path.join(folder, name),
                       model=tiny_model("F16-bpe"), socket=os.path.join(folder, "s" + name))
        with daemon.client() as client:
            replies.append(conversation(client)[1])
    assert replies[0] == replies[1]


def test_a_precise_reply_alone_is_a_precise_reply_among_others(start):
    with start("--numerics", "precise").client() as client:
        alone = conversation(client)[1]
        crowd = [client.send_generate(client.open(seed=100 + i), n=6, max_tokens=40,
                                      delivery=FINAL_ONLY) for i in range(4)]
        assert conversation(client)[1] == alone
        for number in crowd:
            client.finish(number)


def walk(client, session):
    return [node.text for node in client.call("walk", session=session, count=50).walk.nodes]


def test_a_session_is_read_and_not_continued_under_the_other(start):
    daemon = start()
    with daemon.client() as client:
        session, replies = conversation(client)
        seen = walk(client, session)
    daemon.end()
    daemon = start("--numerics", "precise")
    with daemon.client() as client:
        assert walk(client, session) == seen
        for op, fields in (("say", {"text": b"x"}), ("generate", {}), ("append", {"text": b"x"})):
            with pytest.raises(Refused) as refused:
                client.call(op, session=session, **fields)
            assert refused.value.code == CODES["CONFLICT"]
            assert "other arithmetic" in refused.value.text and "x-i16" in refused.value.text
        last, told = verify(client, session=session)
        assert last.foreign_count == 2 and last.different_count == 0
        assert all(0 < one.difference_max < 0.5 for one in told)
        assert client.call("distribution", session=session).distribution.entropy > 0
        assert conversation(client)[1] != replies, "a new session is made as the daemon computes"
    daemon.end()
    with start().client() as client:
        assert client.generate(session, max_tokens=4, ignore_end=True).replies()
        last, _ = verify(client, session=session)
        assert last.equal_count == 3


def test_an_imported_one_goes_on_under_the_other(start):
    daemon = start()
    with daemon.client() as client:
        data = export(client, conversation(client)[0])
    daemon.end()
    daemon = start("--numerics", "precise")
    with daemon.client() as client:
        made = import_file(client, data).id
        assert client.generate(made, max_tokens=4, ignore_end=True).replies()
        last, _ = verify(client, session=made)
        assert (last.foreign_count, last.equal_count) == (2, 1)
        data = export(client, made)
        assert export(client, import_file(client, data).id) == data
    daemon.end()
    with start("--numerics", "precise").client() as client:
        assert client.generate(made, max_tokens=4, ignore_end=True).replies()


def test_a_card_has_no_precise_products(start):
    daemon = start("--numerics", "precise", "--backend", "cuda", expect_ready=False)
    assert daemon.wait() == 1
    assert "--numerics precise" in daemon.log() and "--backend cpu" in daemon.log()
