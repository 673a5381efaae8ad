"""What the CUDA compiler made of the kernels, and that sass.py would see what it must not make."""
import importlib.util
import os
import subprocess

import pytest

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
LIBRARY = os.environ.get("PERSONAD_CUDA_LIBRARY",
                         os.path.join(ROOT, "build/release/lib/libpersonad_cuda.so"))

_spec = importlib.util.spec_from_file_location("sass", os.path.join(ROOT, "scripts/sass.py"))
sass = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sass)

MATMUL = "_Z13matmul_kernelILi1ELi1EEv4args"
ATTENTION = "_Z16attention_kernelILj64EEv4args"
TALL = "_Z21attention_tall_kernelILj64EEv4args"
CHAIN = "_Z22attention_chain_kernelILj256EEv4args"
FOLD = "_Z21attention_fold_kernelILj64EEv4args"

# Two loops: one that copies, one that multiplies.
MATMUL_CODE = (
    (0x00, "S2R R0, SR_TID.X"),
    (0x10, "LDG.E R1, [R2.64]"),
    (0x20, "LDGSTS.E.BYPASS.128 [R4], [R6.64]"),
    (0x30, "@!PT LDS RZ, [RZ]"),
    (0x40, "@P0 BRA 0x20"),
    (0x50, "LDSM.16.M88.4 R8, [R5]"),
    (0x60, "LDS.128 R12, [R5+0x40]"),
    (0x70, "F2FP.BF16.PACK_AB R1, R2, R3"),
    (0x80, "HMMA.16816.F32.BF16 R16, R8, R12, R16"),
    (0x90, "@!P1 BRA 0x50"),
    (0xa0, "EXIT"),
    (0xb0, "BRA 0xb0"),
)
ATTENTION_CODE = ((0x00, "HMMA.16816.F32 R16, R8, R12, R16"), (0x10, "EXIT"))
WGMMA = "_Z12wgmma_kernelILi32ELb0EEv4args"
WGMMA_CODE = (
    (0x00, "UBLKCP.S.G [UR4], [UR6], UR8"),
    (0x10, "@P0 BRA 0x0"),
    (0x20, "LDS.128 R12, [R5+0x40]"),
    (0x30, "HGMMA.64x256x16.F32.BF16 R24, R152, gdesc[UR16], R24"),
    (0x40, "HGMMA.64x256x16.F32.BF16 R24, R156, gdesc[UR16], R24, gsb0"),
    (0x50, "WARPGROUP.DEPBAR.LE gsb0, 0x0"),
    (0x60, "@!P1 BRA 0x20"),
    (0x70, "EXIT"),
)
FOLD_CODE = ((0x00, "FADD R1, R2, R3"), (0x10, "EXIT"))


def listing(codes, architecture="sm_90a"):
    lines = ["Fatbin elf code:", f"arch = {architecture}", "", f"\tcode for {architecture}"]
    for name, code in codes.items():
        lines.append(f"\t\tFunction : {name}")
        for address, text in code:
            lines.append(f"        /*{address:04x}*/                   {text} ;"
                         "                   /* 0x0000000a00017624 */")
            lines.append(" " * 93 + "/* 0x000fe400078e00ff */")
    return "\n".join(lines)


def usage(names, architecture="sm_90a", registers=80, stack=0, local=0):
    lines = [f"arch = {architecture}", "Resource usage:", " Common:", "  GLOBAL:0"]
    for name in names:
        lines.append(f" Function {name}:")
        lines.append(f"  REG:{registers} STACK:{stack} SHARED:1024 LOCAL:{local} CONSTANT[0]:624")
    return "\n".join(lines)


def kernel_of(code, name=MATMUL, **resources):
    kernels = sass.parse_code(listing({name: code}))
    sass.parse_resources(usage([name], **resources), kernels)
    return kernels["sm_90a", name]


def changed(before, after):
    """The matrix product's code with one piece of text for another, which must be there."""
    assert any(before in text for _, text in MATMUL_CODE)
    return tuple((address, text.replace(before, after)) for address, text in MATMUL_CODE)


def test_reads_code_and_resources():
    kernel = kernel_of(MATMUL_CODE)
    assert len(kernel.instructions) == len(MATMUL_CODE)
    assert (kernel.registers, kernel.shared, kernel.local) == (80, 1024, 0)
    assert sass.warps_of(kernel) == 25
    assert sass.inner_loops(kernel) == [(0x20, 0x40), (0x50, 0x90)]
    kinds = [sass.kind_of(i[1]) for i in sass.body_of(kernel, (0x50, 0x90))]
    assert kinds == ["ldsm", "lds128", "convert", "tensor", "other"]
    assert sass.faults_of(kernel) == []


