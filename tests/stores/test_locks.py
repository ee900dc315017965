"""Locks of one machine: one holder at a time, in threads and processes, and none that died."""

from multiprocessing import get_context
from threading import Event, Thread

from ionbeam_dagster.stores.locks import JobLock, folder_locked, locked


def test_a_job_is_done_by_one_at_a_time_and_a_lock_may_be_asked_for_again(tmp_path):
    one, other = (JobLock(tmp_path / "state" / "job.lock") for _ in range(2))
    assert one.acquire() and one.acquire() and not other.acquire()
    other.close()
    assert not other.acquire()
    one.close()
    assert other.acquire() and not one.acquire()


def _do(path, pipe):
    assert JobLock(path).acquire() is False
    with locked(path.with_name("file.lock")):
        pipe.send("held")
        pipe.recv()


def test_what_a_process_that_is_killed_held_is_free(tmp_path):
    path = tmp_path / "job.lock"
    job = JobLock(path)
    assert job.acquire()
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_do, args=(path, there))
    process.start()
    assert here.recv() == "held"
    held = Event()

    def hold() -> None:
        with locked(tmp_path / "file.lock"):
            held.set()

    waiting = Thread(target=hold)
    waiting.start()
    assert not held.wait(0.3)
    process.kill()
    process.join()
    assert held.wait(10)
    waiting.join()


def test_a_lock_file_keeps_what_is_in_it_and_threads_wait_for_each_other(tmp_path):
    file, seen = tmp_path / "journal", []
    file.write_text("kept")

    def hold(lock) -> None:
        with lock:
            seen.append("other")

    for make in (lambda: locked(file), lambda: folder_locked(tmp_path)):
        with make():
            other = Thread(target=hold, args=(make(),))
            other.start()
            other.join(0.2)
            seen.append("first")
        other.join()
    assert seen == ["first", "other"] * 2 and file.read_text() == "kept"
