"""What the client hands out: plain values, made from the protocol's messages."""
from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional, Sequence, Tuple

from .schema import ENUMS

_FINISH_NAMES = {number: name.lower() for name, number in ENUMS["Finish"].items()}
_ORIGIN_NAMES = {number: name.lower() for name, number in ENUMS["Origin"].items()}
_CODE_NAMES = {number: name for name, number in ENUMS["ErrorCode"].items()}
_EXPAND_END_NAMES = {number: name.lower().replace("expand_", "")
                     for name, number in ENUMS["ExpandEnd"].items()}
_VERIFIED_NAMES = {number: name.lower() for name, number in ENUMS["VerifiedNumber"].items()}


class PersonadError(Exception):
    """The daemon refused a request. `code` is the name of the error, such as "LIMIT"."""

    def __init__(self, code: str, text: str, limit: Optional[Tuple[str, int]] = None):
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text
        self.limit = limit

    @classmethod
    def of(cls, error) -> "PersonadError":
        limit = (error.limit_name.decode(), error.limit_value) if error.limit_name else None
        return cls(_CODE_NAMES.get(error.code, str(error.code)),
                   error.text.decode("utf-8", "replace"), limit)


class ConnectionLost(Exception):
    """The daemon is gone and did not come back in time."""


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in a tree: a node, and an offset in tokens (None: its end). Node 0 is the root."""
    node: int = 0
    offset: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Human:
    """Somebody who is to join a cast."""
    name: str


@dataclasses.dataclass(frozen=True)
class Member:
    """A speaker of a session's cast; persona: the id of its version, None for a human."""
    speaker: int
    name: str
    persona: Optional[int]


@dataclasses.dataclass(frozen=True)
class Note:
    """What the model reads `depth` turns before the one that it writes."""
    text: str
    depth: int
    role: str            # "system", "user" or "assistant"
    position: Position   # where it was set


@dataclasses.dataclass
class Numbers:
    """One entry a sampled token, the one that ended the node included. Nats."""
    tokens: List[int] = dataclasses.field(default_factory=list)
    logprobs: List[float] = dataclasses.field(default_factory=list)
    sampler_logprobs: List[float] = dataclasses.field(default_factory=list)
    entropies: List[float] = dataclasses.field(default_factory=list)
    tops: List[List[Tuple[int, float]]] = dataclasses.field(default_factory=list)

    def add(self, message) -> None:
        """Appends a message's entries."""
        count = message.top_count
        self.tokens.extend(message.tokens)
        self.logprobs.extend(message.logprobs)
        self.sampler_logprobs.extend(message.sampler_logprobs)
        self.entropies.extend(message.entropies)
        if count:
            pairs = list(zip(message.top_tokens, message.top_logprobs))
            self.tops.extend(pairs[at:at + count] for at in range(0, len(pairs), count))


