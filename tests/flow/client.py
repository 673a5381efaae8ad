"""A small blocking client of the protocol, with messages built from proto/personad.proto.

Nothing here is shared with the C client: two readings of the protocol must agree.
"""
import contextlib
import os
import select
import socket
import struct
import subprocess
import tempfile
import time

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
REPLY_SECONDS_MAX = 60.0


def _load_messages():
    """Classes made at run time: generated code would have to fit the installed library."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "personad.bin")
        subprocess.run(["protoc", f"--descriptor_set_out={path}", "-I", os.path.join(ROOT, "proto"),
                        "personad.proto"], check=True)
        with open(path, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    found = {}
    for name in files[0].message_type:
        kind = pool.FindMessageTypeByName(f"{files[0].package}.{name.name}")
        found[name.name] = message_factory.MessageFactory(pool).GetPrototype(kind) \
            if not hasattr(message_factory, "GetMessageClass") \
            else message_factory.GetMessageClass(kind)
    codes = pool.FindEnumTypeByName(f"{files[0].package}.ErrorCode").values_by_name
    finishes = pool.FindEnumTypeByName(f"{files[0].package}.Finish").values_by_name
    return found, {name: value.number for name, value in codes.items()}, \
        {name: value.number for name, value in finishes.items()}


MESSAGES, CODES, FINISHES = _load_messages()
Request = MESSAGES["Request"]
Reply = MESSAGES["Reply"]

EACH_TOKEN, FINAL_ONLY, NO_FOLLOW = 0, 1, 2
PATH, CHILDREN, SUBTREE, NODE = 0, 1, 2, 3


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, error):
        super().__init__(f"{error.code} {error.text.decode()}")
        self.code = error.code
        self.text = error.text.decode()
        self.limit_name = error.limit_name.decode()
        self.limit_value = error.limit_value


class Closed(Exception):
    """The daemon closed the connection."""


def frame(body):
    return struct.pack("<I", len(body)) + body


def request_bytes(request_id, op, client_key=b"", **fields):
    request = Request(id=request_id)
    if client_key:
        request.client_key = client_key
    body = getattr(request, op)
    body.SetInParent()
    for name, value in fields.items():
        field = getattr(body, name)
        if hasattr(value, "DESCRIPTOR"):
            field.CopyFrom(value)
        elif isinstance(value, (list, tuple)):
            field.extend(value)
        else:
            setattr(body, name, value)
    return frame(request.SerializeToString())


def sampler(**fields):
    stops = fields.pop("stop", [])
    biases = fields.pop("bias", {})
    made = MESSAGES["Sampler"](**fields)
    made.stop.extend(stops)
    for token, value in biases.items():
        made.bias.add(token=token, value=value)
    return made


def position(node, offset=None):
    made = MESSAGES["Position"](node=node)
    if offset is not None:
        made.offset = offset
    return made


class Generated:
    """What a stream of replies added up to."""

    def __init__(self):
        self.nodes = []       # of Created
        self.context = []
        self.text = {}        # node -> bytes that came in TokensReply
        self.tokens = {}      # node -> ids that came in Numbers
        self.finished = {}    # node -> FinishedReply
        self.pieces = 0

    def feed(self, reply):
        kind = reply.WhichOneof("result")
        if kind == "error":
            raise Refused(reply.error)
        if kind == "created":
            self.nodes = list(reply.created.nodes)
            self.context = list(reply.created.context)
        elif kind == "tokens":
            self.pieces += 1
            tokens = reply.tokens
            have = self.text.setdefault(tokens.node, b"")
            if tokens.text:
                assert tokens.first_byte >= len(have) or not have
                self.text[tokens.node] = have + tokens.text
            self.tokens.setdefault(tokens.node, []).extend(tokens.numbers.tokens)
        elif kind == "finished":
            node = reply.finished.node
            assert node.id not in self.finished, "a node ends once"
            self.finished[node.id] = reply.finished

    def replies(self):
        """The nodes that were sampled, in order."""
        return [self.finished[node.id].node for node in self.nodes if node.id in self.finished]


def bits(numbers):
    """Log probabilities and entropies as their 32 bits."""
    def raw(values):
        return struct.pack(f"<{len(values)}f", *values)
    return (list(numbers.tokens), raw(numbers.logprobs), raw(numbers.sampler_logprobs),
            raw(numbers.entropies), list(numbers.top_tokens), raw(numbers.top_logprobs))


class Client:
    """One connection."""

    def __init__(self, path, hello=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer = b""
        self.last_id = 0
        self.waiting = {}     # id -> replies that came while another was waited for
        self.held = None      # what one_write() collects
        self.hello = None
        if hello:
            self.hello = self.call("hello", protocol=1, client=b"flow test").hello

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # ---- bytes

    def send_bytes(self, data):
        if self.held is None:
            self.socket.sendall(data)
        else:
            self.held += data

    @contextlib.contextmanager
    def one_write(self):
        """What is sent meanwhile leaves together."""
        self.held = b""
        try:
            yield
            self.socket.sendall(self.held)
        finally:
            self.held = None

    def read_reply(self, seconds=REPLY_SECONDS_MAX):
        """The next reply to whatever request. Closed when there is none to come."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 4:
                size = struct.unpack("<I", self.buffer[:4])[0]
                if len(self.buffer) >= 4 + size:
                    body, self.buffer = self.buffer[4:4 + size], self.buffer[4 + size:]
                    return Reply.FromString(body)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("no reply came")
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed()
            self.buffer += data

    # ---- requests

    def send(self, op, **fields):
        self.last_id += 1
        self.send_bytes(request_bytes(self.last_id, op, **fields))
        return self.last_id

    def next_of(self, request_id, seconds=REPLY_SECONDS_MAX):
        """The next reply to that request; others wait."""
        if self.waiting.get(request_id):
            return self.waiting[request_id].pop(0)
        while True:
            reply = self.read_reply(seconds)
            if reply.id == request_id:
                return reply
            if reply.id == 0:
                raise Refused(reply.error)
            self.waiting.setdefault(reply.id, []).append(reply)

    def finish(self, request_id):
        """All replies to that request."""
        made = Generated()
        while True:
            reply = self.next_of(request_id)
            made.feed(reply)
            if not reply.more:
                return made

    def call(self, op, **fields):
        """The one reply of a request that has one."""
        reply = self.next_of(self.send(op, **fields))
        if reply.WhichOneof("result") == "error":
            raise Refused(reply.error)
        assert not reply.more
        return reply

    def stream(self, op, **fields):
        return self.finish(self.send(op, **fields))

    # ---- what tests do all the time

    def open(self, persona=b"plain", **fields):
        return self.call("session_open", persona_name=persona, **fields).session_open.session.id

    def append(self, session, text, **fields):
        return self.call("append", session=session, text=text, **fields).created.nodes[-1]

    def generate(self, session, **fields):
        """Generates to the end. Keywords that a sampler has go there."""
        return self.finish(self.send_generate(session, **fields))

    def send_generate(self, session, op="generate", **fields):
        names = MESSAGES["Sampler"].DESCRIPTOR.fields_by_name
        steps = {name: fields.pop(name) for name in list(fields) if name in names}
        return self.send(op, session=session, sampler=sampler(**steps), **fields)

    def complete(self, text, persona=b"plain", seed=1, **fields):
        """Continues plain text in a session of its own; the generated node."""
        session = self.open(persona, seed=seed)
        self.append(session, text)
        fields.setdefault("numbers", True)
        return self.generate(session, **fields).replies()[0]
