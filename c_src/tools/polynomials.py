"""Compute the polynomial coefficients of the core and write them for C and for the Triton kernels.

    python c_src/tools/polynomials.py

Each function f is approximated by a polynomial q that minimises the weighted error max |w (f - q)| (nearly).
The coefficients are then rounded to float64 one at a time, lowest first, and after each rounding the rest is fitted again,
so that the later ones absorb the rounding of the earlier ones (Brisebarre and Chevillard, "Efficient polynomial
L-infinity approximations", ARITH 2007, describe why plain rounding is not enough).

Needs mpmath. What it writes is committed, and a test compares that with a fresh run.
"""

import pathlib
import struct

from mpmath import mp, mpf

mp.dps = 70

ROOT = pathlib.Path(__file__).parents[2]

NODES = 120
LAWSON_STEPS = 12


def minimax(residual, weight, exponents, low, high):
    """Coefficients c nearly minimising max |weight(x) (residual(x) - sum_k c_k x^exponents[k])| on [low, high].

    Least squares on Chebyshev nodes, with Lawson's reweighting by the error (C. L. Lawson, 1961) towards the maximum norm.
    """
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * NODES)) for i in range(NODES)]
    rows = [[weight(x) * x**e for e in exponents] for x in nodes]
    right = [weight(x) * residual(x) for x in nodes]
    lawson = [mpf(1) / NODES] * NODES
    for _ in range(LAWSON_STEPS):
        normal = mp.matrix(len(exponents))
        for i in range(len(exponents)):
            weighted = [s * row[i] for s, row in zip(lawson, rows)]
            for j in range(i, len(exponents)):
                normal[i, j] = normal[j, i] = mp.fdot(weighted, [row[j] for row in rows])
        moments = mp.matrix([mp.fsum(s * row[i] * y for s, row, y in zip(lawson, rows, right)) for i in range(len(exponents))])
        coefficients = list(mp.lu_solve(normal, moments))
        errors = [abs(y - mp.fdot(coefficients, row)) for row, y in zip(rows, right)]
        total = mp.fdot(lawson, errors)
        lawson = [s * e / total for s, e in zip(lawson, errors)]
    return coefficients


def polynomial(coefficients, exponents, x):
    return mp.fsum(c * x**e for c, e in zip(coefficients, exponents))


def rounded_minimax(function, weight, degree, low, high):
    """The coefficients as float64, and the largest weighted error of that very polynomial."""
    fixed = []
    for k in range(degree + 1):
        done = list(range(k))
        rest = minimax(lambda x: function(x) - polynomial(fixed, done, x), weight, list(range(k, degree + 1)), low, high)
        fixed.append(mpf(float(rest[0])))
    points = [low + (high - low) * i / 4001 for i in range(1, 4001)]
    exponents = list(range(degree + 1))
    worst = max(abs(weight(x) * (function(x) - polynomial(fixed, exponents, x))) for x in points)
    return [float(c) for c in fixed], worst


def evaluation(name, variable, comment, coefficients, worst):
    """A C function for an odd degree: pairs c_k + c_(k + 1) x, then Horner's form in x^2.

    Half the latency of Horner's form in x for one more multiplication; and where the signs alternate, as in log1p's, all
    pairs have one sign, so that nothing cancels.
    """
    pairs = [
        f"bce_fma(bce_all({coefficients[k + 1].hex()}), {variable}, bce_all({coefficients[k].hex()}))"
        for k in range(0, len(coefficients), 2)
    ]
    lines = [
        f"/* {comment} Largest relative error 2^{float(mp.log(worst, 2)):.2f}. */",
        f"BCE_INLINE bce_vec {name}(bce_vec {variable})",
        "{",
        f"    bce_vec square = {variable} * {variable};",
        f"    bce_vec q = {pairs.pop()};",
    ]
    while pairs:
        lines.append(f"    q = bce_fma(q, square, {pairs.pop()});")
    lines += ["    return q;", "}"]
    return "\n".join(lines)


def log2_digits(digits):
    """The leading float64 of ln(2), of what is left, and so on: their sum is ln(2)."""
    numbers = []
    for _ in range(digits):
        numbers.append(float(mp.log(2) - mp.fsum(numbers)))
    return numbers


