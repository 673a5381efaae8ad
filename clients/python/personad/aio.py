"""The asyncio client.

    async with AsyncClient() as daemon:
        session = await daemon.open("keeper", user_name="Ann")
        async for piece in session.say_stream("Hello!"):
            print(piece.text, end="")

Text may be str or bytes; a persona is a name or the id of a version; a place is a Position, a Node
(its end) or None (the session's head). A speaker is an index into the session's cast or a name in
it. Sampler settings are keywords: temperature, top_k, top_p,
min_p, repetition_penalty, presence_penalty, frequency_penalty, penalty_range, penalize_prompt,
max_tokens, min_tokens, top_count, ignore_end, stop (list), bias (dict). What is left out is as the
persona says. Of a generation also n, seed, raw_seed, prefix, numbers, choices (list: the reply is
one of them), distinct_first (n siblings begin differently) and, of one that continues, at_byte (it
goes on behind so many bytes of the node's text).
"""
from __future__ import annotations

import io
from typing import AsyncIterator, Dict, Iterable, List, Optional, Sequence, Union

from .connection import Connection
from .schema import ENUMS, MESSAGES
from .types import (Alternative, Compared, Distribution, Expansion, Group, Human, Member, Node,
                    Note, Piece, Position, Scored, Verification)

Text = Union[str, bytes]
Place = Union[Position, Node, None]
Persona = Union[str, int, None]
Option = Union[str, bytes, Sequence[int]]
Speaker = Union[int, str]
Joining = Union[str, int, Human]

_PIECE_BYTES = 256 * 1024
_SAMPLER_NAMES = set(MESSAGES["Sampler"].DESCRIPTOR.fields_by_name)
_GENERATION_NAMES = {"n", "seed", "raw_seed", "prefix", "numbers", "choices", "distinct_first",
                     "at_byte"}
_WALKS = {name.lower(): number for name, number in ENUMS["WalkWhat"].items()}


_ROLES = ["system", "user", "assistant"]


