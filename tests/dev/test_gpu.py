"""A card's check is packed, unpacked elsewhere and run there, without network and without a card.

Goal: nothing that the check needs is left behind, and its report says what was seen, no more.
Method: programs of ours that note how they are called; then, where the CUDA backend is built, the
real ones in a place that has no network.
"""
import datetime
import os
import re
import shutil
import subprocess

import pytest

from conftest import MODEL, ROOT

PROGRAMS = ("gpu_rates", "gpu_check", "card_kernels", "card_sample", "card_backend_cuda",
            "card_forward")
STAGES = ("rates kernels agreement invariance providers speed memcheck racecheck initcheck "
          "variants peers").split()
RATES = 'echo "card Thing 9000"; echo "copy_gbs 1000.5"; echo "bf16_tflops 70.5"'
NO_CARD = 'echo "# no card: CUDA driver version is insufficient"; exit 77'
KERNELS = 'if [ "$1" = --list ]; then echo one; echo two; else echo "[       OK ] a case"; fi'
CHECK = 'if [ $# = 0 ]; then exit 2; else echo "| agrees |"; fi'
BUILT = os.path.join(ROOT, "build/release")


class Pack:
    """A world whose build is ready, and the place where its pack is unpacked."""

    def __init__(self, world):
        self.world = world
        self.there = world.root.parent / "there"
        for tool in "awk cp du gzip ln python3 sort split sync tail tar timeout".split():
            world.link(tool)
        world.program("nvcc", "echo Cuda compilation tools, release 13.0, V13.0.88")
        world.program("strip", "")
        world.program("ldd", f"""
printf '\\tlibthing.so.1 => {world.root}/libthing.so.1 (0x0)\\n'
printf '\\tlibc.so.6 => {world.root}/libc.so.6 (0x0)\\n'
""")
        for name in ("libthing.so.1", "libc.so.6"):
            (world.root / name).write_text(name)

    def build(self, rates=RATES, check=CHECK, kernels=KERNELS):
        """Programs that stand where a build would put them."""
        build = self.world.root / "build/release"
        bodies = {"gpu_rates": rates, "gpu_check": check, "card_kernels": kernels}
        for name in PROGRAMS:
            self.world.program(name, bodies.get(name, ""), folder=build / "tests")
        self.world.program("personad-bench", "", folder=build / "bin")
        for name in ("lib/libpersonad_cuda.so", "emulated/libpersonad_cuda_emulated.so"):
            (build / name).parent.mkdir()
            (build / name).write_text(name)

    def travel(self, parts=2):
        """Packs, and unpacks with that many parts of the model; the source is gone then."""
        folder = self.world.root.parent / "pack"
        result = self.world.dev("gpu", "--pack", str(folder))
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{folder}/personad-gpu.tar.gz\n"
        self.there.mkdir()
        subprocess.run(["tar", "-C", self.there, "-xzf", folder / "personad-gpu.tar.gz"],
                       check=True)
        for half in sorted(folder.glob("personad-gpu-model.*"))[:parts]:
            shutil.copy(half, self.there / "personad-gpu")
        shutil.rmtree(self.world.root)
        self.world.calls_file.unlink()

    def run(self, *words, before=()):
        return subprocess.run(
            [*before, "/bin/sh", self.there / "personad-gpu/scripts/gpu.sh", *words],
            env=self.world.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=240)

    def report(self, card):
        today = datetime.date.today()
        return (self.there / f"personad-gpu/docs/gpu/{today}-{card}.md").read_text()