def generated():
    """The text of each generated file."""
    half_ln2 = mp.log(2) / 2 * (1 + mpf(2) ** -20)
    exp = rounded_minimax(
        lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.exp(r),
        9,
        -half_ln2,
        half_ln2,
    )
    log1p = rounded_minimax(
        lambda v: (mp.log1p(v) - v) / v**2,
        # Below 0 the result is log(2) + log(1 + v).
        lambda v: v**2 / (mp.log1p(v) + (mp.log(2) if v < 0 else 0)),
        19,
        -mpf(1) / 4,
        mpf(1) / 2,
    )
    quick_exp = rounded_minimax(mp.exp, lambda r: 1 / mp.exp(r), 9, -half_ln2, half_ln2)
    table_exp = rounded_minimax(mp.exp, lambda r: 1 / mp.exp(r), 5, -half_ln2 / 16, half_ln2 / 16)
    quick_atanh = rounded_minimax(
        lambda z: 2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z),
        lambda z: mp.sqrt(z) / (2 * mp.atanh(mp.sqrt(z))),
        7,
        mpf(0),
        mpf(1) / 9,
    )
    constants = dict(zip(("LN2_HIGH", "LN2_LOW", "LN2_LOWEST"), log2_digits(3)), LOG2_E=float(1 / mp.log(2)))
    bits = [struct.unpack("<Q", struct.pack("<d", float(mpf(2) ** (mpf(j) / 16))))[0] - (j << 48) for j in range(16)]
    do_not_edit = "Generated by c_src/tools/polynomials.py. Do not edit."

    header = [
        f"/* {do_not_edit} */\n",
        "#ifndef BCE_CONSTANTS_H",
        "#define BCE_CONSTANTS_H\n",
        "/* ln(2) = BCE_LN2_HIGH + BCE_LN2_LOW + BCE_LN2_LOWEST, each the float64 nearest to what is left, and 1 / ln(2). */",
        *(f"#define BCE_{name} {number.hex()}" for name, number in constants.items()),
        "\n#endif\n",
    ]
    polynomials = [
        f"/* {do_not_edit} */",
        "/* Included by bce_math.h, once per instruction set. */\n",
        evaluation("bce_exp_polynomial", "r", "q(r) with e^r = 1 + (r + r^2 q(r)) for |r| <= ln(2) / 2.", *exp) + "\n",
        evaluation("bce_log1p_polynomial", "v", "q(v) with log(1 + v) = v + v^2 q(v) for -1/4 <= v <= 1/2.", *log1p) + "\n",
        evaluation("bce_quick_atanh_polynomial", "z", "q(z) with 2 atanh(s) = s q(s^2) for z = s^2 <= 1/9.", *quick_atanh),
        "\n#if defined(BCE_SIMD_AVX512)\n",
        "/* The bits of 2^(j / 16), less j 2^48: adding n 2^48 for n = 16 k + j gives those of 2^(n / 16). */",
        "static const uint64_t bce_exp2_sixteenths[16] = {",
        *("    " + " ".join(f"{number:#018x}," for number in bits[j : j + 4]) for j in range(0, 16, 4)),
        "};\n",
        evaluation("bce_quick_exp_polynomial", "r", "q(r) with e^r = q(r) for |r| <= ln(2) / 32.", *table_exp),
        "\n#else\n",
        evaluation("bce_quick_exp_polynomial", "r", "q(r) with e^r = q(r) for |r| <= ln(2) / 2.", *quick_exp),
        "\n#endif\n",
    ]
    triton = [
        f'"""{do_not_edit}\n',
        "The C core's constants, as hexadecimal float64. Polynomials have the lowest coefficient first.",
        '"""\n',
        *(f'{name} = "{number.hex()}"' for name, number in constants.items()),
    ]
    for name, (coefficients, _) in {"EXP": exp, "LOG1P": log1p}.items():
        triton += [f"{name}_POLYNOMIAL = (", *(f'    "{number.hex()}",' for number in coefficients), ")"]
    return {
        "c_src/bce_constants.h": "\n".join(header),
        "c_src/bce_polynomials.inc": "\n".join(polynomials),
        "bce_bridge/torch/triton_kernel/constants.py": "\n".join(triton) + "\n",
    }


if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).write_text(text)
