"""Replaces a table by its copy, and keeps its indexes, its grants and the views that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store import mirror as mirrors
from taskpilot_obs.store.months import copy_name, exists, is_being_rebuilt

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.mirror import Mirror

_PREFIX: Final = "copy_"
_LONGEST: Final = 63
_OBSTACLES: Final = text(
    "WITH own AS (SELECT to_regclass(:name)::oid AS id) "
    "SELECT 'the unique index ' || indexrelid::regclass FROM pg_index, own"
    " WHERE indrelid = id AND indisunique AND NOT indisprimary "
    "UNION ALL SELECT 'the foreign key ' || conname FROM pg_constraint, own"
    " WHERE (conrelid = id OR confrelid = id) AND contype = 'f' "
    "UNION ALL SELECT 'the trigger ' || tgname FROM pg_trigger, own"
    " WHERE tgrelid = id AND NOT tgisinternal AND tgname <> ALL(:ours) "
    "UNION ALL SELECT 'the policy ' || polname FROM pg_policy, own WHERE polrelid = id "
    "UNION ALL SELECT 'the publication ' || pubname FROM pg_publication_rel"
    " JOIN pg_publication AS publication ON publication.oid = prpubid, own WHERE prrelid = id "
    "UNION ALL SELECT 'the materialised view ' || ev_class::regclass FROM pg_rewrite"
    " JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid"
    " JOIN pg_class ON pg_class.oid = ev_class, own WHERE refobjid = id AND relkind = 'm' "
    "UNION ALL SELECT 'the hypertable of TimescaleDB' FROM pg_extension WHERE extname = 'timescaledb'"
)
_VIEWS: Final = text(
    "SELECT id::regclass::text, coalesce(' WITH (' || array_to_string(options, ', ') || ')', ''), pg_get_viewdef(id) "
    "FROM (SELECT DISTINCT ev_class AS id, reloptions AS options FROM pg_rewrite "
    "JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid "
    "JOIN pg_class ON pg_class.oid = ev_class AND relkind = 'v' WHERE refobjid = to_regclass(:name)) AS v ORDER BY id"
)
_COLUMNS: Final = text(
    "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
    "WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)
_RIGHTS: Final = text(
    "SELECT privilege_type || coalesce(' (' || quote_ident(attname) || ')', ''),"
    " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, is_grantable FROM ("
    "SELECT (aclexplode(relacl)).*, NULL AS attname FROM pg_class WHERE oid = to_regclass(:name) UNION ALL "
    "SELECT (aclexplode(attacl)).*, attname FROM pg_attribute WHERE attrelid = to_regclass(:name)) AS found"
)
_INDEXES: Final = text(
    "SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    "WHERE indrelid = to_regclass(:name) AND NOT indisprimary AND indisvalid ORDER BY relname"
)
_COMMENT: Final = text("SELECT coalesce(quote_literal(obj_description(to_regclass(:name), 'pg_class')), 'NULL')")
_GUARD: Final = "taskpilot_obs_refuse_ctid"


def check(connection: Connection, table: Table) -> None:
    """Refuse a table with additions of its users that a partitioned table cannot keep, or that prevent the swap.

    Raises:
        StoreError: names what was found.
    """
    mirror = mirrors.mirror_of(connection, table)
    ours = [mirror.turn, *(f"{mirror.function}_{event}" for event in ("insert", "update", "delete")), _GUARD]
    found = list(connection.execute(_OBSTACLES, {"name": table.name, "ours": ours}).scalars())
    if found:
        raise StoreError(
            f"{table.name} cannot get partitions, because they cannot keep {', '.join(found)}: drop it first"
        )
    taken = [_before(table.name)] + ([] if is_being_rebuilt(connection, table) else [copy_name(table)])
    for name in taken:
        if exists(connection, name):
            raise StoreError(
                f"{table.name} cannot get partitions, because {name}, which is not of this library, has a name that is "
                "needed meanwhile: rename it first"
            )


def _before(table: str) -> str:
    """The name of the table while the copy takes its own."""
    return f"{table}_before"


def indexes_of_copy(connection: Connection, table: Table) -> list[str]:
    """The statements that create the table's indexes on the copy, including those that others added."""
    return [
        f'CREATE INDEX "{_copied(name)}" ON {copy_name(table)} USING {drawn.split(" USING ", 1)[1]}'
        for name, drawn in connection.execute(_INDEXES, {"name": table.name})
    ]


def _copied(index: str) -> str:
    return f"{_PREFIX}{index}"[:_LONGEST]


def swap(connection: Connection, table: Table, mirror: Mirror) -> None:
    """Replace the table by the copy, and drop the table.

    Args:
        connection: a transaction that has locked the table.
        table: which one.
        mirror: its copy.

    Raises:
        StoreError: the table's columns have changed since the copy was created.
    """
    _check_columns(connection, mirror)
    views = connection.execute(_VIEWS, {"name": mirror.table}).all()
    names = [name for name, _ in connection.execute(_INDEXES, {"name": mirror.table})]
    comment = connection.execute(_COMMENT, {"name": mirror.table}).scalar_one()
    _grant(connection, mirror)
    _run(connection, f"ALTER TABLE {mirror.table} RENAME TO {_before(mirror.table)}")
    _run(connection, f"ALTER TABLE {mirror.copy} RENAME TO {mirror.table}")
    for view, options, drawn in views:
        _run(connection, f"CREATE OR REPLACE VIEW {view}{options} AS {drawn}")
    _run(
        connection,
        f"COMMENT ON TABLE {mirror.table} IS {comment}",
        f"DROP TABLE {_before(mirror.table)}",
        f"DROP FUNCTION {mirror.function}()",
        f"DROP FUNCTION {mirror.turn}()",
        *(f'ALTER INDEX "{_copied(name)}" RENAME TO "{name}"' for name in names),
    )
    _guard(connection, table)


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%"))


def has_equal_columns(connection: Connection, mirror: Mirror) -> bool:
    """Whether the copy has the columns of the table."""
    table, copy = (connection.execute(_COLUMNS, {"name": name}).all() for name in (mirror.table, mirror.copy))
    return table == copy


def _check_columns(connection: Connection, mirror: Mirror) -> None:
    if not has_equal_columns(connection, mirror):
        raise StoreError(
            f"the columns of {mirror.table} were changed while it was copied: run `taskpilot-obs db partition` again"
        )


def _grant(connection: Connection, mirror: Mirror) -> None:
    for right, role, passes_on in connection.execute(_RIGHTS, {"name": mirror.table}).all():
        _run(connection, f"GRANT {right} ON {mirror.copy} TO {role}{' WITH GRANT OPTION' if passes_on else ''}")


def _guard(connection: Connection, table: Table) -> None:
    """Refuse deletions by `ctid`, as in version 0.1.0: one `ctid` identifies rows in several partitions."""
    message = "rows of a table with partitions cannot be deleted by ctid, which other partitions have too"
    _run(
        connection,
        f"CREATE OR REPLACE FUNCTION {_GUARD}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN "
        rf"IF current_query() ~* '\mctid\M' THEN RAISE EXCEPTION '{message}' USING ERRCODE = '0A000'; END IF; "
        "RETURN NULL; END $body$",
        f"CREATE TRIGGER {_GUARD} BEFORE DELETE ON {table.name} FOR EACH STATEMENT EXECUTE FUNCTION {_GUARD}()",
    )
