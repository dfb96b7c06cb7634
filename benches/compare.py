#!/usr/bin/env python3
"""Compares the programs of two directories, A and B: what they cost in memory and time. See benches/compare.

Within a run the sides take turns, so that whatever else the machine does falls on both; the figures are medians, and
what counts is their ratio. The services are processes of a few instructions (service.rs) that say their process id on
standard output, a pipe to here: a service is up when it has spoken, and all are gone when the pipe has no writer.
"""

import argparse
import ctypes
import os
import random
import re
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DEVNULL = os.open("/dev/null", os.O_RDWR)
SCRATCH = tempfile.mkdtemp(prefix="s6-compare-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
SERVICE = os.path.join(SCRATCH, "service")
now = time.perf_counter


def scratch():
    """A new empty directory, in memory if there is one, so that no disk is measured."""
    return tempfile.mkdtemp(dir=SCRATCH)


# ---------------------------------------------------------------- processes


def spawn(argv, suite, stdin=DEVNULL, stdout=DEVNULL, others=()):
    """Starts a process with these descriptors; its messages are thrown away."""
    moves = [(stdin, 0), (stdout, 1), (DEVNULL, 2), *others]
    return os.posix_spawn(argv[0], argv, suite.env, file_actions=[(os.POSIX_SPAWN_DUP2, a, b) for a, b in moves])


def wait(pid):
    """Waits for a child: the CPU time, in s, of it and of the children that it waited for."""
    _, status, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)


def call(argv, suite):
    """Runs a command that must succeed: its CPU time, in s."""
    seconds, code = wait(spawn(argv, suite))
    if code != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {code}")
    return seconds


def cpu(pids):
    """CPU time that living processes have had, in s."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def private(pids):
    """Memory that exists for these processes alone, in kB, on average."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += int(re.search(r"Private_Dirty:\s+(\d+)", file.read())[1])
    return total / len(pids)


def stat(pid):
    """State and parent of a process."""
    with open(f"/proc/{pid}/stat") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
    return state, int(parent)


