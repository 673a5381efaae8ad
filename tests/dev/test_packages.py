"""Packages are installed where they lack, and only there.

Goal: a second run touches no network, and a user without root is told the exact line.
Method: the scripts run on a PATH where dpkg-query, apt-get, id and sudo are ours.
"""
MISSING_UNZIP = '[ "$4" = unzip ] || printf installed'
LINE = "apt-get install -y --no-install-recommends unzip"


def test_nothing_is_asked_of_apt_when_nothing_is_missing(world):
    world.pip_brings(b"whatever")
    world.dev("model")
    assert world.calls("dpkg-query")
    assert not world.calls("apt-get")


def test_only_what_is_missing_is_installed_after_one_update(world):
    world.pip_brings(b"whatever")
    world.program("id", "echo 0")
    world.program("dpkg-query", MISSING_UNZIP)
    world.dev("model")
    calls = world.calls("apt-get")
    assert len(calls) == 2
    assert "update" in calls[0]
    assert calls[1].startswith(LINE)


def test_a_broken_list_does_not_stop_the_installation(world):
    world.pip_brings(b"whatever")
    world.program("id", "echo 0")
    world.program("dpkg-query", MISSING_UNZIP)
    world.program("apt-get", 'case "$*" in *update*) exit 100 ;; esac')
    world.dev("model")
    assert len(world.calls("apt-get install")) == 1
    assert world.calls("python")


def test_a_failed_installation_ends_with_the_line_to_try(world):
    world.program("id", "echo 0")
    world.program("dpkg-query", MISSING_UNZIP)
    world.program("apt-get", "exit 100")
    result = world.dev("model")
    assert result.returncode == 1
    assert LINE in result.stderr


def test_without_root_and_sudo_the_exact_line_is_printed_and_nothing_else_happens(world):
    world.program("id", "echo 1000")
    world.program("dpkg-query", MISSING_UNZIP)
    result = world.dev("model")
    assert result.returncode == 1
    assert f"    apt-get update && {LINE}\n" in result.stderr
    assert not world.calls("apt-get")
    assert result.stdout == ""


def test_without_root_sudo_is_used(world):
    world.pip_brings(b"whatever")
    world.program("id", "echo 1000")
    world.program("sudo", '[ "$1" != -n ] || shift\n"$@"')
    world.program("true", "")
    world.program("dpkg-query", MISSING_UNZIP)
    world.dev("model")
    assert len(world.calls("apt-get")) == 2
    assert any(LINE in call for call in world.calls("sudo"))


def test_an_unknown_command_ends_with_2_and_the_list_of_commands(world):
    for command in ("nope", "../dev", "lib", "-x"):
        result = world.dev(command)
        assert result.returncode == 2, command
        assert "usage: ./dev COMMAND" in result.stdout + result.stderr
