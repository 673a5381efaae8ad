"""Goal: the daemon finds what can compute, takes what was asked for, and says why it could not.
Method: the real CUDA library where it was built (no card is needed to be refused), the same kernels
over the emulator where a card must answer.
"""
import os
import subprocess

import pytest

from client import CODES, FINISHES, bits, position
from conftest import bin_folder, tiny_model

EMULATED = os.path.join(bin_folder(), "../emulated/libpersonad_cuda_emulated.so")
NOWHERE = {"PERSONAD_BACKEND_PATH": "/nowhere"}


@pytest.fixture
def card():
    """What makes the emulator the only card."""
    if not os.path.exists(EMULATED):
        pytest.skip("no emulated card here: with sanitizers the emulator's own tests run")
    return {"PERSONAD_BACKEND_PATH": os.path.abspath(EMULATED)}


def run(*arguments, environment):
    made = subprocess.run([os.path.join(bin_folder(), "personad"), *arguments], timeout=60,
                          capture_output=True, text=True, env={**os.environ, **environment})
    return made.returncode, made.stdout, made.stderr


def refusal(folder, *options, environment):
    code, out, err = run("--model", tiny_model(), "--socket", os.path.join(folder, "s"), "--data",
                         os.path.join(folder, "data"), *options, environment=environment)
    assert code == 1 and out == "", (out, err)
    return err


def test_devices_lists_the_cpu_and_every_card(card):
    code, out, _ = run("--devices", environment=card)
    assert code == 0
    assert out.startswith("cpu: ")
    assert "cuda 0: emulator, compute capability" in out


def test_devices_says_why_there_is_no_card():
    code, out, _ = run("--devices", environment=NOWHERE)
    assert code == 0
    assert out.startswith("cpu: ")
    assert "/nowhere/libpersonad_cuda.so" in out


def test_auto_takes_the_card(start, card):
    daemon = start("--backend", "auto", environment=card)
    with daemon.client() as client:
        info = client.call("info").info
        assert info.backend.startswith(b"cuda: emulator")
        assert info.numerics_id.startswith(b"cuda/")
        node = client.complete(b"Hello", max_tokens=2, ignore_end=True)
        assert node.finish == FINISHES["LENGTH"]


def test_auto_falls_back_to_the_cpu_and_says_so(start):
    daemon = start("--backend", "auto", environment=NOWHERE)
    with daemon.client() as client:
        info = client.call("info").info
        assert info.backend.startswith(b"cpu: ")
        assert b"PERSONAD_BACKEND_PATH: /nowhere" in info.backend
        assert info.numerics_id.startswith(b"cpu/")
    assert "no card: this build has no CUDA backend" in daemon.log()


def test_auto_falls_back_when_the_model_does_not_fit(start, card):
    daemon = start("--backend", "auto", "--gpu-memory", "1", environment=card)
    with daemon.client() as client:
        assert client.call("info").info.backend.startswith(b"cpu: ")
    assert "--gpu-memory" in daemon.log()


def test_asked_for_cuda_nothing_else_will_do(folder):
    err = refusal(folder, "--backend", "cuda", environment=NOWHERE)
    assert "--backend cuda" in err and "/nowhere" in err


def test_a_card_that_is_not_there_is_counted(folder, card):
    err = refusal(folder, "--backend", "cuda", "--device", "7", environment=card)
    assert "card 7" in err and "--devices" in err


def test_too_little_memory_names_what_did_not_fit(folder, card):
    options = ("--model", tiny_model("F32-bpe"), "--backend", "cuda", "--context", "256")
    err = refusal(folder, *options, "--gpu-memory", "1", environment=card)
    assert "tensor token_embd.weight takes 512 KiB" in err and "--gpu-memory" in err
    err = refusal(folder, *options, "--gpu-memory", "10", environment=card)
    assert "pages of 16 KiB are the least" in err and "--gpu-memory" in err
    err = refusal(folder, *options,
                  environment={**card, "PERSONAD_EMULATED_MEMORY_MIB": "1"})
    assert "no room" in err, err


