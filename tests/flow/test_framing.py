"""What a broken or hostile client does: bytes that are no frames, frames that are no messages,
messages past every limit. The daemon says what was wrong, and goes on serving the others."""
import random
import struct

import pytest

from client import CODES, MESSAGES, Closed, Refused, Request, frame, request_bytes, sampler

pytestmark = pytest.mark.tsan


def expect_refusal(client, code, limit=None):
    """The connection ends with a reason."""
    reply = client.read_reply()
    assert reply.id == 0 and reply.WhichOneof("result") == "error"
    assert reply.error.code == CODES[code], reply
    assert reply.error.text
    if limit:
        assert reply.error.limit_name.decode() == limit
        assert reply.error.limit_value > 0
    with pytest.raises(Closed):
        client.read_reply()


def test_frames_may_come_byte_by_byte(client):
    data = request_bytes(77, "tokenize", text=b"slowly")
    for i in range(len(data)):
        client.send_bytes(data[i:i + 1])
    assert client.read_reply().id == 77


def test_many_frames_may_come_in_one_write(client):
    data = b"".join(request_bytes(100 + i, "tokenize", text=b"x" * i) for i in range(200))
    client.send_bytes(data)
    assert [client.read_reply().id for _ in range(200)] == [100 + i for i in range(200)]


def test_a_half_frame_waits_and_harms_nobody(daemon, client):
    with daemon.client() as half:
        half.send_bytes(struct.pack("<I", 1000) + b"only a little")
        assert client.call("info").info.pid
        half.close()
    assert client.call("info").info.pid


def test_a_frame_of_the_largest_size_is_read(client):
    text = b"a" * (1 << 20)
    request = Request(id=5)
    request.tokenize.text = text
    body = request.SerializeToString()
    # Unknown fields are skipped: they fill the frame to its bound.
    padding = (4 << 20) - len(body) - 6
    body += b"\xfa\x7f" + encode_varint(padding) + b"\x00" * padding
    assert len(body) == 4 << 20
    client.send_bytes(frame(body))
    assert client.read_reply().id == 5


def encode_varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize("size", [(4 << 20) + 1, 1 << 31, 0xffffffff])
def test_a_frame_past_the_bound_is_refused_from_its_header(client, size):
    client.send_bytes(struct.pack("<I", size))
    expect_refusal(client, "LIMIT", "FRAME_BODY_BYTES_MAX")


def test_garbage_in_a_frame_ends_the_connection(client):
    client.send_bytes(frame(b"\xff" * 40))
    expect_refusal(client, "BAD_INPUT")


def test_an_empty_frame_has_no_id(client):
    client.send_bytes(frame(b""))
    expect_refusal(client, "BAD_INPUT")


def test_random_bytes_never_hurt(daemon):
    draw = random.Random(7)
    for _ in range(60):
        with daemon.client(hello=draw.random() < 0.5) as rogue:
            body = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 200)))
            data = frame(body) if draw.random() < 0.7 else body
            try:
                rogue.send_bytes(data * draw.randrange(1, 4))
            except BrokenPipeError:
                pass
    with daemon.client() as client:
        assert client.call("info").info.pid == daemon.process.pid


