"""Numbers on standard input, the network's three highest classes on standard output.

All that takes time, Python's start, numpy's import and the model's, happens before standard input is read: with the
label org.general-compute.prestart=1 it happens before the task is there.
"""

import os
import sys
from typing import Final

import numpy

MODEL: Final = "/model.npz"
INPUTS, HIDDEN, CLASSES = 512, 1600, 64


def train() -> None:
    """Make the model; a real one would be copied in."""
    random = numpy.random.default_rng(2026)
    first = random.standard_normal((INPUTS, HIDDEN), dtype=numpy.float32) / INPUTS**0.5
    second = random.standard_normal((HIDDEN, HIDDEN // 2), dtype=numpy.float32) / HIDDEN**0.5
    third = random.standard_normal((HIDDEN // 2, CLASSES), dtype=numpy.float32) / HIDDEN**0.5
    numpy.savez(MODEL, first=first, second=second, third=third)


def main() -> int:
    stored = numpy.load(MODEL)
    layers = [stored[name] for name in ("first", "second", "third")]
    # The first multiplication sets BLAS up: that, too, before the input.
    run(layers, numpy.zeros(INPUTS, dtype=numpy.float32))

    text = sys.stdin.buffer.read()
    try:
        values = numpy.array(text.split(), dtype=numpy.float32)[:INPUTS]
    except ValueError:
        print("model: the input is not numbers with spaces between them", file=sys.stderr)
        return 65
    scores = run(layers, numpy.pad(values, (0, INPUTS - len(values))))
    for place in numpy.argsort(scores)[::-1][:3]:
        print(f"class {place}: {scores[place]:.3f}")
    return 0


def run(layers: "list[numpy.ndarray]", values: "numpy.ndarray") -> "numpy.ndarray":
    for layer in layers[:-1]:
        values = numpy.maximum(values @ layer, 0)
    scores = values @ layers[-1]
    scores = numpy.exp(scores - scores.max())
    return scores / scores.sum()


if __name__ == "__main__":
    if sys.argv[1:] == ["train"]:
        train()
        sys.exit(0)
    status = main()
    sys.stdout.flush()
    # Nothing is left to save: taking interpreter and libraries down again would be the longest part of the task.
    os._exit(status)
