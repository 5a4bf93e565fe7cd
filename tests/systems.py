"""What only some operating systems have, where a file names it, and what this one lacks."""

import ast
import importlib
import multiprocessing
import os
import select
import signal
from functools import cache
from pathlib import Path

from tests.house import ROOT

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty")
OF_SOME = {
    *MODULES,
    *("fork", "forkpty", "register_at_fork", "killpg", "getpgid", "getpgrp", "setpgid"),
    *("setsid", "nice", "sched_getaffinity", "pthread_sigmask", "poll"),
    *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGBREAK"),
    *("CTRL_BREAK_EVENT", "alarm", "setitimer"),
}
OWNERS = {"os", "signal", "select", *MODULES}
FOLDERS = ("/dev/shm", "/proc/")


def named_in(file: Path) -> set[str]:
    """What a file names of it: as a module, ``os.killpg``, ``"fork"`` or ``"/dev/shm"``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names) if module in OWNERS:
                found.update((module, *(alias.name for alias in names)))
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in OWNERS:
                found.add(name)
            case ast.Constant(value=str(text)):
                found.update({"fork"} & {text}, (f for f in FOLDERS if text.startswith(f)))
    return found & {*OF_SOME, *FOLDERS}


@cache
def lacking() -> frozenset[str]:
    """What this system has not."""

    def there(name: str) -> bool:
        if name in FOLDERS:
            return Path(name).exists()
        if name in MODULES:
            try:
                importlib.import_module(name)
            except ImportError:
                return False
            return True
        if name == "fork":
            return "fork" in multiprocessing.get_all_start_methods()
        return any(hasattr(owner, name) for owner in (os, signal, select))

    return frozenset(name for name in (*OF_SOME, *FOLDERS) if not there(name))


def lacked(file: Path) -> list[str]:
    """What a file of tests needs and this system lacks; nothing is read where all is there."""
    return sorted(needs(file) & lacking()) if lacking() - {"SIGBREAK", "CTRL_BREAK_EVENT"} else []


@cache
def needs(file: Path) -> frozenset[str]:
    """What a file of tests names of it, by itself or in what it imports of ``tests``."""
    found = set(named_in(file))
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tests."):
            helper = ROOT.joinpath(*str(node.module).split(".")).with_suffix(".py")
            if helper.exists() and helper.name != "systems.py":
                found |= needs(helper)
    return frozenset(found)
