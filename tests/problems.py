"""Exact answers, float64: what every solver, schedule and conversion is measured against.

data ~ Gaussian or Gaussian mixture, noise ~ N(0, I), x = alpha * data + sigma * noise: then the law of
x is a Gaussian mixture too, and so the posterior means, the score, the velocity and, for one
Gaussian, the flow itself are closed forms. Nothing here uses the formulas of `runtimes`.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, helper

from runtimes.charts import CHARTS
from runtimes.modelfile import SPEC_KEY, seal
from runtimes.solvers import SOLVERS
from runtimes.spec import Condition, Sampler, Spec, to_json

OPSET, IR = 20, 10
# every solver in every chart; only those that follow the field step in the one that is chosen
WAYS = [
    (name, chart)
    for name, solver in SOLVERS.items()
    for chart in (CHARTS if solver.follows == "field" else ["straight"])
]


class Exact:
    """What follows from `posterior` and `score` for any data."""

    def velocity(self, x, scales):
        """E[d x_t / dt | x_t = x]."""
        data, noise = self.posterior(x, scales.alpha, scales.sigma)
        return float(scales.d_alpha) * data + float(scales.d_sigma) * noise

    def output(self, kind, x, scales):
        """What a perfect network of that prediction kind says at x."""
        alpha, sigma = float(scales.alpha), float(scales.sigma)
        if kind == "velocity":
            return self.velocity(x, scales)
        if kind == "score":
            return self.score(x, alpha, sigma)
        if kind == "edm":  # at the ends the limit, to 1e-8: there the table divides by 0
            alpha, sigma = max(alpha, 1e-8), max(sigma, 1e-8)
        data, noise = self.posterior(x, alpha, sigma)
        if kind == "edm":
            skip, out, _ = edm_factors(sigma / alpha)
            return (data - skip * x / alpha) / out
        return {"data": data, "noise": noise, "v": alpha * noise - sigma * data}[kind]

    def network(self, kind, schedule):
        """(x, t) -> output, as `flow` wants it."""

        def answer(shown, t):
            scales = schedule(t)
            x = shown * input_factor(kind, scales)
            return self.output(kind, x, scales)

        return answer


def edm_factors(level):
    """c_skip, c_out and c_in for data with noise of that level added, deviation of the data 0.5.

    Karras et al. 2022, table 1.
    """
    total = level**2 + 0.25
    return 0.25 / total, level * 0.5 / np.sqrt(total), 1 / np.sqrt(total)


def input_factor(kind, scales):
    """x / what a network of that kind is shown: the edm network sees c_in x / alpha."""
    alpha, sigma = max(float(scales.alpha), 1e-8), float(scales.sigma)
    return alpha / edm_factors(sigma / alpha)[2] if kind == "edm" else 1.0


@dataclass
class Gaussian(Exact):
    """data ~ N(mean, cov)."""

    mean: np.ndarray  # (D,)
    cov: np.ndarray  # (D, D)

    def law(self, alpha, sigma):
        """Mean and covariance of x."""
        return alpha * self.mean, alpha**2 * self.cov + sigma**2 * np.eye(len(self.mean))

    @cached_property
    def parts(self):
        """Variances and axes of the data: those of x are alpha^2 variances + sigma^2, on the same axes."""
        return np.linalg.eigh(self.cov)

    def _white(self, x, alpha, sigma):
        """(covariance of x)^-1 (x - mean of x)."""
        variances, axes = self.parts
        return (x - alpha * self.mean) @ axes / (alpha**2 * variances + sigma**2) @ axes.T

    def posterior(self, x, alpha, sigma):
        white = self._white(x, alpha, sigma)
        return self.mean + alpha * white @ self.cov, sigma * white

    def score(self, x, alpha, sigma):
        return -self._white(x, alpha, sigma)

    def log_density(self, x, alpha, sigma):
        mean, cov = self.law(alpha, sigma)
        away = x - mean
        quadratic = np.einsum("bi,ij,bj->b", away, np.linalg.inv(cov), away)
        return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * cov)[1])

    def flow_map(self, x, start, end):
        """Where the ODE takes x between the Scales `start` and `end`.

        All covariances share eigenvectors, and along each the ODE keeps (x - mean) / deviation.
        """
        (m0, c0), (m1, c1) = self.law(*start[:2]), self.law(*end[:2])
        _, axes = self.parts
        grow = np.sqrt(np.diag(axes.T @ c1 @ axes) / np.diag(axes.T @ c0 @ axes))
        return m1 + ((x - m0) @ axes * grow) @ axes.T


def _means():
    return 0.7 * np.random.default_rng(7).standard_normal((8, 2))


@dataclass
class Mixture(Exact):
    """data ~ equal parts of N(means[k], variance I): overlapping modes, so errors stay smooth."""

    means: np.ndarray = field(default_factory=_means)  # (K, D)
    variance: float = 0.15

    def _parts(self, x, alpha, sigma):
        """How likely each part is, (x - its mean) / its variance, and the log-density but for a constant."""
        away = x[:, None, :] - alpha * self.means  # (B, K, D)
        spread = alpha**2 * self.variance + sigma**2
        logits = np.einsum("bkd,bkd->bk", away, away) * (-0.5 / spread)
        top = logits.max(1, keepdims=True)
        parts = np.exp(logits - top)
        total = parts.sum(1, keepdims=True)
        return parts / total, away / spread, top + np.log(total)

    def posterior(self, x, alpha, sigma):
        parts, white, _ = self._parts(x, alpha, sigma)
        white = np.einsum("bk,bkd->bd", parts, white)
        return parts @ self.means + alpha * self.variance * white, sigma * white

    def score(self, x, alpha, sigma):
        parts, white, _ = self._parts(x, alpha, sigma)
        return -np.einsum("bk,bkd->bd", parts, white)

    def log_density(self, x, alpha, sigma):
        spread = alpha**2 * self.variance + sigma**2
        one = len(self.means) * (2 * np.pi * spread) ** (0.5 * x.shape[1])  # of a part at its mean
        return self._parts(x, alpha, sigma)[2][:, 0] - np.log(one)

    def moments(self):
        """Mean and covariance of the data."""
        away = self.means - self.means.mean(0)
        return self.means.mean(0), self.variance * np.eye(2) + away.T @ away / len(away)


ROUND = Gaussian(np.array([0.8, -1.2]), np.diag([0.3**2, 1.7**2]))
TILTED = Gaussian(
    np.array([0.5, 0.1, -0.4]), np.array([[1.0, 0.5, 0], [0.5, 0.7, 0.2], [0, 0.2, 0.4]])
)
MIXTURE = Mixture()
# dx/dt = SHEAR x: eigenvalues near each other, far from normal
SHEAR = np.array([[-1.0, 4.0, 0.5], [0.0, -1.2, 3.0], [-0.3, 0.0, -0.8]])


def starts(count=64, dims=2, seed=3):
    """float64 (count, dims) standard normals."""
    return np.random.default_rng(seed).standard_normal((count, dims))


def slope(steps, errors):
    """-d log(error) / d log(steps), least squares."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


