"""Python's multiprocessing.Pool on the cases of benches/compare: the contender `python_pool`.

usage: pool.py CASE N CALLS WORKERS

It makes its input and its pool, and says "ready". For every line on standard input it takes one turn and answers
"<seconds> <digest>", the digest only where it is cheap: where it is not, the turn checks its result itself. Between the
lines it blocks in `read`, and its workers in their queue. Arrays are numpy's, handed to the pool in the four pieces a
worker that Pool would make of a list.
"""

import multiprocessing
import sys
import time

try:
    import numpy as np
except ModuleNotFoundError:
    np = None

# Tasks: top level, so that they can be pickled.


def nothing(_):
    pass


def square(x):
    return x * x


def increment(x):
    return x + 1


def label(x, chunk):
    return f"{chunk}-{x * x}"


def normal(x):
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17."""
    a = np.abs(x)
    k = 1.0 / (1.0 + 0.2316419 * a)
    p = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    tail = 0.3989422804014327 * np.exp(-0.5 * a * a) * p
    return np.where(x < 0.0, tail, 1.0 - tail)


def price(spot, strike, years, rate, volatility):
    root = volatility * np.sqrt(years)
    d1 = (np.log(spot / strike) + (rate + 0.5 * volatility * volatility) * years) / root
    paid = strike * np.exp(-rate * years)
    call = spot * normal(d1) - paid * normal(d1 - root)
    return np.stack([call, call - spot + paid], axis=1)


# Inputs and checks.


def chunks(workers, *columns):
    """Rows of pieces of the columns, as many as Pool would make."""
    return list(zip(*(np.array_split(column, 4 * workers) for column in columns)))


def column(n, seed, low, high):
    """As `column` of the Rust side."""
    bits = (np.arange(n, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ bits >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    return low + (high - low) * ((bits >> np.uint64(11)) * 2.0**-53)


def digest(x):
    """As `digest` of the harness."""
    step = len(x) >> 22 | 1
    at = range(0, len(x), step)
    if np is not None and isinstance(x, np.ndarray):
        return float((x[::step] * (np.arange(at.start, at.stop, step) % 1009 + 1)).sum())
    return sum(x[i] * (i % 1009 + 1) for i in at)


def timed(work):
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def each(calls, call):
    """Seconds of one call, after a tenth as many that wake up whoever sleeps, and the last result."""
    for _ in range(calls // 10 + 1):
        call()
    begun = time.perf_counter()
    for _ in range(calls):
        result = call()
    return (time.perf_counter() - begun) / calls, result


# Cases: a function of pool, n, calls and workers that gives a turn.

NEEDS_NUMPY = {"stream_square", "black_scholes"}


def small_map(pool, n, calls, _):
    x = [(i % 4093) * 0.5 for i in range(n)]

    def turn():
        seconds, squares = each(calls, lambda: pool.map(square, x))
        return seconds, digest(squares)

    return turn


def apply_hot(pool, n, calls, _):
    def turn():
        seconds, y = each(calls, lambda: pool.apply(increment, (41,)))
        assert y == 42
        return (seconds,)

    return turn


def tiny_chunks(pool, n, calls, _):
    def turn():
        seconds, done = timed(lambda: pool.map(nothing, range(n), chunksize=1))
        assert len(done) == n
        return (seconds / n,)

    return turn


def strings(pool, n, calls, _):
    rows = [(i, f"chunk{i % 977}") for i in range(n)]

    def turn():
        seconds, labels = timed(lambda: pool.starmap(label, rows))
        assert len(labels) == n and labels[n // 2] == label(*rows[n // 2]) and labels[-1] == label(*rows[-1])
        return (seconds / n,)

    return turn


def stream_square(pool, n, calls, workers):
    rows = [row for (row,) in chunks(workers, np.arange(n) % 4093 * 0.5)]

    def turn():
        seconds, squares = timed(lambda: np.concatenate(pool.map(np.square, rows, chunksize=1)))
        return seconds, digest(squares)

    return turn


def black_scholes(pool, n, calls, workers):
    # As on the Rust side.
    bounds = [(5.0, 30.0), (1.0, 100.0), (0.25, 10.0), (0.01, 0.05), (0.05, 0.5)]
    rows = chunks(workers, *(column(n, seed, low, high) for seed, (low, high) in enumerate(bounds, 1)))

    def turn():
        seconds, prices = timed(lambda: np.concatenate(pool.starmap(price, rows, chunksize=1)))
        return seconds, digest(prices.reshape(-1))

    return turn


def pool_start(_, n, calls, workers):
    def once():
        with multiprocessing.Pool(workers) as pool:
            return pool.apply(increment, (41,))

    def turn():
        seconds, y = timed(once)
        assert y == 42
        return (seconds,)

    return turn


ALL = [small_map, apply_hot, tiny_chunks, strings, stream_square, black_scholes, pool_start]
CASES = {case.__name__: case for case in ALL}


def main():
    case, n, calls, workers = sys.argv[1], *map(int, sys.argv[2:])
    if case in NEEDS_NUMPY and np is None:
        print("no numpy")
        return
    with multiprocessing.Pool(workers) as pool:
        turn = CASES[case](pool, n, calls, workers)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(*(repr(float(number)) for number in turn()), flush=True)


if __name__ == "__main__":
    main()
