"""The rules of tidy.py catch what they are there for.

Goal: no rule is dead. Method: every rule gets at least one planted violation, which must be named
by that rule at that line, and a clean twin, which must pass all rules.
"""
# tidy: allow-file marks: these are planted
# tidy: allow-file words: these are planted
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import tidy  # noqa: E402

HEADER = "/* Purpose. Thread: any. */\n#ifndef {0}\n#define {0}\n{1}\n#endif\n"
ALLOW = "tidy: " + "allow"


def function_of(line_count):
    body = "    work();\n" * (line_count - 2)
    return "static void long_one(void)\n{\n" + body + "}\n"


PLANTED = [
    # rule, path, line, text
    ("line-length", "daemon/base/a.c", 2, "int a;\n/* " + "x" * 100 + " */\n"),
    ("file-length", "daemon/base/a.c", 1, "int a;\n" * 601),
    ("function-length", "daemon/base/a.c", 2, function_of(71)),
    ("function-length", "scripts/a.py", 1, "def f():\n" + "    pass\n" * 70),
    ("whitespace", "daemon/base/a.c", 1, "int a; \n"),
    ("whitespace", "daemon/base/a.c", 1, "\tint a;\n"),
    ("whitespace", "daemon/base/a.c", 1, "int a;"),
    ("header-comment", "daemon/base/a.h", 1,
     "#ifndef PERSONAD_BASE_A_H\n#define PERSONAD_BASE_A_H\n#endif\n"),
    ("header-guard", "daemon/base/a.h", 1, HEADER.format("PERSONAD_A_H", "int a;")),
    ("header-guard", "kernels/cpu/a.h", 1, "/* Purpose. */\n#pragma once\n"),
    ("test-comment", "tests/unit/base/test_a.c", 1, "#include <stdio.h>\n/* late */\n"),
    ("prefix", "daemon/text/cue.c", 2, "int other_push(void)\n{\n    return 1;\n}\n"),
    ("typedef", "daemon/base/a.h", 4,
     HEADER.format("PERSONAD_BASE_A_H", "typedef struct a { int b; } a;")),
    ("include", "daemon/text/a.c", 1, '#include "session/tree.h"\n'),
    ("include", "daemon/wire/a.c", 1, '#include "model/gguf.h"\n'),
    ("include", "daemon/base/a.c", 1, '#include "text/cue.h"\n'),
    ("include", "daemon/session/a.c", 1, '#include "kernels/backend.h"\n'),
    ("include", "kernels/cpu/a.c", 1, '#include "base/log.h"\n'),
    ("include", "kernels/cpu/a.c", 1, '#include "limits.h"\n'),
    ("include", "kernels/steps/a.h", 4,
     HEADER.format("PERSONAD_KERNELS_STEPS_A_H", '#include "base/status.h"')),
    ("include", "clients/cli/a.c", 1, '#include "base/status.h"\n'),
    ("include", "daemon/base/a.c", 1, '#include "../limits.h"\n'),
    ("confined", "daemon/session/a.c", 1, "#include <uv.h>\n"),
    ("confined", "daemon/session/a.c", 1, "uv_loop_t *loop;\n"),
    ("confined", "daemon/wire/connection.c", 1, "Personad__Say say;\n"),
    ("confined", "daemon/session/a.c", 1, "#include <pcre2.h>\n"),
    ("confined", "daemon/session/a.c", 1, "utf8proc_int32_t rune;\n"),
    ("confined", "daemon/session/tree.c", 1, "json_t *value;\n"),
    ("confined", "daemon/session/tree.c", 1, "struct sha256_ctx context;\n"),
    ("confined", "daemon/session/tree.c", 1, "#include <sqlite3.h>\n"),
    ("confined", "daemon/session/tree.c", 1, "#include <ini.h>\n"),
    ("confined", "daemon/schedule/engine.c", 1, "pthread_mutex_t mutex;\n"),
    ("confined", "daemon/schedule/engine.c", 1, "#include <stdatomic.h>\n"),
    ("banned-call", "clients/cli/a.c", 1, "int a = atoi(text);\n"),
    ("banned-call", "daemon/base/a.c", 1, "    sprintf(out, format);\n"),
    ("banned-call", "daemon/base/a.c", 1, "    assert(a == b);\n"),
    ("memory", "daemon/base/arena.c", 1, "void *a = malloc(1);\n"),
    ("memory", "kernels/cpu/pool.c", 1, "    free(a);\n"),
    ("libm", "kernels/cpu/a.c", 1, "float a = expf(1.0f);\n"),
    ("libm", "daemon/model/a.c", 1, "double a = pow(b, c);\n"),
    ("float-mode", "kernels/cpu/avx2/a.c", 1, "a = _mm256_rcp_ps(b);\n"),
    ("float-mode", "kernels/cpu/a.c", 1, "#pragma STDC FP_CONTRACT ON\n"),
    ("marks", "daemon/base/a.c", 1, "/* TODO: later */\n"),
    ("marks", "docs/A.md", 1, "This is not implemented.\n"),
    ("words", "docs/A.md", 1, "See /work/notes.\n"),
    ("words", "scripts/a.sh", 1, "# from https://pypi.org/\n"),
    ("exception", "daemon/base/a.c", 1, f"/* {ALLOW} memory: nothing here allocates */\n"),
    ("exception", "daemon/base/a.c", 1, f"void *a = malloc(1); /* {ALLOW} memory: so */\n"),
]