# ONNX twins: the mixture's velocity on the linear schedule, float32


def mixture_spec(labelled=False, **changes):
    condition = (
        Condition(kind="label", classes=8, names=tuple("abcdefgh")) if labelled else Condition()
    )
    words = {
        "name": "mixture",
        "shape": (2,),
        "condition": condition,
        "sampler": Sampler("heun", 8),
    }
    return Spec(**{**words, **changes})


def mixture_graph(labelled=False):
    """velocity = data - noise with data, noise the posterior means under t data + (1 - t) noise."""
    constants = {
        "means": MIXTURE.means.astype(np.float32),
        "variance": np.float32(MIXTURE.variance),
        "one": np.float32(1),
        "half": np.float32(-0.5),
        "to_b1": np.array([1], np.int64),
        "to_bk": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        # row k lets mode k through, the last row all of them
        "masks": np.vstack([np.where(np.eye(8), 0, -1e9), np.zeros((1, 8))]).astype(np.float32),
    }
    steps = [
        ("Unsqueeze", "time to_b1", "t"),
        ("Sub", "one t", "s"),
        ("Mul", "t t", "tt"),
        ("Mul", "tt variance", "ttv"),
        ("Mul", "s s", "ss"),
        ("Add", "ttv ss", "spread"),  # (B, 1)
        ("Unsqueeze", "t to_bk", "t3"),
        ("Mul", "t3 means", "centres"),
        ("Unsqueeze", "x to_b1", "x3"),
        ("Sub", "x3 centres", "away"),  # (B, 8, 2)
        ("Mul", "away away", "squares"),
        ("ReduceSum", "squares last", "distance"),
        ("Div", "distance spread", "scaled"),
        ("Mul", "scaled half", "logits"),
        *(
            [("Gather", "masks label", "mask"), ("Add", "logits mask", "allowed")]
            if labelled
            else []
        ),
        ("Softmax", "allowed" if labelled else "logits", "parts"),
        # the mean of the parts' distances, not by ReduceSum over modes: on one row ONNX Runtime
        # adds along a middle axis in another order than on many
        ("MatMul", "parts means", "centre"),
        ("Mul", "t centre", "middle"),
        ("Sub", "x middle", "sum"),
        ("Div", "sum spread", "white"),
        ("Mul", "t variance", "tv"),
        ("Mul", "tv white", "shift"),
        ("Add", "centre shift", "data"),
        ("Mul", "s white", "noise"),
        ("Sub", "data noise", "prediction"),
    ]
    flags = {"ReduceSum": {"keepdims": 0}, "Softmax": {"axis": -1}}
    nodes = [
        helper.make_node(op, ins.split(), [out], name=out, **flags.get(op, {}))
        for op, ins, out in steps
    ]
    used = {name for node in nodes for name in node.input}
    weights = [
        onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used
    ]
    inputs = [("x", TensorProto.FLOAT, ["B", 2]), ("time", TensorProto.FLOAT, ["B"])]
    inputs += [("label", TensorProto.INT64, ["B"])] if labelled else []
    return graph(nodes, inputs, ["B", 2], weights)


