"""One logical connection: requests by id, and the way back after the daemon was away.

A request that changes something carries a client key of its own, so that it can be sent again: the
daemon answers a repeat with the nodes that it made the first time. A stream whose nodes are known
goes on by Follow from what has arrived.
"""
from __future__ import annotations

import asyncio
import os
import struct
from typing import Dict, List, Optional

from .schema import ENUMS, MESSAGES, Reply, Request
from .types import ConnectionLost, PersonadError

# What is repeated under its key after a break. The daemon answers some of them with what the first
# one made; the others leave what is there as it is.
CHANGING = {"say", "generate", "append", "edit", "keep", "note", "session_open", "session_set",
            "session_import", "persona_put"}
_RETRY_SECONDS_FIRST = 0.05
_RETRY_SECONDS_MAX = 2.0
_STOPPING = ENUMS["ErrorCode"]["STOPPING"]


def default_socket() -> str:
    """As every client finds it: $PERSONAD_SOCKET, else the user's runtime folder."""
    named = os.environ.get("PERSONAD_SOCKET")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if named:
        return named
    if runtime.startswith("/"):
        return f"{runtime}/personad/personad.sock"
    return f"/tmp/personad-{os.getuid()}/personad.sock"


class Progress:
    """How far a node was read."""

    def __init__(self) -> None:
        self.tokens = 0
        self.text = b""
        self.number_count = 0
        self.finished = False


