"""The tests are tested: one wrong token in the maths, and a named test file must notice."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXACT = ("test_solvers.py", "polynomials or expm")
MULTI = ("test_solvers.py", "expm")
POWER = (
    "test_exponential.py",
    "expm or polynomials or linear_in or quadrature",
)
MARUYAMA = ("test_stochastic.py", "monte_carlo and euler_maruyama or drawn")
ANCESTRAL = ("test_stochastic.py", "monte_carlo and ancestral or ddpm")
HEUN = ("test_stochastic.py", "monte_carlo and stochastic_heun")
MULTISTEP = ("test_stochastic.py", "monte_carlo and sde_dpmpp_2m")
DIFFUSERS = ("test_diffusers_sde.py", "trajectories")
CHURN = ("test_stochastic.py", "monte_carlo and edm_churn or lifts")
LANGEVIN = ("test_stochastic.py", "known_point and langevin or corrects_by")
DIFFUSION = ("test_stochastic.py", "by_hand or that_is_none")
CHART = ("test_charts.py", "derivatives or clock")
ENDS = ("test_predictions.py", "velocity_target or v_target or gradient")
RATES = ("test_schedules.py", "precision or ends")
GUIDED = ("test_guidance.py", "cfgpp or spread or autoguidance or times_the")
HELD = (
    "test_controls.py",
    "mask_of_zeros or known_part and heun or slerp or enters_the or backwards and linear",
)
NAMED = ("test_schedules.py", "usual_numbers")
EDM = ("test_predictions.py", "published or unit_variance")
SHOWN = ("test_predictions.py", "shown")
GRID = ("test_grids.py", "index_grids or angle or rho or snr or scipy or trim")
PAIRS = ("test_adaptive.py", "both_formulas or states_between or no_worse or last_bit")
INTERVAL = ("test_integrate.py", "its_interval")
STAYS = ("test_hoisting.py", "reaches_across")
GOES = ("test_hoisting.py", "mlp-label or dit-tokens or too_much or prompt")
LOOP = ("test_sampler.py", "every_solver and (ancestral or dpmpp_3m) or neighbours or both_halves")
READ = ("test_tableau.py", "read_back or slots_that")
BITS = ("test_noise_graph.py", "bits")
SEEDS = ("test_noise_graph.py", "counts_on")
MLX = ("test_mlx_ops.py", "function")
WHOLE = ("test_precision.py", "exact or ties or overflow or half_a_step")
GATE = ("test_precision.py", "both_distances or fails_is_not")
CUT = ("test_precision.py", "scale_of_its_own or half_a_step")
WIDEN = (
    "test_precision.py",
    "done_once or become_many or left_to_onnx or widened_are or inside_reads",
)
FUSED = ("test_fused.py", "drawn or proven or three_axes")
LOOPS = ("test_peers.py", "diffusers_solvers and 4-True-3.0")
BARE = ("test_peers.py", "bare_calls_are_of")
RATIO = ("test_benchmark.py", "stands_beside")
LIKELY = ("test_likelihood.py", "ode_draws or known_matrix")
ASTRAY = ("test_fit.py", "lands_elsewhere")
TAUGHT = ("test_fit.py", "need_no_gradient")

THREADS = ("test_work.py", "so_many or without_work or more_places")
BOUND = ("test_ways.py", "bound")
TOLD = ("test_providers.py", "rounded or recorded or engines")

MUTANTS = [  # file of runtimes/ or with its room, text, what it becomes, who must notice
    ("work.py", "// SHARE", "// 1", THREADS),
    ("work.py", "SPIN = 20", "SPIN = 100_000", THREADS),
    ("bound.py", "with self.lock:", "if self.lock:", BOUND),
    ("providers.py", "{file.digest[:32]}", "{file.form}", TOLD),
    ("providers.py", '"use_tf32": "0"', '"use_tf32": "1"', TOLD),
    ("toolkit/loop_diffusers.py", "step(-velocity(x, t)", "step(velocity(x, t)", LOOPS),
    ("toolkit/loop_diffusers.py", "todo.weight != 1.0", "todo.weight == 1.0", LOOPS),
    ("toolkit/floor.py", "np.concatenate([x, x])", "np.concatenate([x, -x])", BARE),
    ("toolkit/benchmark.py", "timing.ratios(mine, floor)", "timing.ratios(floor, mine)", RATIO),
    ("tableau.py", "before + row.draw + 1", "before + row.draw", LOOP),
    ("tableau.py", "index - alive + tableau.slots", "index", LOOP),
    ("tableau.py", "draw=draw - 1 if draw", "draw=draw if draw", READ),
    ("tableau.py", "int(used[-1]) + 1 if len(used)", "int(used[-1]) if len(used)", READ),
    ("tableau.py", "places = [*range(now), slots,", "places = [*range(now), slots - 1,", READ),
    ("tableaus.py", "guided=(0.0, 1.0)", "guided=(0.0, 0.5)", LOOP),
    ("export/sampler.py", 'b.op("Sub", strong, weak)', 'b.op("Sub", weak, strong)', LOOP),
    ("export/sampler.py", 'b.part(out, 0, b.op("Neg"', 'b.part(out, 0, b.op("Identity"', LOOP),
    ("export/sampler.py", 'g.op("ReduceMax", away)', 'g.op("ReduceMin", away)', LOOP),
    ("export/sampler.py", 'g.op("Add", on, g.ints(1))', 'g.op("Sub", g.ints(2), on)', LOOP),
    ("export/hoisting.py", '"axis", -1) % seen', '"axis", -1) + 9 + seen', STAYS),
    ("export/hoisting.py", "axes is not None and bool(", "axes is not None or bool(", STAYS),
    ("export/hoisting.py", "not set(node.input) <=", "set(node.input) !=", STAYS),
    (
        "export/hoisting.py",
        "(*BATCHES[1:], *axes[1:])",
        "(*BATCHES[1:], *large[name][1][1:])",
        STAYS,
    ),
    ("export/hoisting.py", "math.prod(self.middle) * ", "", GOES),
    ("export/hoisting.py", "0, 0, self.most), g.ints(0)", "0, 0, self.most), g.ints(1)", GOES),
    ("export/noise_graph.py", "g.ints(1 << rotation)", "g.ints(2 << rotation)", BITS),
    ("export/noise_graph.py", "keys[(group + 2) % 3]), g", "keys[(group + 1) % 3]), g", BITS),
    ("export/noise_graph.py", 'g.op("Equal", g.size', 'g.op("Less", g.size', SEEDS),
    ("export/mlx_products.py", "bool(flip) != back", "bool(flip) == back", MLX),
    ("export/mlx_products.py", "max(-e, 0)", "max(e, 0)", MLX),
    ("export/mlx_products.py", "zip(reach, high,", "zip(reach, low,", MLX),
    ("export/mlx_layers.py", "columns - rows, dtype", "0, dtype", MLX),
    ("export/mlx_layers.py", "float(np.finfo(np.float32).min)", "0.0", MLX),
    ("export/mlx_layers.py", '["count_include_pad"] = 1', '["count_include_pad"] = 0', MLX),
    ("export/mlx_ops.py", "uses[name] != 1", "uses[name] > 9", MLX),
    ("export/mlx_sums.py", "exclusive=int(not inclusive)", "exclusive=int(inclusive)", MLX),
    (
        "export/mlx_values.py",
        "(axes.index(axis) for axis in order)",
        "(axes[k] for k in order)",
        MLX,
    ),
    (
        "export/mlx_values.py",
        "[have.index(axis) for axis in order]",
        "[order.index(k) for k in have]",
        MLX,
    ),
    ("export/mlx_arithmetic.py", "abs(part * n - 1.0) < 1e-6", "abs(part - 1.0) < 9.0", MLX),
    ("export/sheet.py", "int(size.a * below)", "int(size.b * below)", MLX),
    ("export/sizes.py", "values[0] / BATCHES[0] ** power", "values[0] * BATCHES[0] ** power", MLX),
    ("toolkit/fit_torch.py", "torch.sqrt(squares + TINY)", "squares", ASTRAY),
    ("toolkit/teacher.py", "weights[0] += 1.0", "weights[0] += 0.5", TAUGHT),
    ("export/precision.py", "largest / 63.0", "largest / 127.0", WHOLE),
    ("export/blocks.py", "(bits >> 16 & 1)", "1", WHOLE),
    ("export/blocks.py", "argmax(1)[:, None]", "argmin(1)[:, None]", CUT),
    ("export/blocks.py", "nibbles[..., 1::2] << 4", "nibbles[..., 1::2] << 3", CUT),
    ("export/blocks.py", "scale == 0.0", "scale < 0.0", CUT),
    ("export/precision.py", "weight / scale) + zero", "weight / scale) - zero", WHOLE),
    ("export/precision.py", "(high - low) / 255.0", "(high - low) / 256.0", WHOLE),
    ("export/precision.py", 'g.op("Mul", x[1], weight[1])', 'g.op("Mul", x[1], x[1])', WHOLE),
    ("export/fidelity.py", "self.sliced <= self.other_seeds", "True", GATE),
    ("export/fidelity.py", "self.end_error <= self.tolerance", "True", GATE),
    ("export/forms.py", "found.passes or accept", "found.passes or True", GATE),
    ("widen.py", "self.weights.pop(", "self.weights.get(", WIDEN),
    ("widen.py", "self.reads[name] == 1", "True", WIDEN),
    ("export/fused.py", "by_left * by_right", "by_left", FUSED),
    ("export/fused.py", "len(alike) > 1 or", "len(alike) > 9 or", FUSED),
    ("export/fused.py", "index * heads * width", "index * width", FUSED),
    ("export/patterns.py", "and self.readers[name] == 1", "", FUSED),
    ("widen.py", "for name in (*ends, *_read_inside(nodes.values()))", "for name in ends", WIDEN),
    ("widen.py", "np.uint32) << 16", "np.uint32) << 15", WIDEN),
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
    ("solvers.py", "(k1 + k2 * 3.0)", "(k1 * 3.0 + k2)", EXACT),
    ("solvers.py", "field(y + k2 * (h * 2.0 / 3.0)", "field(y + k1 * (h * 2.0 / 3.0)", EXACT),
    ("multistep.py", "    w = h / h_before", "    w = h_before / h", EXACT),
    ("multistep.py", "(-0.5 * w * h)", "(0.5 * w * h)", EXACT),
    ("multistep.py", "1.0 / (j + 1)", "1.0 / j", EXACT),
    ("multistep.py", "[(before - t) / h", "[(t - before) / h", EXACT),
    ("multistep.py", "*past[:2]]", "*past[:1]]", EXACT),
    ("multistep.py", "field(y + k2 * (h * 2.0 / 3.0)", "field(y + k * (h * 2.0 / 3.0)", MULTI),
    ("exponential.py", "float(after.alpha) - float(now", "float(now.alpha) - float(now", POWER),
    ("exponential.py", "found[-1] * j / h", "found[-1] / h", POWER),
    ("exponential.py", "-0.5 * math.expm1(-h)", "-math.expm1(-h)", POWER),
    ("exponential.py", "{seen - at: end", "{at - seen: end", POWER),
    ("exponential.py", "DATA, 3, halved", "DATA, 2, halved", POWER),
    ("exponential.py", "NOISE, 2, exact", "DATA, 2, exact", POWER),
    ("exponential.py", "NOISE, 3, exact", "NOISE, 2, exact", POWER),
    (
        "exponential.py",
        "unipc(ends, x, grid, scales, 2)",
        "unipc(ends, x, grid, scales, 1)",
        POWER,
    ),
    (
        "exponential.py",
        "unipc(ends, x, grid, scales, 3)",
        "unipc(ends, x, grid, scales, 2)",
        POWER,
    ),
    ("exponential.py", "data * -trust", "data * trust", POWER),
    ("exponential.py", "0.5 * (clock(now)", "0.6 * (clock(now)", POWER),
    ("exponential.py", "half = 0.5 * (float(after", "half = 1.0 * (float(after", POWER),
    ("stochastic.py", "math.sqrt(square * h)", "math.sqrt(2.0 * square * h)", MARUYAMA),
    ("stochastic.py", "float(now.d_sigma) - eta**2", "float(now.d_sigma) + eta**2", MARUYAMA),
    ("stochastic.py", "/ (alpha_s * sigma_t)", "/ (alpha_s * sigma_s)", ANCESTRAL),
    ("stochastic.py", "data * alpha_s + noise * math", "data * sigma_s + noise * math", ANCESTRAL),
    (
        "stochastic.py",
        "x + draw(k) * spread\n        yield",
        "x + draw(k + 1) * spread\n        yield",
        MARUYAMA,
    ),
    ("stochastic.py", "ends(x + f1 * h, s)", "ends(x + f1 * h, t)", HEUN),
    ("stochastic.py", "(square + square_after)", "(square + square)", HEUN),
    (
        "stochastic.py",
        "(f1 + f2) * (0.5 * h)",
        "(f1 + f1) * (0.5 * h)",
        HEUN,
    ),
    ("stochastic.py", "0.5 * h / h_before", "0.5 * h_before / h", DIFFUSERS),
    ("stochastic.py", "data_before * (-w)", "data * (-w)", MULTISTEP),
    ("stochastic.py", "alpha_s * (1.0 - p * q)", "alpha_s * (1.0 - p)", MULTISTEP),
    ("stochastic.py", "p = q ** (eta**2)", "p = q ** (2.0 * eta)", DIFFUSERS),
    ("stochastic.py", "trapezium(ends, lifted", "trapezium(ends, x", CHURN),
    ("stochastic.py", "- (shrink * sigma) ** 2", "- sigma**2", CHURN),
    ("stochastic.py", "t = max(above, grid[0])", "t = above", CHURN),
    ("exponential.py", "_, noise_s = ends(x, s)", "_, noise_s = ends(x, t)", CHURN),
    ("stochastic.py", "noise * (-e * sigma_s)", "noise * (-e)", LANGEVIN),
    ("stochastic.py", "e * (2.0 - e)", "e * (1.0 - e)", LANGEVIN),
    ("stochastic.py", "_, noise = ends(x, s)", "_, noise = ends(x, t)", LANGEVIN),
    ("stochastic.py", "(square / (2.0 *", "(square / (1.0 *", DIFFUSION),
    ("stochastic.py", "0.0 <= square < math.inf", "0.0 <= abs(square)", DIFFUSION),
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
    ("guidance.py", "strength / (1.0 - float(one))", "strength * (1.0 - float(one))", GUIDED),
    ("guidance.py", "(alpha[:-1] * sigma[1:])", "(alpha[1:] * sigma[1:])", GUIDED),
    ("guidance.py", "bisect_right(times, t) - 1", "bisect_right(times, t)", GUIDED),
    ("guidance.py", "* rescale + (1.0 - rescale)", "* rescale + rescale", GUIDED),
    ("guidance.py", "(strong) + tiny) / (spread(out)", "(out) + tiny) / (spread(strong)", GUIDED),
    ("controls.py", "before=step - 1", "before=step", HELD),
    (
        "controls.py",
        "path = todo.first(start, stop, s)",
        "path = todo.first(start, stop, t)",
        HELD,
    ),
    ("controls.py", "np.sin((1.0 - w) * angle) * a", "np.sin((1.0 - w) * angle) * b", HELD),
    ("controls.py", "max(1.0 - float(strength), times[0])", "max(strength, times[0])", HELD),
    ("controls.py", "todo.times[::-1]", "todo.times", HELD),
    ("controls.py", "replace(todo, data=None)", "replace(todo)", HELD),
    ("schedules.py", "n * t ** (n - 1.0)", "n * t**n", RATES),
    ("schedules.py", "m = t + shift * (1.0 - t)", "m = shift * t + (1.0 - t)", RATES),
    ("schedules.py", "-0.014 * k *", "-0.014 *", RATES),
    ("schedules.py", "m1 * f * (3.0 * f - 2.0)", "m1 * f * (3.0 * f - 1.0)", RATES),
    ("schedules.py", "0.25 * (3.0 * sums", "0.25 * (2.0 * sums", RATES),
    ("choices.py", "function(*args, *numbers)", "function(*args)", NAMED),
    ("predictions.py", "-SIGMA_DATA * scales.alpha / q", "SIGMA_DATA * scales.alpha / q", EDM),
    ("predictions.py", "return 1.0 / _spread(scales)", "return _spread(scales)", EDM),
    ("flow.py", "network(x * at.input, t)", "network(x, t)", SHOWN),
    ("flow.py", "point.m * at.input", "point.m", SHOWN),
    ("grids.py", "low + (0.5 * np.pi - low)", "(0.5 * np.pi - low)", GRID),
    ("grids.py", "np.float64(0.002) ** (1.0 / rho)", "np.float64(0.002) ** (1.0 / 7.0)", GRID),
    ("grids.py", "np.exp(-np.log(top)", "np.exp(-np.log(80.0)", GRID),
    ("grids.py", "(1.0 - b / n[1:])", "(1.0 + b / n[1:])", GRID),
    ("grids.py", "(indices + 1.0) / count", "indices / count", GRID),
    ("grids.py", "np.rint(count *", "np.floor(count *", GRID),
    ("grids.py", "START, float(time_of_ratio(schedule, START))", "START", GRID),
    ("adaptive.py", "49 / 176", "49 / 167", PAIRS),
    ("adaptive.py", "71 / 1920", "71 / 1902", PAIRS),
    ("adaptive.py", "-10690763975 /", "10690763975 /", PAIRS),
    ("adaptive.py", "s if c == 1.0 else r + c * h", "s if c == 1.0 else r", PAIRS),
    ("adaptive.py", "floor ** (-0.85 / p)", "floor ** (0.85 / p)", PAIRS),
    ("adaptive.py", "np.mean(flat * flat, axis=1)", "np.mean(flat * flat)", PAIRS),
    ("integrate.py", "mixed(one[on], without", "mixed(without, one[on]", INTERVAL),
    ("integrate.py", "& (t <= interval[1])", "& (t >= interval[1])", INTERVAL),
    ("likelihood.py", "ode.m(start) / ode.m(end)", "ode.m(end) / ode.m(start)", LIKELY),
    ("likelihood.py", "flat.shape[1] * on_y", "on_y", LIKELY),
    ("likelihood.py", "on_out * shown * traced", "on_out * traced", LIKELY),
    ("likelihood.py", "scale + grown", "scale - grown", LIKELY),
    ("likelihood.py", "math.pi * sigma**2", "math.pi", LIKELY),
    ("likelihood.py", "total / probes", "total", LIKELY),
]


def copy(folder):
    for room in ("runtimes", "export", "toolkit", "tests"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
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
    room = "" if "/" in file else "runtimes"
    target = copy(folder / str(number)) / room / file
    text = target.read_text()
    if text.count(old) != 1:
        return f"{file}: {old!r} stands there {text.count(old)} times; correct this list"
    target.write_text(text.replace(old, new))
    code, out = run(folder / str(number), tests, chosen)
    # 1: tests ran and some failed; anything else is a crash or an empty selection
    return (
        "" if code == 1 else f"{file}: {old!r} -> {new!r} survived {tests} ({code})\n{out[-500:]}"
    )


@pytest.mark.slow
def test_every_mutant_is_noticed(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda number: judge(tmp_path, number), range(len(MUTANTS))))
    assert [verdict for verdict in verdicts if verdict] == []


@pytest.mark.slow
def test_the_same_tests_pass_on_the_original(tmp_path):
    """And they look at the copy, not at the installed package."""
    folder = copy(tmp_path)
    (folder / "tests" / "test_where.py").write_text(
        "import runtimes\n\n\ndef test_ends_where():\n"
        f"    assert runtimes.__file__.startswith({str(folder)!r})\n"
    )
    claims = [("test_where.py", "ends_where"), *sorted({claim for *_, claim in MUTANTS})]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda claim: run(folder, *claim), claims))
    assert [out for code, out in verdicts if code] == []
