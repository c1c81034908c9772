"""The exporter that fills a store."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskpilot_obs._pipeline.batched import BATCH_SIZE
from taskpilot_obs._support.guarded import guarded, log_failure
from taskpilot_obs._telemetry.stores import filled
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError, StoreVersionError
from taskpilot_obs.records import Source
from taskpilot_obs.store.background import Maintenance, checked_interval
from taskpilot_obs.store.engine import Store
from taskpilot_obs.store.retention import check_ttls, checked_retention
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.spool import DEFAULT_MAX_BYTES, Spool, default_directory
from taskpilot_obs.store.urls import parsed
from taskpilot_obs.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from taskpilot_obs._pipeline.exporter import Account
    from taskpilot_obs.records import Record
    from taskpilot_obs.store.rows import Rows

FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 10.0
_CLICKHOUSE_BATCH: Final = 8_192
"""An insert costs a server of ClickHouse as much as some thousand of its rows do."""


class StoreExporter:
    """Writes what agents did into a telemetry store. Put it behind `Batched`: each batch is one transaction.

    A SQLite file is made and upgraded here. A PostgreSQL server that is away does not keep the application from
    starting: records wait in a spool on disk and are written, in order and once, when it is back.

    Args:
        url: `sqlite:///telemetry.db` or `postgresql+psycopg://user:password@host/database`.
        spool_dir: where records wait while PostgreSQL is away; a folder under `~/.local/state` by default.
        spool_max_bytes: how much may wait there; records beyond are dropped and counted.
        aggregate_every_s: sum up hours and days in the background this often; None: not here.
        retention_days: delete rows older than this in the background, for all tables or by table (see `prune`);
            None keeps everything.
        service: the name that rows are stored under, which separates services that share a store.
        environment: the environment that rows are stored under, as in "production".

    Raises:
        ConfigurationError: an option is wrong.
        MissingExtraError: the driver of the database is not installed.
        StoreVersionError: the tables are missing or of another version; the message says what to do.
        StoreError: a SQLite file cannot be made or used.
    """

    def __init__(
        self,
        url: str,
        *,
        spool_dir: str | PathLike[str] | None = None,
        spool_max_bytes: int = DEFAULT_MAX_BYTES,
        aggregate_every_s: float | None = None,
        retention_days: float | Mapping[str, float] | None = None,
        service: str | None = None,
        environment: str | None = None,
    ) -> None:
        if spool_max_bytes < 1:
            raise ConfigurationError(
                f"spool_max_bytes: given {spool_max_bytes!r}; it must be a positive number of bytes"
            )
        checked_interval(aggregate_every_s)
        ages = checked_retention(retention_days)
        if parsed(url).is_clickhouse:
            check_ttls(ages)
        self.source = Source(stored_text(service or None), stored_text(environment or None))
        self.lost = 0
        """Batches that the database refused for good when they were replayed."""
        self._account: Account | None = None
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self.store = Store(url, create=True)
        self.linger_s = 1.0 if self.store.is_clickhouse else 0.0
        """How long a batch may wait until it is full: each insert is a part that a server of ClickHouse must merge."""
        self.batch_size = _CLICKHOUSE_BATCH if self.store.is_clickhouse else BATCH_SIZE
        self._maintenance = Maintenance(self.store, aggregate_every_s, retention_days)
        self._spool_options = (spool_dir, spool_max_bytes)
        self._begin()
        if self._spool is not None:
            self._spool.check()
        if not self.store.is_sqlite:
            try:
                self.store.require_usable()
            except StoreUnavailableError as error:
                log_failure("exporter store", error)
            except StoreError:
                self.store.close()
                raise
        filled.add(self.store)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._writer = Writer(self.store)
        self._spool = self._new_spool() if self._needs_spool else None
        self._replayer: threading.Thread | None = None
        self._closed = False
        self._first = True

    @property
    def _needs_spool(self) -> bool:
        """Whether the database may be away; a file of SQLite is beside the application."""
        return not self.store.is_sqlite

    def _new_spool(self) -> Spool:
        directory, max_bytes = self._spool_options
        return Spool(Path(directory or default_directory(self.store.target.key)), max_bytes)

    def _renew_after_fork(self) -> None:
        if self._process == os.getpid():
            return
        self._lock = threading.RLock()
        if self._spool is not None:
            self._spool.close(forked=True)
        self.store.renew()
        self._begin()

    def set_account(self, account: Account) -> None:
        """Report records that wait in the spool, and what becomes of them, to `account`."""
        self._account = account

    def export(self, batch: Sequence[Record], /) -> None:
        """Write a batch, or let it wait on disk while a server is away.

        Raises:
            StoreError: it could be neither written nor kept; the batch is lost and the caller counts it.
        """
        self._renew_after_fork()
        rows = rows_of(batch, self.source)
        if not rows:
            return
        self._maintenance.start()
        with self._lock:
            try:
                if self._spool is None:
                    self._writer.write(rows)
                else:
                    self._write_or_spool(self._spool, rows, len(batch))
            finally:
                if self._closed:  # a shutdown did not wait for this batch any longer
                    self._let_go()

    def _write_or_spool(self, spool: Spool, rows: Rows, records: int) -> None:
        if self._written(spool, rows):
            return
        spool.append(rows, records)
        if self._account is not None:
            self._account.waits(records)
        self._start_replayer(spool)

    def _written(self, spool: Spool, rows: Rows) -> bool:
        """Whether the rows could be written at once: not while others wait, for order is kept."""
        if spool.pending:
            return False
        try:
            self._write(rows)
        except StoreUnavailableError as error:
            log_failure("exporter store", error)
            return False
        if self._first:
            self._first = False
            self._start_replayer(spool)  # for what processes before this one left on disk
        return True

    def _write(self, rows: Rows) -> None:
        """Write, once the tables are known to be those of this code: a server that was away may have got others."""
        if not self.store.is_usable:
            try:
                self.store.require_usable()
            except StoreVersionError as error:
                raise StoreUnavailableError(str(error)) from error  # the rows wait for `db upgrade`, or for newer code
        self._writer.write(rows)

    def _start_replayer(self, spool: Spool) -> None:
        if self._replayer is not None:
            return
        self._replayer = threading.Thread(
            target=self._replay_until_empty, args=(spool,), name="taskpilot_obs-replay", daemon=True
        )
        try:
            self._replayer.start()
        except RuntimeError:  # the interpreter ends: what waits is written by the next process
            self._replayer = None

    def _replay_until_empty(self, spool: Spool) -> None:
        pause = FIRST_RETRY_S
        while True:
            self._wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads replicas out, keeps no secret
            self._wake.clear()
            pause = min(LAST_RETRY_S, 2 * pause)
            with self._lock:
                done = self._closed or self._replayed(spool)
                if self._closed:  # a shutdown did not wait for this round any longer
                    self._let_go()
                if done:
                    self._replayer = None
                    return

    def _replayed(self, spool: Spool) -> bool:
        """Whether everything that waited is written now."""
        with guarded("exporter store"):
            spool.replay(self._write, lost=self._lose, settled=self._settle)
            return True
        return False

    def _settle(self, records: int, is_written: bool, is_own: bool) -> None:  # noqa: FBT001  as `Spool.replay` calls it
        if self._account is None:
            return
        if is_own:
            self._account.settles(records, is_written=is_written)
        elif not is_written:
            self._account.loses(records)

    def _lose(self, error: StoreError) -> None:
        self.lost += 1
        log_failure("exporter store", error)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what waits on disk is written, what processes that ended left there included.

        Returns:
            False where the server is still away when the time is up.
        """
        self._renew_after_fork()
        deadline = time.monotonic() + timeout_s
        while self._spool is not None and self._waits(self._spool, deadline):
            if time.monotonic() > deadline or self._closed:
                return False
            with self._lock:
                self._start_replayer(self._spool)
            self._wake.set()
            time.sleep(FIRST_RETRY_S / 2)
        return True

    def _waits(self, spool: Spool, deadline: float) -> bool:
        """Whether rows wait on disk, or a round of the replayer is in progress: it locks the files that it empties."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return True
        try:
            return spool.pending or spool.left_behind()
        finally:
            self._lock.release()

    def shutdown(self, timeout_s: float) -> None:
        """Write what waits as far as the time allows, and close. What still waits is written by the next process."""
        deadline = time.monotonic() + timeout_s
        filled.discard(self.store)
        self._maintenance.stop(timeout_s)
        self.flush(max(0.0, deadline - time.monotonic()))
        self._closed = True
        self._wake.set()
        if self._lock.acquire(timeout=max(FIRST_RETRY_S, deadline - time.monotonic())):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self.store.close()