class Exchange:
    """An open request: what to send (again), and the replies that came."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.replies: asyncio.Queue = asyncio.Queue()
        self.nodes: Optional[List[int]] = None  # of a stream, once they are known
        self.progress: Dict[int, Progress] = {}
        self.follows: Dict[int, int] = {}       # request id -> node, after a reconnect
        self.is_stream = False

    def note(self, reply: Reply) -> Reply:
        """Remembers how far it is, and cuts off what was handed out before."""
        kind = reply.WhichOneof("result")
        if kind == "created" and reply.more:
            self.is_stream = True
            self.nodes = [node.id for node in reply.created.nodes if node.origin == 0]
            for node in self.nodes:
                self.progress.setdefault(node, Progress())
        elif kind == "tokens":
            at = self.progress.setdefault(reply.tokens.node, Progress())
            skip = len(at.text) - reply.tokens.first_byte if reply.tokens.text else 0
            if skip > 0:
                reply.tokens.text = reply.tokens.text[skip:]
                reply.tokens.first_byte += skip
            at.text += reply.tokens.text
            at.tokens = max(at.tokens, reply.tokens.first_token + reply.tokens.token_count)
            at.number_count = max(at.number_count, reply.tokens.numbers.first +
                                  len(reply.tokens.numbers.tokens))
        elif kind == "finished":
            self.progress.setdefault(reply.finished.node.id, Progress()).finished = True
        return reply


class Connection:
    """Use from one event loop. patience: seconds to wait for a daemon that went away; 0: none."""

    def __init__(self, path: Optional[str] = None, patience: float = 60.0) -> None:
        self.path = path or default_socket()
        self.patience = patience
        self.hello = None
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._task: Optional[asyncio.Task] = None
        self._exchanges: Dict[int, Exchange] = {}  # by every id that is open for it
        self._last_id = 0
        self._is_up = asyncio.Event()
        self._failure: Optional[Exception] = None

    # ---- life

    async def open(self) -> None:
        try:
            await self._connect()
        except OSError as failure:
            raise OSError(failure.errno, f"no daemon answers: {failure.strerror}; start personad, "
                          "or name its socket by PERSONAD_SOCKET", self.path) from failure
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        self._failure = ConnectionLost("the client was closed")
        self._is_up.set()
        if self._task is not None:
            self._task.cancel()
            try:
                await self._task
            except asyncio.CancelledError:
                pass
        self._drop()
        self._fail_all(self._failure)

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(self.path)
        request = Request(id=self._next_id())
        request.hello.protocol = 1
        request.hello.client = b"personad python 0.1"
        self._write(request)
        reply = await self._read()
        if reply.WhichOneof("result") == "error":
            raise PersonadError.of(reply.error)
        self.hello = reply.hello
        self._is_up.set()

    def _drop(self) -> None:
        self._is_up.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _fail_all(self, failure: Exception) -> None:
        for exchange in set(self._exchanges.values()):
            exchange.replies.put_nowait(failure)
        self._exchanges.clear()

    # ---- frames

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _write(self, request: Request) -> None:
        body = request.SerializeToString()
        if self._writer is not None:
            self._writer.write(struct.pack("<I", len(body)) + body)

    async def _read(self) -> Reply:
        header = await self._reader.readexactly(4)
        return Reply.FromString(await self._reader.readexactly(struct.unpack("<I", header)[0]))

    # ---- the reader

    async def _run(self) -> None:
        while True:
            try:
                reply = await self._read()
                self._take(reply)
            except (OSError, asyncio.IncompleteReadError):
                self._drop()
                try:
                    await self._reconnect()
                except Exception as failure:  # whoever waits learns why
                    self._failure = ConnectionLost(f"{self.path}: {failure}")
                    self._fail_all(self._failure)
                    self._is_up.set()  # who waits to send learns it too
                    return

    def _take(self, reply: Reply) -> None:
        exchange = self._exchanges.get(reply.id)
        if exchange is None:
            return
        kind = reply.WhichOneof("result")
        if kind == "error" and reply.error.code == _STOPPING and self.patience > 0:
            return  # it goes away now, and is asked again when it is back
        if kind == "finished" and reply.finished.node.finish == ENUMS["Finish"]["INTERRUPTED"] \
                and self.patience > 0:
            return  # it goes on after the restart, under the same id
        if not reply.more:
            del self._exchanges[reply.id]
            exchange.follows.pop(reply.id, None)
            if kind == "done" and exchange.follows:
                return  # one of several that stand for one stream
        exchange.replies.put_nowait(exchange.note(reply))

    async def _reconnect(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        wait = _RETRY_SECONDS_FIRST
        while True:
            try:
                await self._connect()
                break
            except (OSError, asyncio.IncompleteReadError):
                self._drop()
                if loop.time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, _RETRY_SECONDS_MAX)
        exchanges = list(dict.fromkeys(self._exchanges.values()))
        self._exchanges.clear()
        for exchange in exchanges:
            self._send_again(exchange)

    def _send_again(self, exchange: Exchange) -> None:
        exchange.follows.clear()
        going = [node for node in exchange.nodes or [] if not exchange.progress[node].finished]
        if exchange.is_stream and not going:
            exchange.replies.put_nowait(Reply(done=MESSAGES["DoneReply"]()))
            return
        if not exchange.is_stream:
            self._exchanges[exchange.request.id] = exchange
            self._write(exchange.request)
            return
        asked = getattr(exchange.request, exchange.request.WhichOneof("op"))
        for node in going:
            at = exchange.progress[node]
            follow = Request(id=self._next_id())
            follow.follow.node = node
            follow.follow.from_token = at.tokens
            follow.follow.from_byte = len(at.text)
            follow.follow.numbers = asked.numbers
            follow.follow.delivery = asked.delivery
            exchange.follows[follow.id] = node
            self._exchanges[follow.id] = exchange
            self._write(follow)

    # ---- requests

    async def start(self, op: str, fill) -> Exchange:
        """Sends a request; `fill` sets the fields of its body."""
        await self._is_up.wait()
        if self._failure is not None:
            raise self._failure
        request = Request(id=self._next_id())
        if op in CHANGING:
            request.client_key = os.urandom(16)
        body = getattr(request, op)
        body.SetInParent()
        fill(body)
        exchange = Exchange(request)
        if op == "follow":
            exchange.is_stream = True
            exchange.nodes = [body.node]
            at = exchange.progress.setdefault(body.node, Progress())
            at.tokens, at.text = body.from_token, b"\0" * body.from_byte
        self._exchanges[request.id] = exchange
        self._write(request)
        if self._writer is not None:
            try:
                await self._writer.drain()
            except OSError:
                pass  # the reader notices, and sends it again
        return exchange

    @staticmethod
    async def replies(exchange: Exchange):
        """All replies to a request, in order; raises what it was refused with."""
        more = True
        while more:
            reply = await exchange.replies.get()
            if isinstance(reply, Exception):
                raise reply
            if reply.WhichOneof("result") == "error":
                raise PersonadError.of(reply.error)
            more = reply.more
            yield reply

    async def call(self, op: str, fill=lambda body: None):
        """The body of the one reply of a request that has one."""
        async for reply in self.replies(await self.start(op, fill)):
            return getattr(reply, reply.WhichOneof("result"))
