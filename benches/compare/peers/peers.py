"""Python's pools on the cases of benches/compare, in the same units and with the same work.

The contenders of a case take turns, as they do in the Rust harness. What a contender does is what its users write:
one process of numpy, and pools that are handed chunks of arrays or plain elements. Where a pool is too slow for the full
number of tasks it gets fewer, and the figure is for one of them.
"""

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from contextlib import ExitStack

import joblib
import mpire
import numpy as np

from pool import chunks, increment, label, nothing, price, square, timed

CASES = {}


def case(unit, rounds):
    """A function that, given the harness, returns the contenders of a case by name: each gives seconds and a check."""

    def register(function):
        CASES[function.__name__] = (function, unit, rounds)
        return function

    return register


class Harness:
    def __init__(self, workers, quick, stack):
        self.workers, self.quick, self.stack = workers, quick, stack
        self._pools = None

    def sized(self, full):
        return -(-full // 50) if self.quick else full

    def pools(self):
        """The three pools, kept for the case."""
        if self._pools is None:
            pool = self.stack.enter_context(multiprocessing.Pool(self.workers))
            loky = self.stack.enter_context(joblib.Parallel(n_jobs=self.workers))
            mp = self.stack.enter_context(mpire.WorkerPool(n_jobs=self.workers, keep_alive=True))
            self._pools = pool, loky, mp
        return self._pools


def each(calls, call):
    """Seconds of a call, and the last result."""
    for _ in range(calls // 10 + 1):
        call()
    begun = time.perf_counter()
    for _ in range(calls):
        result = call()
    return (time.perf_counter() - begun) / calls, result


def apart(calls, call):
    """The median seconds of calls with a pause before each."""
    times = []
    for _ in range(calls):
        time.sleep(0.005)
        seconds, result = timed(call)
        times.append(seconds)
    return statistics.median(times), result


# Cases.


@case("ms", 3)
def stream_square(h):
    x = np.arange(h.sized(1 << 27)) % 4093 * 0.5
    pool, loky, mp = h.pools()
    pieces = [piece for (piece,) in chunks(h.workers, x)]
    task = joblib.delayed(np.square)
    out = np.empty_like(x)
    total = float(np.square(x).sum())
    reused = lambda: np.square(x, out=out)
    contenders = {
        "numpy": lambda: np.square(x),
        "numpy_reused": reused,
        "python_pool": lambda: np.concatenate(pool.map(np.square, pieces, chunksize=1)),
        "joblib": lambda: np.concatenate(loky(task(piece) for piece in pieces)),
        "mpire": lambda: np.concatenate(mp.map(np.square, pieces, chunk_size=1, concatenate_numpy_output=False)),
    }
    return measured(contenders, lambda squares: np.isclose(squares.sum(), total))


@case("ns", 3)
def tiny_chunks(h):
    n = h.sized(50_000)
    pool, loky, mp = h.pools()
    task = joblib.delayed(nothing)
    contenders = {
        "python_pool": lambda: pool.map(nothing, range(n), chunksize=1),
        "joblib": lambda: loky(task(i) for i in range(n)),
        "mpire": lambda: mp.map(nothing, range(n), chunk_size=1),
    }
    return measured(contenders, lambda done: len(done) == n, each=n)


@case("us", 5)
def small_map(h):
    x = np.arange(1000) % 4093 * 0.5
    pool, loky, mp = h.pools()
    task = joblib.delayed(square)
    right = lambda squares: np.array_equal(squares, x * x)
    repeated = lambda calls, call: lambda: each(h.sized(calls), call)
    return {
        "numpy": checked(repeated(100_000, lambda: np.square(x)), right),
        "python_pool": checked(repeated(500, lambda: pool.map(square, x)), right),
        "joblib": checked(repeated(50, lambda: loky(task(v) for v in x)), right),
        "mpire": checked(repeated(50, lambda: mp.map(square, x)), right),
    }


@case("us", 5)
def apply_hot(h):
    pool, loky, mp = h.pools()
    task = joblib.delayed(increment)
    repeated = lambda calls, call: checked(lambda: each(h.sized(calls), call), lambda y: y == 42)
    return {
        "python_pool": repeated(5000, lambda: pool.apply(increment, (41,))),
        "joblib": repeated(200, lambda: loky([task(41)])[0]),
        "mpire": repeated(500, lambda: mp.apply(increment, (41,))),
    }


@case("us", 5)
def apply_parked(h):
    pool, loky, mp = h.pools()
    task = joblib.delayed(increment)
    repeated = lambda call: checked(lambda: apart(max(h.sized(100), 20), call), lambda y: y == 42)
    return {
        "python_pool": repeated(lambda: pool.apply(increment, (41,))),
        "joblib": repeated(lambda: loky([task(41)])[0]),
        "mpire": repeated(lambda: mp.apply(increment, (41,))),
    }


@case("ms", 3)
def black_scholes(h):
    n = h.sized(10_000_000)
    bounds = [(5.0, 30.0), (1.0, 100.0), (0.25, 10.0), (0.01, 0.05), (0.05, 0.5)]
    random = np.random.default_rng(1)
    columns = [random.uniform(low, high, n) for low, high in bounds]
    pool, loky, mp = h.pools()
    rows = chunks(h.workers, *columns)
    task = joblib.delayed(price)
    total = float(price(*columns).sum())
    contenders = {
        "numpy": lambda: price(*columns),
        "python_pool": lambda: np.concatenate(pool.starmap(price, rows, chunksize=1)),
        "joblib": lambda: np.concatenate(loky(task(*row) for row in rows)),
        "mpire": lambda: np.concatenate(mp.map(price, rows, chunk_size=1, concatenate_numpy_output=False)),
    }
    return measured(contenders, lambda prices: np.isclose(prices.sum(), total))


@case("ms", 5)
def pool_start(h):
    def python_pool():
        with multiprocessing.Pool(h.workers) as pool:
            return pool.apply(increment, (41,))

    def with_mpire():
        with mpire.WorkerPool(n_jobs=h.workers) as pool:
            return pool.apply(increment, (41,))

    def with_joblib():
        # Its workers stay for the next Parallel unless told to go.
        result = joblib.Parallel(n_jobs=h.workers)([joblib.delayed(increment)(41)])[0]
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
        return result

    contenders = {"python_pool": python_pool, "joblib": with_joblib, "mpire": with_mpire}
    return measured(contenders, lambda y: y == 42)


@case("ns", 3)
def imap_stream(h):
    n = h.sized(2_000_000)
    pool, _, mp = h.pools()
    total = sum(x * x for x in range(n))
    stream = lambda n: (x for x in range(n))
    contenders = {"python_pool": lambda: sum(pool.imap(square, stream(n), chunksize=4096))}
    contenders = measured(contenders, lambda found: found == total, each=n)
    # It takes some 10 us an element, and needs the length, or makes a list of the iterator.
    few = max(n // 20, 1)
    mpire_imap = lambda: sum(mp.imap(square, stream(few), iterable_len=few, chunk_size=4096))
    return contenders | measured({"mpire": mpire_imap}, lambda found: found == sum(x * x for x in range(few)), each=few)


@case("ns", 3)
def strings(h):
    n = h.sized(1_000_000)
    rows = [(i, f"chunk{i % 977}") for i in range(n)]
    pool, loky, mp = h.pools()
    task = joblib.delayed(label)
    few = rows[: max(n // 20, 1)]
    right = lambda labels: labels[-1] == label(*rows[len(labels) - 1])
    contenders = measured(
        {
            "python": lambda: list(itertools.starmap(label, rows)),
            "python_pool": lambda: pool.starmap(label, rows),
        },
        right,
        each=n,
    )
    # A task costs these two as much when there are fewer.
    slow = {"joblib": lambda: loky(task(*row) for row in few), "mpire": lambda: mp.map(label, few)}
    return contenders | measured(slow, right, each=len(few))


def checked(turn, right):
    def run():
        seconds, result = turn()
        if not right(result):
            raise SystemExit("a contender has a wrong result")
        return seconds

    return run


def measured(contenders, right, each=1):
    """Times each contender as a whole, or for one of `each`."""

    def turn(work):
        seconds, result = timed(work)
        return seconds / each, result

    return {name: checked(lambda work=work: turn(work), right) for name, work in contenders.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures there instead of standard output")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", help="only these cases, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the work")
    arguments = parser.parse_args()
    names = arguments.case.split(",") if arguments.case else list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(CASES)}")
    figures = []
    for name in names:
        function, unit, rounds = CASES[name]
        scale = {"ns": 1e9, "us": 1e6, "ms": 1e3}[unit]
        with ExitStack() as stack:
            contenders = function(Harness(arguments.workers, arguments.quick, stack))
            turns = list(contenders.items())
            times = {name: [] for name in contenders}
            for turn in range(rounds + 1):
                for contender, run in turns[turn % len(turns) :] + turns[: turn % len(turns)]:
                    seconds = run()
                    if turn > 0:  # the first round is the warm-up
                        times[contender].append(seconds * scale)
        for contender, values in times.items():
            figures.append(
                {
                    "case": name,
                    "contender": contender,
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                    "unit": unit,
                    "better": "lower",
                    "workers": arguments.workers,
                }
            )
            print(f"{name:<16} {contender:<14} {statistics.median(values):12.3f} {unit}", file=sys.stderr)
    text = json.dumps(figures, indent=2) + "\n"
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
