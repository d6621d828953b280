# Does the work with multiprocessing.Pool and times itself. Asked over standard input, one line a turn: the chunk size,
# or "default". Answers with the seconds, the number of bytes of the results, and these bytes.
import array
import multiprocessing
import sys
import time

PROCESSES, N, STRIDE, CODE = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
n = N
files = {}


def stored(path, code, offset):
    if path not in files:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(N * array.array(code).itemsize)
        files[path] = array.array(code, data)
    return files[path]


# STEP

if __name__ == "__main__":
    inputs = [INPUT for i in range(0, N, STRIDE)]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        for line in sys.stdin:
            chunk = None if line.strip() == "default" else int(line)
            start = time.perf_counter()
            results = pool.map(step, inputs, chunk)
            seconds = time.perf_counter() - start
            data = array.array(CODE, results).tobytes() if CODE != "-" else b""
            sys.stdout.buffer.write(f"{seconds!r} {len(results)} {len(data)}\n".encode() + data)
            sys.stdout.buffer.flush()
