"""Reads numbers from standard input, and prints the network's three highest classes.

Everything slow, the start of Python and loading numpy and the model, happens before standard input is read. With the
label org.general-compute.prestart=1 it happens before the task arrives.
"""

import os
import sys
from typing import Final

import numpy

MODEL: Final = "/model.npz"
INPUTS, HIDDEN, CLASSES = 512, 1600, 64


def train() -> None:
    """Make the model; a real one would be copied into the image."""
    random = numpy.random.default_rng(2026)
    first = random.standard_normal((INPUTS, HIDDEN), dtype=numpy.float32) / INPUTS**0.5
    second = random.standard_normal((HIDDEN, HIDDEN // 2), dtype=numpy.float32) / HIDDEN**0.5
    third = random.standard_normal((HIDDEN // 2, CLASSES), dtype=numpy.float32) / HIDDEN**0.5
    numpy.savez(MODEL, first=first, second=second, third=third)


def main() -> int:
    stored = numpy.load(MODEL)
    layers = [stored[name] for name in ("first", "second", "third")]
    # The first multiplication initializes BLAS: do that before the input, too.
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
    # Skip the clean-up of interpreter and libraries, which would take longer than the task itself.
    os._exit(status)
