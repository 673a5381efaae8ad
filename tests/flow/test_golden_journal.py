"""Goal: a journal that any released version wrote opens, shows what it showed, goes on with what
was unfinished, and verifies bit for bit.
Method: the golden files of tests/fixtures/journal, one of every version (docs/JOURNAL.md), are put
into a data folder; what the daemon shows is compared with the text beside each. Twins with one
changed bit must be caught.

When the numerics id or the tiny model changes for good, the golden files can be read but not
computed again. Then move their versions to FOREIGN, which asks for less of them. So that something
is held to every bit again, the next version needs a golden file made by the new arithmetic
(scripts/fixtures/journal.py); one that no release has written yet may be made anew.
"""
import glob
import os
import re
import shutil
import sqlite3

import pytest

from client import CODES, FINAL_ONLY, ROOT, Refused
from conftest import flow_backend, tiny_model
from telling import sessions_of, tell

FOLDER = os.path.join(ROOT, "tests/fixtures/journal")
VERSIONS = sorted(int(re.search(r"v(\d+)\.db$", path).group(1))
                  for path in glob.glob(os.path.join(FOLDER, "v*.db")))
FOREIGN = []  # versions whose numerics id or model no build computes any more
EQUAL = [version for version in VERSIONS if version not in FOREIGN]


def newest_version():
    folder = os.path.join(ROOT, "daemon/journal/migrations")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return 1 + sum(name.endswith(".sql") for name in names)


def place(folder, version, change=None):
    """The golden file as this user's journal; the ids of the nodes that were under way."""
    data = os.path.join(folder, "data")
    os.makedirs(data, mode=0o700)
    path = os.path.join(data, "journal.db")
    shutil.copyfile(os.path.join(FOLDER, f"v{version}.db"), path)
    os.chmod(path, 0o600)
    with sqlite3.connect(path) as database:
        for column in ("session.owner_uid", "persona.owner_uid", "client_key.uid"):
            table, name = column.split(".")
            database.execute(f"UPDATE {table} SET {name} = ? WHERE {name} = 0", (os.getuid(),))
        if change:
            change(database)
        timeless = [row[0] for row in database.execute("SELECT id FROM node WHERE finish = 0")]
    database.close()
    return path, timeless


def expected(version):
    with open(os.path.join(FOLDER, f"v{version}.txt"), encoding="utf-8") as file:
        return file.readline(), file.read()


def options(version):
    """What a daemon computes the journal with as it was written: its first versions kept halves."""
    return ("--kv-type", "f16") if "/kv-f16" in expected(version)[0] else ()


def check_origin(client, version):
    if flow_backend() != "cpu":
        pytest.skip("the golden journals were computed on the CPU; this is another numerics id")
    info = client.call("info").info
    assert expected(version)[0] == \
        f"model {info.model_hash.hex()} numerics {info.numerics_id.decode()}\n", \
        "the arithmetic or the tiny model changed: the first comment here says what to do"


def verify(client, **what):
    request = client.send("verify", **what)
    nodes = []
    while True:
        reply = client.next_of(request)
        if reply.WhichOneof("result") == "error":
            raise Refused(reply.error)
        nodes += reply.verify.nodes
        if not reply.more:
            return reply.verify, nodes


def test_there_is_a_golden_file_of_every_version():
    assert VERSIONS == list(range(1, newest_version() + 1)), \
        "scripts/fixtures/journal.py makes the one that is missing"


@pytest.mark.parametrize("version", EQUAL)
def test_an_old_journal_shows_what_it_showed_and_verifies(start, folder, version):
    path, timeless = place(folder, version)
    daemon = start(*options(version))
    with daemon.client() as client:
        check_origin(client, version)
        assert tell(client, timeless) == expected(version)[1]
        result, nodes = verify(client, all=True)
        assert not nodes and result.node_count >= 30
        assert result.equal_count == result.node_count
    assert "3 of 3 unfinished replies go on" in daemon.log()
    assert os.path.exists(f"{path}.v{version}") == (version < newest_version())
    # And once more, from what was written meanwhile.
    daemon.end()
    with start(*options(version)).client() as client:
        assert tell(client, timeless) == expected(version)[1]


@pytest.mark.parametrize("version", EQUAL)
def test_an_old_journal_goes_on(start, folder, version):
    """Client keys are known, ids go on behind the last, the session speaks on."""
    place(folder, version)
    with start(*options(version)).client() as client:
        check_origin(client, version)
        again = client.call("session_open", persona_name=b"keeper", client_key=b"open-talk")
        session = again.session_open.session
        assert session.label == b"talk"
        repeat = client.finish(client.send("say", session=session.id, text=b"", n=3,
                                           client_key=b"say-talk", delivery=FINAL_ONLY))
        assert len(repeat.replies()) == 3
        assert all(node.id < 20 for node in repeat.nodes)
        last = max(info.id for info in sessions_of(client))
        assert client.open() > last
        made = client.finish(client.send_generate(session.id, op="say", text=b"Still here?",
                                                  max_tokens=9))
        assert min(node.id for node in made.nodes) > 60


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_journal_is_read_under_another_model(start, folder, version):
    """As one whose arithmetic no build computes any more."""
    place(folder, version)
    with start(model=tiny_model("F16-bpe")).client() as client:
        texts = [line for line in tell(client).splitlines() if line.startswith("  text")]
        known = [line for line in expected(version)[1].splitlines() if line.startswith("  text")]
        assert sum(line in texts for line in known) >= len(known) - 3 > 40
        result = verify(client, all=True)[0]
        assert result.equal_count == 0 and result.failed_count + result.foreign_count >= 30


def change_a_number(database):
    key, numbers = database.execute("SELECT key, logprobs FROM chunk ORDER BY key").fetchone()
    changed = bytes([numbers[0] ^ 1]) + numbers[1:]
    database.execute("UPDATE chunk SET logprobs = ? WHERE key = ?", (changed, key))


def change_a_label(database):
    changed = database.execute("UPDATE session SET label = ? WHERE label = ?", (b"tale", b"talk"))
    assert changed.rowcount == 1


@pytest.mark.parametrize("version", EQUAL)
def test_one_changed_bit_of_a_number_is_caught(start, folder, version):
    _, timeless = place(folder, version, change_a_number)
    with start(*options(version)).client() as client:
        check_origin(client, version)
        assert tell(client, timeless) != expected(version)[1]
        result, nodes = verify(client, all=True)
        assert result.different_count == 1 and len(nodes) == 1


@pytest.mark.parametrize("version", EQUAL)
def test_one_changed_byte_of_a_label_is_caught(start, folder, version):
    _, timeless = place(folder, version, change_a_label)
    with start(*options(version)).client() as client:
        check_origin(client, version)
        assert tell(client, timeless) != expected(version)[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_journal_of_the_next_version_is_refused(start, folder, version):
    path, _ = place(folder, version)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {newest_version() + 1}")
    database.close()
    with open(path, "rb") as file:
        before = file.read()
    daemon = start(expect_ready=False)
    assert daemon.wait() == 1
    assert "a newer personad wrote it" in daemon.log()
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_session_that_was_purged_stays_away(start, folder):
    place(folder, 1)
    with start().client() as client:
        purged = 7
        assert purged not in [info.id for info in sessions_of(client)]
        with pytest.raises(Refused) as refused:
            client.call("session_delete", session=purged, undo=True)
        assert refused.value.code == CODES["NOT_FOUND"]