def descendants(pid):
    found, children = [pid], {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = stat(name)
        except OSError:
            continue
        if state != "Z":
            children.setdefault(parent, []).append(int(name))
    for each in found:
        found += children.get(each, [])
    return found[1:]


def end_all():
    """Kills whatever descends from here. Orphans come back to this process: it is a subreaper."""
    while left := descendants(os.getpid()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


# ---------------------------------------------------------------- suites


class Suite:
    """A supervision suite, its programs in one directory. A command that it does not have is None."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.env = {"PATH": f"{directory}:/usr/bin:/bin", "LC_ALL": "C"}

    def program(self, name, *args):
        path = os.path.join(self.directory, name)
        return [path, *args] if os.access(path, os.X_OK) else None

    def make_service(self, path):
        os.mkdir(path)
        os.link(SERVICE, os.path.join(path, "run"))

    def status(self, service):
        return None

    def command(self, service):
        return None

    def is_supervised(self, service):
        return None


class S6(Suite):
    def __init__(self, name, directory):
        super().__init__(name, directory)
        # Versions before 2.13 have another letter for the number of services.
        refused = subprocess.run(self.program("s6-svscan", "-C", "9", "/nonexistent"), stderr=DEVNULL, env=self.env)
        self.most = "-c" if refused.returncode == 100 else "-C"

    def make_service(self, path, notification="3"):
        super().make_service(path)
        with open(os.path.join(path, "notification-fd"), "w") as file:
            file.write(notification)

    def scan(self, path, count):
        return self.program("s6-svscan", self.most, str(count + 10), path)

    def stop(self, tree):
        # The loggers here do not read, so they do not end by end of file.
        call(self.program("s6-svscanctl", "-q" if tree.logged else "-t", tree.path), self)

    def log(self, directory, *script):
        return self.program("s6-log", "-d", "3", "--", *script, "s1000000", "n10", directory)

    def status(self, service):
        return self.program("s6-svstat", service)

    def command(self, service):
        return self.program("s6-svc", "-c", service)

    def is_supervised(self, service):
        return self.program("s6-svok", service)


class Runit(Suite):
    def scan(self, path, _):
        return self.program("runsvdir", path)

    def stop(self, tree):
        os.kill(tree.pid, signal.SIGHUP)

    def log(self, directory, *script):
        with open(os.path.join(directory, "config"), "w") as file:
            file.write("s1000000\nn10\n")
        return {(): self.program("svlogd", directory), ("t",): self.program("svlogd", "-t", directory)}.get(script)

    def status(self, service):
        return self.program("sv", "status", service)

    def command(self, service):
        return self.program("sv", "cont", service)


class Daemontools(Suite):
    def scan(self, path, _):
        return self.program("svscan", path)

    def stop(self, tree):
        os.kill(tree.pid, signal.SIGTERM)
        for start in range(0, len(tree.services), 500):
            call(self.program("svc", "-dx", *tree.services[start:start + 500]), self)

    def log(self, directory, *script):
        return self.program("multilog", *script, "s1000000", "n10", directory) if len(script) < 2 else None

    def status(self, service):
        return self.program("svstat", service)

    def command(self, service):
        return self.program("svc", "-c", service)

    def is_supervised(self, service):
        return self.program("svok", service)


class Tree:
    """A supervision tree, all services up when this is made. `notification`: what s6 is told of readiness. `logged`:
    each service writes to a logger, and the loggers, as many as services, are what is waited for."""

    def __init__(self, suite, count, logged=False, **service):
        self.suite, self.path, self.logged = suite, scratch(), logged
        self.services = [os.path.join(self.path, f"s{i:05}") for i in range(count)]
        for path in self.services:
            suite.make_service(path, **service)
            if logged:
                suite.make_service(path + "/log", **service)
        self.reader, writer = os.pipe()
        begin = now()
        self.pid = spawn(suite.scan(self.path, 2 * count if logged else count), suite, stdout=writer)
        os.close(writer)
        self.pids = [self.next_pid() for _ in self.services]
        self.boot = now() - begin
        self.supervisors = {pid: stat(pid)[1] for pid in self.pids}

    def next_pid(self):
        """The process of the next service that comes up."""
        if not select.select([self.reader], [], [], 60)[0]:
            raise RuntimeError(f"{self.suite.name}: a service does not come up")
        return struct.unpack("=i", os.read(self.reader, 4))[0]

    def cpu(self):
        return cpu([self.pid, *descendants(self.pid)])

    def stop(self):
        """Ends the tree: how long that took, and the CPU time of its whole life, in s."""
        begin = now()
        self.suite.stop(self)
        while os.read(self.reader, 4096):
            pass
        wall = now() - begin
        os.close(self.reader)
        life, _ = wait(self.pid)
        shutil.rmtree(self.path)
        return wall, life


# ---------------------------------------------------------------- figures


class Figures:
    """What was measured: for each figure, and each suite, a list of values."""

    def __init__(self, suites):
        self.suites, self.rows = suites, {}

    def add(self, figure, unit, suite, value, more_is_better=False):
        row = self.rows.setdefault(figure, {"unit": unit, "more": more_is_better, "values": {}})
        row["values"].setdefault(suite, []).append(value)

    def median(self, figure, suite):
        values = self.rows[figure]["values"].get(suite)
        return statistics.median(values) if values else None

    def ratio(self, figure):
        """What A needs of what B needs; for a rate, B's by A's. Below 1, A is better."""
        a, b = (self.median(figure, suite) for suite in self.suites[:2])
        if not a or not b:
            return None
        return b / a if self.rows[figure]["more"] else a / b

    def table(self):
        lines = ["| | " + " | ".join(suite.name for suite in self.suites) + " | ratio |",
                 "|---|" + "--:|" * (len(self.suites) + 1)]
        for figure, row in self.rows.items():
            cells = [number(self.median(figure, suite)) for suite in self.suites] + [number(self.ratio(figure))]
            lines.append(f"| {figure}, {row['unit']} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def plot(self):
        """What A needs as bars in frames that are what B needs: SVG."""
        rows = [(figure, ratio) for figure in self.rows if (ratio := self.ratio(figure))]
        left, frame, height = 400, 280, 18
        a, b = (suite.name for suite in self.suites[:2])
        svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + frame + 160}" height="{height * len(rows) + 32}" '
               'font-family="sans-serif" font-size="12">',
               "<style>text{fill:#333}.b{fill:#ddd}.a{fill:#2a7}"
               "@media(prefers-color-scheme:dark){text{fill:#ccc}.b{fill:#444}}</style>",
               f'<text x="{left}" y="14">What <tspan font-weight="bold">{a}</tspan> needs, in per cent of {b}</text>']
        for i, (figure, ratio) in enumerate(rows):
            y = 24 + height * i
            shown = min(ratio, 1.3) * frame
            svg += [f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{figure}</text>',
                    f'<rect class="b" x="{left}" y="{y + 1}" width="{frame}" height="{height - 4}"/>',
                    f'<rect class="a" x="{left}" y="{y + 1}" width="{shown:.0f}" height="{height - 4}"/>',
                    f'<text x="{left + max(frame, shown) + 6:.0f}" y="{y + 12}">{100 * ratio:.0f} %</text>']
        return "\n".join(svg + ["</svg>", ""])


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ---------------------------------------------------------------- what is measured
#
# Each takes the figures, the suites (the first two are A and B), and how to scale a number down for a quick run.


def trees(figures, suites, much):
    """Boot, memory, shutdown."""
    count = much(300)
    for _ in range(much(5)):
        for suite in suites:
            tree = Tree(suite, count)
            time.sleep(0.2)
            boot = tree.cpu()
            figures.add(f"boot of {count} services: CPU", "ms", suite, 1e3 * boot)
            figures.add(f"boot of {count} services: time", "ms", suite, 1e3 * tree.boot)
            figures.add("memory of an idle supervisor", "kB", suite, private(tree.supervisors.values()))
            wall, life = tree.stop()
            figures.add(f"shutdown of {count} services: time", "ms", suite, 1e3 * wall)
            if isinstance(suite, S6):
                figures.add(f"shutdown of {count} services: CPU", "ms", suite, 1e3 * (life - boot))


def restarts(figures, suites, much):
    """From kill -9 until the next process of the service runs."""
    count = much(100)
    alternatives = [Tree(suite, count) for suite in suites]
    # What was ready for a second is restarted at once.
    time.sleep(1.3)
    before = [cpu(tree.supervisors.values()) for tree in alternatives]
    for i in range(count):
        for tree in alternatives:
            begin = now()
            os.kill(tree.pids[i], signal.SIGKILL)
            tree.next_pid()
            figures.add("restart: time from death to life", "µs", tree.suite, 1e6 * (now() - begin))
    for tree, spent in zip(alternatives, before):
        spent = cpu(tree.supervisors.values()) - spent
        figures.add("restart: CPU of the supervisor", "µs", tree.suite, 1e6 * spent / count)
        tree.stop()


def commands(figures, suites, much):
    """What one call of a command costs."""
    alternatives = [Tree(suite, 1) for suite in suites]
    for _ in range(much(400)):
        for tree in alternatives:
            suite, service = tree.suite, tree.services[0]
            for name, argv in (("a command to a service (s6-svc)", suite.command(service)),
                               ("the state of a service (s6-svstat)", suite.status(service)),
                               ("is it supervised? (s6-svok)", suite.is_supervised(service))):
                if argv:
                    figures.add(f"{name}: CPU", "µs", suite, 1e6 * call(argv, suite))
    for tree in alternatives:
        tree.stop()


def readiness(figures, suites, much):
    """From the newline that says that a service is ready until the s6-svwait that waits for it has ended."""
    # The services do not write to descriptor 9; that is done from here.
    alternatives = [Tree(suite, much(60), notification="9") for suite in suites[:2]]
    for i in range(much(60)):
        for tree in alternatives:
            suite, service = tree.suite, tree.services[i]
            waiter = spawn(suite.program("s6-svwait", "-U", "-t", "20000", service), suite)
            while not os.listdir(os.path.join(service, "event")):
                time.sleep(0.001)
            time.sleep(0.01)
            if i < 5:
                family = [waiter, *descendants(waiter)]
                figures.add("memory of a waiting s6-svwait", "kB", suite, private(family) * len(family))
            with open(os.path.join(service, "supervise", "status"), "rb") as file:
                pid = int.from_bytes(file.read()[24:32], "big")
            with open(f"/proc/{pid}/fd/9", "wb", buffering=0) as pipe:
                begin = now()
                pipe.write(b"\n")
                wait(waiter)
                figures.add("ready: time until s6-svwait has ended", "µs", suite, 1e6 * (now() - begin))
    for tree in alternatives:
        tree.stop()


def listeners(figures, suites, much):
    """One event for many s6-ftrig-wait."""
    count = much(200)
    for _ in range(much(5)):
        for suite in suites[:2]:
            fifodir = os.path.join(scratch(), "event")
            call(suite.program("s6-mkfifodir", fifodir), suite)
            pids = [spawn(suite.program("s6-ftrig-wait", "-t", "60000", fifodir, "a"), suite) for _ in range(count)]
            while len(os.listdir(fifodir)) < count:
                time.sleep(0.005)
            time.sleep(0.2)
            family = descendants(os.getpid())
            figures.add("memory of a waiting s6-ftrig-wait", "kB", suite, private(family) * len(family) / count)
            begin = now()
            notifier = spawn(suite.program("s6-ftrig-notify", fifodir, "a"), suite)
            for pid in [notifier, *pids]:
                wait(pid)
            figures.add(f"an event for {count} s6-ftrig-wait: time", "ms", suite, 1e3 * (now() - begin))


LOGS = (
    ("as they are", ()),
    ("with t", ("t",)),
    ("with 5 regular expressions and T", ("-level=debug", "-CRON\\[[0-9]+\\]:", "+(error|fail|panic)",
                                         "-^Mar .* nginx: .* (200|304) [0-9]+ ", "-connect from unknown", "T")),
)


def log_lines():
    """4 MB of lines as a system writes them, always the same."""
    draw = random.Random(1)
    kinds = (
        lambda: f"sshd[{draw.randrange(65536)}]: Accepted publickey for alice from 10.0.0.{draw.randrange(256)} port 22",
        lambda: f'nginx: 192.168.1.{draw.randrange(256)} - - "GET /item/{draw.randrange(10000)} HTTP/1.1" '
                f"{draw.choice((200, 200, 304, 404, 500))} {draw.randrange(100000)}",
        lambda: f"kernel: [{draw.random() * 9999:9.6f}] eth0: link state change, queue {draw.randrange(16)}",
        lambda: f"CRON[{draw.randrange(65536)}]: (root) CMD (test -x /usr/sbin/anacron || run-parts /etc/cron.hourly)",
        lambda: f"app[{draw.randrange(65536)}]: level={draw.choice(('debug', 'info', 'warn', 'error'))} "
                f'msg="request handled" id={draw.getrandbits(64):016x} dur={draw.random() * 500:.3f}ms',
        lambda: f"postfix/smtpd[{draw.randrange(65536)}]: connect from unknown[172.16.0.{draw.randrange(256)}]",
    )
    lines = []
    while len(lines) < 40000:
        second = len(lines) // 3
        lines.append(f"Mar  1 {second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02} web1 {draw.choice(kinds)()}\n")
    return "".join(lines).encode()


def logs(figures, suites, much):
    """A logger that gets all it can take."""
    lines = memoryview(log_lines())
    for name, script in LOGS:
        times = much(12 if len(script) > 1 else 40)
        for _ in range(much(3)):
            for suite in suites:
                directory = scratch()
                argv = suite.log(directory, *script)
                if not argv:
                    continue
                reader, writer = os.pipe()
                logger = spawn(argv, suite, stdin=reader, others=[(DEVNULL, 3)])
                os.close(reader)
                begin = now()
                for _ in range(times):
                    sent = 0
                    while sent < len(lines):
                        sent += os.write(writer, lines[sent:sent + 65536])
                os.close(writer)
                spent, _ = wait(logger)
                megabytes = times * len(lines) / 1e6
                figures.add(f"log lines {name}: rate", "MB/s", suite, megabytes / (now() - begin), more_is_better=True)
                figures.add(f"log lines {name}: CPU per 100 MB", "s", suite, 100 * spent / megabytes)
                shutil.rmtree(directory)
    for suite in suites:
        directory = scratch()
        reader, writer = os.pipe()
        logger = spawn(suite.log(directory), suite, stdin=reader, others=[(DEVNULL, 3)])
        os.write(writer, b"a line\n")
        time.sleep(0.3)
        figures.add("memory of an idle logger", "kB", suite, private([logger]))
        os.close(writer)
        wait(logger)
        os.close(reader)


def fdholding(figures, suites, much):
    """A descriptor is stored, retrieved and deleted, by the commands for that."""
    servers = []
    for suite in suites[:2]:
        rules = os.path.join(scratch(), "uid", "default")
        os.makedirs(os.path.join(rules, "env"))
        open(os.path.join(rules, "allow"), "w").close()
        for right in ("STORE", "RETRIEVE"):
            with open(os.path.join(rules, "env", f"S6_FDHOLDER_{right}_REGEX"), "w") as file:
                file.write("^bench\n")
        socket = os.path.join(scratch(), "socket")
        reader, writer = os.pipe()
        argv = suite.program("s6-fdholder-daemon", "-1", "-i", os.path.dirname(os.path.dirname(rules)), socket)
        servers.append((suite, socket, spawn(argv, suite, stdout=writer)))
        os.close(writer)
        # It says a newline when it listens.
        select.select([reader], [], [], 20)
    for _ in range(much(200)):
        for suite, socket, server in servers:
            before, begin = cpu([server]), now()
            spent = sum(call(argv, suite) for argv in (
                suite.program("s6-fdholder-store", socket, "bench"),
                suite.program("s6-fdholder-retrieve", socket, "bench", "/bin/true"),
                suite.program("s6-fdholder-delete", socket, "bench")))
            wall = now() - begin
            figures.add("fdholder: store, retrieve, delete: rate", "1/s", suite, 1 / wall, more_is_better=True)
            figures.add("fdholder: CPU of the server for these", "µs", suite, 1e6 * (cpu([server]) - before))
    for suite, _, server in servers:
        figures.add("memory of s6-fdholderd", "kB", suite, private([server]))
        os.kill(server, signal.SIGTERM)
        wait(server)


def growth(figures, suites, much):
    """Whether what a service costs depends on how many there are."""
    for count in (100, much(1000), much(10000)):
        for suite in suites[:2]:
            tree = Tree(suite, count)
            time.sleep(0.5)
            figures.add(f"boot of {count} services: CPU for each", "µs", suite, 1e6 * tree.cpu() / count)
            # A supervisor dies, and another takes its place, which adopts nothing: the service is started again.
            before = cpu([tree.pid])
            victims = tree.pids[:10]
            for pid in victims:
                os.kill(tree.supervisors[pid], signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                tree.next_pid()
            figures.add(f"a supervisor dies among {count}: CPU of s6-svscan", "µs", suite,
                        1e6 * (cpu([tree.pid]) - before) / len(victims))
            tree.stop()
            tree = Tree(suite, count // 2, logged=True)
            time.sleep(0.5)
            figures.add(f"boot of {count} services, half of them loggers: CPU for each", "µs", suite,
                        1e6 * tree.cpu() / count)
            tree.stop()


MEASUREMENTS = (trees, restarts, commands, readiness, listeners, logs, fdholding, growth)


# ---------------------------------------------------------------- the run


def debian_version(directory, name):
    """`s6 2.11.3.2 (Debian)` for Debian's, else the directory."""
    if directory == "/usr/bin" and shutil.which("dpkg-query"):
        query = subprocess.run(["dpkg-query", "-W", "-f", "${source:Upstream-Version}", name],
                               stdout=subprocess.PIPE, stderr=DEVNULL, text=True)
        if query.returncode == 0:
            return f"{name} {query.stdout} (Debian)"
    return f"{name} in {directory}"


def make_service():
    compiler = ["rustc", "-O", "-C", "panic=abort", "-C", "relocation-model=static", "-C", "strip=symbols",
                "-C", "link-args=-nostartfiles -nostdlib -static", "-o", SERVICE, os.path.join(HERE, "service.rs")]
    subprocess.run(compiler, check=True)


def main():
    parser = argparse.ArgumentParser(description="Compares the s6 programs of two directories.")
    parser.add_argument("a", metavar="DIR-A")
    parser.add_argument("b", metavar="DIR-B")
    parser.add_argument("--name-a", default="s6-rs")
    parser.add_argument("--name-b")
    parser.add_argument("--only", metavar="NAME,...", default=",".join(m.__name__ for m in MEASUREMENTS),
                        help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work: shows that it runs, no more")
    parser.add_argument("--no-peers", action="store_true", help="without runit and daemontools")
    parser.add_argument("--svg", metavar="FILE", help="also draw a plot")
    options = parser.parse_args()
    a, b = map(os.path.abspath, (options.a, options.b))
    names = options.only.split(",")
    wanted = [m for m in MEASUREMENTS if m.__name__ in names]
    if len(wanted) != len(names):
        parser.error("--only takes of: " + ", ".join(m.__name__ for m in MEASUREMENTS))

    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    try:
        make_service()
        suites = [S6(options.name_a, a), S6(options.name_b or debian_version(b, "s6"), b)]
        if not options.no_peers:
            if os.access("/usr/bin/runsvdir", os.X_OK):
                suites.append(Runit(debian_version("/usr/bin", "runit"), "/usr/bin"))
            if os.access("/usr/bin/svscan", os.X_OK):
                suites.append(Daemontools(debian_version("/usr/bin", "daemontools"), "/usr/bin"))
        figures = Figures(suites)
        for measurement in wanted:
            print(measurement.__doc__, file=sys.stderr)
            try:
                measurement(figures, suites, lambda n: max(1, n // 20) if options.quick else n)
            except (RuntimeError, OSError, TypeError) as error:
                print(f"  given up: {error}", file=sys.stderr)
            end_all()
        print(figures.table())
        if options.svg:
            with open(options.svg, "w") as file:
                file.write(figures.plot())
    finally:
        end_all()
        shutil.rmtree(SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
