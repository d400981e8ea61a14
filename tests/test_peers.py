"""The processes of a run among themselves: they compare what they do, stop at one step, and notice who has gone."""

import threading
import time

import pytest

from diffrep_jax import peers
from diffrep_jax.errors import UserError
from diffrep_jax.peers import Peers, Stop


class Store:
    """The key-value store of JAX's coordination service, in memory."""

    def __init__(self):
        self.content, self.lock, self.broken = {}, threading.Lock(), False

    def key_value_set(self, name, value, allow_overwrite=False):
        with self.lock:
            if self.broken or (name in self.content and not allow_overwrite):
                raise RuntimeError("ALREADY_EXISTS")
            self.content[name] = value

    def key_value_dir_get(self, folder):
        with self.lock:
            if self.broken:
                raise RuntimeError("UNAVAILABLE")
            return [(name, value) for name, value in self.content.items() if name.startswith(folder)]


class Process(Peers):
    """One that notes its exit code, and falls silent, instead of ending."""

    def __init__(self, store, index, count):
        self.code = None
        super().__init__(store, index, count, end=self.note)

    def note(self, code):
        self.code, self._closed = code, True

    def die(self):
        self._closed = True


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in {"EVERY": 0.01, "SILENT": 0.5, "GRACE": 0.1, "PATIENCE": 0.1}.items():
        monkeypatch.setattr(peers, name, seconds)


@pytest.fixture
def three(quick):
    store = Store()
    processes = [Process(store, i, 3) for i in range(3)]
    yield processes
    for process in processes:
        process.die()


def together(*calls):
    """The results of calls made at once, or what they raised."""
    results = [None] * len(calls)

    def run(i):
        try:
            results[i] = calls[i]()
        except UserError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return results


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_alone_a_wish_is_the_decision():
    wish = Stop("train.max_minutes=1.0")
    assert peers.stop_at(3, None) is None and peers.stop_at(4, wish) is wish
    peers.compare({"a": 1})
    peers.wait_for_all("here")
    peers.leave("why", 1)
    peers.finish()


def test_equal_facts_pass_and_different_ones_are_named_to_all(three):
    facts = {"config.seed": 0, "config.method.unet.mult": (1, 2)}
    assert together(*[lambda p=p: p.compare(facts) for p in three]) == [None] * 3
    errors = together(*[lambda p=p, i=i: p.compare(facts | {"config.seed": i // 2}) for i, p in enumerate(three)])
    assert len({str(error) for error in errors}) == 1
    assert "process 2 of 3" in str(errors[0]) and "config.seed=1" in str(errors[0]) and "with 0" in str(errors[0])


@pytest.mark.parametrize("wishing", [0, 1, 2])
def test_all_stop_after_the_same_step_however_far_apart_they_are(three, wishing):
    """Processes at different steps, none ahead of what the others' results allow, as in training: all stop at one."""
    stopped = {}

    def train(i, process):
        for step in range(1, 10**6):
            wish = Stop("SIGTERM", 143) if (i, step) == (wishing, 50) else None
            if stop := process.stop_at(step, wish):
                stopped[i] = (step, stop)
                return
            time.sleep(0.0005 * (1 + i))

    together(*[lambda i=i, p=p: train(i, p) for i, p in enumerate(three)])
    steps = {step for step, _ in stopped.values()}
    assert len(steps) == 1 and min(steps) > 50
    assert {stop.exit_code for _, stop in stopped.values()} == {143}
    assert all(stop.why.startswith(f"SIGTERM (process {wishing} of 3 (") for _, stop in stopped.values())


def test_the_first_wish_counts(three):
    wishes = [Stop("SIGTERM", 143), None, Stop("train.max_minutes=1.0")]

    def train(process, wish):
        for step in range(1, 10**6):
            if stop := process.stop_at(step, wish):
                return step, stop.why, stop.exit_code
            time.sleep(0.001)

    results = together(*[lambda p=p, w=w: train(p, w) for p, w in zip(three, wishes, strict=True)])
    assert len(set(results)) == 1


def test_a_silent_process_is_named_and_the_others_leave(three, capsys):
    wait_for(lambda: all(len(process._beats) == 2 for process in three))
    three[1].die()
    wait_for(lambda: three[0].code is not None and three[2].code is not None)
    assert three[0].code == three[2].code == peers.TRY_AGAIN and three[1].code is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: Process 1 of 3 (") for line in lines)
    assert all("gone" in line for line in lines)


def test_a_process_that_leaves_says_why(three, capsys):
    three[2].leave("no images in /data", 2)
    wait_for(lambda: three[0].code is not None and three[1].code is not None)
    assert [process.code for process in three] == [2, 2, 2]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("Process 2 of 3" in line and "no images in /data" in line for line in lines)


def test_the_main_thread_hears_of_a_loss_that_its_error_came_of(three, capsys):
    wait_for(lambda: all(len(process._beats) == 2 for process in three))
    three[0].die()
    three[1].explain()
    assert three[1].code == peers.TRY_AGAIN and "Process 0 of 3" in capsys.readouterr().err


def test_a_store_that_falls_silent_ends_all(three, capsys, monkeypatch):
    monkeypatch.setattr(peers, "SILENT", -4.5)
    three[0]._client.broken = True
    wait_for(lambda: all(process.code == peers.TRY_AGAIN for process in three))
    assert "does not answer" in capsys.readouterr().err


def test_the_end_of_the_store_itself_is_said_at_once(three, capsys):
    three[1].lose_service()
    wait_for(lambda: three[1].code == peers.TRY_AGAIN)
    line = capsys.readouterr().err
    assert line.startswith("error: Process 0 of 3") and "its whole host" in line and line.count("\n") == 1


def test_after_the_good_end_the_store_may_go(three, capsys):
    together(*[process.finish for process in three])
    three[1].lose_service()
    time.sleep(0.3)
    assert three[1].code is None and not capsys.readouterr().err


def test_who_is_waited_for_is_named(three, caplog):
    calls = [lambda p=p: p.wait_for_all("data") for p in three[:2]]
    waiting = threading.Thread(target=lambda: together(*calls), daemon=True)
    waiting.start()
    wait_for(lambda: "Still waiting for process 2 of 3" in caplog.text)
    three[2].wait_for_all("data")
    waiting.join(5)
    assert not waiting.is_alive()


def test_who_has_come_to_the_end_is_not_missed(three, capsys):
    together(*[process.finish for process in three])
    time.sleep(0.8)
    assert [process.code for process in three] == [None] * 3 and not capsys.readouterr().err