CLEAN = [
    ("daemon/base/a.c", "/* " + "x" * 94 + " */\n"),
    ("daemon/base/a.c", "int a;\n" * 600),
    ("daemon/base/a.c", function_of(70)),
    ("daemon/base/a.h", HEADER.format("PERSONAD_BASE_A_H", "int a;")),
    ("clients/c/include/personad_client.h", HEADER.format("PERSONAD_CLIENT_H", "int a;")),
    ("daemon/text/cue.c", "int cue_push(void)\n{\n    return 1;\n}\n"),
    ("daemon/text/cue.c", "static int other(void)\n{\n    return 1;\n}\n"),
    ("daemon/session/a.c", '#include "text/cue.h"\n#include "limits.h"\n'),
    ("daemon/daemon.c", '#include "wire/listener.h"\n#include <pthread.h>\n'),
    ("daemon/text/a.c", '#include <pcre2.h>\n'),
    ("daemon/base/a.c", 'const char *a = "malloc(1)"; /* free(a) would be wrong */\n'),
    ("daemon/base/a.c", 'char quote = \'"\'; int b; char other = \'"\';\n'),
    ("daemon/base/memory.c", "void *a = malloc(1);\n"),
    ("clients/cli/a.c", "void *a = malloc(1);\n"),
    ("daemon/base/a.c", "    memory_free(a);\n    row->free(a);\n    static_assert(1, text);\n"),
    ("daemon/base/a.c", f"/* {ALLOW} memory: the C library frees this one */\n    free(line);\n"),
    ("daemon/base/a.c", "    free(a);\n" * 9 + f"/* {ALLOW}-file memory: the twin of another */\n"),
    ("scripts/a.sh", "folder=$(mktemp -d /tmp/personad.XXXXXX)\n"),
]


def violations(path, text):
    return [(number, name) for number, name, _ in tidy.check(tidy.Source(path, text))]


@pytest.mark.parametrize("name,path,line,text", PLANTED)
def test_a_planted_violation_is_named_by_its_rule_and_line(name, path, line, text):
    assert (line, name) in violations(path, text)


@pytest.mark.parametrize("name,path,line,text", PLANTED)
def test_a_planted_violation_breaks_no_other_rule(name, path, line, text):
    assert {found for _, found in violations(path, text)} == {name}


@pytest.mark.parametrize("path,text", CLEAN)
def test_a_clean_file_passes_every_rule(path, text):
    assert violations(path, text) == []


def test_every_rule_has_a_planted_violation():
    assert {entry[0] for entry in PLANTED} == set(tidy.RULES) | {"exception"}


def test_every_confined_library_has_a_planted_violation():
    texts = [(path, text) for name, path, _, text in PLANTED if name == "confined"]
    for library, *_ in tidy.CONFINED:
        sentences = [sentence for path, text in texts
                     for _, _, sentence in tidy.check(tidy.Source(path, text))]
        assert any(f": {library} is known" in sentence for sentence in sentences), library


def test_the_program_fails_on_a_tree_with_a_violation_and_passes_without(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    source = tmp_path / "daemon" / "base" / "a.c"
    source.parent.mkdir(parents=True)
    program = [sys.executable, tidy.__file__, str(tmp_path)]
    source.write_text("int a;\n")
    clean = subprocess.run(program, capture_output=True, text=True)
    assert clean.returncode == 0 and "1 files, 0 violations" in clean.stdout
    source.write_text("void *a = malloc(1);\n")
    broken = subprocess.run(program, capture_output=True, text=True)
    assert broken.returncode == 1 and "daemon/base/a.c:1: memory:" in broken.stdout