@dataclasses.dataclass
class Node:
    """A run of tokens in a session's tree."""
    id: int
    session: int
    parent: Position
    ordinal: int
    speaker: int
    origin: str
    finish: str
    content_tokens: int
    child_count: int
    seed: int
    raw_text: bytes = b""
    content: Sequence[int] = ()
    numbers: Optional[Numbers] = None
    error: Optional[PersonadError] = None
    turns_left_out: int = 0

    @property
    def text(self) -> str:
        """A fork may have split a character: what is no UTF-8 shows as U+FFFD."""
        return self.raw_text.decode("utf-8", "replace")

    def position(self, offset: Optional[int] = None) -> Position:
        return Position(self.id, offset)

    @classmethod
    def of(cls, info) -> "Node":
        numbers = None
        if info.HasField("numbers"):
            numbers = Numbers()
            numbers.add(info.numbers)
        return cls(id=info.id, session=info.session,
                   parent=Position(info.parent.node, info.parent.offset), ordinal=info.ordinal,
                   speaker=info.speaker, origin=_ORIGIN_NAMES.get(info.origin, "?"),
                   finish=_FINISH_NAMES.get(info.finish, "?"), content_tokens=info.content_tokens,
                   child_count=info.child_count, seed=info.seed, raw_text=info.text,
                   content=tuple(info.content), numbers=numbers,
                   error=PersonadError.of(info.error) if info.HasField("error") else None,
                   turns_left_out=info.turns_left_out)


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a node gained while it was followed."""
    node: int
    raw_text: bytes

    @property
    def text(self) -> str:
        return self.raw_text.decode("utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class Alternative:
    token: int
    logprob: float
    piece: bytes


@dataclasses.dataclass(frozen=True)
class Distribution:
    entropy: float
    top: List[Alternative]
    logprobs: List[float]


@dataclasses.dataclass(frozen=True)
class Scored:
    logprob: float
    token_logprob: float
    share: float
    token_count: int
    tokens: List[int]
    logprobs: List[float]


@dataclasses.dataclass(frozen=True)
class Expanded:
    """A node of an expansion. Parents have smaller numbers; 0 is the place."""
    number: int
    parent: int
    level: int              # tokens of the path to it
    token: int
    piece: bytes
    logprob: float
    entropy: float          # of the distribution that the token is one of
    joint_logprob: float
    ends: bool              # the turn, and so it does not grow


@dataclasses.dataclass
class Expansion:
    """A tree of likely continuations; the daemon forgets it with the connection, at the latest."""
    id: int = 0
    nodes: List[Expanded] = dataclasses.field(default_factory=list)
    context_tokens: int = 0
    growing_count: int = 0
    end: Optional[str] = None  # "depth", "probability", "nodes", "context", "cancelled"

    def __getitem__(self, number: int) -> Expanded:
        if not 1 <= number <= len(self.nodes):
            raise IndexError(number)
        return self.nodes[number - 1]

    def children(self, number: int = 0) -> List[Expanded]:
        """Likeliest first; without a number, those of the place."""
        return [node for node in self.nodes if node.parent == number]

    def path(self, number: int) -> List[Expanded]:
        """From the place to that node."""
        path: List[Expanded] = []
        while number:
            path.insert(0, self[number])
            number = path[0].parent
        return path

    def text(self, number: int) -> str:
        return b"".join(node.piece for node in self.path(number)).decode("utf-8", "replace")

    def add(self, reply) -> None:
        if reply.first == 1:
            self.nodes.clear()  # it was asked for again
        first = len(self.nodes) + 1
        ends = set(reply.end_nodes)
        columns = zip(reply.parents, reply.tokens, reply.pieces, reply.logprobs, reply.entropies,
                      reply.joint_logprobs)
        self.nodes.extend(
            Expanded(first + i, parent, reply.level, token, piece, logprob, entropy, joint,
                     first + i in ends)
            for i, (parent, token, piece, logprob, entropy, joint) in enumerate(columns))
        self.id = reply.expansion
        self.context_tokens = reply.context_tokens
        self.growing_count = reply.growing_count
        self.end = _EXPAND_END_NAMES.get(reply.end, "?") if reply.HasField("end") else None


@dataclasses.dataclass(frozen=True)
class Group:
    text: str
    nodes: List[int]
    share: float
    mass: Optional[float]


@dataclasses.dataclass(frozen=True)
class Compared:
    """A path as each of some personas sees it; lists of floats run over the tokens of all spans."""
    spans: List[Tuple[int, int, List[int]]]  # node, offset of the first token, ids
    logprobs: Dict[int, List[float]]         # by persona
    ratios: Dict[int, float]
    divergences: Dict[int, List[float]]      # empty unless asked for


@dataclasses.dataclass(frozen=True)
class Difference:
    """A node that is not what it was, or that is of another arithmetic."""
    node: int
    session: int
    number: str
    index: int
    foreign: bool
    difference_max: float
    other_tokens: List[int]
    error: Optional[PersonadError]

    @classmethod
    def of(cls, node) -> "Difference":
        return cls(node.node, node.session, _VERIFIED_NAMES.get(node.number, "?"), node.index,
                   node.foreign, node.difference_max, list(node.other_tokens),
                   PersonadError.of(node.error) if node.HasField("error") else None)


@dataclasses.dataclass
class Verification:
    node_count: int = 0
    equal_count: int = 0
    different_count: int = 0
    foreign_count: int = 0
    failed_count: int = 0
    token_count: int = 0
    differences: List[Difference] = dataclasses.field(default_factory=list)

    def add(self, reply) -> None:
        for name in ("node_count", "equal_count", "different_count", "foreign_count",
                     "failed_count", "token_count"):
            setattr(self, name, getattr(reply, name))
        self.differences.extend(Difference.of(node) for node in reply.nodes)
