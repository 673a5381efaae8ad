"""A model as a Hugging Face folder, as a user names one with --model: it answers as the same
weights in a GGUF file do, to the last digit of every log probability."""
import os

import pytest

from cli import objects, persona
from conftest import flow_backend, tiny_model

ASKED = ["complete", "--json", "-n", "2", "--temperature", "0.8", "--seed", "11", "--max-tokens",
         "24", "The keeper of the light"]


def folder_model():
    path = os.path.join(os.path.dirname(tiny_model("BF16-bpe")), "tiny-hf")
    if not os.path.isdir(path):
        pytest.skip(f"{path} is missing; ./dev test makes it")
    return path


@pytest.mark.skipif(flow_backend() != "cpu", reason="the emulator would take minutes")
def test_a_folder_answers_as_the_same_weights_in_a_file(start):
    told = []
    for model in (tiny_model("BF16-bpe"), folder_model()):
        daemon = start(model=model)
        told.append(objects(persona(daemon, *ASKED)))
        daemon.end()
    assert len(told[0]) == 2 and len(told[0][0]["tokens"]) > 4
    for field in ("tokens", "logprobs", "entropies", "text", "finish", "prompt_tokens"):
        assert [child[field] for child in told[0]] == [child[field] for child in told[1]]
