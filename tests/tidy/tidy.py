#!/usr/bin/python3
"""The source's own rules, held by a machine.

usage: tidy.py [ROOT]     checks every file that git tracks or would track under ROOT

Prints `path:line: rule: what is wrong and what to do`, one a line, and ends with 1 if there was
any. An exception stands in the source with its reason and fails as soon as nothing needs it:

    /* tidy: allow RULE: reason */         for its own line and the next
    /* tidy: allow-file RULE: reason */    for the whole file

Rules are functions marked @rule(name) that take a Source and yield (line number, sentence).
test_tidy.py plants a violation of each.
"""
import ast
import os
import re
import subprocess
import sys

LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

CODE = (".c", ".h", ".py", ".sh", ".js")
TEXT = CODE + (".sql", ".cmake",
               ".proto", ".md", ".json", ".ini", ".yml", ".1", ".5", ".in", ".map")
TEXT_NAMES = ("dev", "run", "CMakeLists.txt", "cpu.Dockerfile", "cuda.Dockerfile",
              ".clang-tidy", ".clang-format")
DATA_FOLDERS = ("tests/fixtures/", "tests/fuzz/corpus/", "tests/tiny/")

# Who may include whom: a folder of daemon/, or a header by its name. Everybody may use base/ and
# limits.h; a stage its own folder. None may include a stage that stands before it.
MAY_INCLUDE = {
    "wire": ["session/", "personad.pb-c.h"],
    "session": ["journal/", "schedule/", "text/", "sample/", "model/"],
    "bench": ["schedule/", "model/", "sample/", "text/", "kernels/"],
    "schedule": ["model/", "sample/", "text/", "kernels/backend.h", "kernels/dtype.h"],
    "model": ["kernels/backend.h", "kernels/dtype.h"],
    "sample": ["kernels/steps/"],
    "text": [],
    "journal": [],
    "base": [],
}
KERNELS_MAY_INCLUDE = ["kernels/", "base/status.h", "base/check.h", "base/memory.h", "base/error.h"]

# A library's names, and the only places that know them.
CONFINED = [
    ("libuv", r"\buv_\w+|\bUV_[A-Z]\w+|<uv\.h>",
     r"daemon/(wire/.*|daemon\.[ch]|main\.c)"),
    ("protobuf-c", r"\bprotobuf_c_\w+|\bProtobufC\w+|\bPersonad__\w+|\bpersonad__\w+|pb-c\.h",
     r"daemon/wire/codec.*\.[ch]|clients/c/src/.*"),
    ("PCRE2", r"\bpcre2_\w+|\bPCRE2_\w+|<pcre2\.h>", r"daemon/text/.*"),
    ("utf8proc", r"\butf8proc_\w+|\bUTF8PROC_\w+|<utf8proc\.h>", r"daemon/text/.*"),
    ("jansson", r"\bjson_\w+_t\b|\bjson_t\b|\bjson_(loads?|loadb|dumps?|decref|object_get)\b|"
                r"<jansson\.h>",
     r"daemon/session/(card|portable).*\.[ch]|"
     r"daemon/model/(hf_|safetensors).*\.[ch]|clients/cli/.*"),
    ("nettle", r"\bnettle_\w+|\bsha256_ctx\b|<nettle/", r"daemon/base/sha256\.[ch]"),
    ("SQLite", r"\bsqlite3_\w+|\bSQLITE_[A-Z]\w+|<sqlite3\.h>",
     r"daemon/journal/.*|tests/unit/journal/.*"),
    ("inih", r"\bini_parse\w*|<ini\.h>", r"daemon/[^/]*\.c"),
    ("a thread", r"\bpthread_(?!sigmask\b)\w+|<(pthread|threads|semaphore)\.h>",
     r"daemon/base/queue\.c|kernels/cpu/pool\.c|daemon/daemon\.c|clients/cli/.*"),
    ("an atomic", r"\batomic_\w+|\b_Atomic\b|<stdatomic\.h>|\b__(atomic|sync)_\w+",
     r"daemon/base/.*|kernels/cpu/pool\.c|daemon/daemon\.c|clients/cli/.*"),
]