@pytest.fixture
def pack(world):
    (world.cache / "models").mkdir(parents=True)
    (world.cache / "models/SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(MODEL)
    return Pack(world)


def results(report):
    return dict(re.findall(r"^\| (\w+) \| (.*?) \|", report, re.M)[1:])


def test_without_a_card_every_stage_is_said_not_to_have_run(pack):
    pack.build(rates=NO_CARD)
    pack.travel()
    result = pack.run()
    assert result.returncode == 3, result.stderr
    report = pack.report("no-card")
    assert list(results(report)) == STAGES
    assert all(text.startswith("did not run: no card (there is no NVIDIA driver")
               for text in results(report).values())
    assert pack.world.calls("card_") == [] and pack.world.calls("personad-bench") == []


def test_with_a_card_all_stages_run_and_are_told_its_rates(pack):
    pack.build()
    pack.travel()
    result = pack.run()
    assert result.returncode == 0, result.stderr
    stages = results(pack.report("Thing-9000"))
    for name in ("rates", "kernels", "agreement", "invariance", "providers", "speed",
                 "variants"):
        assert stages[name] == "passed", name
    for name in ("memcheck", "peers"):
        assert stages[name].startswith(("not here: ", "passed")), name
    assert "--copy 1000.5 --matmul 70.5" in pack.world.calls("personad-bench")[0]
    library = pack.there / "personad-gpu/lib/libpersonad_cuda.so"
    assert f"--library {library}" in "".join(pack.world.calls("gpu_check agree"))


def test_the_table_of_providers_stands_beside_the_report(pack):
    pack.build(check="""
[ $# -gt 0 ] || exit 2
[ "$1" = providers ] || exit 0
while [ "$1" != --out ]; do shift; done
case $* in
*yes*) printf 'personad gpu providers 1\\ncard sm_90\\nFP8 8 64 wgmma 5\\n' >"$2" ;;
*BF16*) printf 'personad gpu providers 1\\ncard sm_90\\nBF16 8 64 wgmma 1\\n' >"$2" ;;
*) printf 'personad gpu providers 1\\ncard sm_90\\nQ4_0 8 64 wgmma 9\\n' >"$2" ;;
esac
""")
    pack.travel()
    assert pack.run().returncode == 0
    assert "Thing-9000.providers" in pack.report("Thing-9000")
    assert "--gpu-providers" in "".join(pack.world.calls("personad-bench"))
    (table,) = (pack.there / "personad-gpu/docs/gpu").glob("*-Thing-9000.providers")
    assert table.read_text() == ("personad gpu providers 1\ncard sm_90\nBF16 8 64 wgmma 1\n"
                                 "FP8 8 64 wgmma 5\nQ4_0 8 64 wgmma 9\n")


def test_the_libraries_come_along_and_the_systems_own_stand_apart(pack):
    pack.build()
    pack.travel()
    lib = pack.there / "personad-gpu/lib"
    assert (lib / "libthing.so.1").read_text() == "libthing.so.1"
    assert (lib / "system/libc.so.6").exists() and not (lib / "libc.so.6").exists()


def test_the_parts_of_the_model_become_one(pack):
    pack.build(check='[ $# -gt 0 ] || exit 2\n[ "$1" != agree ] || cmp "$4" "$KEPT_MODEL"')
    kept = pack.world.root.parent / "kept"
    kept.write_bytes(MODEL)
    pack.world.variables["KEPT_MODEL"] = str(kept)
    pack.travel()
    assert pack.run().returncode == 0
    assert results(pack.report("Thing-9000"))["agreement"] == "passed"


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_model_that_is_not_whole_is_left_out(pack, parts):
    pack.build()
    pack.travel(parts)
    if parts == 2:
        half = pack.there / "personad-gpu/personad-gpu-model.01"
        half.write_bytes(half.read_bytes()[:-1] + b"?")
    assert pack.run().returncode == 0
    agreed = pack.world.calls("gpu_check agree")
    assert len(agreed) == 1 and "default.gguf" not in agreed[0] and "noise:8b" in agreed[0]


def test_a_stage_that_fails_fails_the_run_and_stops_no_other(pack):
    pack.build(check='[ $# -gt 0 ] || exit 2\n[ "$1" != agree ]')
    pack.travel()
    assert pack.run().returncode == 1
    stages = results(pack.report("Thing-9000"))
    assert stages["agreement"] == "**failed** (1)" and stages["invariance"] == "passed"


@pytest.mark.parametrize("kernels, ends", [
    ('[ "$1" != --list ] || echo one', "passed"),
    ('if [ "$1" = --list ]; then echo one two; else [ "$1" = one ]; fi', "**failed** (1)"),
    ("", "**failed** (1)"),  # a list of nothing
    ("exit 3", "**failed** (1)"),
])
def test_every_suite_of_kernels_runs_by_itself(pack, kernels, ends):
    pack.build(kernels=kernels)
    pack.travel()
    assert pack.run().returncode == (0 if ends == "passed" else 1)
    assert results(pack.report("Thing-9000"))["kernels"] == ends
    if "one two" in kernels:
        assert [len(pack.world.calls(f"card_kernels {name}")) for name in ("one", "two")] == [1, 1]
        assert "failed: two" in pack.report("Thing-9000")


def test_what_each_stage_may_take_is_no_more_than_the_whole():
    with open(os.path.join(ROOT, "scripts/gpu.sh"), encoding="utf-8") as file:
        script = file.read()
    limits = dict(re.findall(r"^    (\w+)\) echo (\d+) ;;$", script, re.M))
    (whole,) = re.findall(r"^seconds=(\d+)$", script, re.M)
    assert list(limits) == STAGES
    assert sum(map(int, limits.values())) <= int(whole) < 9 * 60


def test_the_report_says_which_stages_were_cut(pack):
    pack.build(check='[ $# -gt 0 ] || exit 2\n[ "$1" != agree ] || exec sleep 60')
    pack.travel()
    assert pack.run("--seconds", "8").returncode == 1
    report = pack.report("Thing-9000")
    assert "\nCut by their time: agreement.\nDid not run: invariance providers speed" in report
    assert results(report)["agreement"].startswith("**out of time** after ")


def test_a_rehearsal_names_no_card_and_takes_the_emulated_library(pack):
    pack.build()
    pack.travel()
    result = pack.run("--rehearse")
    assert result.returncode == 0, result.stderr
    report = pack.report("Rehearsal-without-a-card")
    assert "nothing here speaks of a card" in report and "Thing" not in report
    assert results(report)["rates"] == "not here: a rehearsal has no card"
    assert "not rehearsed, since they are machine code for a card" in report
    assert pack.world.calls("card_kernels one") == []
    for call in pack.world.calls("gpu_check agree") + pack.world.calls("gpu_check invariance"):
        assert "libpersonad_cuda_emulated.so" in call


def network_is_cut():
    """The words that start a program without network, or none where that is not allowed."""
    words = [shutil.which("unshare"), "--net", "--map-root-user"]
    works = words[0] and subprocess.run([*words, "true"], check=False).returncode == 0
    return words if works else []


def strange_libraries(tree):
    """Which libraries the packed programs would take from outside of the pack."""
    environment = {"LD_LIBRARY_PATH": f"{tree}/lib:{tree}/lib/system", "PATH": os.environ["PATH"]}
    strange = []
    for program in [*(tree / "bin").iterdir(), *(tree / "lib").glob("libpersonad*")]:
        listed = subprocess.run(["ldd", program], env=environment, capture_output=True, text=True,
                                check=True).stdout
        places = re.findall(r"^\s*(\S+) => (.*?) \(|^\s*(\S+) => (not found)", listed, re.M)
        assert places, listed
        strange += [place for place in places if not place[1].startswith(str(tree))]
    return strange


def test_the_real_programs_start_where_they_are_unpacked(pack):
    """Up to the first call that needs a card, and with a rehearsal's library past it."""
    libraries = [os.path.join(BUILT, "lib/libpersonad_cuda.so"),
                 os.path.join(BUILT, "emulated/libpersonad_cuda_emulated.so")]
    if not all(map(os.path.exists, libraries)):
        pytest.skip("the CUDA backend is not built")
    (pack.world.root / "build/release").mkdir(parents=True)
    for folder in ("lib", "emulated", "tests", "bin"):
        os.symlink(os.path.join(BUILT, folder), pack.world.root / "build/release" / folder)
    for tool in ("ldd", "strip"):
        (pack.world.bin / tool).unlink()
        pack.world.link(tool)
    pack.travel()
    assert strange_libraries(pack.there / "personad-gpu") == []
    pack.world.variables["CUDA_VISIBLE_DEVICES"] = ""
    result = pack.run(before=network_is_cut())
    assert result.returncode == 3, result.stderr
    assert "too old" not in result.stderr
    assert "no card" in results(pack.report("no-card"))["kernels"]
    program = pack.there / "personad-gpu/bin/gpu_check"
    library = pack.there / "personad-gpu/lib/libpersonad_cuda_emulated.so"
    agree = subprocess.run([program, "agree", "--library", library, "noise:tiny:F16:1"],
                           env=pack.world.environment(), capture_output=True, text=True,
                           check=False, timeout=240)
    assert agree.returncode == 0, agree.stdout + agree.stderr
