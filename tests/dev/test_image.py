"""The image is built by what works on the machine, and where nothing does, buildah comes.

Goal: a machine with no builder, and one that reaches no registry, still gets its image.
Method: docker, podman and buildah of ours, which note how they are called.
"""
import pytest

BUILDAH = """
case $1 in
info) {info} ;;
from) echo working-container ;;
esac
"""


@pytest.fixture
def plain(world):
    """A world where no builder is installed."""
    world.program("dpkg-query", "exit 1")
    world.program("id", "echo 0")
    return world


def builds(world):
    return [call for name in ("docker", "podman", "buildah") for call in world.calls(name)
            if call.split()[1] == "build"]


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_builder_that_works_is_taken(plain, name):
    plain.program(name, "")
    result = plain.dev("image")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "personad:cpu\n"
    (call,) = builds(plain)
    assert call.startswith(f"{name} build --file {plain.root}/docker/cpu.Dockerfile")
    assert plain.calls("apt-get") == []


def test_a_builder_that_does_not_work_is_passed_over(plain):
    plain.program("docker", "exit 1")
    plain.program("buildah", BUILDAH.format(info="true"))
    result = plain.dev("image", "--cuda")
    assert result.returncode == 0 and result.stdout == "personad:cuda\n"
    (call,) = builds(plain)
    assert call.startswith("buildah build ") and "cuda.Dockerfile" in call
    assert "--format docker" in call


def test_where_none_works_buildah_is_installed(plain):
    text = BUILDAH.format(info="true").replace("$", "\\$")
    plain.link("chmod")
    plain.program("apt-get", f"""
case $* in *buildah*) ;; *) exit 0 ;; esac
cat >"{plain.bin}/buildah" <<END
#!/bin/sh
echo "buildah \\$*" >>"{plain.calls_file}"
{text}
END
chmod +x "{plain.bin}/buildah"
""")
    result = plain.dev("image")
    assert result.returncode == 0, result.stderr
    assert len(builds(plain)) == 1


def test_where_nothing_can_work_it_says_so(plain):
    result = plain.dev("image")
    assert result.returncode == 1 and builds(plain) == []
    assert "neither docker, podman nor buildah works here" in result.stderr


def test_buildah_needs_no_runtime_and_falls_back_to_plain_storage(plain):
    plain.program("buildah", BUILDAH.format(info='[ "$STORAGE_DRIVER" = vfs ] || exit 1') + f"""
echo "under $BUILDAH_ISOLATION $STORAGE_DRIVER $1" >>"{plain.calls_file}"
""")
    assert plain.dev("image").returncode == 0
    assert "under chroot vfs build" in plain.calls()


@pytest.mark.parametrize("name", ["docker", "buildah"])
def test_a_file_system_becomes_the_base(plain, name):
    plain.program(name, BUILDAH.format(info="true"))
    base = plain.root / "base.tar"
    base.write_text("a file system")
    result = plain.dev("image", "--base", str(base))
    assert result.returncode == 0, result.stderr
    imported = [call for call in plain.calls(name) if str(base) in call]
    assert len(imported) == 1 and imported[0].split()[1] in ("import", "add")
    assert "--build-arg BASE=localhost/personad-base:latest" in builds(plain)[0]


def test_a_base_that_is_not_there_is_named(plain):
    plain.program("docker", "")
    result = plain.dev("image", "--base", "/nowhere/base.tar")
    assert result.returncode == 1 and "/nowhere/base.tar" in result.stderr
    assert builds(plain) == []


def test_a_build_that_fails_names_no_image(plain):
    plain.program("docker", '[ "$1" != build ]')
    result = plain.dev("image")
    assert result.returncode == 1 and result.stdout == ""