def _bytes(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _set_place(message, place: Place) -> None:
    if place is None:
        return
    if isinstance(place, Node):
        place = Position(place.id)
    message.position.node = place.node
    if place.offset is not None:
        message.position.offset = place.offset


def _set_cast(entries, cast: Sequence[Joining]) -> None:
    """Personas by name or version id, and humans."""
    for one in cast:
        if isinstance(one, Human):
            entries.add(name=_bytes(one.name))
        elif isinstance(one, int):
            entries.add(persona=one)
        else:
            entries.add(persona_name=_bytes(one))


def _set_sampler(sampler, settings: Dict) -> None:
    for name, value in settings.items():
        if name == "stop":
            sampler.stop.extend(_bytes(text) for text in value)
        elif name == "bias":
            for token, bias in value.items():
                sampler.bias.add(token=token, value=bias)
        else:
            setattr(sampler, name, value)


def _set_generation(body, fields: Dict, stream: bool) -> None:
    """Takes apart the keywords of a generation; an unknown one is an error here already."""
    known = _GENERATION_NAMES & set(body.DESCRIPTOR.fields_by_name)
    unknown = set(fields) - _SAMPLER_NAMES - known - {"batch"}
    if unknown:
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    for name in _GENERATION_NAMES & set(fields):
        value = fields[name]
        if name == "choices":
            body.choices.extend(_bytes(choice) for choice in value)
        else:
            setattr(body, name, _bytes(value) if name == "prefix" else value)
    _set_sampler(body.sampler, {name: value for name, value in fields.items()
                                if name in _SAMPLER_NAMES})
    if fields.get("batch"):
        body.priority = ENUMS["Priority"]["BATCH"]
    if not stream:
        body.delivery = ENUMS["Delivery"]["FINAL_ONLY"]


class AsyncSession:
    """A tree of conversation."""

    def __init__(self, client: "AsyncClient", info, greetings: Sequence[Node] = ()) -> None:
        self._client = client
        self.id: int = info.id
        self.seed: int = info.seed
        self.greetings = list(greetings)
        self.joint: bool = info.group_mode == ENUMS["GroupMode"]["JOINT"]
        self._take_cast(info)

    def _take_cast(self, info) -> None:
        self.members: List[Member] = [
            Member(member.speaker, member.name.decode("utf-8", "replace"),
                   member.persona if member.HasField("persona") else None)
            for member in info.cast]
        self.cast: List[str] = [member.name for member in self.members]

    def _speaker(self, who: Speaker) -> int:
        """The index of a name; of equal ones the one that joined last."""
        if isinstance(who, int):
            return who
        for member in reversed(self.members):
            if member.name == who:
                return member.speaker
        raise ValueError(f"nobody is called {who!r}; the cast is {', '.join(self.cast)}")

    # ---- the cast

    async def add(self, *cast: Joining) -> List[Member]:
        """Who joins: personas by name or version id, and Human(name). The cast afterwards."""
        def fill(body):
            body.session = self.id
            _set_cast(body.add, cast)
        self._take_cast((await self._client.connection.call("session_set", fill)).session)
        return self.members

    async def rename(self, speaker: Speaker, name: str) -> List[Member]:
        """Another name for a human who joined and has not said anything yet."""
        def fill(body):
            body.session = self.id
            body.rename.speaker = self._speaker(speaker)
            body.rename.name = _bytes(name)
        self._take_cast((await self._client.connection.call("session_set", fill)).session)
        return self.members

    # ---- as a file

    async def export(self, node: Optional[int] = None) -> AsyncIterator[bytes]:
        """The session's file (docs/EXPORT.md) in pieces; node: only the path to it."""
        transfer = 0
        while True:
            def fill(body):
                if transfer:
                    body.transfer = transfer
                else:
                    body.session = self.id
                    body.node = node or 0
            page = (await self._client.connection.call("session_export", fill))
            yield page.data
            if page.end:
                return
            transfer = page.transfer

    # ---- growing

    async def say(self, text: Text, at: Place = None, speaker: Speaker = 0,
                  reply_speaker: Optional[Speaker] = None, **settings) -> List[Node]:
        """Says the text and waits for the reply, or n of them; by default the first persona's."""
        return await self._grow(
            "say", self._fill_say(text, at, speaker, reply_speaker, settings, False))

    def say_stream(self, text: Text, at: Place = None, speaker: Speaker = 0,
                   reply_speaker: Optional[Speaker] = None, **settings) \
            -> AsyncIterator[Union[Piece, Node]]:
        """Pieces as they come; each node whole when it ends."""
        return self._stream(
            "say", self._fill_say(text, at, speaker, reply_speaker, settings, True))

    async def generate(self, at: Place = None, speaker: Optional[Speaker] = None,
                       continuing: bool = False, **settings) -> List[Node]:
        """n further nodes at a place: a new turn, or the turn there going on."""
        return await self._grow(
            "generate", self._fill_generate(at, speaker, continuing, settings, False))

    def generate_stream(self, at: Place = None, speaker: Optional[Speaker] = None,
                        continuing: bool = False, **settings) \
            -> AsyncIterator[Union[Piece, Node]]:
        return self._stream(
            "generate", self._fill_generate(at, speaker, continuing, settings, True))

    async def append(self, text: Text, at: Place = None, speaker: Speaker = 0,
                     continuing: bool = False, at_byte: Optional[int] = None) -> Node:
        """Adds given text; at_byte with continuing: behind so many bytes of the node's text."""
        def fill(body):
            body.session = self.id
            body.text = _bytes(text)
            body.speaker = self._speaker(speaker)
            body.continuing = continuing
            if at_byte is not None:
                body.at_byte = at_byte
            _set_place(body, at)
        created = await self._client.connection.call("append", fill)
        return Node.of(created.nodes[-1])

    def _fill_say(self, text, at, speaker, reply_speaker, settings, stream):
        def fill(body):
            body.session = self.id
            body.text = _bytes(text)
            body.speaker = self._speaker(speaker)
            if reply_speaker is not None:
                body.reply_speaker = self._speaker(reply_speaker)
            _set_place(body, at)
            _set_generation(body, settings, stream)
        return fill

    def _fill_generate(self, at, speaker, continuing, settings, stream):
        def fill(body):
            body.session = self.id
            body.continuing = continuing
            if speaker is not None:
                body.speaker = self._speaker(speaker)
            _set_place(body, at)
            _set_generation(body, settings, stream)
        return fill

    async def _stream(self, op, fill):
        connection = self._client.connection
        async for reply in connection.replies(await connection.start(op, fill)):
            kind = reply.WhichOneof("result")
            if kind == "tokens" and reply.tokens.text:
                yield Piece(reply.tokens.node, reply.tokens.text)
            elif kind == "finished":
                yield Node.of(reply.finished.node)

    async def _grow(self, op, fill) -> List[Node]:
        nodes = [part async for part in self._stream(op, fill) if isinstance(part, Node)]
        return sorted(nodes, key=lambda node: (node.parent.node, node.ordinal))

    # ---- reading

    async def walk(self, at: Place = None, what: str = "path", numbers: bool = False) \
            -> List[Node]:
        """what: "path" from the root to the place, "children", "subtree" or "node"."""
        nodes: List[Node] = []
        end = False
        while not end:
            def fill(body):
                body.session = self.id
                body.what = _WALKS[what]
                body.skip = len(nodes)
                body.text = body.content = True
                body.numbers = numbers
                _set_place(body, at)
            reply = await self._client.connection.call("walk", fill)
            nodes.extend(Node.of(info) for info in reply.nodes)
            end = reply.end or not reply.nodes
        return nodes

    async def head(self, to: Place = None) -> Position:
        """Where the session's reader is; moves there first when a place is given."""
        def fill(body):
            body.session = self.id
            _set_place(body, to)
        reply = await self._client.connection.call("head", fill)
        return Position(reply.position.node, reply.position.offset)

    # ---- notes

    async def note(self, at: Place = None) -> Optional[Note]:
        """The note in force at a place."""
        def fill(body):
            body.session = self.id
            _set_place(body, at)
        reply = await self._client.connection.call("note", fill)
        if not reply.HasField("note"):
            return None
        one = reply.note
        return Note(one.text.decode("utf-8", "replace"), one.depth, _ROLES[one.role],
                    Position(one.position.node, one.position.offset))

    async def set_note(self, text: Text, depth: int = 4, role: str = "system",
                       at: Place = None) -> None:
        """A note in force at a place and below; an empty text: none from there on."""
        def fill(body):
            body.session = self.id
            body.text = _bytes(text)
            body.depth = depth
            body.role = _ROLES.index(role)
            _set_place(body, at)
        await self._client.connection.call("note", fill)

    async def clear_note(self, at: Place = None) -> None:
        """Takes away what was set at exactly that place."""
        def fill(body):
            body.session = self.id
            body.clear = True
            _set_place(body, at)
        await self._client.connection.call("note", fill)

    # ---- looking

    async def distribution(self, at: Place = None, speaker: Optional[Speaker] = None,
                           continuing: bool = False, top_count: int = 10,
                           tokens: Iterable[int] = ()) -> Distribution:
        """What could come next at a place."""
        def fill(body):
            body.session = self.id
            body.continuing = continuing
            body.top_count = top_count
            body.tokens.extend(tokens)
            if speaker is not None:
                body.speaker = self._speaker(speaker)
            _set_place(body, at)
        reply = await self._client.connection.call("distribution", fill)
        return Distribution(reply.entropy,
                            [Alternative(*parts) for parts in
                             zip(reply.top_tokens, reply.top_logprobs, reply.top_pieces)],
                            list(reply.logprobs))

    async def score(self, options: Sequence[Option], at: Place = None,
                    speaker: Optional[Speaker] = None, continuing: bool = False) -> List[Scored]:
        """How likely each of the options is at a place: texts, or lists of ids."""
        def fill(body):
            body.session = self.id
            body.numbers = True
            item = body.items.add(continuing=continuing)
            if speaker is not None:
                item.speaker = self._speaker(speaker)
            _set_place(item, at)
            for option in options:
                if isinstance(option, (str, bytes)):
                    item.options.add(text=_bytes(option))
                else:
                    item.options.add(tokens=option)
        reply = await self._client.connection.call("score", fill)
        return [Scored(one.logprob, one.token_logprob, one.share, one.token_count,
                       list(one.tokens), list(one.logprobs)) for one in reply.items[0].options]

    async def expand(self, at: Place = None, speaker: Optional[Speaker] = None,
                     continuing: bool = False, depth: int = 4, width: int = 4,
                     probability_min: float = 0.01, nodes: int = 256,
                     on_progress=None) -> Expansion:
        """The tree of likely continuations of a place; nothing of it is in the session until
        keep(). on_progress gets the Expansion as it grows."""
        def fill(body):
            body.session = self.id
            body.continuing = continuing
            body.depth = depth
            body.width = width
            body.probability_min = probability_min
            body.nodes = nodes
            if speaker is not None:
                body.speaker = self._speaker(speaker)
            _set_place(body, at)
        connection = self._client.connection
        seen = Expansion()
        async for reply in connection.replies(await connection.start("expand", fill)):
            seen.add(reply.expand)
            if on_progress is not None:
                on_progress(seen)
        return seen

    async def keep(self, expansion: Expansion, number: int) -> Node:
        """Makes the path to a node of an expansion a node of the session."""
        def fill(body):
            body.expansion = expansion.id
            body.node = number
        created = await self._client.connection.call("keep", fill)
        return Node.of(created.nodes[-1])

    async def compare(self, personas: Sequence[int] = (), at: Place = None,
                      speaker: Optional[Speaker] = None, divergence: bool = False) -> Compared:
        """The path to a place as each of the personas sees it; with divergence, the whole
        distributions are compared too (Kullback-Leibler, from the first persona's)."""
        def fill(body):
            body.session = self.id
            body.personas.extend(personas)
            body.divergence = divergence
            if speaker is not None:
                body.speaker = self._speaker(speaker)
            _set_place(body, at)
        reply = await self._client.connection.call("compare", fill)
        return Compared([(span.node, span.first, list(span.tokens)) for span in reply.spans],
                        {one.persona: list(one.logprobs) for one in reply.personas},
                        {one.persona: one.ratio for one in reply.personas},
                        {one.persona: list(one.divergences) for one in reply.personas})

    async def group(self, nodes: Sequence[Union[Node, int]] = (), at: Place = None) -> List[Group]:
        """Which answers say the same; without nodes, all children of the place."""
        def fill(body):
            body.session = self.id
            body.nodes.extend(node.id if isinstance(node, Node) else node for node in nodes)
            _set_place(body, at)
        reply = await self._client.connection.call("group", fill)
        return [Group(one.text.decode("utf-8", "replace"), list(one.nodes), one.share,
                      one.mass if one.HasField("mass") else None) for one in reply.groups]


class AsyncClient:
    """A daemon. patience: seconds for which a daemon that went away is waited for."""

    def __init__(self, socket: Optional[str] = None, patience: float = 60.0) -> None:
        self._socket = socket
        self._patience = patience
        self.connection: Connection

    async def __aenter__(self) -> "AsyncClient":
        self.connection = Connection(self._socket, self._patience)
        await self.connection.open()
        return self

    async def __aexit__(self, *_) -> None:
        await self.connection.close()

    async def info(self):
        """The protocol's InfoReply: model, numerics id, limits."""
        return await self.connection.call("info")

    async def put_persona(self, card: Text, public: bool = False) -> int:
        """Stores a character card (JSON); the id of its version."""
        def fill(body):
            body.card = _bytes(card)
            body.visibility = 1 if public else 0
        return (await self.connection.call("persona_put", fill)).persona.id

    async def open(self, persona: Persona = None, user_name: Text = "",
                   variables: Optional[Dict[str, str]] = None, seed: Optional[int] = None,
                   label: Text = "", greeting: bool = True,
                   cast: Sequence[Joining] = (), joint: bool = False) -> AsyncSession:
        """A new session: you (speaker 0), the persona (1), and who else is in the cast. joint: all
        personas share one view, with all preambles in front."""
        def fill(body):
            if isinstance(persona, int):
                body.persona = persona
            elif persona:
                body.persona_name = _bytes(persona)
            if user_name:
                body.user_name = _bytes(user_name)
            for name, value in (variables or {}).items():
                body.variables.add(name=_bytes(name), value=_bytes(value))
            if seed is not None:
                body.seed = seed
            body.label = _bytes(label)
            body.no_greeting = not greeting
            _set_cast(body.cast, cast)
            body.group_mode = ENUMS["GroupMode"]["JOINT" if joint else "SEPARATE"]
        reply = await self.connection.call("session_open", fill)
        return AsyncSession(self, reply.session, [Node.of(node) for node in reply.greetings])

    async def import_(self, file) -> AsyncSession:
        """A session from a file of AsyncSession.export(): its bytes, or a file open for reading
        bytes. All of it becomes a session, or nothing does."""
        data = io.BytesIO(file) if isinstance(file, (bytes, bytearray, memoryview)) else file
        transfer = 0
        while True:
            piece = data.read(_PIECE_BYTES)

            def fill(body):
                body.transfer = transfer
                body.data = piece
                body.end = not piece
            reply = await self.connection.call("session_import", fill)
            if reply.HasField("session"):
                return AsyncSession(self, reply.session)
            transfer = reply.transfer

    async def sessions(self) -> List[AsyncSession]:
        found: List[AsyncSession] = []
        end = False
        while not end:
            def fill(body):
                body.after = found[-1].id if found else 0
            reply = await self.connection.call("session_list", fill)
            found.extend(AsyncSession(self, info) for info in reply.sessions)
            end = reply.end or not reply.sessions
        return found

    async def follow(self, node: int) -> AsyncIterator[Union[Piece, Node]]:
        """Reads a node from its beginning, while it grows or later."""
        def fill(body):
            body.node = node
        async for reply in self.connection.replies(await self.connection.start("follow", fill)):
            kind = reply.WhichOneof("result")
            if kind == "tokens" and reply.tokens.text:
                yield Piece(reply.tokens.node, reply.tokens.text)
            elif kind == "finished":
                yield Node.of(reply.finished.node)

    async def cancel(self, *nodes: int) -> None:
        """Ends nodes at what was released; returns when the cut is final."""
        await self.connection.call("cancel", lambda body: body.nodes.extend(nodes))

    async def tokenize(self, text: Text) -> List[int]:
        def fill(body):
            body.text = _bytes(text)
        return list((await self.connection.call("tokenize", fill)).tokens)

    async def detokenize(self, tokens: Iterable[int]) -> bytes:
        return (await self.connection.call(
            "detokenize", lambda body: body.tokens.extend(tokens))).text

    async def verify(self, node: Optional[int] = None, path: bool = False,
                     session: Optional[int] = None, on_progress=None) -> Verification:
        """Computes a node, a path, a session, or (with none of them) everything again.
        on_progress gets the Verification as it grows."""
        def fill(body):
            if node is not None:
                body.node = node
                body.path = path
            elif session is not None:
                body.session = session
            else:
                body.all = True
        seen = Verification()
        async for reply in self.connection.replies(await self.connection.start("verify", fill)):
            seen.add(reply.verify)
            if on_progress is not None:
                on_progress(seen)
        return seen
