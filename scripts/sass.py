"""Reads the machine code of a CUDA library: what each kernel takes, and what its loops do.

    sass.py LIBRARY [--check] [--arch ARCH] [--kernel TEXT]

Runs cuobjdump, which must be on the PATH beside nvdisasm. A loop is a branch backwards; its body
is the addresses in between, and it is innermost when no other lies in it. Counts are of the
instructions as they stand: a predicated one counts, a branch around some counts all of them.
Bytes are a warp's, from the widths of the loads. Warps are as many of a multiprocessor's as the
registers leave room for; shared memory that is asked for at a launch is not in the code, and from
sm_90 on the static kind counts the kilobyte that the system keeps.
"""

import argparse
import collections
import re
import subprocess
import sys

REGISTERS_OF_MULTIPROCESSOR = 65536
WARPS_MAX = {"sm_80": 64, "sm_89": 48, "sm_90a": 64, "sm_100a": 64}

FUNCTION = re.compile(r"^\s*Function : (\S+)")
ARCHITECTURE = re.compile(r"^\s*(?:arch = |code for )(sm_\w+)")
INSTRUCTION = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+ )?\s*([A-Z][A-Z0-9_.x]*)(.*?);"
)
RESOURCES = re.compile(r"^\s*Function (\S+):\s*$")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")

# Kernels that multiply matrices, and must do so on tensor cores.
TENSOR_KERNELS = re.compile(r"matmul_kernel|attention_(?!fold|combine|merge)\w*kernel")
WEIGHT_KERNELS = re.compile(r"matmul_kernel")
TILES_OF_PRODUCTS = re.compile(r"matmul_kernelILi\d+ELi(\d+)E")
# A lane's 16 bytes of codes hold one, two or four steps of a panel; its scales of four steps are at
# most so many bytes of a warp.
STEPS_OF_LOAD_MAX = 4
SCALE_BYTES_MAX = 768
# Kernels of warpgroups, which are empty but where there are these.
GROUP_KERNELS = re.compile(r"wgmma_kernel")
GROUP_ARCHITECTURES = ("sm_90a",)
KERNELS_EXPECTED = (
    "matmul_kernel",
    "attention_kernel",
    "attention_tall_kernel",
    "attention_chain_kernel",
)
TENSOR_OPERATIONS = ("HMMA", "HGMMA", "UTCHMMA")

KINDS = (
    ("tensor", re.compile(r"^(HMMA|HGMMA|UTCHMMA|IMMA)")),
    ("copy128", re.compile(r"^LDGSTS\S*\.128|^UBLKCP")),
    ("copy", re.compile(r"^LDGSTS")),
    ("ldg128", re.compile(r"^LDG\S*\.128")),
    ("ldg", re.compile(r"^LDG\b")),
    ("ld", re.compile(r"^LD\b")),
    ("ldsm", re.compile(r"^LDSM")),
    ("lds128", re.compile(r"^LDS\S*\.128")),
    ("lds", re.compile(r"^LDS")),
    ("store", re.compile(r"^(STS|STG|ST|STSM)\b")),
    ("local", re.compile(r"^(LDL|STL)\b")),
    ("convert", re.compile(r"^(F2F|F2FP|I2F|F2I|I2FP|HADD2\.F32)")),
    ("float", re.compile(r"^(FFMA|FADD|FMUL|HFMA2|HADD2|HMUL2|MUFU|FSETP|FSEL|FMNMX)")),
    ("permute", re.compile(r"^PRMT")),
    ("integer", re.compile(r"^U?(IADD|IMAD|LOP3|SHF|LEA|ISETP|SEL|MOV|IMNMX|VIADD|PLOP3)")),
)
WIDTH = re.compile(r"\.(U8|S8|U16|S16|64|128)\b")
WIDTH_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
WARP = 32


class Kernel:
    def __init__(self, name, architecture):
        self.name = name
        self.architecture = architecture
        self.instructions = []  # (address, operation, operands)
        self.registers = self.stack = self.shared = self.local = 0


def kind_of(operation):
    for kind, pattern in KINDS:
        if pattern.match(operation):
            return kind
    return "other"


def bytes_of(operation):
    """What one instruction of a warp loads or copies."""
    if operation.startswith("LDSM"):
        return WARP * 4 * (4 if ".4" in operation else 2 if ".2" in operation else 1)
    if not re.match(r"(LDG|LDGSTS|LDS|LD)\b", operation):
        return 0
    width = WIDTH.search(operation)
    return WARP * (WIDTH_BYTES[width.group(1)] if width else 4)


