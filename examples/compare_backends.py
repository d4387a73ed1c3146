"""One network, every backend that is here, the same noise: how far apart do they end up?

    toolkit quickstart    # a network to compare: its run folder and its .onnx
    python examples/compare_backends.py quickstart/run quickstart/digits.onnx  # writes compare.png here

Also `toolkit compare RUN MODEL.onnx`, which adds a report. Whoever has their own torch or MLX module puts
it behind export.TorchModel or export.MlxModel and makes a Backend of it.
"""

import argparse

from toolkit import plots
from toolkit.backends import find
from toolkit.compare import compare, timed
from toolkit.pages import error_figure
from toolkit.reports import table


def main() -> None:
    """Find the backends, follow one trajectory with each, time them, draw the error along the path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", nargs="?", default="quickstart/run")
    parser.add_argument("files", nargs="*", help="its .onnx files, of any form")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="compare.png")
    options = parser.parse_args()

    backends, absent = find(options.run, options.files)
    result = compare(backends, 8, request={"solver": "heun", "steps": 20, "seed": 0})
    result = timed(result, rounds=options.rounds)
    print(table(result, absent))
    print(plots.save(options.out, error_figure(result)))


if __name__ == "__main__":
    main()