BANNED_CALLS = {
    "strcpy": "copy a counted string", "strcat": "use a byte buffer",
    "strncpy": "copy a counted string", "strncat": "use a byte buffer",
    "sprintf": "use snprintf", "vsprintf": "use vsnprintf", "gets": "use fgets",
    "atoi": "use strtol and check the end", "atol": "use strtol and check the end",
    "atof": "use strtod and check the end", "strtok": "use strtok_r or a cursor",
    "alloca": "use a fixed bound or the heap", "setlocale": "the daemon has no locale",
    "rand": "draws are Philox", "srand": "draws are Philox", "random": "draws are Philox",
    "system": "start no shell", "popen": "start no shell", "signal": "use sigaction",
}
MEMORY_CALLS = ("malloc calloc realloc reallocarray free strdup strndup asprintf vasprintf "
                "aligned_alloc posix_memalign").split()
LIBM_CALLS = ("exp exp2 exp10 expm1 log log2 log10 log1p sin cos sincos tan asin acos atan atan2 "
              "sinh cosh tanh pow cbrt hypot erf erfc tgamma lgamma").split()

# tidy: allow marks: the rule's own list
MARKS = r"\b(TODO|FIXME|XXX|HACK)\b|\bnot (yet )?implemented\b|\bunimplemented\b"
WORDS = [
    (r"/(work|root|home/\w+)/", "a path of one machine"),
    (r"\b(pypi\.org|pythonhosted\.org|debian\.org|npmjs\.(org|com)|crates\.io|docker\.io|"
     r"quay\.io|ghcr\.io)\b", "the host of a registry"),
    (r"\bissues? (#?\d|show\b)|\bhelper [A-Z]\b|\bcontext window of the session\b",
     "how the work was organised"),
    # tidy: allow words: the rule's own list
    (r"\b(Claude|ChatGPT|Copilot|Anthropic|OpenAI)\b", "a tool's name"),
]

RULES = {}


def rule(name):
    def register(function):
        RULES[name] = function
        return function
    return register