def test_the_pool_takes_what_is_left_of_the_memory(start, card):
    daemon = start("--backend", "cuda", "--kv-memory", "0", "--gpu-memory", "100",
                   environment=card)
    with daemon.client() as client:
        info = client.call("info").info
        assert 1 << 20 < info.kv_bytes < 100 << 20
        assert info.kv_bytes == info.kv_page_count * (info.kv_bytes // info.kv_page_count)


def reply_on(daemon):
    """A conversation that shares pages, with siblings: the nodes' bits."""
    with daemon.client() as client:
        session = client.open(seed=5)
        client.append(session, b"The tide was out.")
        made = client.generate(session, n=2, max_tokens=10, ignore_end=True, numbers=True)
        return [(node.finish, node.text, bits(node.numbers)) for node in made.replies()]


def test_siblings_differ_in_their_first_tokens_on_a_card_too(start, card):
    """As on the CPU (test_prescribed.py): none twice before all were drawn, and a sibling alone
    draws what it draws in its group."""
    daemon = start("--backend", "cuda", environment=card)
    with daemon.client() as client:
        session = client.open(seed=2)
        given = client.append(session, b"Pick a word: ").id

        def siblings(n, distinct):
            made = client.generate(session, position=position(given), n=n, raw_seed=77,
                                   distinct_first=distinct, max_tokens=1, ignore_end=True,
                                   numbers=True, top_k=5, top_p=1.0, min_p=0.0)
            return [(node.numbers.tokens[0], bits(node.numbers)) for node in made.replies()]

        many = siblings(12, True)
        firsts = [token for token, _ in many]
        assert len(set(firsts[:5])) == len(set(firsts[5:10])) == len(set(firsts)) == 5
        assert siblings(3, True) == many[:3]
        assert len({token for token, _ in siblings(5, False)}) < 5, "the twin: without it they meet"


def test_keys_and_values_are_kept_as_asked_for(folder, start, card):
    page_bytes, replies = {}, {}
    for kind in ("f16", "bf16", "fp8"):
        daemon = start("--backend", "cuda", "--kv-type", kind, "--data",
                       os.path.join(folder, kind), socket=os.path.join(folder, "s" + kind),
                       environment=card)
        with daemon.client() as client:
            info = client.call("info").info
            assert info.numerics_id.endswith(b"kv-" + kind.encode())
            page_bytes[kind] = info.kv_bytes // info.kv_page_count
        replies[kind] = reply_on(daemon)
    assert page_bytes["f16"] == page_bytes["bf16"]
    assert page_bytes["f16"] // 2 < page_bytes["fp8"] < page_bytes["f16"]
    assert replies["f16"] != replies["bf16"] != replies["fp8"]


def test_the_cpu_has_one_kind_of_keys_and_values(folder):
    err = refusal(folder, "--backend", "cpu", "--kv-type", "fp8", environment=NOWHERE)
    assert "f16" in err and "card" in err


def test_weights_are_kept_as_asked_for(folder, start, card):
    config = os.path.join(folder, "weights.ini")
    with open(config, "w", encoding="ascii") as file:
        file.write("weights = fp8\n")
    replies = {}
    for name, options in (("default", ()), ("as-is", ("--weights", "as-is")),
                          ("fp8", ("--weights", "fp8")), ("file", ("--config", config))):
        daemon = start("--backend", "cuda", *options, "--data", os.path.join(folder, name),
                       model=tiny_model("F32-bpe"), socket=os.path.join(folder, "s" + name),
                       environment=card)
        with daemon.client() as client:
            numerics_id = client.call("info").info.numerics_id
        assert numerics_id.endswith(b"/w-fp8") == (name in ("fp8", "file")), numerics_id
        replies[name] = reply_on(daemon)
        assert all(finish == FINISHES["LENGTH"] for finish, _, _ in replies[name])
    assert replies["default"] == replies["as-is"]
    assert replies["fp8"] == replies["file"]
    assert replies["as-is"] != replies["fp8"], "the setting does not reach the weights"


def test_the_cpu_keeps_weights_as_they_are(folder, start):
    err = refusal(folder, "--backend", "cpu", "--weights", "fp8", environment=NOWHERE)
    assert "as-is" in err and "fp8 weights need a card" in err
    err = refusal(folder, "--backend", "auto", "--weights", "fp8", environment=NOWHERE)
    assert "fp8 weights need a card" in err
    start("--backend", "cpu", "--weights", "as-is", environment=NOWHERE)


HEAD = "personad gpu providers 1\ncard sm_90\n"


@pytest.fixture
def table(folder):
    """Writes a table of providers; its path."""
    def write(text):
        path = os.path.join(folder, "providers.txt")
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path
    return write


def test_a_table_of_providers_is_another_arithmetic(folder, start, card, table):
    path = table(HEAD + "Q8_0 512 256 wgmma 1\nQ8_0 256 256 wgmma 9\n")
    code, out, _ = run("--devices", "--gpu-providers", path, environment=card)
    assert code == 0
    assert f"providers: {path} is for sm_90, id p-" in out and "2 shapes" in out
    assert "providers: Q8_0 256 256 wgmma 9\n" in out
    assert "cuda 0: the table of providers is for such a card" in out
    digest = out.split("id p-")[1][:16].encode()
    plain = start("--backend", "cuda", environment=card)
    expected = reply_on(plain)
    other = start("--backend", "cuda", "--gpu-providers", path, "--data",
                  os.path.join(folder, "other"), socket=os.path.join(folder, "other.sock"),
                  environment={**card, "PERSONAD_EMULATED_FAULTS": "5"})
    assert reply_on(other) == expected, "wgmma and mma sum alike on this card"
    assert "the device is back" in other.log(), "the table outlives a restart of the card"
    with plain.client() as client:
        numerics_id = client.call("info").info.numerics_id
    with other.client() as client:
        info = client.call("info").info
        assert info.numerics_id == numerics_id + b"/p-" + digest
        assert b"providers for 2 shapes" in info.backend


def test_a_table_that_does_not_fit_is_refused(folder, card, table):
    def refused(text, *options):
        return refusal(folder, "--gpu-providers", table(text), *options, environment=card)

    for backend in ("cpu", "cuda", "auto"):
        err = refused(HEAD + "Q8_0 512 256 magic 1\n", "--backend", backend)
        assert "--gpu-providers" in err and "providers.txt: line 3: 'magic' is no provider" in err
    err = refused(HEAD.replace("90", "80"), "--backend", "cuda")
    assert "the table of providers is for sm_80 and emulator is sm_90" in err
    err = refused(HEAD, "--backend", "cpu")
    assert "a table of providers says what multiplies on a card" in err
    err = refusal(folder, "--gpu-providers", "/nowhere/table", environment=card)
    assert "--gpu-providers: /nowhere/table: No such file" in err


def test_a_card_that_falls_off_the_bus_comes_back_and_no_bit_changes(folder, start, card):
    expected = reply_on(start("--backend", "cuda", environment=card))
    for faults in ("5", "4,x,6,0"):
        other = start("--backend", "cuda", "--data", os.path.join(folder, faults),
                      socket=os.path.join(folder, "s" + faults),
                      environment={**card, "PERSONAD_EMULATED_FAULTS": faults})
        assert reply_on(other) == expected, faults
        assert "the device is back" in other.log(), faults


def test_two_restarts_that_fail_end_the_node_and_leave_the_tree(start, card):
    daemon = start("--backend", "cuda",
                   environment={**card, "PERSONAD_EMULATED_FAULTS": "6,x,x,0"})
    with daemon.client() as client:
        session = client.open(seed=5)
        given = client.append(session, b"The tide was out.")
        (node,) = client.generate(session, max_tokens=20, ignore_end=True).replies()
        assert node.finish == FINISHES["FAILED"]
        assert node.error.code == CODES["DEVICE"]
        assert b"pulled the card" in node.error.text
        ids = [kept.id for kept in client.call("walk", session=session).walk.nodes]
        assert given.id in ids and node.id in ids
        # The next one finds the card again.
        (node,) = client.generate(session, max_tokens=4, ignore_end=True).replies()
        assert node.finish == FINISHES["LENGTH"]
