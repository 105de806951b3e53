"""Whose new tasks are refused for what they would keep on the disk, and until when."""

from __future__ import annotations

import pytest

from scheduler.errors import DiskFull, StorageLimit
from scheduler.policy.storage import MIB, Storage, StorageLimits


class Kept:
    """What a store says it keeps."""

    def __init__(self, **by_account: int) -> None:
        self.by_account = by_account

    @property
    def size_bytes(self) -> int:
        return sum(self.by_account.values())

    @property
    def accounts(self) -> int:
        return len(self.by_account)

    def of(self, account: str) -> int:
        return self.by_account.get(account, 0)


def storage(kept: Kept | None = None, **limits: int) -> Storage:
    return Storage(StorageLimits(**limits), kept or Kept())  # type: ignore[arg-type]


class TestAnAccountsBound:
    def test_up_to_its_bound_an_account_may_keep_more(self) -> None:
        bounded = storage(Kept(acme=6 * MIB), account_bytes=10 * MIB)
        bounded.check("acme", 4 * MIB)
        with pytest.raises(StorageLimit, match=r"keeps 6 MiB .* may keep 10;"):
            bounded.check("acme", 4 * MIB + 1)
        bounded.check("other", 10 * MIB)

    def test_an_account_may_have_a_bound_of_its_own(self) -> None:
        bounded = Storage(StorageLimits(10, {"large": 30}.get), Kept(acme=10, large=10))
        bounded.check("large", 20)
        with pytest.raises(StorageLimit):
            bounded.check("acme", 1)

    def test_uploads_that_are_still_coming_count(self) -> None:
        bounded = storage(account_bytes=100)
        uploads = [bounded.hold("acme") for _ in range(3)]
        uploads[0].grow(60)
        uploads[1].grow(40)
        with pytest.raises(StorageLimit):
            uploads[2].grow(1)
        uploads[0].release()
        uploads[2].grow(60)
        assert bounded.used_by("acme") == bounded.used_bytes == 100
        for upload in uploads * 2:
            upload.release()
        assert bounded.used_by("acme") == bounded.used_bytes == 0

    def test_accepted_tasks_may_write_a_quarter_more(self) -> None:
        kept = Kept(acme=100)
        bounded = storage(kept, account_bytes=100)
        with pytest.raises(StorageLimit):
            bounded.check("acme", 1)
        output = bounded.hold("acme")
        assert output.try_grow(25)
        assert not output.try_grow(1)
        assert bounded.used_by("acme") == 125

    def test_a_sync_task_whose_row_alone_is_kept_needs_no_more(self) -> None:
        kept = Kept(acme=110)
        bounded = storage(kept, account_bytes=100)
        bounded.check_row("acme")
        kept.by_account["acme"] = 126
        with pytest.raises(StorageLimit):
            bounded.check_row("acme")


class TestAShortDisk:
    def test_who_uses_most_is_refused_and_all_others_go_on(self) -> None:
        short = storage(Kept(flood=80 * MIB, acme=10 * MIB, other=6 * MIB), low_disk_bytes=1000)
        short.check("flood", 5)
        assert short.look(999)
        with pytest.raises(DiskFull, match=r"uses more of it than others \(80 MiB\)") as refused:
            short.check("flood", 5)
        assert refused.value.retry_after_s > 0
        for account in ("acme", "other", "newcomer"):
            short.check(account, 5)

    def test_an_account_that_is_alone_uses_most(self) -> None:
        short = storage(Kept(acme=1), low_disk_bytes=1000)
        short.look(0)
        with pytest.raises(DiskFull):
            short.check("acme")
        short.check("newcomer")

    def test_a_newcomer_that_uploads_becomes_one_of_those_that_use_most(self) -> None:
        short = storage(Kept(flood=30, acme=10), low_disk_bytes=1000)
        short.look(0)
        upload = short.hold("newcomer")
        upload.grow(10)
        upload.grow(40)
        with pytest.raises(DiskFull):
            upload.grow(1)

    def test_what_runs_goes_on_writing(self) -> None:
        short = storage(Kept(flood=80), low_disk_bytes=1000)
        short.look(0)
        assert short.hold("flood").try_grow(1_000_000)

    def test_it_ends_only_once_a_quarter_more_is_free(self) -> None:
        """Otherwise a disk at its bound would refuse and accept in turns."""
        disk = storage(Kept(acme=1), low_disk_bytes=1000)
        told = [disk.look(free_bytes) for free_bytes in (1000, 999, 1000, 1249, 1250, 1000, 999)]
        assert told == [False, True, False, False, True, False, True]
        assert disk.short

    def test_what_all_keep_has_a_bound_too(self) -> None:
        kept = Kept(flood=90, acme=11)
        disk = storage(kept, all_bytes=100)
        assert disk.look(1 << 50)
        with pytest.raises(DiskFull):
            disk.check("flood")
        disk.check("acme")
        kept.by_account["flood"] = 80
        assert not disk.look(1 << 50)
        kept.by_account["flood"] = 60
        assert disk.look(1 << 50)
        disk.check("flood")
