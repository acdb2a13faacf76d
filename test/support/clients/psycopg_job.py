"""A job on psycopg 3: pipeline mode, server-side parameters, COPY both ways, a named cursor, an error and a rollback."""
import os

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.execute("create temp table lines (id int, item text)")
        cursor.executemany("insert into lines values (%s, %s)", [(n, f"item {n}") for n in range(100)])
    assert connection.execute("select count(*) from lines").fetchone() == (100,)
    with connection.cursor() as cursor:
        with cursor.copy("copy lines from stdin") as copy:
            for n in range(1000):
                copy.write_row((n, "copied"))
        with cursor.copy("copy lines to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 1100
    with connection.cursor(name="walk") as cursor:
        cursor.itersize = 400
        assert sum(1 for _ in cursor.execute("select * from lines")) == 1100
    connection.commit()
    try:
        connection.execute("select 1 / (g - %s) from generate_series(1, 1) g", (1,))
        raise SystemExit("a division by zero succeeded")
    except psycopg.errors.DivisionByZero:
        connection.rollback()
    for n in range(8):
        assert connection.execute("select %s::int", (n,), prepare=True).fetchone() == (n,)
print("done")
