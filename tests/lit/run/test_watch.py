"""Processes that notice each other's end, over real sockets, in one process's threads."""

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from adpur.lit.run.watch import LOST, Company, Link, Word, host, join

TOKEN = b"0123456789abcdef"


Heard = queue.Queue[tuple[int, Word]]


@pytest.fixture
def three() -> Iterator[tuple[list[Company], Heard]]:
    """Connected, with every end that anyone hears of in a queue."""
    world = 3
    heard: Heard = queue.Queue()
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    links: dict[int, dict[int, Link]] = {}
    hub = threading.Thread(target=lambda: links.update({0: host(world, TOKEN, server)}))
    hub.start()
    with socket.create_connection(address) as stranger:
        stranger.sendall(b"x" * 20)
        for rank in range(1, world):
            links[rank] = join(rank, TOKEN, address)
        hub.join()
    made = [
        Company(rank, links[rank], lambda word, rank=rank: heard.put((rank, word)))
        for rank in range(world)
    ]
    yield made, heard
    for company in made:
        company.close()


def die(company: Company) -> None:
    """What the kernel does for a killed process."""
    for link in company.links.values():
        link.end.shutdown(socket.SHUT_RDWR)


def test_all_meet_and_then_may_leave_in_any_order(three: tuple[list[Company], Heard]) -> None:
    made, heard = three
    for company in made[:2]:
        company.finish()
        assert not company.together(0.02)
    made[2].finish()
    assert all(company.together(60) for company in made)
    for company in made:
        die(company)
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.1)


@pytest.mark.parametrize("victim", [1, 2])
def test_a_death_is_heard_by_all(victim: int, three: tuple[list[Company], Heard]) -> None:
    made, heard = three
    made[0].finish()  # even by those that wait at the end
    made[victim].over.set()
    die(made[victim])
    told = dict(heard.get(timeout=60) for _ in range(2))
    assert told == {rank: Word(victim, LOST) for rank in range(3) if rank != victim}


def test_the_death_of_the_first_is_heard_by_the_others(three: tuple[list[Company], Heard]) -> None:
    made, heard = three
    made[0].over.set()
    die(made[0])
    told = dict(heard.get(timeout=60) for _ in range(2))
    assert told == {1: Word(0, LOST), 2: Word(0, LOST)}


def test_who_leaves_says_with_which_code(three: tuple[list[Company], Heard]) -> None:
    made, heard = three
    made[2].leave(143)
    told = dict(heard.get(timeout=60) for _ in range(2))
    assert told == {0: Word(2, 143), 1: Word(2, 143)}
