#!/usr/bin/env python3
"""The same faults for other process pools: what arrives, what hangs, what is left behind.

    python3 stress/peers/faults.py                          # all cases, all peers; prints a markdown table
    python3 stress/peers/faults.py --json peers.json        # and writes the figures in full
    python3 stress/peers/faults.py --case kill_idle --peer Pool
    python3 stress/peers/faults.py --beside swathe.json     # another column; `stress faults --json` writes that file
    python3 stress/peers/faults.py --list                   # the cases

It makes itself a virtual environment in a temporary folder (joblib, which brings loky, and mpire) and removes it.

Peers: `Pool` (CPython's multiprocessing.Pool), `Executor` (concurrent.futures.ProcessPoolExecutor), `joblib` (its loky
backend), `mpire`. Each is used in the way that lets most results arrive: unordered, one element a task. Each case runs
in a process and a session of its own, with a deadline; what is left of it is killed by process id.

JSON, a list of: case, peer; expected and arrived (numbers of right results), wrong (results that were wrong, or came
twice); ended ("done", "hangs", or the error's type) and error (its text); seconds until then; after ("usable",
"broken" or "hangs": what the same pool does with four more elements); close ("hangs", if it does); left (processes a
second after the end), left_10s (ten seconds after the parent was killed); shm (names more in /dev/shm); lines (on standard error).
"""

import argparse
import json
import os
import platform
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

# "Square 8" is x * x for x in 0..8 by 2 workers, 20 ms an element. A culprit does its deed whenever it is run; a worker
# that is killed or stopped once would succeed with the same element the second time. `stress/src/faults.rs` has the same.
CASES = {
    "kill_running": "square 8; the worker that runs element 3 is killed once, by SIGKILL",
    "kill_idle": "square 8; each worker is killed while idle, one after the other; square 8 again",
    "exit_0": "square 8; culprit 3 ends its process with exit code 0",
    "segfault": "square 8; culprit 3 reads address 0",
    "abort": "square 8; culprit 3 calls abort()",
    "endless": "square 8; culprit 3 runs for ever; 1 s a result, where the peer has such a limit",
    "sigstop": "square 8; the worker that runs element 3 is stopped once, by SIGSTOP; the same limit of 1 s",
    "initializer": "square 8; the initializer of every worker fails, always",
    "bad_exception": "square 8; element 3 raises an exception that cannot be unpickled",
    "storm": "8 elements, each of which kills its worker, always",
    "poison": "1000 elements by 2 workers; culprit 500 kills its worker by SIGKILL",
    "kills_100": "10000 elements of 1 ms by 4 workers; 100 times a worker is killed, at random moments, seeded",
    "kill_parent": "2 workers run elements of 60 s; the parent is killed by SIGKILL; what is left after 1 s?",
    "kill_parent_idle": "square 8; 2 workers are idle; the parent is killed by SIGKILL; what is left after 1 s?",
    "ctrl_c": "2 workers run elements of 60 s; SIGINT to the process group; when are all gone, after how many lines?",
}
EXPECTED = {"storm": 0, "poison": 1000, "kills_100": 10000, "kill_parent": 0, "kill_parent_idle": 0, "ctrl_c": 0}  # 8 unless named
DEADLINES = {"kills_100": 120}  # seconds; 20 unless named
REQUIREMENTS = ["joblib==1.6.0", "mpire==2.10.2"]
LIMIT = 1.0  # seconds an element may take, where the peer offers that
MARK = "SWATHE_FAULTS_MARK"  # in the environment of all processes of one case
FOLDER = "SWATHE_FAULTS_FOLDER"
OUT = "SWATHE_FAULTS_OUT"


# ---------------------------------------------------------------- tasks, in the workers


