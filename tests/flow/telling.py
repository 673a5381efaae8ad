"""All that can be seen of a journal through the socket, as text: what the golden files of
tests/fixtures/journal say, and what two daemons are compared by.
"""
import hashlib
import struct

from client import FINAL_ONLY, NODE, SUBTREE, position

FINISH_NAMES = ["none", "end", "cue", "length", "context", "cut", "failed", "interrupted", "whole"]
ORIGIN_NAMES = ["sampled", "given", "edited", "imported"]


def pages(ask, field):
    """All items of a list that comes in pages."""
    found = []
    while True:
        reply = ask(len(found))
        found += getattr(reply, field)
        if reply.end:
            return found


def sessions_of(client):
    found, after = [], 0
    while True:
        reply = client.call("session_list", after=after, deleted=True).session_list
        found += reply.sessions
        if reply.end:
            return found
        after = found[-1].id


def nodes_of(client, session):
    """Every node, also what is deleted, with its numbers."""
    nodes = pages(lambda skip: client.call("walk", session=session, what=SUBTREE,
                                           position=position(0), deleted=True, text=True,
                                           content=True, skip=skip).walk, "nodes")
    for node in nodes:
        seen = client.call("walk", session=session, what=NODE, position=position(node.id),
                           deleted=True, numbers=True, count=1).walk.nodes[0]
        node.numbers.CopyFrom(seen.numbers)
    return nodes


def wait_for_all(client):
    """Replies that are not at their end yet: a head moves when they are."""
    requests = [client.send("follow", node=node.id, delivery=FINAL_ONLY)
                for info in sessions_of(client) if not info.deleted
                for node in nodes_of(client, info.id) if node.finish == 0]
    for request in requests:
        client.finish(request)


def raw(kind, values):
    return struct.pack(f"<{len(values)}{kind}", *values)


def tell_numbers(numbers):
    """Every bit of them, short."""
    whole = b"".join(raw(kind, values) for kind, values in (
        ("I", numbers.tokens), ("f", numbers.logprobs), ("f", numbers.sampler_logprobs),
        ("f", numbers.entropies), ("I", numbers.top_tokens), ("f", numbers.top_logprobs)))
    return f"{len(numbers.tokens)} {hashlib.sha256(whole).hexdigest()[:32]}"


def tell_context(client, node):
    segments = pages(lambda skip: client.call("context", node=node.id, tokens=True,
                                              skip=skip).context, "segments")
    told = [f"{segment.kind}:{segment.node}:{getattr(segment, 'from')}:{segment.count}"
            for segment in segments]
    ids = hashlib.sha256(raw("I", [i for segment in segments for i in segment.tokens])).hexdigest()
    return f"{' '.join(told)} {ids[:32]}"


def tell_node(client, node, timeless):
    """`timeless`: nodes that ended after the journal was closed, whose end is no fixed time."""
    fields = [
        f"node {node.id} at {node.parent.node}:{node.parent.offset} ordinal {node.ordinal}",
        f"  speaker {node.speaker} {ORIGIN_NAMES[node.origin]} opens {int(node.opens_turn)}"
        f" finish {FINISH_NAMES[node.finish]} children {node.child_count}"
        f" deleted {int(node.deleted)} original {node.original} seed {node.seed}",
        f"  made {node.created_us}"
        f" ended {'later' if node.id in timeless else node.finished_us}",
        f"  text {node.text!r}",
        f"  content {' '.join(map(str, node.content))}"]
    if node.label:
        fields.append(f"  label {node.label!r}")
    if node.numbers.tokens:
        fields.append(f"  numbers {tell_numbers(node.numbers)}")
    if node.context_tokens and not node.deleted:
        fields.append(f"  context {node.context_tokens} left out {node.turns_left_out}"
                      f" {tell_context(client, node)}")
    return fields


def tell_session(client, info, timeless):
    lines = [f"session {info.id} label {info.label!r} seed {info.seed}"
             f" context {info.context_tokens} nodes {info.node_count} made {info.created_us}"
             f" head {info.head.node}:{info.head.offset} deleted {int(info.deleted)}"]
    lines += [f"  speaker {member.speaker} {member.name!r} persona {member.persona}"
              for member in info.cast]
    if info.group_mode:
        lines.append(f"  group {info.group_mode}")
    if info.deleted:
        client.call("session_delete", session=info.id, undo=True)
    note = client.call("note", session=info.id).note.note
    if note.text:
        lines.append(f"  note {note.text!r} depth {note.depth} role {note.role}"
                     f" at {note.position.node}:{note.position.offset} made {note.created_us}")
    for mark in pages(lambda skip: client.call("bookmark_list", session=info.id,
                                               skip=skip).bookmark_list, "bookmarks"):
        lines.append(f"  bookmark {mark.name!r} {mark.position.node}:{mark.position.offset}"
                     f" made {mark.created_us}")
    for node in nodes_of(client, info.id):
        lines += tell_node(client, node, timeless)
    if info.deleted:
        client.call("session_delete", session=info.id)
    return lines


def tell(client, timeless=()):
    """The whole journal of this user."""
    lines = []
    wait_for_all(client)
    for info in sessions_of(client):
        lines += tell_session(client, info, timeless)
    return "\n".join(lines) + "\n"
