"""A job on psycopg2: the simple protocol, a named cursor, COPY by the file interface, two-phase commit."""
import io
import os

import psycopg2

connection = psycopg2.connect(os.environ["DATABASE_URL"])
with connection, connection.cursor() as cursor:
    cursor.execute("create temp table lines (id int, item text)")
    cursor.execute("insert into lines select g, %s from generate_series(1, %s) g", ("item'", 300))
    cursor.copy_expert("copy lines from stdin", io.StringIO("".join(f"{n}\tcopied\n" for n in range(700))))
    out = io.StringIO()
    cursor.copy_expert("copy lines to stdout", out)
    assert out.getvalue().count("\n") == 1000
with connection, connection.cursor("walk") as cursor:
    cursor.itersize = 400
    cursor.execute("select * from lines")
    assert sum(1 for _ in cursor) == 1000
try:
    with connection, connection.cursor() as cursor:
        cursor.execute("select 1 / 0")
    raise SystemExit("a division by zero succeeded")
except psycopg2.errors.DivisionByZero:
    pass
connection.rollback()
connection.close()
two_phase = psycopg2.connect(os.environ["DATABASE_URL"])
two_phase.tpc_begin(two_phase.xid(1, "psycopg2", "branch"))
with two_phase.cursor() as cursor:
    cursor.execute("create table public.by_psycopg2 (a int)")
two_phase.tpc_prepare()
two_phase.tpc_commit()
with two_phase, two_phase.cursor() as cursor:
    cursor.execute("drop table public.by_psycopg2")
two_phase.close()
print("done")
