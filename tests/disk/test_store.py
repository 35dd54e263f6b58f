import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.core.errors import ReadBackError
from agent.core.model import Grade, Ownership, Reason, Shape, Snapshot
from agent.core.naming import snapshot_name
from agent.disk import atomic
from agent.disk import publish as publish_module
from agent.disk import store as store_module
from agent.disk.codec import Compression
from agent.disk.draft import Draft, Refused
from agent.disk.journal import Journal
from agent.disk.preparation import Preparation
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.store import STAGING_BELOW, Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINE = Ownership(os.geteuid(), os.getegid(), 0o640)


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def store_in(backups: Path, compression: Compression = Compression.NONE) -> Store:
    backups.mkdir(exist_ok=True)
    return Store(str(backups), Journal(str(backups / ".agent")), compression)


def draft(
    rel: str = "users.json",
    content: bytes | StagedFile = b'{"a": 1}',
    *,
    grade: Grade = Grade.GOOD,
    ownership: Ownership | None = MINE,
    at: datetime = NOON,
    digest: str = "",
    prepared: Preparation | None = None,
) -> Draft:
    if not digest:
        data = content if isinstance(content, bytes) else Path(content.path).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
    return Draft(rel, content, digest, ownership, grade, Reason.CHANGE, Shape(8, "object", 1), at, prepared)


def publish(store: Store, *drafts: Draft) -> list[Snapshot | Refused]:
    with store.staging() as staging:
        done = store.publish(drafts, staging)
        assert os.listdir(staging.fd) == []
    return done


def published(store: Store, *drafts: Draft) -> list[Snapshot]:
    done = publish(store, *drafts)
    assert all(isinstance(d, Snapshot) for d in done)
    return [d for d in done if isinstance(d, Snapshot)]


def files_in(backups: Path) -> list[str]:
    return sorted(str(p.relative_to(backups)) for p in backups.rglob("*") if p.is_file() and ".agent" not in p.parts)


def journalled(backups: Path) -> list[dict[str, object]]:
    return list(Journal(str(backups / ".agent")).read())


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("content", [b"", b'{"a": 1}', os.urandom(3 << 20)], ids=["empty", "small", "large"])
def test_published_snapshot_reads_back_and_is_told_in_the_journal(
    backups: Path, compression: Compression, content: bytes
) -> None:
    store = store_in(backups, compression)

    [snapshot] = published(store, draft(content=content))

    with store.open(snapshot.name) as plain:
        assert plain.read() == content
    assert store.is_intact(snapshot)
    assert snapshot.size_bytes == len(content)
    assert snapshot.stored_bytes == (backups / snapshot.name).stat().st_size == store.stored_size(snapshot.name)
    assert snapshot.name.endswith(f".json{compression.suffix}")
    [record] = journalled(backups)
    assert (record["name"], record["digest"]) == (snapshot.name, snapshot.digest)


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("content", [b"", b"x" * (5 << 20)], ids=["empty", "large"])
def test_private_copy_becomes_the_snapshot(backups: Path, compression: Compression, content: bytes) -> None:
    store = store_in(backups, compression)
    with store.staging() as staging:
        copy = staging.create()
        copy.write(content)
        [snapshot] = store.publish([draft(content=copy)], staging)
        copy.discard()

    assert isinstance(snapshot, Snapshot)
    assert (snapshot.size_bytes, store.is_intact(snapshot)) == (len(content), True)


@pytest.mark.parametrize("grade", [Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT])
def test_what_is_not_good_stands_on_a_shelf_of_its_own(backups: Path, grade: Grade) -> None:
    [snapshot] = published(store_in(backups), draft("sub/users.json", grade=grade))

    assert snapshot.name.startswith("_suspect/" if grade is Grade.SUSPECT else "_quarantine/")


@pytest.mark.parametrize(
    ("ownership", "mode"),
    [
        (MINE, 0o640),
        (Ownership(MINE.uid, MINE.gid, 0o4755), 0o755),
        (Ownership(MINE.uid, MINE.gid, 0o400), 0o400),
        (Ownership(MINE.uid + 1, MINE.gid, 0o664), 0o600),
        (Ownership(MINE.uid, MINE.gid + 1, 0o664), 0o600),
        (None, 0o600),
    ],
)
def test_mode_is_that_of_the_source_and_never_wider(backups: Path, ownership: Ownership | None, mode: int) -> None:
    [snapshot] = published(store_in(backups), draft(ownership=ownership))

    assert (backups / snapshot.name).stat().st_mode & 0o7777 == mode


