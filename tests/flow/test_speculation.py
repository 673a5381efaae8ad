"""Guesses of the next tokens change how fast a reply comes and no bit of it.

Two daemons, one of which guesses nothing, are asked the same under the same seeds; whatever they
answer is compared bit by bit. What the guesses are taken from is there on purpose: siblings of the
same place, of the same and of other seeds, and a path that repeats itself.
"""
import os

import pytest

from client import FINISHES, bits, position
from conftest import Daemon, assert_clean, flow_backend

ROUND = b"One for the road, two for the road, three for the road, four for"
SAMPLERS = (
    {"temperature": 0},
    {"temperature": 0.8, "top_count": 3},
    {"temperature": 1.0, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "penalty_range": 0},
    {"temperature": 0.3, "min_tokens": 9, "stop": [b"e", b"qu"]},
    {"temperature": 0.5, "bias": {7: 3.0, 11: -4.0}, "top_k": 5},
)


@pytest.fixture
def guessing(folder):
    """Daemons with and without guesses."""
    made = []
    for name, options in (("a", ()), ("b", ("--speculation", "off"))):
        path = os.path.join(folder, name)
        os.mkdir(path, 0o700)
        made.append(Daemon(path, *options))
    yield made
    for daemon in made:
        daemon.end()
        assert_clean(daemon)


def drafts_of(daemon):
    with daemon.client() as client:
        stats = client.call("stats").stats
        return stats.drafted_count, stats.accepted_count


def tell(daemon, steps, seed):
    """Everything that a session says: a reply, one like it again, others, and a reply to it."""
    with daemon.client() as client:
        session = client.open(seed=seed)
        node = client.append(session, ROUND)
        place = position(node.id)
        wanted = {"position": place, "max_tokens": 50, "numbers": True, **steps}
        said = [client.generate(session, raw_seed=seed, **wanted)]
        said.append(client.generate(session, raw_seed=seed, **wanted))
        said.append(client.generate(session, n=3, **wanted))
        said.append(client.generate(session, **wanted))
        wanted["position"] = position(said[0].replies()[0].id)
        said.append(client.generate(session, **wanted))
        return [(reply.text, reply.finish, bits(reply.numbers))
                for made in said for reply in made.replies()], session


def test_replies_are_equal_with_and_without(guessing):
    quick, plain = guessing
    for seed, steps in enumerate(SAMPLERS):
        ours, _ = tell(quick, steps, seed + 1)
        theirs, _ = tell(plain, steps, seed + 1)
        assert ours == theirs
        assert ours[0][2] == ours[1][2], "an equal seed says the same again"
    assert drafts_of(plain) == (0, 0)
    drafted, accepted = drafts_of(quick)
    if flow_backend() == "cpu":
        assert drafted > accepted > 100
    else:
        assert drafted == 0, "only the CPU backend checks guesses"


def test_another_seed_gives_other_bits(guessing):
    """The twin: the comparison above can fail."""
    quick, plain = guessing
    assert tell(quick, SAMPLERS[1], 1)[0] != tell(plain, SAMPLERS[1], 2)[0]


def test_what_was_guessed_verifies(guessing):
    quick = guessing[0]
    _, session = tell(quick, SAMPLERS[2], 3)
    with quick.client() as client:
        request = client.send("verify", session=session)
        reply = client.next_of(request)
        while reply.more:
            reply = client.next_of(request)
        assert reply.verify.equal_count == reply.verify.node_count >= 7


def test_choices_and_distinct_siblings_are_as_without(guessing):
    answers = []
    for daemon in guessing:
        with daemon.client() as client:
            session = client.open(seed=5)
            node = client.append(session, ROUND)
            wanted = {"position": position(node.id), "max_tokens": 40, "numbers": True}
            made = [client.generate(session, choices=[b" the road", b" the rest", b" me"], **wanted)
                    for _ in range(3)]
            made.append(client.generate(session, n=4, distinct_first=True, **wanted))
            answers.append([(reply.text, bits(reply.numbers))
                            for one in made for reply in one.replies()])
    assert answers[0] == answers[1]


def test_the_length_asked_for_is_kept(guessing):
    quick = guessing[0]
    with quick.client() as client:
        session = client.open(seed=8)
        place = position(client.append(session, ROUND).id)
        for count in list(range(1, 20)) + [64, 65]:
            node = client.generate(session, position=place, max_tokens=count, raw_seed=1,
                                   ignore_end=True, numbers=True).replies()[0]
            assert len(node.numbers.tokens) == count
            assert node.finish == FINISHES["LENGTH"]


def test_info_says_whether_there_are_guesses(guessing):
    for daemon, wanted in zip(guessing, (b"auto", b"off")):
        with daemon.client() as client:
            is_on = wanted == b"auto" and flow_backend() == "cpu"
            assert client.call("info").info.speculation == (b"auto" if is_on else b"off")