def test_only_innermost_loops():
    code = ((0x00, "FADD R1, R2, R3"), (0x10, "FADD R1, R2, R3"), (0x20, "@P0 BRA 0x10"),
            (0x30, "@P1 BRA 0x0"), (0x40, "EXIT"))
    assert sass.inner_loops(kernel_of(code)) == [(0x10, 0x20)]
    assert sass.shown_loops(kernel_of(code)) == [(0x10, 0x20)]
    # A loop around others is shown where it multiplies and they do not.
    code = ((0x00, "HMMA.16816.F32 R16, R8, R12, R16"), *code[1:])
    assert sass.shown_loops(kernel_of(code)) == [(0x0, 0x30), (0x10, 0x20)]


def test_kernels_of_each_architecture_apart():
    text = listing({FOLD: FOLD_CODE}, "sm_80") + "\n" + listing({FOLD: FOLD_CODE[:1]})
    kernels = sass.parse_code(text)
    assert [len(kernels[a, FOLD].instructions) for a in ("sm_80", "sm_90a")] == [2, 1]


@pytest.mark.parametrize("operation, size", [
    ("LDG.E.128", 512), ("LDG.E.U8", 32), ("LDS", 128), ("LDS.S8", 32), ("LDS.64", 256),
    ("LDGSTS.E.BYPASS.128", 512), ("LDGSTS.E", 128), ("LDSM.16.M88.4", 512), ("LD.E", 128),
    ("LDGDEPBAR", 0), ("FADD", 0)])
def test_bytes_of_a_load(operation, size):
    assert sass.bytes_of(operation) == size


def test_products():
    assert sass.products_of("HMMA.16816.F32.BF16") == 2048
    assert sass.products_of("HGMMA.64x128x16.F32.BF16") == 32768
    assert sass.products_of("HADD2") == 0


@pytest.mark.parametrize("resources", [{"stack": 16}, {"local": 8}])
def test_planted_local_memory(resources):
    assert sass.faults_of(kernel_of(MATMUL_CODE, **resources)) == ["uses local memory"]


@pytest.mark.parametrize("spill", ["STL [R1], R2", "@P0 LDL.LU R2, [R1+0x4]"])
def test_planted_spill(spill):
    code = changed("S2R R0, SR_TID.X", spill)
    assert sass.faults_of(kernel_of(code)) == ["uses local memory"]


@pytest.mark.parametrize("before, after, fault", [
    ("LDGSTS.E.BYPASS.128", "LDGSTS.E.64", "copies weights less than 16 bytes at a time"),
    ("LDGSTS.E.BYPASS.128", "LDG.E.128", "has no asynchronous copies"),
    ("BRA 0x20", "EXIT", "has no loop around its asynchronous copies"),
    ("LDS.128 R12, [R5+0x40]", "LDG.E.64 R12, [R5.64]",
     "loads less than 16 bytes at a time in a loop"),
    ("HMMA.16816.F32.BF16", "FFMA", "does not use tensor cores"),
    ("BRA 0x50", "EXIT", "has no loop around its tensor-core instructions"),
    ("LDS.128 R12", "LDS R12", "reads codes less than 16 bytes at a time"),
])
def test_planted_in_a_matrix_product(before, after, fault):
    assert fault in sass.faults_of(kernel_of(changed(before, after)))


def products_of_units(tensors, loads, scales):
    """A loop of so many products over 8 tiles, 16-byte loads and loads of scales, 4 bytes each."""
    body = (["LDS.128 R12, [R5]"] * loads + ["LDS R3, [R4]"] * scales +
            ["HMMA.16816.F32.BF16 R16, R8, R12, R16"] * tensors)
    code = [(0x00, "LDGSTS.E.BYPASS.128 [R4], [R6.64]"), (0x10, "@P0 BRA 0x0")]
    code += [(0x20 + 0x10 * i, text) for i, text in enumerate(body)]
    code += [(0x20 + 0x10 * len(body), "@!P1 BRA 0x20")]
    return kernel_of(code, "_Z13matmul_kernelILi2ELi8EEv4args")


def test_planted_in_loads_of_codes():
    # A unit of two panels: four steps over 8 tiles each, one load and six words of scales each.
    assert sass.faults_of(products_of_units(64, 2, 12)) == []
    assert sass.faults_of(products_of_units(64, 8, 0)) == []
    fault = ["reads codes less than 16 bytes at a time"]
    assert sass.faults_of(products_of_units(64, 1, 12)) == fault
    # One load of two became four.
    assert sass.faults_of(products_of_units(64, 3, 6 + 4 + 3)) == fault


def test_planted_in_attention():
    assert sass.faults_of(kernel_of(ATTENTION_CODE, ATTENTION)) == []
    assert sass.faults_of(kernel_of(FOLD_CODE, ATTENTION)) == ["does not use tensor cores"]
    # Folding partial sums multiplies no matrices.
    assert sass.faults_of(kernel_of(FOLD_CODE, FOLD)) == []


