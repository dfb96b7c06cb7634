"""Imitates a daemon that puts itself into the background, with the habits that real ones have.

Words on the command line, each name=value, say which; without any it forks once, and the child, main, writes its
number to daemon.pid as soon as the process first started, the parent, is gone.

    file=PATH    the pid file
    writer=parent    the parent writes it, before it exits
    late=MS      main waits that long after the parent's exit before it writes
    write=HOW    plain; rename (a temporary file); empty or junk (first that, 200 ms later the number); never
    text=TEXT    instead of the number and a newline; %d is the number
    forks=2      main is a grandchild; stays=1: its own parent stays, and takes no notice of its end
    dies=CODE    main ends before it writes
    second=1     the parent leaves another process beside main
    refuses=CODE the parent ends without a fork
    fails=CODE   the parent exits with this code after the fork
    hangs=1      the parent never exits
    workers=N    main has that many children; stubborn=1: they do not care for SIGTERM and SIGALRM; early=1: main has them
                 before it waits
    headless=1   their first thread ends, and another one lives on
    code=CODE    main's answer to SIGTERM; ignores=1: none

Main, told by a signal: TERM exits, HUP executes itself and so goes into the background again, USR1 exits with code 7,
USR2 lets a child take over, WINCH leaves a thousand orphans behind. The file `log` tells what happened.
"""

import ctypes
import os
import signal
import sys
import threading
import time

WORDS = dict(word.split("=", 1) for word in sys.argv[1:])
FILE = WORDS.get("file", "daemon.pid")
TOLD = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}


def number(name):
    return int(WORDS.get(name, 0))


def log(*words):
    """One line, in one piece."""
    file = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


def fork(function, *arguments):
    """Runs the function in a child; its number."""
    child = os.fork()
    if child == 0:
        function(*arguments)
        os._exit(0)
    return child


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def write_file(pid):
    how = WORDS.get("write", "plain")
    text = WORDS.get("text", "%d\n").replace("%d", str(pid))
    if how in ("empty", "junk"):
        put(FILE, "junk\n" if how == "junk" else "")
        time.sleep(0.2)
    log("writes", time.time())
    if how == "rename":
        put(FILE + ".tmp", text)
        os.rename(FILE + ".tmp", FILE)
    elif how != "never":
        put(FILE, text)


def bystander():
    if number("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    log("bystander", os.getpid())
    if number("headless"):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        ctypes.CDLL(None).pthread_exit(None)
    while True:
        signal.pause()


def employ():
    for _ in range(number("workers")):
        fork(bystander)


def orphans(count):
    for _ in range(count):
        os.waitpid(fork(fork, os._exit, 0), 0)
    log("orphans")


def main(wait, ready=None):
    """Begins when `wait` is at end of file; `ready` is closed when the file is written."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    os.setsid()
    if number("early"):
        employ()
    os.read(wait, 1)
    time.sleep(number("late") / 1000)
    if "dies" in WORDS:
        os._exit(number("dies"))
    if WORDS.get("writer") != "parent" or ready is not None:
        write_file(os.getpid())
    if ready is not None:
        os.close(ready)
    if not number("early"):
        employ()
    log("main", os.getpid())
    while True:
        told = signal.sigwait(TOLD)
        log("told", os.getpid(), told.name)
        if told == signal.SIGTERM and not number("ignores"):
            os._exit(number("code"))
        elif told == signal.SIGHUP:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
            os.execv(sys.executable, [sys.executable] + sys.argv)
        elif told == signal.SIGUSR1:
            os._exit(7)
        elif told == signal.SIGUSR2:
            taken_over, done = os.pipe()
            if os.fork() == 0:
                os.close(taken_over)
                main(os.open("/dev/null", os.O_RDONLY), done)
            os.close(done)
            os.read(taken_over, 1)
            os._exit(0)
        elif told == signal.SIGWINCH:
            orphans(1000)


def parent():
    log("parent", os.getpid())
    if "refuses" in WORDS:
        sys.exit(number("refuses"))
    gone, lives = os.pipe()

    def child():
        os.close(lives)
        if WORDS.get("forks") == "2":
            fork(main, gone)
            if number("stays"):
                os.close(gone)
                bystander()
        else:
            main(gone)

    pid = fork(child)
    if WORDS.get("forks") == "2" and not number("stays"):
        os.waitpid(pid, 0)
    if number("second"):
        fork(lambda: (os.close(lives), bystander()))
    if WORDS.get("writer") == "parent":
        write_file(pid)
    while number("hangs"):
        signal.pause()
    sys.exit(number("fails"))


parent()
