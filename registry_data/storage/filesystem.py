import fcntl, os
from pathlib import Path
from registry_data.storage.base import *


class W:
    def __init__(s, fd, at):
        s.fd = fd
        s.start = at
        s.offset = at

    def write(s, piece):
        v = memoryview(piece)
        while v:
            n = os.write(s.fd, v)
            v = v[n:]
            s.offset += n

    def close(s):
        if s.fd >= 0:
            os.close(s.fd)
            s.fd = -1

    def abandon(s):
        if s.fd >= 0:
            os.ftruncate(s.fd, s.start)
            s.close()


class FilesystemStore:
    def __init__(s, root):
        s.root = root

    def check(s):
        (s.root / "uploads").mkdir(parents=True, exist_ok=True)

    def u(s, i):
        return s.root / "uploads" / i

    def create_upload(s, u):
        s.check()
        s.u(u).touch()

    def upload_size(s, u):
        try:
            return s.u(u).stat().st_size
        except FileNotFoundError:
            raise NotStored

    def open_upload(s, u, *, at):
        try:
            fd = os.open(s.u(u), os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            raise NotStored
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Busy
        n = os.fstat(fd).st_size
        if at is not None and at != n:
            os.close(fd)
            raise WrongOffset(n)
        return W(fd, n)

    def read_upload(s, u):
        return s._r(s.u(u), 0, None)

    def _r(s, p, start, stop):
        f = open(p, "rb")
        f.seek(start)

        def g():
            left = (stop if stop is not None else 1 << 62) - start
            while left and (b := f.read(min(left, 1 << 20))):
                left -= len(b)
                yield b

        return g()

    def publish(s, u, k):
        p = s.root / k
        p.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(s.u(u), p)
        except FileExistsError:
            pass

    def published_as(s, u):
        return None

    def discard(s, u):
        s.u(u).unlink(missing_ok=True)

    def size(s, k):
        return (s.root / k).stat().st_size

    def read(s, k, *, start=0, stop=None):
        return s._r(s.root / k, start, stop)

    def delete(s, k):
        (s.root / k).unlink(missing_ok=True)

    def path_of(s, k):
        return s.root / k