def products_of(operation):
    """Multiplications of one instruction of a warp, None where the name does not tell."""
    shape = re.search(r"HMMA\.(16816|1688)", operation)
    if shape:
        return 16 * 8 * (16 if shape.group(1) == "16816" else 8)
    shape = re.search(r"HGMMA\.(\d+)x(\d+)x(\d+)", operation)
    if shape:
        return int(shape.group(1)) * int(shape.group(2)) * int(shape.group(3)) // 4
    return 0


def parse_code(text):
    """Kernels by (architecture, name)."""
    kernels = {}
    architecture, kernel = None, None
    for line in text.splitlines():
        if match := ARCHITECTURE.match(line):
            architecture = match.group(1)
        elif match := FUNCTION.match(line):
            kernel = Kernel(match.group(1), architecture)
            kernels[architecture, kernel.name] = kernel
        elif kernel is not None and (match := INSTRUCTION.match(line)):
            kernel.instructions.append((int(match.group(1), 16), match.group(2), match.group(3)))
    return kernels


def parse_resources(text, kernels):
    architecture, name = None, None
    for line in text.splitlines():
        if match := ARCHITECTURE.match(line):
            architecture = match.group(1)
        elif match := RESOURCES.match(line):
            name = match.group(1)
        elif (match := USAGE.search(line)) and (architecture, name) in kernels:
            kernel = kernels[architecture, name]
            kernel.registers, kernel.stack, kernel.shared, kernel.local = map(int, match.groups())


def loops_of(kernel):
    loops = set()
    for address, operation, operands in kernel.instructions:
        target = re.search(r"0x([0-9a-f]+)", operands)
        if operation.startswith("BRA") and target and int(target.group(1), 16) < address:
            loops.add((int(target.group(1), 16), address))
    return loops


def innermost(loops):
    """[(begin, end)] of those in which no other of them lies."""
    return sorted(
        loop
        for loop in loops
        if not any(o != loop and loop[0] <= o[0] and o[1] <= loop[1] for o in loops)
    )


def inner_loops(kernel):
    return innermost(loops_of(kernel))


def shown_loops(kernel):
    """The innermost, and the innermost of those that multiply, which may hold loops that copy."""
    products = {
        loop
        for loop in loops_of(kernel)
        if any(kind_of(i[1]) == "tensor" for i in body_of(kernel, loop))
    }
    return sorted({*inner_loops(kernel), *innermost(products)})


def body_of(kernel, loop):
    return [i for i in kernel.instructions if loop[0] <= i[0] <= loop[1]]


def operations_in(kernel, prefix):
    return [operation for _, operation, _ in kernel.instructions if operation.startswith(prefix)]


def code_faults_of(kernel):
    """Codes leave shared memory 16 bytes at a time: what is read otherwise can only be scales."""
    tiles = TILES_OF_PRODUCTS.search(kernel.name)
    for loop in inner_loops(kernel):
        body = body_of(kernel, loop)
        kinds = collections.Counter(kind_of(operation) for _, operation, _ in body)
        narrow = sum(bytes_of(operation) for _, operation, _ in body if kind_of(operation) == "lds")
        steps = kinds["tensor"] / (int(tiles.group(1)) if tiles else 1)
        if steps and (
            kinds["lds128"] * STEPS_OF_LOAD_MAX < steps
            or narrow * STEPS_OF_LOAD_MAX > SCALE_BYTES_MAX * steps
        ):
            return ["reads codes less than 16 bytes at a time"]
    return []


def weight_faults_of(kernel):
    """Weights come into shared memory by copies of 16 bytes, in a loop, and by nothing narrower."""
    faults = []
    copies = operations_in(kernel, ("LDGSTS", "UBLKCP"))
    loops = [{kind_of(i[1]) for i in body_of(kernel, loop)} for loop in inner_loops(kernel)]
    if not copies:
        faults.append("has no asynchronous copies")
    elif not any("copy128" in kinds for kinds in loops):
        faults.append("has no loop around its asynchronous copies")
    if any(kind_of(operation) == "copy" for operation in copies):
        faults.append("copies weights less than 16 bytes at a time")
    if any("ldg" in kinds and kinds & {"copy", "copy128", "tensor"} for kinds in loops):
        faults.append("loads less than 16 bytes at a time in a loop")
    if not any("tensor" in kinds for kinds in loops):
        faults.append("has no loop around its tensor-core instructions")
    return faults + code_faults_of(kernel)


