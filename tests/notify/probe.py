"""A service that does what a test tells it.

Its argument is the path of a socket; each connection brings Python code and takes the value back, as text.
"""
import array, ctypes, fcntl, os, resource, select, signal, socket, stat, struct, sys, time


def send(payload, *fds, pid=None):
    """One notification, perhaps in the name of another process."""
    payload = payload if isinstance(payload, bytes) else payload.encode()
    address = environment["NOTIFY_SOCKET"]
    control = []
    if fds:
        control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)))
    if pid is not None:
        control.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", pid, os.getuid(), os.getgid())))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect("\0" + address[1:] if address[0] == "@" else address)
        return s.sendmsg([payload], control)


def hung_up(fd, timeout=1):
    """Whether nobody is at the other end, within a second."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(timeout * 1000))


def closes(payload, count=1, **options):
    """Whether the receiver closes all descriptors that come with a message."""
    here, there = os.pipe()
    send(payload, *[there] * count, **options)
    os.close(there)
    try:
        return hung_up(here)
    finally:
        os.close(here)


def barrier(**options):
    return closes("BARRIER=1", **options)


def tell(payload, *fds, **options):
    """A message, and whether it was looked at."""
    send(payload, *fds, **options)
    return barrier()


def memfd(name):
    return os.memfd_create(name)


def pipe(flags=0):
    """Both ends at numbers that no stored descriptor will have."""
    low = os.pipe2(flags)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 600) for fd in low]
    [os.close(fd) for fd in low]
    return high


def in_child(code, orphan=False):
    """The value of code in a child, or in an orphan with its own session."""
    here, there = os.pipe()
    if os.fork() == 0:
        if orphan:
            if os.fork() != 0:
                os._exit(0)
            os.setsid()
            while os.getppid() == main:
                time.sleep(0.001)
        os.write(there, answer(code))
        os._exit(0)
    os.close(there)
    value = os.read(here, 65536).decode()
    os.close(here)
    return eval(value)


def dead_pid():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def second(path, orphan=False):
    """Another one like this; its number."""
    here, there = os.pipe()
    if os.fork() == 0:
        if orphan and os.fork() != 0:
            os._exit(0)
        os.write(there, str(os.getpid()).encode())
        serve(path)
    if orphan:
        os.wait()
    os.close(there)
    return int(os.read(here, 100))


def files():
    """What came from the store: name, file, close-on-exec, nonblocking."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = environment["LISTEN_FDNAMES"].split(":")
    assert len(names) == int(environment["LISTEN_FDS"])
    result = []
    for fd, name in enumerate(names, 3):
        blocks = not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
        result.append((name, os.readlink(f"/proc/self/fd/{fd}").split(" ")[0], at_start.get(fd), blocks))
    return result


def names():
    return [name for name, _, _, _ in files()]


def answer(code):
    try:
        try:
            value = eval(code, globals())
        except SyntaxError:
            value = exec(code, globals())
        return repr(value).encode()
    except Exception as error:
        return repr(repr(error)).encode()


def serve(path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.dup2(server.fileno(), 700, inheritable=False)
    server.close()
    server = socket.socket(fileno=700)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    server.bind(path)
    server.listen(5)
    while True:
        client, _ = server.accept()
        with client:
            code = b""
            while chunk := client.recv(65536):
                code += chunk
            value = answer(code.decode())
            try:
                client.sendall(value)
                client.shutdown(socket.SHUT_WR)  # a child may have inherited it
            except OSError:
                pass  # the test does not want to know


limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
main = os.getpid()
environment = dict(os.environ)
at_start = {int(fd): fcntl.fcntl(int(fd), fcntl.F_GETFD) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
serve(sys.argv[1])
