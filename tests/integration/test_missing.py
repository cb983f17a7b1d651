"""The server agrees which tables pending SQL uses although they do not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.unit.test_missing import FINE, USES

if TYPE_CHECKING:
    from tests.support.databases import Database

# The objects that tests.unit.test_missing has as an inventory.
SETUP = """
CREATE SCHEMA app;
CREATE TABLE users (a int PRIMARY KEY, b int, c int);
CREATE TABLE app.orders ();
CREATE VIEW orders_total AS SELECT 1 AS x;
CREATE TABLE audited (a int);
CREATE TABLE "Mixed" ();
CREATE TABLE _yoyo_migration ();
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER t BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION f();
CREATE FUNCTION make_tables() RETURNS int LANGUAGE plpgsql
    AS 'BEGIN CREATE TABLE nope (); RETURN 1; END';
CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE nope (); END';
CREATE FOREIGN DATA WRAPPER w;
CREATE SERVER s FOREIGN DATA WRAPPER w"""
UNDEFINED_TABLE = "42P01"
UNKNOWN = ("after ", "a sequence of which nobody knows")
"""Cases where the checker cannot know whether the table exists."""


@pytest.mark.any_version
def test_server_reports_the_same_tables_as_missing(database: Database) -> None:
    database.execute(SETUP)
    cases = {**USES, **{name: sql for name, sql in FINE.items() if not name.startswith(UNKNOWN)}}
    refused = set()
    with database.connect(autocommit=False) as connection:
        for name, sql in cases.items():
            try:
                connection.execute(sql.replace(" TO x", " TO postgres").encode())
            except psycopg.Error as error:
                refused |= {name} if error.sqlstate == UNDEFINED_TABLE else set()
            connection.rollback()
    assert refused == USES.keys()