def once(name):
    """Whether this is the first call with that name in this case, in any process."""
    try:
        os.close(os.open(os.path.join(os.environ[FOLDER], name), os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


class BadException(Exception):
    """Pickles, and cannot be unpickled: it takes two arguments and is given one."""

    def __init__(self, one, two):
        super().__init__("two arguments were given")


def square(x):
    time.sleep(0.02)
    return x, x * x


def kill_running(x):
    if x == 3 and once("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def sigstop(x):
    if x == 3 and once("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    return square(x)


def exit_0(x):
    if x == 3:
        os._exit(0)
    return square(x)


def segfault(x):
    if x == 3:
        import ctypes

        ctypes.string_at(0)
    return square(x)


def abort(x):
    if x == 3:
        os.abort()
    return square(x)


def endless(x):
    while x == 3:
        pass
    return square(x)


def bad_exception(x):
    if x == 3:
        raise BadException(1, 2)
    return square(x)


def storm(x):
    os.kill(os.getpid(), signal.SIGKILL)


def poison(x):
    if x == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return x, x * x


def one_ms(x):
    time.sleep(0.001)
    return x, x * x


def sleeper(x):
    time.sleep(60)
    return x, x * x


def fail_to_start():
    raise RuntimeError("no such instrument")


TASKS = {
    "kill_running": kill_running,
    "exit_0": exit_0,
    "segfault": segfault,
    "abort": abort,
    "endless": endless,
    "sigstop": sigstop,
    "bad_exception": bad_exception,
    "storm": storm,
    "poison": poison,
    "kills_100": one_ms,
    "kill_parent": sleeper,
    "ctrl_c": sleeper,
}


# ---------------------------------------------------------------- peers, in the process of a case
#
# `stream` gives (x, y) for what arrives and an exception for what fails; `pids` are the workers.


class Pool:
    """multiprocessing.Pool. An element's error ends nothing; `next(timeout)` waits for any element, not for one."""

    def __init__(self, workers, initializer):
        import multiprocessing

        self.pool = multiprocessing.Pool(workers, initializer)

    def stream(self, task, elements, limit):
        results = self.pool.imap_unordered(task, elements)
        for _ in elements:
            try:
                yield results.next(limit)
            except StopIteration:
                return
            except Exception as error:
                yield error
                if type(error).__name__ == "TimeoutError":
                    return

    def pids(self):
        return [process.pid for process in self.pool._pool]

    def close(self):
        self.pool.close()
        self.pool.join()


class Executor:
    """concurrent.futures.ProcessPoolExecutor. A timeout ends the waiting, not the task."""

    def __init__(self, workers, initializer):
        import concurrent.futures

        self.pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=initializer)
        self.as_completed = concurrent.futures.as_completed

    def stream(self, task, elements, limit):
        try:
            futures = [self.pool.submit(task, x) for x in elements]
            for future in self.as_completed(futures, timeout=limit and 3 * limit):
                try:
                    yield future.result()
                except Exception as error:
                    yield error
        except Exception as error:
            yield error

    def pids(self):
        return list(self.pool._processes)

    def close(self):
        self.pool.shutdown()


class Joblib:
    """joblib.Parallel over loky. The first error ends the call."""

    def __init__(self, workers, initializer):
        import joblib

        self.joblib, self.workers, self.initializer = joblib, workers, initializer

    def executor(self):
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(max_workers=self.workers, reuse=True)

    def stream(self, task, elements, limit):
        options = {"initializer": self.initializer} if self.initializer else {}
        with self.joblib.parallel_config(backend="loky", **options):
            parallel = self.joblib.Parallel(
                n_jobs=self.workers,
                batch_size=1,
                timeout=limit and 3 * limit,
                return_as="generator_unordered",
            )
            try:
                yield from parallel(self.joblib.delayed(task)(x) for x in elements)
            except Exception as error:
                yield error

    def pids(self):
        return list(self.executor()._processes)

    def close(self):
        self.executor().shutdown()


class Mpire:
    """mpire.WorkerPool. The first error ends the call."""

    def __init__(self, workers, initializer):
        import mpire

        self.pool = mpire.WorkerPool(workers, keep_alive=True)
        self.initializer = initializer

    def stream(self, task, elements, limit):
        try:
            yield from self.pool.imap_unordered(
                task, list(elements), chunk_size=1, worker_init=self.initializer, task_timeout=limit
            )
        except Exception as error:
            yield error

    def pids(self):
        return [worker.pid for worker in self.pool._workers if worker is not None]

    def close(self):
        self.pool.stop_and_join()


PEERS = {"Pool": Pool, "Executor": Executor, "joblib": Joblib, "mpire": Mpire}


# ---------------------------------------------------------------- a case, in a process of its own


class Report:
    """Tells the driver line by line, so that it knows how far a case came that hangs."""

    def __init__(self):
        number = int(os.environ[OUT])
        os.set_inheritable(number, False)
        self.out = os.fdopen(number, "w")

    def say(self, **facts):
        self.out.write(json.dumps(facts) + "\n")
        self.out.flush()


def gather(report, pool, task, elements, limit=None):
    """Takes in what arrives. Only the first error is said."""
    seen, wrong, failed = set(), 0, False
    for result in pool.stream(task, elements, limit):
        if isinstance(result, Exception):
            if not failed:
                report.say(ended=type(result).__name__, error=" ".join(str(result).split())[:300])
            failed = True
            continue
        x, y = result
        wrong += y != x * x or x in seen
        seen.add(x)
        report.say(arrived=len(seen), wrong=wrong)


def kill_at_random(pool, times, over):
    """Kills some worker, again and again."""
    choice = random.Random(20261122)
    while times and not over.is_set():
        time.sleep(choice.uniform(0.005, 0.03))
        pids = sorted(pid for pid in list(pool.pids()) if pid)
        try:
            os.kill(choice.choice(pids), signal.SIGKILL)
            times -= 1
        except (IndexError, ProcessLookupError):
            pass


def run_case(case, peer):
    """One case for one peer."""
    report = Report()
    initializer = fail_to_start if case == "initializer" else None
    pool = PEERS[peer](4 if case == "kills_100" else 2, initializer)
    if case == "kill_parent_idle":
        gather(report, pool, square, range(8))
        report.say(ready=True)
        time.sleep(60)
    if case in ("kill_parent", "ctrl_c"):
        report.say(ready=True)
        for result in pool.stream(sleeper, range(4), None):
            if isinstance(result, Exception):
                raise result
        return
    if case in ("kill_idle", "kills_100"):
        # So that there are workers: some peers start them when they have something to do.
        gather(report, pool, square, range(8))
    if case == "kill_idle":
        for pid in set(pool.pids()):
            time.sleep(0.5)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # Some peers end the others when one has died.
        time.sleep(0.5)
    report.say(arrived=0, wrong=0)
    over = threading.Event()
    if case == "kills_100":
        threading.Thread(target=kill_at_random, args=(pool, 100, over), daemon=True).start()
    elements = range(EXPECTED.get(case) or 8)
    start = time.monotonic()
    gather(report, pool, TASKS.get(case, square), elements, LIMIT if case in ("endless", "sigstop") else None)
    over.set()
    report.say(seconds=round(time.monotonic() - start, 2), phase="after")
    again = list(pool.stream(square, range(4), None))
    usable = all(isinstance(result, tuple) for result in again) and sorted(again) == [(x, x * x) for x in range(4)]
    report.say(after="usable" if usable else "broken", phase="close")
    pool.close()


# ---------------------------------------------------------------- the driver


def marked(mark):
    """The processes of a case, zombies left out."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                ours = f"{MARK}={mark}".encode() in file.read()
            with open(f"/proc/{name}/stat") as file:
                alive = file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except (OSError, IndexError):
            continue
        if ours and alive:
            found.append(int(name))
    return found


def end_all(mark):
    """Kills what is left of a case, by process id."""
    while pids := marked(mark):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def new_names(process, names):
    """Names in /dev/shm that were not there before and hold the id of a case's parent."""
    ours = re.compile(rf"(?<!\d){process.pid}(?!\d)")
    return [os.path.join("/dev/shm", name) for name in set(os.listdir("/dev/shm")) - names if ours.search(name)]


def remove(paths):
    """Nobody is left who would."""
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def drive(case, peer, python):
    """Runs one case in a process of its own and says what became of it."""
    mark, names = uuid.uuid4().hex, set(os.listdir("/dev/shm"))
    facts = {"case": case, "peer": peer, "expected": EXPECTED.get(case, 8), "arrived": 0, "wrong": 0, "ended": "done"}
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, MARK: mark, FOLDER: folder, OUT: str(write), "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            [python, os.path.abspath(__file__), "--run", case, peer],
            env=environment,
            pass_fds=[write],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
            # A driver in the background ignores SIGINT; its cases must not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(write)
        try:
            if listen(process, read, facts, DEADLINES.get(case, 20)):
                if case in ("kill_parent", "kill_parent_idle", "ctrl_c"):
                    strike(case, process, mark, facts)
                else:
                    look_again(process, mark)
                facts["left"] = len(marked(mark))
                facts["shm"] = len(new_names(process, names))
                if facts["left"] and case.startswith("kill_parent"):
                    time.sleep(9)
                    facts["left_10s"] = len(marked(mark))
        finally:
            end_all(mark)
            process.wait()
            os.close(read)
            remove(new_names(process, names))
        errors.seek(0)
        facts["lines"] = errors.read().count(b"\n")
    return facts


def listen(process, read, facts, patience):
    """Takes in what the case says. False if it hangs; it is killed then."""
    deadline, text, phase = time.monotonic() + patience, b"", ""
    while time.monotonic() < deadline:
        if select.select([read], [], [], 0.05)[0]:
            more = os.read(read, 65536)
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if said.pop("ready", False):
                    return True
                phase = said.pop("phase", phase)
                facts.update(said)
            if more:
                continue
        if process.poll() is not None:
            if not phase:
                facts["ended"] += f", exit {process.returncode}" if process.returncode else ""
            return True
    if phase:
        facts[phase] = "hangs"
    else:
        facts["ended"] = "hangs" if facts["ended"] == "done" else facts["ended"] + ", then hangs"
    process.kill()
    return False


def strike(case, process, mark, facts):
    """The fault that comes from outside: the parent's death, or Ctrl-C."""
    time.sleep(1.5)
    facts["processes"] = len(marked(mark))
    start = time.monotonic()
    if case != "ctrl_c":
        process.kill()
        process.wait()
        time.sleep(1)
        return
    os.killpg(process.pid, signal.SIGINT)
    while marked(mark) and time.monotonic() < start + 20:
        process.poll()
        time.sleep(0.01)
    facts["seconds"] = round(time.monotonic() - start, 2)
    facts["ended"] = "hangs" if marked(mark) else "done"


def look_again(process, mark):
    """Waits up to a second for the last process of a case that has ended."""
    process.wait()
    for _ in range(100):
        if not marked(mark):
            break
        time.sleep(0.01)


# ---------------------------------------------------------------- the table


def cell(facts):
    """What happened, in a few words."""
    if facts["case"].startswith("kill_parent"):
        later = f", {facts['left_10s']} after 10 s" if "left_10s" in facts else ""
        return f"{facts['left']} of {facts['processes'] - 1} processes left{later}; {facts['shm']} names"
    if facts["case"] == "ctrl_c":
        if facts["ended"] == "hangs":
            return f"{facts['left']} of {facts['processes']} processes left after 20 s, {facts['lines']} lines"
        return f"gone after {facts['seconds']} s, {facts['lines']} lines"
    text = f"{facts['arrived']} of {facts['expected']}"
    if facts["wrong"]:
        text += f", {facts['wrong']} wrong"
    if facts["ended"] != "done":
        text += f", {facts['ended']}"
    if "seconds" in facts:
        text += f", {facts['seconds']} s"
    if facts.get("after", "usable") != "usable":
        text += f"; then {facts['after']}"
    if "close" in facts:
        text += "; close hangs"
    if facts.get("left"):
        text += f"; {facts['left']} processes left"
    return text


def table(results):
    """In markdown: a row a case, a column a peer."""
    names = [name for name in CASES if any(facts["case"] == name for facts in results)]
    peers = list(dict.fromkeys(facts["peer"] for facts in results))
    cells = {(facts["case"], facts["peer"]): cell(facts) for facts in results}
    rows = [["case", *peers], ["---"] * (len(peers) + 1)]
    rows += [[f"`{name}`", *(cells.get((name, peer), "") for peer in peers)] for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="only this case; may be repeated")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this peer; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--beside", metavar="FILE", help="figures of another run, shown in the first columns")
    parser.add_argument("--list", action="store_true", help="say what the cases are")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "PEER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        return print("\n".join(f"{name:14} {text}" for name, text in CASES.items()))
    if arguments.run:
        return run_case(*arguments.run)
    results = []
    with tempfile.TemporaryDirectory(prefix="faults-venv-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = os.path.join(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        for case in arguments.case or CASES:
            for peer in arguments.peer or PEERS:
                results.append(drive(case, peer, python))
                print(f"{case}, {peer}: {cell(results[-1])}", file=sys.stderr)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)
    if arguments.beside:
        with open(arguments.beside) as file:
            results = json.load(file) + results
    print(f"CPython {platform.python_version()}, {', '.join(REQUIREMENTS)}, {os.cpu_count()} cores\n")
    print(table(results))


if __name__ == "__main__":
    main()
