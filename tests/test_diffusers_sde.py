"""SDE-DPM-Solver++(2M) beside diffusers' own, on the same network, noise and grid.

diffusers computes a step in float32, so this is as close as the two can come; the last step onto
sigma = 0 is of first order in both.
"""

import diffusers
import numpy as np
import pytest
import torch

from runtimes.flow import flow
from runtimes.schedules import SCHEDULES

from .problems import MIXTURE, starts

# diffusers hands torch tensors to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# our schedule and prediction; how diffusers names them, the sign of its output and its sigma
PATHS = {
    "linear": ("velocity", {"use_flow_sigmas": True}, "flow_prediction", -1.0, lambda a, s: s),
    "vp": ("noise", {}, "epsilon", 1.0, lambda a, s: s / a),
}


def theirs(schedule, kind, times, x, draw):
    """The states of diffusers' scheduler over our times."""
    prediction, options, word, sign, level = PATHS[schedule]
    rule, steps = SCHEDULES[schedule], len(times) - 1
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type=kind,
        prediction_type=word,
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="zero",
        **options,
    )
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    scheduler.sigmas = torch.tensor([float(level(*rule(t)[:2])) for t in times]).double()
    # it takes first order onto the last of its sigmas where they are said to end at zero
    scheduler.register_to_config(final_sigmas_type="zero" if times[-1] == 1 else "sigma_min")
    network, x = MIXTURE.network(prediction, rule), torch.tensor(x)
    for k, t in enumerate(times[:-1]):
        out = torch.tensor(sign * network(x.double().numpy(), t))
        noise = torch.tensor(draw(k))
        x = scheduler.step(out, scheduler.timesteps[k], x, variance_noise=noise).prev_sample
        yield x.double().numpy()


@pytest.mark.parametrize("schedule", PATHS)
@pytest.mark.parametrize(("kind", "eta"), [("sde-dpmsolver++", 1.0), ("dpmsolver++", 0.0)])
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("end", [0.9, 1.0])
def test_trajectories_agree(schedule, kind, eta, steps, end):
    x, times = starts(32), np.linspace(0.05, end, steps + 1).tolist()

    def draw(k):
        return starts(32, seed=50 + k)

    want = list(theirs(schedule, kind, times, x, draw))
    options = {"schedule": schedule, "prediction": PATHS[schedule][0], "eta": eta}
    network = MIXTURE.network(PATHS[schedule][0], SCHEDULES[schedule])
    got = list(flow("sde_dpmpp_2m", network, x, times, draw=draw, **options))
    assert len(got) == steps
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
