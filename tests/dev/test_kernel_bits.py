"""Goal: the comparison of kernels' bits over machines cannot pass by accident.
Method: files as kernel_bits prints them, equal, and then each with one thing wrong.
"""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES = ["rms_norm 2d836ae2fe328f18", "F32   head  64  q f5297d1415b58ac4"]


def compared(folder, one, other, other_sets="scalar,neon"):
    for name, sets in (("one", one), ("other", other)):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            for isa, lines in sets.items():
                file.writelines(f"{isa:<7} {line}\n" for line in lines)
    made = subprocess.run([sys.executable, os.path.join(ROOT, "scripts/kernel_bits.py"),
                           f"{folder}/one:scalar,avx2", f"{folder}/other:{other_sets}"],
                          capture_output=True, text=True, check=False)
    return made.returncode, made.stderr


def test_equal_bits_pass(tmp_path):
    code, err = compared(tmp_path, {"scalar": LINES, "avx2": LINES},
                         {"scalar": LINES, "neon": LINES})
    assert (code, err) == (0, "")


def test_twin_a_flipped_digit_is_named(tmp_path):
    wrong = [LINES[0], LINES[1].replace("f5", "f6")]
    code, err = compared(tmp_path, {"scalar": LINES, "avx2": LINES},
                         {"scalar": LINES, "neon": wrong})
    assert code == 1 and "other neon differs" in err and wrong[1] in err and LINES[0] not in err


def test_twin_a_missing_line_or_set_is_named(tmp_path):
    whole = {"scalar": LINES, "avx2": LINES}
    code, err = compared(tmp_path, whole, {"scalar": LINES, "neon": LINES[:1]})
    assert code == 1 and "neon differs" in err and "fewer lines" in err
    code, err = compared(tmp_path, whole, {"scalar": LINES})
    assert code == 1 and "nothing was computed by neon" in err
    code, err = compared(tmp_path, whole, {}, "scalar")
    assert code == 1 and "nothing was computed by scalar" in err