def test_damaged_requests_never_hurt(daemon):
    draw = random.Random(11)
    whole = request_bytes(9, "generate", session=1, n=3, prefix=b"And",
                          sampler=sampler(temperature=1.0, stop=[b"\n"], bias={3: 1.0}))[4:]
    for _ in range(200):
        with daemon.client() as rogue:
            body = bytearray(whole)
            for _ in range(draw.randrange(1, 6)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            rogue.send_bytes(frame(bytes(body[:draw.randrange(1, len(body) + 1)])))
    with daemon.client() as client:
        assert client.call("info").info.pid == daemon.process.pid


def test_a_message_of_too_many_parts_is_refused(client):
    """2 million empty submessages in 4 MiB would take 30 times that once unpacked."""
    part = MESSAGES["SessionOpenRequest"]()
    part.variables.add()
    body = part.SerializeToString() * 2_000_000
    head = encode_varint(30 << 3 | 2) + encode_varint(len(body))
    client.send_bytes(frame(b"\x08\x05" + head + body))
    expect_refusal(client, "LIMIT", "MESSAGE_UNPACK_BYTES_MAX")


def test_the_first_request_must_be_hello(daemon):
    with daemon.client(hello=False) as client:
        client.send("info")
        expect_refusal(client, "CONFLICT")


def test_a_second_hello_is_an_error_of_that_request(client):
    with pytest.raises(Refused) as refused:
        client.call("hello", protocol=1)
    assert refused.value.code == CODES["CONFLICT"]
    assert client.call("info").info.pid


def test_an_older_protocol_is_refused(daemon):
    with daemon.client(hello=False) as client:
        client.send("hello", protocol=0)
        expect_refusal(client, "UNSUPPORTED")


def test_a_newer_client_and_unknown_fields_are_fine(daemon):
    with daemon.client(hello=False) as client:
        body = request_bytes(1, "hello", protocol=99, client=b"from the future")[4:]
        client.send_bytes(frame(body + b"\xf8\x7f\x05"))
        assert client.read_reply().hello.protocol == 1


def test_an_unknown_request_is_answered_by_its_id(client):
    client.send_bytes(frame(b"\x08\x07" + encode_varint(99 << 3 | 2) + b"\x00"))
    reply = client.read_reply()
    assert reply.id == 7 and reply.error.code == CODES["UNSUPPORTED"]
    assert client.call("info").info.pid


def test_an_id_in_use_ends_the_connection(client):
    session = client.open()
    client.append(session, b"Busy")
    first = client.send_generate(session, max_tokens=2000, ignore_end=True, n=8)
    client.send_bytes(request_bytes(first, "info"))
    with pytest.raises(Refused) as refused:
        while True:
            client.next_of(first + 1)
    assert refused.value.code == CODES["CONFLICT"]


OVER = b"x" * ((1 << 20) + 1)
LIMITS = [
    ("tokenize", "TEXT_BYTES_MAX", dict(text=OVER)),
    ("say", "TEXT_BYTES_MAX", dict(text=OVER)),
    ("append", "TEXT_BYTES_MAX", dict(text=OVER)),
    ("generate", "TEXT_BYTES_MAX", dict(prefix=OVER)),
    ("generate", "GENERATE_SIBLING_COUNT_MAX", dict(n=1025)),
    ("generate", "CUE_COUNT_MAX", dict(sampler=sampler(stop=[b"x"] * 65))),
    ("generate", "CUE_BYTES_MAX", dict(sampler=sampler(stop=[b"x" * 257]))),
    ("generate", "LOGIT_BIAS_COUNT_MAX",
     dict(sampler=sampler(bias={i: 1.0 for i in range(1025)}))),
    ("persona_put", "PERSONA_CARD_BYTES_MAX", dict(card=OVER)),
    ("session_open", "LABEL_BYTES_MAX", dict(label=b"x" * 257)),
    ("session_open", "PERSONA_NAME_BYTES_MAX", dict(user_name=b"x" * 257)),
    ("session_open", "PERSONA_VARIABLE_COUNT_MAX",
     dict(variables=[MESSAGES["Variable"](name=b"n", value=b"v")] * 65)),
    ("detokenize", "TEXT_TOKEN_COUNT_MAX", dict(tokens=[1] * 262145)),
    ("cancel", "BRANCH_COUNT_MAX", dict(nodes=[1] * 4097)),
    ("info", "CLIENT_KEY_BYTES_MAX", dict(client_key=b"x" * 65)),
]


@pytest.mark.parametrize("op,limit,fields", LIMITS, ids=[f"{row[0]}-{row[1]}" for row in LIMITS])
def test_each_limit_is_named_where_it_is_hit(client, op, limit, fields):
    with pytest.raises(Refused) as refused:
        client.call(op, **fields)
    assert refused.value.code == CODES["LIMIT"]
    assert refused.value.limit_name == limit
    info = client.call("info").info
    known = {row.name.decode(): row.value for row in info.limits}
    assert known[limit] == refused.value.limit_value


WRONG = [
    ("say", dict(text=b"\xff\xfe")),
    ("tokenize", dict(text=b"cut \xe2\x98")),
    ("session_open", dict(user_name=b"\xed\xa0\x80")),
    ("generate", dict(n=0)),
    ("generate", dict(sampler=sampler(stop=[b""]))),
    ("follow", dict(node=1, delivery=2)),
    ("cancel", dict()),
    ("cancel", dict(session=1, request=2)),
    ("persona_put", dict(card=b"")),
    ("persona_put", dict(card=b"{not json")),
    ("persona_get", dict()),
]


@pytest.mark.parametrize("op,fields", WRONG, ids=[f"{row[0]}-{i}" for i, row in enumerate(WRONG)])
def test_what_is_wrong_is_named_and_the_connection_stays(client, op, fields):
    with pytest.raises(Refused) as refused:
        client.call(op, **fields)
    assert refused.value.code == CODES["BAD_INPUT"]
    assert len(refused.value.text) > 10
    assert client.call("info").info.pid


RANGES = [("temperature", -1.0), ("temperature", 1e9), ("temperature", float("nan")),
          ("top_p", 0.0), ("top_p", 2.0), ("top_p", float("nan")), ("min_p", 1.0),
          ("min_p", -0.5), ("repetition_penalty", 0.0), ("presence_penalty", 1e9),
          ("frequency_penalty", float("inf")), ("max_tokens", 0), ("max_tokens", 1 << 20),
          ("top_count", 33)]


@pytest.mark.parametrize("name,value", RANGES)
def test_a_sampler_value_outside_its_range_names_the_field(client, name, value):
    session = client.open()
    client.append(session, b"x")
    with pytest.raises(Refused) as refused:
        client.generate(session, **{name: value})
    assert refused.value.code in (CODES["BAD_INPUT"], CODES["LIMIT"])
    assert name in refused.value.text


@pytest.mark.parametrize("op,fields", [
    ("say", dict(session=1 << 40, text=b"x")), ("generate", dict(session=0)),
    ("append", dict(session=0, text=b"x")), ("walk", dict(session=1 << 60)),
    ("head", dict(session=0)), ("follow", dict(node=1 << 50)), ("follow", dict()),
    ("persona_get", dict(id=1 << 50)), ("session_open", dict(persona_name=b"nobody"))])
def test_what_does_not_exist_is_not_found(client, op, fields):
    with pytest.raises(Refused) as refused:
        client.call(op, **fields)
    assert refused.value.code == CODES["NOT_FOUND"]
