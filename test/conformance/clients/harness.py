"""What the suites share: a server as a child process, and patterns of bytes."""
import csv
import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(HERE), "testdata")
FIRN = os.environ["FIRN"]  # a program that is firn
MIB = 1 << 20
KEY, SECRET = "AKIDEXAMPLE0CONFORM", "secret/of+the=suite"
ACCOUNT = "111122223333"


def mod251(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def rows(name):
    with open(os.path.join(DATA, name)) as f:
        return list(csv.DictReader(f))


class Server:
    """firn serve glacier on a root of its own, with a clock that a test sets."""

    def __init__(self, *args, keys=True, clock="2026-03-01T00:00:00Z"):
        self.children = []  # clients of it
        self.dir = tempfile.mkdtemp(prefix="conformance-")
        self.args = ["serve", "glacier", "--root", os.path.join(self.dir, "root"), "--listen", "127.0.0.1:0",
                     "--account", ACCOUNT, "--access-log", os.path.join(self.dir, "log"), *args]
        if clock is not None:
            self.clock(clock)
            self.args += ["--clock", os.path.join(self.dir, "clock")]
        if keys:
            with open(os.path.join(self.dir, "keys"), "w") as f:
                f.write("[suite]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % (KEY, SECRET))
            self.args += ["--keys", os.path.join(self.dir, "keys")]
        self.start()

    def clock(self, text):
        path = os.path.join(self.dir, "clock")
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)

    def start(self):
        with open(os.path.join(self.dir, "stderr"), "w+") as err:
            self.child = subprocess.Popen([FIRN, *self.args], stdout=subprocess.PIPE, stderr=err, text=True)
            self.url = self.child.stdout.readline().strip()
            if not self.url:
                err.seek(0)
                raise RuntimeError("no server: " + err.read())

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def restart(self):
        self.kill()
        self.start()

    def close(self):
        for c in self.children:
            c.stdin.close()
            c.wait()
            c.stdout.close()
        self.child.terminate()
        code = self.child.wait(timeout=60)
        self.child.stdout.close()
        shutil.rmtree(self.dir)
        if code != 0:
            raise RuntimeError("the server ended with %d" % code)