def test_planted_in_products_of_warpgroups():
    def faults(before, after):
        code = tuple((address, text.replace(before, after)) for address, text in WGMMA_CODE)
        assert code != WGMMA_CODE
        return sass.faults_of(kernel_of(code, WGMMA))

    assert sass.faults_of(kernel_of(WGMMA_CODE, WGMMA)) == []
    assert faults("HGMMA.64x256x16", "HMMA.16816") == ["does not use HGMMA"]
    assert faults("R152, gdesc[UR16], R24", "R152, gdesc[UR16], R24, gsb0") == [
        "waits for each product before the next"]
    assert faults("UBLKCP.S.G", "LDGSTS.E.64") == [
        "has no loop around its asynchronous copies",
        "copies weights less than 16 bytes at a time"]
    assert faults("LDS.128 R12, [R5+0x40]", "LDG.E.64 R12, [R5.64]") == [
        "loads less than 16 bytes at a time in a loop", "reads codes less than 16 bytes at a time"]
    # Elsewhere there is nothing of it.
    kernels = sass.parse_code(listing({WGMMA: WGMMA_CODE}, "sm_80"))
    assert sass.faults_of(kernels["sm_80", WGMMA]) == ["multiplies where there are no warpgroups"]
    kernels = sass.parse_code(listing({WGMMA: FOLD_CODE}, "sm_80"))
    assert sass.faults_of(kernels["sm_80", WGMMA]) == []
    assert sass.products_of(WGMMA_CODE[3][1].split()[0]) == 65536


def run_on(folder, monkeypatch, codes, *arguments):
    """The program's exit status, over a cuobjdump that prints these kernels."""
    (folder / "code").write_text(listing(codes))
    (folder / "usage").write_text(usage(codes))
    tool = folder / "cuobjdump"
    tool.write_text(f'#!/bin/sh\n[ "$1" = -sass ] && exec cat "{folder}/code"\n'
                    f'exec cat "{folder}/usage"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return sass.main(["library", *arguments])


def test_prints_and_checks(tmp_path, monkeypatch, capsys):
    codes = {MATMUL: MATMUL_CODE, ATTENTION: ATTENTION_CODE, TALL: ATTENTION_CODE,
             CHAIN: ATTENTION_CODE, FOLD: FOLD_CODE, WGMMA: WGMMA_CODE}
    assert run_on(tmp_path, monkeypatch, codes) == 0
    text = capsys.readouterr().out
    assert "80 registers (25 of 64 warps), 1024 B static shared, 0 B local" in text
    assert "tensor 1 ldsm 1 lds128 1 convert 1 other 1" in text
    assert "2048 products" in text
    assert run_on(tmp_path, monkeypatch, codes, "--check") == 0
    assert capsys.readouterr().out == "sass: 6 kernels, 0 faults\n"


def test_check_fails(tmp_path, monkeypatch, capsys):
    codes = {MATMUL: changed("HMMA.16816.F32.BF16", "FFMA"), FOLD: FOLD_CODE}
    assert run_on(tmp_path, monkeypatch, codes, "--check") == 1
    text = capsys.readouterr().out
    assert "does not use tensor cores" in text
    assert "sm_90a: no kernel is called attention_kernel" in text
    assert "sm_90a: no kernel is called wgmma_kernel" in text
    # Asked about some kernels only, it does not miss the others.
    assert run_on(tmp_path, monkeypatch, codes, "--check", "--kernel", "fold") == 0


def test_unknown_kernel(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no kernel of that name"):
        run_on(tmp_path, monkeypatch, {FOLD: FOLD_CODE}, "--kernel", "nothing")


def test_names_a_library_that_is_not_built(tmp_path):
    answer = subprocess.run(["sh", os.path.join(ROOT, "dev"), "sass"], text=True,
                            capture_output=True, timeout=60,
                            env={**os.environ, "PERSONAD_CUDA_LIBRARY": str(tmp_path / "none.so")})
    assert answer.returncode == 1
    assert "none.so is not built" in answer.stderr


def test_the_library():
    """No local memory; weights 16 bytes at a time; tensor cores where matrices are multiplied."""
    if not os.path.exists(LIBRARY):
        pytest.skip("libpersonad_cuda.so is not built: there was no nvcc")
    answer = subprocess.run(["sh", os.path.join(ROOT, "dev"), "sass", "--check"], text=True,
                            capture_output=True, timeout=300,
                            env={**os.environ, "PERSONAD_CUDA_LIBRARY": LIBRARY})
    if "could not be fetched" in answer.stderr or "on the PATH" in answer.stderr:
        pytest.skip(f"cuobjdump and nvdisasm are not here: {answer.stderr.strip()}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.endswith(" 0 faults\n")