def test_taken_name_is_passed_over_and_never_journalled(backups: Path) -> None:
    store = store_in(backups)
    taken = snapshot_name("users.json", NOON)
    (backups / taken).write_bytes(b"theirs")

    [snapshot] = published(store, draft())

    assert (backups / taken).read_bytes() == b"theirs"
    assert snapshot.taken_at == NOON + timedelta(milliseconds=1)
    assert [record["name"] for record in journalled(backups)] == [snapshot.name]


@pytest.mark.parametrize("folder", ["sub", "_quarantine", "_suspect"])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_folder_that_is_a_link_refuses_its_files_alone(
    backups: Path, tmp_path: Path, folder: str, compression: Compression
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    store = store_in(backups, compression)
    (backups / folder).symlink_to(victim)
    grade = {"_quarantine": Grade.CORRUPT, "_suspect": Grade.SUSPECT}.get(folder, Grade.GOOD)
    rel = "sub/users.json" if folder == "sub" else "users.json"

    done = publish(store, draft(rel, grade=grade), draft("other.json"))

    assert [type(d) for d in done] == [Refused, Snapshot]
    assert os.listdir(victim) == []


def test_staging_that_is_a_link_is_refused(backups: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    store = store_in(backups)
    (backups / ".agent").mkdir()
    (backups / ".agent" / "staging").symlink_to(tmp_path / "victim")

    with pytest.raises(NotADirectoryError), store.staging():
        pass


@contextmanager
def failing_for(content: bytes, step: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make `step` fail for the one file that holds (or is to hold) `content`, and only once it is reached."""
    real: dict[str, Callable[..., object]] = {"write": os.write, "fsync": os.fsync, "fchmod": os.fchmod}
    error = OSError(errno.ENOSPC, "full")

    def holds(fd: int) -> bool:
        return "staging" in os.readlink(f"/proc/self/fd/{fd}") and os.pread(fd, len(content) + 1, 0) == content

    def fails(fd: int, *given: object) -> object:
        if holds(fd):
            raise error
        return real[step](fd, *given)

    with monkeypatch.context() as broken:
        if step == "rename":
            take = publish_module._take_name

            def refuse(work: publish_module._Work, folder_fd: int) -> None:
                if work.draft.content == content:
                    raise error
                take(work, folder_fd)

            broken.setattr(publish_module, "_take_name", refuse)
        elif step == "create":
            create, turns = StagingFolder.create, iter([False, True, False])

            def create_or_fail(folder: StagingFolder) -> StagedFile:
                if next(turns):
                    raise error
                return create(folder)

            broken.setattr(StagingFolder, "create", create_or_fail)
        else:
            broken.setattr(os, step, fails)
        yield


@pytest.mark.parametrize("step", ["create", "fchmod", "fsync", "rename"])
def test_one_draft_that_fails_hurts_no_other_and_leaves_nothing(
    backups: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = store_in(backups)
    drafts = [draft(f"{n}.json", b"content %d" % n) for n in range(3)]

    with failing_for(b"content 1", step, monkeypatch):
        done = publish(store, *drafts)

    assert [type(d) for d in done] == [Snapshot, Refused, Snapshot]
    assert files_in(backups) == sorted(d.name for d in done if isinstance(d, Snapshot))


def test_folder_that_cannot_be_flushed_refuses_its_files_and_leaves_none(
    backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(backups)
    (backups / "sub").mkdir()
    fsync = os.fsync

    def fails(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/sub"):
            raise OSError(errno.EIO, "no answer")
        fsync(fd)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        done = publish(store, draft("sub/users.json"), draft("other.json"))

    assert [type(d) for d in done] == [Refused, Snapshot]
    assert files_in(backups) == [snapshot_name("other.json", NOON)]


def test_folder_that_cannot_be_closed_takes_no_snapshot_back(backups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(backups)
    close = os.close

    def fails(fd: int) -> None:
        is_folder = os.readlink(f"/proc/self/fd/{fd}") == str(backups / "sub")
        close(fd)
        if is_folder and files_in(backups):
            raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(os, "close", fails)
        [done] = publish(store, draft("sub/users.json"))

    assert isinstance(done, Snapshot)
    assert files_in(backups) == [done.name]


def test_temporary_name_that_cannot_be_removed_takes_no_snapshot_back(
    backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "unlink")

    store = store_in(backups)
    with store.staging() as staging, monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        [done] = store.publish([draft()], staging)

    assert isinstance(done, Snapshot)
    assert store.is_intact(done)


def give_back_others(patch: pytest.MonkeyPatch, *, of: bytes) -> None:
    """From now on the disk changes a byte of each file that begins so, once it was flushed."""
    fsync = os.fsync

    def lies(fd: int) -> None:
        fsync(fd)
        if os.path.isfile(path := f"/proc/self/fd/{fd}") and Path(path).read_bytes().startswith(of):
            os.pwrite(fd, b"?", len(of))

    patch.setattr(os, "fsync", lies)


MAGIC = {Compression.NONE: b'{"a', Compression.GZIP: b"\x1f\x8b", Compression.ZSTD: b"\x28\xb5\x2f\xfd"}


@pytest.mark.parametrize("compression", list(Compression))
def test_bytes_that_come_back_different_are_refused(
    backups: Path, compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as disk:
        give_back_others(disk, of=MAGIC[compression])
        [refused] = publish(store_in(backups, compression), draft())

    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ReadBackError)
    assert files_in(backups) == []


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"], ids=["shorter", "longer"])
def test_copy_that_comes_back_in_another_length_is_refused(
    backups: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    fsync, data = os.fsync, b"{" + b" " * 100_000 + b"}"

    def lies(fd: int) -> None:
        fsync(fd)
        if os.fstat(fd).st_size == len(data):
            os.ftruncate(fd, 0)
            os.pwrite(fd, change(data), 0)

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", lies)
        [refused] = publish(store_in(backups), draft(content=data))

    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ReadBackError)


def made_ready(store: Store, content: bytes, staging: StagingFolder) -> Preparation:
    ready = store.prepare(content, staging)
    assert ready is not None
    ready.learn(hashlib.sha256(content).hexdigest())
    return ready


def test_copy_made_ready_that_comes_back_different_is_refused_alone(
    backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(backups)
    with store.staging() as staging, monkeypatch.context() as disk:
        give_back_others(disk, of=b'{"wr')
        wrong, right = b'{"wrong": 1}', b'{"right": 1}'
        refused, done = store.publish(
            [
                draft("a.json", wrong, prepared=made_ready(store, wrong, staging)),
                draft("b.json", right, prepared=made_ready(store, right, staging)),
            ],
            staging,
        )

    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ReadBackError)
    assert isinstance(done, Snapshot)
    assert files_in(backups) == [done.name]
    assert os.listdir(backups / STAGING_BELOW) == []


@pytest.mark.parametrize("compression", list(Compression))
def test_copy_that_is_wanted_before_its_digest_is_known_and_then_is_not_leaves_nothing(
    backups: Path, compression: Compression
) -> None:
    with (store := store_in(backups, compression)).staging() as staging:
        ready = store.prepare(b"{}", staging)
        assert ready is not None
        ready.want()
        ready.learn("")
        ready.discard()

        assert os.listdir(staging.fd) == []


@pytest.mark.parametrize("step", ["append", "flush"])
def test_journal_that_cannot_be_written_publishes_nothing(
    backups: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = store_in(backups)

    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    def fails_for_the_journal(fd: int) -> OSError | None:
        return OSError(errno.EIO, "full") if "journal" in os.readlink(f"/proc/self/fd/{fd}") else None

    with monkeypatch.context() as broken:
        if step == "append":
            broken.setattr(Journal, "append", fails)
        else:
            broken.setattr(atomic, "_fsync", fails_for_the_journal)
        with pytest.raises(OSError, match="full"):
            publish(store, draft("a.json"), draft("b.json"))

    assert files_in(backups) == []


def replace_by(kind: str, path: Path) -> None:
    whole = path.read_bytes()
    path.unlink()
    if kind == "link":
        path.with_name("elsewhere").write_bytes(whole)
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "cut":
        path.write_bytes(whole[:-1])


@pytest.mark.parametrize("kind", ["gone", "link", "folder", "pipe", "cut"])
@pytest.mark.parametrize("compression", list(Compression))
def test_snapshot_that_is_not_there_whole_is_neither_intact_nor_copied(
    backups: Path, kind: str, compression: Compression
) -> None:
    store = store_in(backups, compression)
    [snapshot] = published(store, draft())
    replace_by(kind, backups / snapshot.name)

    with store.staging() as staging:
        staged = staging.create()
        copied = store.copy_into(snapshot, staged)
        staged.discard()

    assert (store.is_intact(snapshot), copied) == (False, False)


@pytest.mark.parametrize("kernel_copies", [True, False])
@pytest.mark.parametrize("compression", list(Compression))
def test_snapshot_is_poured_out_plain(
    backups: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression, kernel_copies: bool
) -> None:
    if not kernel_copies:
        monkeypatch.setattr(store_module, "copy_within_kernel", lambda *_: None)
    store = store_in(backups, compression)
    [snapshot] = published(store, draft())

    with store.staging() as staging:
        staged = staging.create()
        poured = store.pour_into(snapshot, staged)
        plain = Path(staged.path).read_bytes()
        staged.discard()

    assert (poured, hashlib.sha256(plain).hexdigest()) == (True, snapshot.digest)


@pytest.mark.parametrize("kind", ["gone", "link", "folder", "pipe"])
def test_snapshot_that_is_not_there_is_not_poured_out(backups: Path, kind: str) -> None:
    store = store_in(backups)
    [snapshot] = published(store, draft())
    replace_by(kind, backups / snapshot.name)

    with store.staging() as staging:
        staged = staging.create()
        poured = store.pour_into(snapshot, staged)
        staged.discard()

    assert not poured


def test_snapshot_below_a_folder_that_became_a_link_is_not_there(backups: Path) -> None:
    store = store_in(backups)
    [snapshot] = published(store, draft("sub/users.json"))
    (backups / "sub").rename(backups / "moved")
    (backups / "sub").symlink_to("moved")

    assert not store.is_intact(snapshot)
    assert store.stored_size(snapshot.name) is None
    store.delete([snapshot.name])
    assert len(os.listdir(backups / "moved")) == 1


def test_failing_disk_says_nothing_about_a_snapshot(backups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(backups)
    [snapshot] = published(store, draft())

    def fails(_: object) -> str:
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(store_module, "digest_of_stream", fails)
        with pytest.raises(OSError, match="no answer"):
            store.is_intact(snapshot)


def test_deleting_goes_on_past_what_is_gone(backups: Path) -> None:
    store = store_in(backups)
    first, second = published(store, draft("a.json"), draft("b.json"))

    store.delete([first.name, "gone.json", "gone/too.json", second.name])

    assert files_in(backups) == []


@pytest.mark.parametrize("name", ["../users.json", "/etc/passwd", "a/../../users.json"])
def test_name_that_leads_out_of_the_folder_is_never_deleted(backups: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "users.json").write_bytes(b"the bot's")

    with pytest.raises(ValueError, match="below the root"):
        store_in(backups).delete([name])

    assert (tmp_path / "users.json").exists()


@pytest.mark.parametrize("compression", list(Compression))
def test_accepted_snapshot_stands_among_the_good_ones(backups: Path, compression: Compression) -> None:
    store = store_in(backups, compression)
    [suspect] = published(store, draft("sub/users.json", grade=Grade.SUSPECT))

    good = store.accept(suspect)

    assert (good.grade, good.name) == (
        Grade.GOOD,
        snapshot_name("sub/users.json", NOON, compression_suffix=compression.suffix),
    )
    assert store.is_intact(good)
    assert files_in(backups) == [good.name]


def aside(store: Store, folder: Path) -> Snapshot | None:
    (folder / "staged").write_bytes(b"damaged")
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        return store.move_aside(folder_fd, "staged", draft(grade=Grade.CORRUPT, content=b"damaged"), 7)
    finally:
        os.close(folder_fd)


def test_displaced_file_is_moved_with_its_inode(backups: Path, tmp_path: Path) -> None:
    snapshot = aside(store_in(backups), tmp_path)

    assert snapshot is not None
    assert (backups / snapshot.name).read_bytes() == b"damaged"
    assert not (tmp_path / "staged").exists()


def test_displaced_file_does_not_replace_another(backups: Path, tmp_path: Path) -> None:
    store = store_in(backups)
    first, second = aside(store, tmp_path), aside(store, tmp_path)

    assert first is not None
    assert second is not None
    assert first.name != second.name


@pytest.mark.parametrize("has_other_device", [True, False])
def test_displaced_file_of_another_file_system_stays_to_be_copied(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_other_device: bool
) -> None:
    """Two mounts of one device tell the same device number and refuse the rename."""
    if has_other_device and os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    folder = Path("/dev/shm") if has_other_device else tmp_path

    def crosses(*_: object) -> None:
        raise OSError(errno.EXDEV, "another mount")

    with monkeypatch.context() as other:
        if not has_other_device:
            other.setattr(store_module, "rename_new", crosses)
        moved = aside(store_in(backups), folder)
    left = (folder / "staged").read_bytes()
    (folder / "staged").unlink()

    assert (moved, left) == (None, b"damaged")
    assert files_in(backups) == []
