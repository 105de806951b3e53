# mypy: ignore-errors
"""What Python programs do, numpy's among them; prints one line a thing done."""

import asyncio
import ctypes
import hashlib
import json
import mmap
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory

import numpy


def square(x):
    return x * x


def numbers():
    matrix = numpy.random.default_rng(1).random((300, 300))
    assert numpy.allclose(matrix @ numpy.linalg.inv(matrix), numpy.eye(300), atol=1e-6)
    with tempfile.NamedTemporaryFile() as file:
        mapped = numpy.memmap(file.name, dtype="float64", mode="w+", shape=(1000,))
        mapped[:] = 2
        mapped.flush()
        assert numpy.fromfile(file.name).sum() == 2000


def threads():
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(square, range(100))) == 328350
    done = threading.Event()
    threading.Timer(0.01, done.set).start()
    assert done.wait(30)


def processes():
    assert (
        subprocess.run(["sh", "-c", "cat | tr a-z A-Z"], input=b"abc", capture_output=True).stdout == b"ABC"
    )
    pids = os.posix_spawn("/bin/true", ["true"], {})
    assert os.waitpid(pids, 0)[1] == 0
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def multiprocess():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
    queue, lock = multiprocessing.Queue(), multiprocessing.Lock()
    with lock:
        process = multiprocessing.Process(target=queue.put, args=("sent",))
        process.start()
        assert queue.get(timeout=30) == "sent"
        process.join()
    shared = shared_memory.SharedMemory(create=True, size=4096)
    shared.buf[:4] = b"here"
    shared.close()
    shared.unlink()


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a")
        with open(path, "wb") as file:
            file.write(b"x" * 100_000)
            file.flush()
            os.fsync(file.fileno())
        shutil.copytree(folder, folder + "-copy")
        shutil.copy2(path, path + "2")
        os.replace(path + "2", path + "3")
        os.symlink(path, path + "4")
        os.mkfifo(path + "5")
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[0] = 1
            mapped.flush()
        assert os.statvfs(folder).f_bsize
        base = sqlite3.connect(os.path.join(folder, "base"))
        base.execute("pragma journal_mode=wal")
        with base:
            base.execute("create table t (x)")
            base.execute("insert into t values (1)")
        assert base.execute("select x from t").fetchall() == [(1,)]
        base.close()
        shutil.rmtree(folder + "-copy")


def network():
    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client = socket.create_connection(("localhost", server.getsockname()[1]))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    other, _ = server.accept()
    client.sendall(b"hello")
    assert other.recv(5) == b"hello"
    left, right = socket.socketpair()
    left.send(b"x")
    with selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        assert selector.select(30)
    assert socket.if_nameindex()[0][1] == "lo"
    assert socket.getaddrinfo("localhost", 80)
    ssl.create_default_context()


def events():
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async def talk():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"async")
        assert await reader.read(100) == b"async"
        child = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
        assert (await child.communicate())[0] == b"child\n"

    asyncio.run(talk())


def rest():
    assert hashlib.sha256(os.urandom(8)).hexdigest()
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not seen:
        time.sleep(0.01)
    assert ctypes.CDLL(None).getpid() == os.getpid()
    os.nice(1)
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.memfd_create("x")
    assert json.loads(json.dumps({"a": 1})) == {"a": 1}


if __name__ == "__main__":
    for done in (numbers, threads, processes, multiprocess, files, network, events, rest):
        done()
        print(done.__name__, flush=True)
