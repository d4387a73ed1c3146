"""The tests are tested: one wrong token in the maths, and a named test file must notice."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXACT = ("test_solvers.py", "polynomials or expm")
NOISY = ("test_stochastic.py", "weak or ddpm or drawn")
CHART = ("test_charts.py", "derivatives or clock")
ENDS = ("test_predictions.py", "velocity_target or v_target or gradient")
RATES = ("test_schedules.py", "precision or ends")
PAIRS = ("test_adaptive.py", "both_formulas or states_between or no_worse or last_bit")
GUIDED = ("test_integrate.py", "its_interval")
LIKELY = ("test_likelihood.py", "ode_draws or known_matrix")

MUTANTS = [  # file, text, what it becomes, who must notice
    ("solvers.py", "field(y, t) * (0.5 * h)", "field(y, t) * h", EXACT),
    ("solvers.py", "field(half, t + 0.5 * h)", "field(half, t)", EXACT),
    ("solvers.py", "field(y + k1 * h, s)", "field(y + k1 * h, t)", EXACT),
    ("solvers.py", "(k1 + k2) * (0.5 * h)", "(k1 + k1) * (0.5 * h)", EXACT),
    (
        "solvers.py",
        "field(y + k2 * (0.5 * h), middle)",
        "field(y + k1 * (0.5 * h), middle)",
        EXACT,
    ),
    ("solvers.py", "field(y + k3 * h, s)", "field(y + k2 * h, s)", EXACT),
    ("solvers.py", "    w = h / h_before", "    w = h_before / h", EXACT),
    ("solvers.py", "(-0.5 * w * h)", "(0.5 * w * h)", EXACT),
    ("stochastic.py", "math.sqrt(2.0 * float", "math.sqrt(1.0 * float", NOISY),
    ("stochastic.py", "float(now.d_sigma) - eta**2", "float(now.d_sigma) + eta**2", NOISY),
    ("stochastic.py", "/ (alpha_s * sigma_t)", "/ (alpha_s * sigma_s)", NOISY),
    ("stochastic.py", "data * alpha_s", "data * alpha_t", NOISY),
    ("stochastic.py", "draw(k) * n", "draw(k + 1) * n", NOISY),
    ("predictions.py", "-c / determinant", "c / determinant", ENDS),
    (
        "predictions.py",
        "return -scales.sigma, scales.alpha",
        "return scales.sigma, scales.alpha",
        ENDS,
    ),
    ("predictions.py", "-1.0 / np.asarray", "1.0 / np.asarray", ENDS),
    ("charts.py", "/ m, 1.0, -1.0)", "/ m, 1.0, 1.0)", CHART),
    (
        "charts.py",
        "float(scales.sigma) / float(scales.alpha), 0.0",
        "float(scales.alpha), 0.0",
        CHART,
    ),
    ("schedules.py", "0.5 * 0.1 * u", "0.1 * u", RATES),
    ("schedules.py", "-0.5 * np.pi * alpha", "0.5 * np.pi * alpha", RATES),
    ("adaptive.py", "49 / 176", "49 / 167", PAIRS),
    ("adaptive.py", "71 / 1920", "71 / 1902", PAIRS),
    ("adaptive.py", "-10690763975 /", "10690763975 /", PAIRS),
    ("adaptive.py", "s if c == 1.0 else r + c * h", "s if c == 1.0 else r", PAIRS),
    ("adaptive.py", "floor ** (-0.85 / p)", "floor ** (0.85 / p)", PAIRS),
    ("adaptive.py", "np.mean(flat * flat, axis=1)", "np.mean(flat * flat)", PAIRS),
    ("integrate.py", "(1.0 - weight)", "(weight - 1.0)", GUIDED),
    ("likelihood.py", "ode.m(start) / ode.m(end)", "ode.m(end) / ode.m(start)", LIKELY),
    ("likelihood.py", "flat.shape[1] * on_y", "on_y", LIKELY),
    ("likelihood.py", "on_out * m * traced", "on_out * traced", LIKELY),
    ("likelihood.py", "scale + grown", "scale - grown", LIKELY),
    ("likelihood.py", "math.pi * sigma**2", "math.pi", LIKELY),
    ("likelihood.py", "total / probes", "total", LIKELY),
]


def copy(folder):
    shutil.copytree(
        ROOT / "runtimes", folder / "runtimes", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder, tests, chosen):
    """Exit code and output of the chosen tests against the copy in `folder`."""
    plugins = ["-p", "no:randomly", "-p", "no:cacheprovider"]
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            *plugins,
            "-k",
            chosen,
            *(f"tests/{name}" for name in tests.split()),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return out.returncode, out.stdout + out.stderr


def judge(folder, number):
    """What is wrong with mutant `number`: "" if its tests fail as they should."""
    file, old, new, (tests, chosen) = MUTANTS[number]
    target = copy(folder / str(number)) / "runtimes" / file
    text = target.read_text()
    if text.count(old) != 1:
        return f"{file}: {old!r} stands there {text.count(old)} times; correct this list"
    target.write_text(text.replace(old, new))
    code, out = run(folder / str(number), tests, chosen)
    # 1: tests ran and some failed; anything else is a crash or an empty selection
    return (
        "" if code == 1 else f"{file}: {old!r} -> {new!r} survived {tests} ({code})\n{out[-500:]}"
    )


def test_every_mutant_is_noticed(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda number: judge(tmp_path, number), range(len(MUTANTS))))
    assert [verdict for verdict in verdicts if verdict] == []


def test_the_same_tests_pass_on_the_original(tmp_path):
    """And they look at the copy, not at the installed package."""
    folder = copy(tmp_path)
    files = {tests for *_, (tests, _) in MUTANTS}
    chosen = "ends_where or " + " or ".join(sorted({chosen for *_, (_, chosen) in MUTANTS}))
    (folder / "tests" / "test_where.py").write_text(
        "import runtimes\n\n\ndef test_ends_where():\n"
        f"    assert runtimes.__file__.startswith({str(folder)!r})\n"
    )
    code, out = run(folder, " ".join(["test_where.py", *sorted(files)]), chosen)
    assert code == 0, out