class Source:
    """One file: its text, its lines, and for C its text with comments and strings blanked."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        self.name = os.path.basename(path)
        self.extension = os.path.splitext(path)[1]
        self.is_c = self.extension in (".c", ".h")
        self.is_data = path.startswith(DATA_FOLDERS)
        self.code = blank(text) if self.is_c else text
        self.code_lines = self.code.split("\n")
        match = re.match(r"daemon/(\w+)/", path)
        self.stage = match.group(1) if match else None

    def find(self, pattern, lines=None):
        for number, line in enumerate(lines or self.code_lines, 1):
            match = re.search(pattern, line)
            if match:
                yield number, match


def blank(text):
    """Comments and the insides of literals become spaces; include lines keep their names."""
    pattern = (r'/\*.*?\*/|//[^\n]*|^[ \t]*#[ \t]*include[^\n]*|"(?:\\.|[^"\\\n])*"|'
               r"'(?:\\.|[^'\\\n])*'")

    def replace(match):
        piece = match.group(0)
        if piece.lstrip().startswith("#"):
            return piece
        return re.sub(r"[^\n]", " ", piece)

    return re.sub(pattern, replace, text, flags=re.S | re.M)


# ---- shape --------------------------------------------------------------------------------------

@rule("line-length")
def line_length(source):
    if source.extension in (".md", ".json", ".1", ".5") or source.is_data:
        return
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_COLUMNS_MAX:
            yield number, f"{len(line)} columns, at most {LINE_COLUMNS_MAX}"


@rule("file-length")
def file_length(source):
    count = len(source.lines) - 1
    if source.extension in CODE and count > FILE_LINES_MAX and not source.is_data:
        yield 1, f"{count} lines, at most {FILE_LINES_MAX}: look for the seam"


@rule("function-length")
def function_length(source):
    for number, count, name in functions_of(source):
        if count > FUNCTION_LINES_MAX:
            yield number, f"{name} has {count} lines, at most {FUNCTION_LINES_MAX}"


def functions_of(source):
    if source.extension == ".py":
        for node in ast.walk(ast.parse(source.text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.lineno, node.end_lineno - node.lineno + 1, node.name
    if not source.is_c:
        return
    start = None
    for number, line in enumerate(source.code_lines, 1):
        # The brace of a function stands alone in column 0; those of types and tables do not.
        if line.rstrip() == "{":
            start = number
        elif line.startswith("}") and start is not None:
            yield start, number - start + 1, signature_of(source, start)[0]
            start = None


def signature_of(source, brace):
    """(name, whole text) of the function whose brace opens on that line."""
    first = brace - 1
    while first > 1:
        before = source.code_lines[first - 2].rstrip()
        if not before or before.startswith("#") or before.endswith((";", "}")):
            break
        first -= 1
    text = " ".join(source.code_lines[first - 1:brace - 1])
    match = re.search(r"(\w+)\s*\((?!\()", text)
    return match.group(1) if match else "?", text


@rule("whitespace")
def whitespace(source):
    if source.is_data:
        return
    for number, match in source.find(r"[ \t]+$|\t", source.lines):
        if source.extension not in (".md", ".1", ".5") or match.group(0) == "\t":
            yield number, "a tab or trailing blanks"
    if source.text and not source.text.endswith("\n"):
        yield len(source.lines), "the last line does not end"


@rule("header-comment")
def header_comment(source):
    if source.extension == ".h" and not source.text.startswith("/*") and not source.is_data:
        yield 1, "a header opens with its contract: purpose, thread, ownership, format"


@rule("header-guard")
def header_guard(source):
    if source.extension != ".h" or source.is_data:
        return
    guard = re.sub(r"\W", "_", re.sub(r"^(daemon|clients/c/include)/", "", source.path)).upper()
    guard = guard if guard.startswith("PERSONAD_") else "PERSONAD_" + guard
    if not re.search(rf"^#ifndef {guard}\n#define {guard}\n", source.code, re.M):
        yield 1, f"the guard of this header is {guard}"


@rule("test-comment")
def test_comment(source):
    if re.match(r"tests/.*/(test|fuzz|fault)_\w+\.c$", source.path):
        if not source.text.startswith("/*"):
            yield 1, "a test opens with a comment that states its goal and method"


@rule("prefix")
def prefix(source):
    # base/ is a collection of small things that share files; everywhere else a file is a module.
    if source.extension != ".c" or source.stage == "base" or \
            not source.path.startswith(("daemon/", "kernels/")):
        return
    parts = re.split(r"\W", os.path.dirname(source.path)) + re.split(r"[_.]", source.name)
    for number, _, name in functions_of(source):
        text = signature_of(source, number)[1]
        if not re.search(r"\b(static|main)\b", text) and name.split("_")[0] not in parts:
            yield number, f"{name}() is visible but its name does not lead to this file"


@rule("typedef")
def typedef(source):
    if source.path.startswith(("daemon/", "kernels/")) and source.is_c:
        for number, _ in source.find(r"\btypedef\b"):
            yield number, "types go by their tag"


# ---- who may know whom --------------------------------------------------------------------------

@rule("include")
def include(source):
    if not source.is_c:
        return
    for number, match in source.find(r'^\s*#\s*include\s+"([^"]+)"'):
        header = match.group(1)
        if not may_include(source, header):
            yield number, f"this file may not include {header} (see MAY_INCLUDE)"


def may_include(source, header):
    if ".." in header:
        return False
    if source.path.startswith("kernels/steps/"):
        return header.startswith("kernels/steps/")
    if source.path.startswith("kernels/"):
        return header.startswith(tuple(KERNELS_MAY_INCLUDE))
    if source.path.startswith("clients/"):
        return not header.startswith(tuple(stage + "/" for stage in MAY_INCLUDE)) and \
            not header.startswith("kernels/")
    if source.stage is None:
        return True
    allowed = ["base/", "limits.h", source.stage + "/"]
    if source.stage == "base":
        allowed = ["base/", "limits.h"]
    return header.startswith(tuple(allowed + MAY_INCLUDE.get(source.stage, [])))


@rule("confined")
def confined(source):
    if not source.is_c or not source.path.startswith(("daemon/", "kernels/", "clients/")):
        return
    for library, names, places in CONFINED:
        if re.fullmatch(places, source.path):
            continue
        for number, match in source.find(names):
            yield number, f"{match.group(0)}: {library} is known only in {places}"


# ---- calls --------------------------------------------------------------------------------------

def calls(source, names):
    yield from source.find(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")


@rule("banned-call")
def banned_call(source):
    if source.is_c:
        for number, match in calls(source, BANNED_CALLS):
            yield number, f"{match.group(1)}(): {BANNED_CALLS[match.group(1)]}"
        for number, _ in source.find(r"(?<!_)\bassert\s*\("):
            yield number, "assert() goes away in a release: use CHECK or static_assert"


@rule("memory")
def memory(source):
    if source.is_c and source.path.startswith(("daemon/", "kernels/")) and \
            source.path != "daemon/base/memory.c":
        for number, match in calls(source, MEMORY_CALLS):
            yield number, f"{match.group(1)}(): use base/memory.h, which counts and can fail"


@rule("libm")
def libm(source):
    if source.is_c and re.match(r"kernels/|daemon/(model|sample|schedule|text)/", source.path):
        for number, match in calls(source, [name + "[fl]?" for name in LIBM_CALLS]):
            yield number, f"{match.group(1)}(): its bits differ between libraries, use our own"


@rule("float-mode")
def float_mode(source):
    if source.is_c:
        pattern = (r"_mm\d*_(maskz?_)?(rcp|rsqrt)\w*|_MM_SET_FLUSH\w+|_mm_setcsr|\bfesetround\b|"
                   r"FP_CONTRACT|fast-math|__attribute__\s*\(\(\s*optimize")
        for number, match in source.find(pattern):
            yield number, f"{match.group(0)} would change bits between machines or compilers"


# ---- words --------------------------------------------------------------------------------------

@rule("marks")
def marks(source):
    if not source.is_data:
        for number, match in source.find(MARKS, source.lines):
            yield number, f"'{match.group(0)}' marks unfinished work: finish it or leave it out"


@rule("words")
def words(source):
    for pattern, what in WORDS:
        for number, match in source.find(pattern, source.lines):
            yield number, f"'{match.group(0)}' is {what} and does not belong here"


# ---- exceptions and the walk --------------------------------------------------------------------

ALLOW = re.compile(r"tidy: allow(-file)? ([a-z-]+):?\s*(.*?)\s*(\*/|-->|$)")


def exceptions_of(source):
    """Yields (line number, whole file, rule, reason) of every exception that the file claims."""
    for number, match in source.find(ALLOW, source.lines):
        yield number, bool(match.group(1)), match.group(2), match.group(3)


def check(source):
    """All violations of one file that no exception covers, and all exceptions that cover none."""
    allowed = list(exceptions_of(source))
    used = set()
    for name, function in RULES.items():
        for number, sentence in function(source):
            cover = [entry for entry in allowed if entry[2] == name and
                     (entry[1] or number in (entry[0], entry[0] + 1))]
            used.update(cover)
            if not cover:
                yield number, name, sentence
    for entry in allowed:
        if entry not in used:
            yield entry[0], "exception", f"nothing here needs an exception from '{entry[2]}'"
        elif len(entry[3]) < 8:
            yield entry[0], "exception", "an exception gives its reason"


def is_text(path):
    name = os.path.basename(path)
    return path.endswith(TEXT) or name in TEXT_NAMES or path.startswith(DATA_FOLDERS)


def files_of(root):
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True).stdout.decode()
    for path in sorted(set(listing.split("\0"))):
        if path and is_text(path) and os.path.isfile(os.path.join(root, path)):
            yield path


def main(arguments):
    root = arguments[1] if len(arguments) > 1 else "."
    file_count = violation_count = 0
    for path in files_of(root):
        with open(os.path.join(root, path), "rb") as file:
            content = file.read()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        file_count += 1
        for number, name, sentence in sorted(check(Source(path, text))):
            violation_count += 1
            print(f"{path}:{number}: {name}: {sentence}")
    print(f"tidy: {file_count} files, {violation_count} violations")
    return 1 if violation_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
