"""Processes of one run that notice each other's end, whatever launched them.

Every process holds one connection to the first. The kernel closes it when a process dies, however
it dies, so nothing has to beat, no clock decides, and a long network call is never taken for a
death. Collectives would not do: gloo and NCCL wait for half an hour, which is too long for a lost
process and too short for one that merely has more batches.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

HELLO = struct.Struct("!16sI")
WORD = struct.Struct("!Ii")
DONE, LOST = 0, -1
PATIENCE = 60.0
"""Seconds to wait for all processes to connect."""


class Word(NamedTuple):
    """How a process ended: with an exit code of its own, or `LOST`."""

    rank: int
    code: int


class Link:
    """One end of a connection; a word at a time, from any thread."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(None)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a machine that lost its power
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if option in vars(socket):  # Linux's names
                end.setsockopt(socket.IPPROTO_TCP, vars(socket)[option], value)
        self.end = end
        self._lock = threading.Lock()

    def say(self, word: Word) -> None:
        """Send, unless nobody listens any more."""
        with suppress(OSError), self._lock:
            self.end.sendall(WORD.pack(*word))

    def hear(self) -> Word | None:
        """The next word, or None once the other end is gone."""
        raw = b""
        while len(raw) < WORD.size:
            try:
                part = self.end.recv(WORD.size - len(raw))
            except OSError:
                part = b""
            if not part:
                return None
            raw += part
        return Word(*WORD.unpack(raw))

    def close(self) -> None:
        """End it; closing alone would not wake the thread that listens."""
        with suppress(OSError):
            self.end.shutdown(socket.SHUT_RDWR)
        self.end.close()


class Company:
    """The processes of a run, as one of them sees the others.

    Args:
        rank: of this process.
        links: to process 0, or of process 0 to each other, by rank.
        ended: called once, from another thread, with the first word of an end that is not `DONE`.
    """

    def __init__(self, rank: int, links: dict[int, Link], ended: Callable[[Word], None]) -> None:
        self.rank, self.links, self.ended = rank, links, ended
        self.over = threading.Event()
        self._done: set[int] = set()
        self._all = threading.Event()
        self._lock = threading.Lock()
        for other, link in links.items():
            threading.Thread(target=self._listen, args=(other, link), daemon=True).start()

    def finish(self) -> None:
        """Tell that this process has done its share."""
        self._note(Word(self.rank, DONE))
        if self.rank:
            self._tell(Word(self.rank, DONE))

    def together(self, seconds: float) -> bool:
        """Whether all have finished, within so many seconds."""
        return self._all.wait(seconds)

    def leave(self, code: int) -> None:
        """Tell that this process ends early by itself, and listen no more."""
        self.over.set()
        self._tell(Word(self.rank, code))

    def close(self) -> None:
        """End the connections."""
        self.over.set()
        for link in self.links.values():
            link.close()

    def _listen(self, other: int, link: Link) -> None:
        while not self.over.is_set() and not self._all.is_set():
            word = link.hear() or Word(other, LOST)
            if word.code == DONE:
                self._note(word)
            elif not self.over.is_set() and not self._all.is_set():
                self.over.set()
                if self.rank == 0:
                    self._tell(word)
                self.ended(word)

    def _note(self, word: Word) -> None:
        """Process 0 counts; its own word, when it comes, says that all have finished."""
        with self._lock:
            self._done.add(word.rank)
            if self.rank == 0 and len(self._done) > len(self.links):
                self._all.set()
                self._tell(Word(0, DONE))
            elif self.rank and word.rank == 0:
                self._all.set()

    def _tell(self, word: Word) -> None:
        for link in self.links.values():
            link.say(word)


def host(world: int, token: bytes, server: socket.socket) -> dict[int, Link]:
    """Process 0: one link for each other process that knows the token."""
    links: dict[int, Link] = {}
    server.settimeout(PATIENCE)
    with server:
        while len(links) < world - 1:
            end, _ = server.accept()
            end.settimeout(PATIENCE)
            raw = end.recv(HELLO.size, socket.MSG_WAITALL)
            if len(raw) == HELLO.size and raw[:16] == token:
                links[HELLO.unpack(raw)[1]] = Link(end)
            else:
                end.close()
    return links


def join(rank: int, token: bytes, address: tuple[str, int]) -> dict[int, Link]:
    """Any other process: its link to process 0."""
    end = socket.create_connection(address, PATIENCE)
    end.sendall(HELLO.pack(token, rank))
    return {0: Link(end)}
