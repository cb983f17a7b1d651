"""SQL that contains a secret, in every form that people write, and SQL without secrets.

In each form `CANARY` is the secret. A server can receive all forms; each test states the expected
result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CANARY = "Kanari3nVogel"

BODY = "BEGIN\n  EXECUTE {0};\nEND"

ROLES = {
    "plain": "ALTER ROLE app PASSWORD 'CANARY'",
    "next line": "ALTER ROLE app PASSWORD\n\n  'CANARY'",
    "encrypted": "create user app with encrypted password 'CANARY' login",
    "doubled quotes": "ALTER ROLE app PASSWORD 'it''s CANARY'",
    "doubled quotes at the start": "ALTER ROLE app PASSWORD '''CANARY'",
    "E string": r"ALTER ROLE app PASSWORD E'it\'s CANARY\\'",
    "E string over lines": "ALTER ROLE app PASSWORD e'a\n\\'CANARY'",
    "U& string": "ALTER ROLE app PASSWORD U&'\\0041CANARY'",
    "U& string with UESCAPE": "ALTER ROLE app PASSWORD u&'!0041CANARY' UESCAPE '!'",
    "N string": "ALTER ROLE app PASSWORD N'CANARY'",
    "dollar quotes": "ALTER ROLE app PASSWORD $$CANARY$$",
    "tagged dollar quotes": "ALTER ROLE app PASSWORD $a$it$$s CANARY$a$",
    "block comment": "ALTER ROLE app PASSWORD /* don't */ 'CANARY'",
    "nested comment": "ALTER ROLE app PASSWORD /* a /* b */ ' */ 'CANARY'",
    "line comment": "ALTER ROLE app PASSWORD -- it's\n 'CANARY'",
    "old one in a comment": "ALTER ROLE app /* was PASSWORD 'CANARY' */ PASSWORD 'x'",
    "split string": "ALTER ROLE app PASSWORD 'one'\n  'CANARY'",
    "double quotes": 'ALTER ROLE app PASSWORD "CANARY"',
    "no quotes": "ALTER ROLE app PASSWORD CANARY",
    "quote forgotten": "ALTER ROLE app PASSWORD 'CANARY",
    "behind a stray quote": "SELECT 'it's'; ALTER ROLE app PASSWORD 'CANARY';",
    "second of two strings": "ALTER ROLE app PASSWORD 'x' 'CANARY'",
    "SCRAM": "ALTER ROLE app PASSWORD 'SCRAM-SHA-256$4096:CANARY=='",
    "SET of a role": "ALTER ROLE app SET app.token = 'CANARY'",
    "SET of a role, no quotes": "ALTER ROLE app SET app.token TO CANARY",
    "group": "CREATE GROUP app PASSWORD 'CANARY'",
    "long line": f"ALTER ROLE app PASSWORD '{'x' * 300}CANARY{'y' * 300}'",
    "far in a line": f"SELECT {', '.join(map(str, range(200)))}; ALTER ROLE app PASSWORD 'CANARY'",
}
SETTINGS = {
    "SET": "SET app.password = 'CANARY'",
    "SET TO": "SET LOCAL app.api_key TO 'CANARY'",
    "SET without quotes": "SET app.secret = CANARY",
    "SET with double quotes": 'SET app."clientSecret" = "CANARY"',
    "set_config": "SELECT set_config('x.password', 'CANARY', false)",
    "set_config, qualified": "SELECT pg_catalog.set_config( 'x.jwt_secret' , $$CANARY$$ , true )",
    "ALTER SYSTEM": "ALTER SYSTEM SET archive_command = 'curl -u me:CANARY https://x'",
    "ALTER SYSTEM, conninfo": "ALTER SYSTEM SET primary_conninfo = 'host=h user=u password=CANARY'",
    "ALTER DATABASE": "ALTER DATABASE nosuch SET app.client_secret = 'CANARY'",
}
CONNECTIONS = {
    "subscription": "CREATE SUBSCRIPTION s CONNECTION 'host=h password=CANARY' PUBLICATION p",
    "subscription, quoted value": (
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=''a CANARY''' PUBLICATION p"
    ),
    "subscription altered": "ALTER SUBSCRIPTION s CONNECTION 'postgres://u:CANARY@h/d'",
    "user mapping": ("CREATE USER MAPPING FOR app SERVER s OPTIONS (user 'u', password 'CANARY')"),
    "user mapping altered": (
        "ALTER USER MAPPING FOR app SERVER s OPTIONS (SET\n password /* ' */ 'CANARY')"
    ),
    "user mapping, odd option": "CREATE USER MAPPING FOR app SERVER s OPTIONS (\"key\" 'CANARY')",
    "server": (
        "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h', sslkey 'CANARY')"
    ),
    "server altered": "ALTER SERVER s OPTIONS (ADD sslpassword 'CANARY')",
    "wrapper": "CREATE FOREIGN DATA WRAPPER w OPTIONS (secret 'CANARY')",
    "foreign table": "CREATE FOREIGN TABLE t (id int) SERVER s OPTIONS (password 'CANARY')",
    "imported schema": "IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b OPTIONS (token 'CANARY')",
    "dblink": "SELECT * FROM dblink('host=h password=CANARY', 'SELECT 1') AS t (a int)",
    "dblink with a service": "SELECT dblink_connect('c', 'service=CANARY')",
    "dblink_exec": "SELECT dblink_exec('c', $$ALTER ROLE app PASSWORD 'CANARY'$$)",
    "URL in a literal": "INSERT INTO nosuch VALUES ('amqp://me:CANARY@h/v')",
    "URL with a parameter": "SELECT 'postgres://h/d?sslpassword=CANARY'::int",
    "options of a URL": "SELECT 'postgres://h/d?options=-c%20x.secret=CANARY'::int",
    "COPY TO PROGRAM": "COPY (SELECT 1) TO PROGRAM ': CANARY; exit 1'",
    "COPY FROM PROGRAM": "COPY nosuch FROM\nPROGRAM E'curl -u \\'me:CANARY\\' https://x'",
}
CALLS = {
    "pgp_sym_encrypt": "SELECT pgp_sym_encrypt('text', 'CANARY')",
    "pgp_sym_decrypt": "SELECT public.pgp_sym_decrypt('\\xc30d'::bytea, $k$CANARY$k$)",
    "crypt": "UPDATE nosuch SET hash = crypt('CANARY', gen_salt('bf'))",
    "hmac": "SELECT hmac('text', 'CANARY', 'sha256')",
    "digest": "SELECT digest('CANARY', 'sha256')",
    "encrypt": "SELECT encrypt('a', 'CANARY', 'aes')",
    "decrypt_iv": "SELECT \"decrypt_iv\"('a', 'CANARY', 'iv', 'aes')",
    "sign": "SELECT sign('{\"sub\": 1}', 'CANARY')",
    "default by a function": "CREATE TABLE t (a bytea DEFAULT nosuch.hmac('a', 'CANARY', 'md5'))",
    "pg_read_file": "SELECT pg_catalog.pg_read_file('/run/CANARY')",
    "named argument": "SELECT nosuch(api_key => 'CANARY')",
    "EXECUTE": "EXECUTE nosuch ('CANARY')",
    "EXPLAIN EXECUTE": "EXPLAIN EXECUTE nosuch ('CANARY')",
    "PREPARE": "PREPARE p AS UPDATE nosuch SET password = 'CANARY'",
    "SECURITY LABEL": "SECURITY LABEL FOR x ON ROLE app IS 'CANARY'",
}
DATA = {
    "column": "INSERT INTO nosuch (name, password) VALUES ('a', 'CANARY')",
    "column in double quotes": "INSERT INTO nosuch (name, \"apiKey\") VALUES ('a', 'CANARY')",
    "table": "INSERT INTO secrets VALUES (1, 'CANARY')",
    "UPDATE": "UPDATE nosuch SET token = 'CANARY' WHERE id = 1",
    "WHERE": "DELETE FROM nosuch WHERE access_token = 'CANARY'",
    "key and value": "INSERT INTO nosuch (key, value) VALUES ('smtp_password', 'CANARY')",
    "JSON": 'INSERT INTO nosuch VALUES (\'{"a": 1, "api_key": "CANARY"}\')',
    "JSON over lines": 'INSERT INTO nosuch VALUES (\'{\n  "clientSecret":\n    "CANARY"\n}\')',
    "JSON that is none": 'SELECT \'{"token": "CANARY", oops}\'::jsonb',
    "JSON escaped": r"SELECT E\'{\"token\": \"CANARY\"}\'::int".replace("\\'", "'"),
    "jsonb_build_object": "SELECT jsonb_build_object('password', 'CANARY')::int",
    "header": "SELECT 'Authorization: Bearer CANARY'::int",
    "private key": "SELECT '-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END'::int",
    "COPY data": "COPY nosuch (id, password) FROM stdin;\n1\tCANARY\n\\.\n",
    "comment": "-- password: CANARY\nSELECT 1/0",
    "wrong type": "SELECT set_config('work_mem', 'CANARY', false), 'password'",
}
DYNAMIC = {
    "DO": "DO $$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', 'nosuch', 'CANARY'); END $$",
    "DO with a variable": (
        "DO $$ DECLARE v text := 'CANARY'; BEGIN\n"
        "  EXECUTE 'ALTER ROLE nosuch PASSWORD ' || quote_literal(v);\nEND $$"
    ),
    "DO in single quotes": "DO 'BEGIN ALTER ROLE nosuch PASSWORD ''CANARY''; END'",
    "DO with a tag": (
        "DO LANGUAGE plpgsql $do$ BEGIN EXECUTE $x$ALTER ROLE nosuch PASSWORD 'CANARY'$x$; END $do$"
    ),
    "DO with a statement that is wrong": (
        "DO $$ BEGIN EXECUTE 'ALTER ROLE nosuch PASSWORD CANARY'; END $$"
    ),
    "DO with set_config": (
        "DO $$ BEGIN PERFORM set_config('x.password', 'CANARY', true); PERFORM 1/0; END $$"
    ),
    "DO that raises": "DO $$ BEGIN RAISE EXCEPTION 'the token is %', 'CANARY'; END $$",
    "function": (
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n"
        "  ALTER ROLE nosuch PASSWORD 'CANARY';\nEND $$;\nSELECT f()"
    ),
    "SQL function": (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS"
        " 'SELECT nosuch(set_config(''x.secret'', ''CANARY'', true))'"
    ),
    "function with a setting": (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.secret = 'CANARY' AS 'SELECT oops'"
    ),
    "BEGIN ATOMIC": (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql BEGIN ATOMIC"
        " SELECT set_config('x.secret', 'CANARY', true); SELECT oops; END"
    ),
}
FORMS = {
    name: form.replace("CANARY", CANARY)
    for group in (ROLES, SETTINGS, CONNECTIONS, CALLS, DATA, DYNAMIC)
    for name, form in group.items()
}

READABLE = {
    "table": "CREATE TABLE users (id int, password text NOT NULL DEFAULT 'none', kind text)",
    "table with a check": "CREATE TABLE t (token text CHECK (token <> ''), a text DEFAULT 'new')",
    "password compared": "UPDATE a SET password = b.password FROM b WHERE a.id = b.id",
    "added column": "ALTER TABLE secrets ADD COLUMN state text DEFAULT 'new', ADD api_key text",
    "index": "CREATE UNIQUE INDEX CONCURRENTLY i ON users (token) WHERE state = 'live'",
    "comment on": "COMMENT ON COLUMN users.password IS 'the password of the user, hashed'",
    "comment on, quotes": "COMMENT ON COLUMN a.b IS 'it''s not the password'",
    "type": "CREATE TYPE kind AS ENUM ('password', 'token')",
    "INSERT": "INSERT INTO users (id, name) VALUES (1, 'Ann'), (2, 'it''s Bob')",
    "INSERT of prose": "INSERT INTO pages VALUES ('How to reset your password', 'Press the key.')",
    "INSERT of a URL": "INSERT INTO pages VALUES ('https://example.org/a?b=c', 'me@example.org')",
    "INSERT of JSON": 'INSERT INTO t VALUES (\'{"name": "Ann", "tags": ["a"]}\')',
    "UPDATE": "UPDATE users SET state = 'old' WHERE state = 'new' AND name <> E'\\\\'",
    "columns are compared": "SELECT a.token, b.token FROM a JOIN b ON a.token = b.token",
    "SET": "SET search_path = 'a', \"b\"; SET LOCAL statement_timeout TO '5s'",
    "set_config": "SELECT set_config('search_path', 'app', true)",
    "GRANT": "GRANT SELECT (password) ON users TO app; REVOKE ALL ON secrets FROM public",
    "role without": "ALTER ROLE app PASSWORD NULL",
    "DO": "DO $$ BEGIN RAISE NOTICE 'it is %', 'me'; EXECUTE 'DROP TABLE ' || 'x'; END $$",
    "function": "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'x' || $1 $$",
    "COPY": "COPY users (id, name) FROM stdin;\n1\tit's\n2\t\"x\"\n\\.\nSELECT 'a'",
    "COPY to a file": "COPY users TO '/tmp/users.csv' WITH (FORMAT csv)",
    "comments": "-- It's the users' table; see https://example.org\n/* don't */ SELECT 'a'",
    "trigger": "CREATE TRIGGER t BEFORE UPDATE ON users EXECUTE FUNCTION f('a')",
    "casts": "SELECT '1'::int, date '2026-01-01', interval '1 day', U&'\\0041', B'1', $$a$$",
}


def secret_sql(*, quotes: bool) -> SearchStrategy[tuple[str, str]]:
    """A statement with the canary, and the same statement masked; *quotes* adds odd comments.

    Only some of the odd comments are shown: do not compare the masked statement with *quotes*.
    """
    plain = (" ", "\n", "\t", "\r\n", "/* a */", "/* b /* c */ ; */", "-- d\n")
    odd = ("/* don't */", "/* \" /* it's */ $$ */", "-- isn't\n")
    gap = st.lists(st.sampled_from((*plain, *odd) if quotes else plain), min_size=1, max_size=3)
    gaps = st.lists(gap.map("".join), min_size=14, max_size=14)
    return st.builds(_built, st.sampled_from(_TEMPLATES), _literals(), gaps, st.booleans())


_TEMPLATES = (
    "ALTER ROLE app PASSWORD {}",
    "CREATE USER app WITH ENCRYPTED PASSWORD {}",
    "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p",
    "CREATE USER MAPPING FOR app SERVER s OPTIONS ( password {} )",
    "ALTER SERVER s OPTIONS ( SET passfile {} )",
    "ALTER SYSTEM SET ssl_passphrase_command = {}",
    "COPY t FROM PROGRAM {}",
    "SELECT crypt ( {} , salt )",
    "SELECT public . dblink ( {} )",
    "UPDATE users SET password = {} WHERE id = 1",
    "INSERT INTO t ( api_key ) VALUES ( {} )",
    "EXECUTE p ( {} )",
)


def _literals() -> SearchStrategy[str]:
    around = st.text(st.sampled_from("ab '\"\\$;-/*é\n"), max_size=6)
    return st.builds(_literal, st.sampled_from(_QUOTINGS), around, around)


_QUOTINGS = ("'", "E'", "e'", "U&'", "N'", "$$", "$x$")


def _literal(quoting: str, before: str, after: str) -> str:
    text = f"{before}{CANARY}{after}"
    if quoting.startswith("$"):
        return f"{quoting}{text.replace('$', '')}{quoting}"
    text = text.replace("'", "''")
    if quoting in ("E'", "e'", "U&'"):
        text = text.replace("\\", "\\\\")
    return f"{quoting}{text}'"


def _built(template: str, literal: str, gaps: list[str], lower: bool) -> tuple[str, str]:
    words = (template.lower() if lower else template).split(" ")
    between = [*gaps[: len(words) - 1], ""]
    written = "".join(word + gap for word, gap in zip(words, between, strict=True))
    return written.replace("{}", literal), written.replace("{}", "***")
