"""Files are whole or not there, whatever kills their writer, and whoever else writes."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlm.runtime import atomic as files
from rlm.runtime.atomic import check_writable, recover, sha256_of, whole, write_folder, write_whole

OLD, NEW = {"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new", "c": b"new"}
KILLED = """
import os, sys
from pathlib import Path
from rlm.runtime import atomic as files

steps, dies_at = [], int(sys.argv[2])

def counted(module, name):
    original = getattr(module, name)
    def run(*arguments, **settings):
        for _ in range(2):  # before the step, and after it
            if len(steps) == dies_at:
                os._exit(9)
            steps.append(name)
            if len(steps) % 2:
                result = original(*arguments, **settings)
        return result
    setattr(module, name, run)

for name in ("rename", "replace", "mkdir", "write_bytes", "write_text"):
    counted(Path, name)
counted(os, "fsync")
counted(files.shutil, "rmtree")
path = Path(sys.argv[1])
if path.name == "folder":
    files.write_folder(path, {name: b"new" for name in "abc"})
else:
    files.write_whole(path, "new")
print(len(steps))
"""


def run_killed(path, step):
    """Write in a process that ends at this step, as one that is killed; whether there was such a step."""
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[2])}
    script = [sys.executable, "-c", KILLED, str(path), str(step)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 9), done.stderr
    return done.returncode == 9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_the_old_or_the_new_one_whenever_its_writer_is_killed(tmp_path):
    """A later writing fails, and what was there stays; one that does not leaves nothing else behind."""
    path, step, seen = tmp_path / "folder", 0, set()
    write_folder(path, OLD)
    while run_killed(path, step):
        recover(path)
        found = content_of(path)
        assert found in (OLD, NEW)
        seen.add(len(found))
        assert names(tmp_path) == ["folder"]
        write_folder(path, OLD)
        step += 1
    assert step > 20
    assert seen == {2, 3}
    assert content_of(path) == NEW


def test_a_file_is_the_old_or_the_new_one_whenever_its_writer_is_killed(tmp_path):
    path, step, seen = tmp_path / "file.csv", 0, set()
    path.write_text("old")
    while run_killed(path, step):
        seen.add(path.read_text())
        write_whole(path, "old")
        assert names(tmp_path) == ["file.csv"]
        step += 1
    assert seen == {"old", "new"}
    assert path.read_text() == "new"


@pytest.fixture
def steps(monkeypatch):
    """What is asked of the disk, in order."""
    found, fsync = [], os.fsync

    def synced(descriptor):
        found.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def named(name):
        original = getattr(Path, name)

        def run(self, target):
            found.append((name, str(self)))
            return original(self, target)

        monkeypatch.setattr(Path, name, run)

    monkeypatch.setattr(os, "fsync", synced)
    named("rename")
    named("replace")
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to know a descriptor's file")
class TestDisk:
    def test_a_file_is_on_the_disk_before_it_gets_its_name(self, steps, tmp_path):
        write_whole(tmp_path / "f.csv", "text")
        (what, temporary), (then, its), (last, folder) = steps
        assert (what, then, last) == ("fsync", "replace", "fsync")
        assert temporary == its != str(tmp_path / "f.csv")
        assert folder == str(tmp_path)

    def test_so_is_a_folder_with_its_files(self, steps, tmp_path):
        write_folder(tmp_path / "m", OLD)
        assert [what for what, _ in steps] == ["fsync", "fsync", "fsync", "rename", "fsync"]
        (_, a), (_, b), (_, folder), (_, renamed), (_, parent) = steps
        assert {a, b} == {f"{folder}/a", f"{folder}/b"}
        assert (folder, parent) == (renamed, str(tmp_path))


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, barrier, failed = tmp_path / "f.json", threading.Barrier(8), []

    def write(number):
        barrier.wait()
        try:
            for _ in range(20):
                with whole(path) as temporary:
                    temporary.write_text(json.dumps([number] * 1000))
                write_folder(tmp_path / "folder", {"n": bytes([number]) * 10_000})
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(json.loads(path.read_text()))) == 1
    assert len(set((tmp_path / "folder" / "n").read_bytes())) == 1
    assert names(tmp_path) == ["f.json", "folder"]


def test_what_others_are_writing_stays(tmp_path):
    """Of a process that lives, or of a name that only looks like it."""
    others = [f".{os.getppid()}-01234567.f.csv", ".1-0123.f.csv", ".x-01234567.f.csv", ".1-01234567.g.csv"]
    for name in others:
        (tmp_path / name).write_text("x")
    (tmp_path / f".{2**22 + 1}-01234567.f.csv").write_text("of nobody: Linux numbers end before")
    write_whole(tmp_path / "f.csv", "text")
    assert names(tmp_path) == sorted([*others, "f.csv"])


def test_a_place_that_cannot_be_written_is_found_without_a_trace(tmp_path):
    check_writable(tmp_path / "f")
    assert names(tmp_path) == []
    with pytest.raises(OSError, match="No such file"):
        check_writable(tmp_path / "none" / "f")
    with pytest.raises(OSError, match="too long"):
        check_writable(tmp_path / ("f" * 255))


def test_a_hash_is_that_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f").startswith("ba7816bf8f01cfea")  # FIPS 180-4, appendix
    with pytest.raises(OSError, match="is not a file"):
        sha256_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a file"):
        sha256_of(tmp_path / "pipe")