def group_faults_of(kernel):
    """Products of warpgroups, several on their way at once."""
    products = [i for i in kernel.instructions if i[1].startswith("HGMMA")]
    if kernel.architecture not in GROUP_ARCHITECTURES:
        return ["multiplies where there are no warpgroups"] if products else []
    if not products:
        return ["does not use HGMMA"]
    faults = weight_faults_of(kernel)
    if all("gsb" in operands for _, _, operands in products):
        faults.append("waits for each product before the next")
    return faults


def faults_of(kernel):
    """What breaks a rule, in words."""
    faults = []
    if kernel.stack or kernel.local or operations_in(kernel, ("LDL", "STL")):
        faults.append("uses local memory")
    if TENSOR_KERNELS.search(kernel.name) and not operations_in(kernel, TENSOR_OPERATIONS):
        faults.append("does not use tensor cores")
    if WEIGHT_KERNELS.search(kernel.name):
        faults += weight_faults_of(kernel)
    if GROUP_KERNELS.search(kernel.name):
        faults += group_faults_of(kernel)
    return faults


def expected_of_groups(architecture):
    return ("wgmma_kernel",) if architecture in GROUP_ARCHITECTURES else ()


def absent_from(kernels):
    """Rules about kernels that are not there would hold whatever was built."""
    return [
        f"{architecture}: no kernel is called {name}"
        for architecture in sorted({kernel.architecture for kernel in kernels})
        for name in (*KERNELS_EXPECTED, *expected_of_groups(architecture))
        if not any(k.architecture == architecture and name in k.name for k in kernels)
    ]


def short(names):
    """Names as people write them, where c++filt is there."""
    try:
        answer = subprocess.run(
            ["c++filt", "-p"], input="\n".join(names), text=True, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return list(names)
    return answer.stdout.splitlines()


def warps_of(kernel):
    """How many warps of a multiprocessor its registers leave room for."""
    rounded = -(-max(kernel.registers, 1) // 8) * 8
    room = REGISTERS_OF_MULTIPROCESSOR // (rounded * WARP)
    return min(warps_max_of(kernel), room)


def warps_max_of(kernel):
    return WARPS_MAX.get(kernel.architecture, 64)


def print_loop(kernel, loop, out):
    body = body_of(kernel, loop)
    counts = collections.Counter(kind_of(operation) for _, operation, _ in body)
    moved = collections.Counter()
    products = 0
    for _, operation, _ in body:
        moved[kind_of(operation)] += bytes_of(operation)
        products += products_of(operation)
    kinds = " ".join(f"{kind} {counts[kind]}" for kind, _ in KINDS if counts[kind])
    loads = " ".join(f"{kind} {count} B" for kind, count in moved.items() if count)
    print(
        f"    loop {loop[0]:05x}..{loop[1]:05x}: {len(body)} instructions: {kinds} "
        f"other {counts['other']} | {loads or 'no loads'} | {products} products",
        file=out,
    )


def print_kernel(kernel, name, out):
    print(
        f"{kernel.architecture} {name}: {kernel.registers} registers "
        f"({warps_of(kernel)} of {warps_max_of(kernel)} warps), {kernel.shared} B static shared, "
        f"{kernel.local + kernel.stack} B local, {len(kernel.instructions)} instructions",
        file=out,
    )
    for loop in shown_loops(kernel):
        print_loop(kernel, loop, out)


def dump(library, option):
    answer = subprocess.run(["cuobjdump", option, library], text=True, capture_output=True)
    if answer.returncode != 0:
        sys.exit(f"sass: cuobjdump {option} {library}: {answer.stderr.strip()}")
    return answer.stdout


def main(arguments):
    parser = argparse.ArgumentParser(prog="sass", description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--check", action="store_true", help="print only what breaks a rule")
    parser.add_argument("--arch", default="", help="sm_90a; all unless told")
    parser.add_argument("--kernel", default="", help="only those with this in their name")
    options = parser.parse_args(arguments)

    kernels = parse_code(dump(options.library, "-sass"))
    parse_resources(dump(options.library, "-res-usage"), kernels)
    chosen = [
        kernel
        for kernel in kernels.values()
        if options.kernel in kernel.name and kernel.architecture.startswith(options.arch)
    ]
    if not chosen:
        sys.exit("sass: no kernel of that name and architecture")
    fault_count = 0
    if not options.kernel:
        for fault in absent_from(chosen):
            print(fault)
            fault_count += 1
    names = short([kernel.name for kernel in chosen])
    for kernel, name in zip(chosen, names):
        if not options.check:
            print_kernel(kernel, name, sys.stdout)
        for fault in faults_of(kernel):
            print(f"{kernel.architecture} {name}: {fault}")
            fault_count += 1
    print(f"sass: {len(chosen)} kernels, {fault_count} faults")
    return 1 if fault_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