def image_graph(shape=(4, 6, 3)):
    """tanh(conv(x)) + time * x, random weights, channels last outside."""
    height, width, channels = shape
    rng = np.random.default_rng(5)
    weights = [
        onnx.numpy_helper.from_array(
            rng.normal(0, 0.2, (channels, channels, 3, 3)).astype(np.float32), "kernel"
        ),
        onnx.numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["conv"], ["tanh"]),
        helper.make_node("Transpose", ["tanh"], ["back"], perm=[0, 2, 3, 1]),
        helper.make_node("Unsqueeze", ["time", "axes"], ["t"]),
        helper.make_node("Mul", ["x", "t"], ["xt"]),
        helper.make_node("Add", ["back", "xt"], ["prediction"]),
    ]
    sizes = ["B", height, width, channels]
    inputs = [("x", TensorProto.FLOAT, sizes), ("time", TensorProto.FLOAT, ["B"])]
    return graph(nodes, inputs, sizes, weights)


def graph(nodes, inputs, sizes, weights=()):
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    out = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, sizes)
    return helper.make_graph(nodes, "network", values, [out], list(weights))


def proto(graph, spec, *, opset=OPSET, ir=IR):
    """The model with the spec in its metadata, not sealed yet."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    helper.set_model_props(model, {SPEC_KEY: spec if isinstance(spec, str) else to_json(spec)})
    return model


def write_proto(path, model):
    path.write_bytes(seal(model.SerializeToString()))
    return path


def write_onnx(path, *, labelled=False, spec=None, graph=None):
    """The mixture (or `graph`) as a sealed model file at `path`."""
    spec = mixture_spec(labelled) if spec is None else spec
    return write_proto(path, proto(mixture_graph(labelled) if graph is None else graph, spec))
